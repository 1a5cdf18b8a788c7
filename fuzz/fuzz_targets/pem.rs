//! Any bytes as PEM with certificates and a key, encrypted or not: they are read or refused, and nothing panics.

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
    std::fs::write(FOLDER.path().join("pem"), bytes).expect("written");
    for password in ["", ", key_password = \"changeit\""] {
        read(
            FOLDER.path(),
            &format!("ca = \"pem\", certificate = \"pem\", key = \"pem\"{password}"),
        );
    }
});
