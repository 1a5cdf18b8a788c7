//! Any bytes as PEM with certificates and a key, encrypted or not: tokend reads or refuses them,
//! and never panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokend_fuzz::material::{FOLDER, read};

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(FOLDER.path().join("pem"), bytes).expect("written");
    for password in ["", ", key_password = \"changeit\""] {
        read(&format!(
            "ca = \"pem\", certificate = \"pem\", key = \"pem\"{password}"
        ));
    }
});
