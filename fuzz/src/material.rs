//! Material of a profile, for the targets that read files.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use tempfile::TempDir;
use tokend::core::config::{self, SourceFile, Sources};
use tokend::core::time::WallTime;
use tokend::material::{self, Surroundings};

/// The folder of the files.
pub static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

/// Reads the material of a profile with this `tls`.
pub fn read(tls: &str) {
    let folder: &Path = FOLDER.path();
    let text = format!(
        "[profiles.it]\nmethod = \"oauth2\"\ntoken_url = \"https://idp.example/token\"\nclient_id = \"it\"\n\
         client_auth = \"tls_client_auth\"\ntls = {{ {tls} }}\n"
    );
    let main = SourceFile {
        path: folder.join("tokend.toml"),
        text,
        private: true,
        readers: String::new(),
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
