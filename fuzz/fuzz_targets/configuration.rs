//! Any text as a configuration file: tokend reads or refuses it, and never panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokend::core::config::{self, SourceFile, Sources};

fuzz_target!(|text: &str| {
    let main = SourceFile {
        path: "/etc/tokend/tokend.toml".into(),
        text: text.to_owned(),
        private: true,
        readers: String::new(),
    };
    let _ = config::load(&Sources {
        main,
        fragments: Vec::new(),
    });
});
