//! The last good configuration as text. The next run serves what it defines if the files cannot be
//! used by then. The text names the files that the configuration refers to, but does not contain
//! them: their secrets are read again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::core::config::{AccessOnDisk, Sources};
use crate::core::policy::stated::Stated;
use crate::core::profile::ProfileName;

/// The texts of the last good configuration, and the later statements about access.
#[derive(Clone, Debug)]
pub struct LastGood {
    /// Every file as it was accepted.
    pub sources: Sources,
    /// The last statements of the files about access, even if the rest of the files was not
    /// accepted.
    pub access: AccessOnDisk,
}

#[derive(Serialize)]
struct WrittenConfiguration<'a> {
    sources: &'a Sources,
    access: BTreeMap<&'a str, &'a [Stated]>,
    whole: bool,
}

#[derive(Deserialize)]
struct FoundConfiguration {
    sources: Sources,
    access: BTreeMap<String, Vec<Stated>>,
    whole: bool,
}

impl LastGood {
    /// Writes it as text. None: the name of a file is not UTF-8, which no text can hold.
    #[must_use]
    pub fn encode(&self) -> Option<Zeroizing<String>> {
        let (stated, whole) = self.access.parts();
        let access = stated.iter();
        let written = WrittenConfiguration {
            sources: &self.sources,
            access: access
                .map(|(name, stated)| (name.as_str(), stated.as_slice()))
                .collect(),
            whole,
        };
        serde_json::to_string(&written).ok().map(Zeroizing::new)
    }

    /// Reads it from text. None: another version wrote the text.
    #[must_use]
    pub fn decode(text: &str) -> Option<LastGood> {
        let found: FoundConfiguration = serde_json::from_str(text).ok()?;
        let access = found.access.into_iter();
        let stated: Option<BTreeMap<ProfileName, Vec<Stated>>> = access
            .map(|(name, stated)| Some((ProfileName::parse(&name)?, stated)))
            .collect();
        Some(LastGood {
            sources: found.sources,
            access: AccessOnDisk::from_parts(stated?, found.whole),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::{Loaded, SourceFile, load};

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile {
            path: path.into(),
            text: text.into(),
            private: true,
            readers: String::new(),
        }
    }

    #[test]
    fn texts_and_what_they_say_of_access_come_back_as_they_were() {
        let rules = "access = [{ user = \"a\", unit = \"u.service\" }, { group = 7 }]";
        let sources = Sources {
            main: file(
                "/x/tokend.toml",
                &format!("[profiles.p]\nmethod = \"none\" # \"\u{e4}\"\n{rules}\n"),
            ),
            fragments: vec![
                Loaded::Text(file(
                    "/x/profiles.d/a.toml",
                    "[profiles.q]\nmethod = \"none\"\n",
                )),
                Loaded::Unreadable {
                    path: "/x/profiles.d/b.toml".into(),
                    why: "no".into(),
                },
            ],
        };
        let before = LastGood {
            access: load(&sources).access,
            sources,
        };
        let text = before.encode().expect("text");
        let after = LastGood::decode(&text).expect("sound");
        assert_eq!(format!("{after:?}"), format!("{before:?}"));
        assert!(LastGood::decode("{}").is_none());
    }
}
