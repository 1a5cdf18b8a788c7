//! The files and folders whose changes matter to a configuration.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::core::profile::Config;
use crate::core::profile::files::paths;
use crate::files::Interest;
use crate::material::Surroundings;

/// The local databases that turn names of users and groups into numbers. When a user is deleted,
/// the next new user may get the same number and must not be taken for the old one. A database
/// elsewhere (LDAP) sends no events and is asked again now and then.
const USERS: [&str; 4] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/subuid",
    "/etc/nsswitch.conf",
];

/// The files and folders whose changes matter to this configuration.
pub fn interest_in(path: &Path, config: &Config, surroundings: &Surroundings) -> Interest {
    let mut files = paths(config);
    files.insert(path.to_owned());
    files.extend(USERS.map(PathBuf::from));
    let mut folders = BTreeSet::new();
    if let Some(folder) = path.parent() {
        folders.insert(folder.join("profiles.d"));
    }
    folders.extend(surroundings.credentials_directory.clone());
    Interest { files, folders }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::assembly::surroundings;

    /// Broken by leaving a change to the next look: for a minute, the new owner of a deleted user's
    /// number was served as that user.
    #[test]
    fn the_database_of_users_is_watched() {
        let sources = crate::core::config::Sources {
            main: crate::core::config::SourceFile {
                path: "/x/tokend.toml".into(),
                text: String::new(),
                private: true,
                readers: String::new(),
            },
            fragments: Vec::new(),
        };
        let outcome = crate::core::config::load(&sources);
        let config = outcome.config.expect("usable");
        let surroundings = surroundings();
        let interest = interest_in(Path::new("/x/tokend.toml"), &config, &surroundings);
        for file in ["/etc/passwd", "/etc/group", "/etc/subuid"] {
            assert!(interest.files.contains(Path::new(file)), "{file}");
        }
    }
}
