//! Any bytes as a keystore and as a truststore, with and without a password. tokend reads or
//! refuses them, never panics, and takes no longer than libFuzzer's limit. A corpus of real stores
//! finds more: openssl pkcs12, keytool.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokend_fuzz::material::{FOLDER, read};

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(FOLDER.path().join("store"), bytes).expect("written");
    for password in ["", ", password = \"changeit\""] {
        let store = format!("{{ path = \"store\"{password} }}");
        read(&format!("keystore = {store}, truststore = {store}"));
    }
});
