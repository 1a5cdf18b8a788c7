//! Any bytes as a keystore and as a truststore, with and without a password: they are read or refused, nothing panics
//! and nothing takes longer than libFuzzer's limit. A corpus of real stores finds more: openssl pkcs12, keytool.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokend::core::config::{self, SourceFile, Sources};
use tokend::core::time::WallTime;
use tokend::material::{self, Surroundings};

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

/// Reads the material of a profile with this `tls`.
fn read(folder: &Path, tls: &str) {
    let text = format!(
        "[profiles.it]\nmethod = \"oauth2\"\ntoken_url = \"https://idp.example/token\"\nclient_id = \"it\"\n\
         client_auth = \"tls_client_auth\"\ntls = {{ {tls} }}\n"
    );
    let main = SourceFile {
        path: folder.join("tokend.toml"),
        text,
        private: true,
    };
    let config = config::load(&Sources {
        main,
        fragments: Vec::new(),
    })
    .config;
    for profile in config.iter().flat_map(|config| config.profiles.values()) {
        let profile = profile.as_ref().expect("the profile is sound");
        let _ = material::read(profile, &Surroundings::default(), WallTime(Duration::ZERO));
    }
}

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(FOLDER.path().join("store"), bytes).expect("written");
    for password in ["", ", password = \"changeit\""] {
        let store = format!("{{ path = \"store\"{password} }}");
        read(
            FOLDER.path(),
            &format!("keystore = {store}, truststore = {store}"),
        );
    }
});
