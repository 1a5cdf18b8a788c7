//! Holds the direction of `use` lines, and what `core` must not name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may name. `core` names nobody; nothing points back.
const MAY_USE: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("proto", &[]),
    ("clock", &["core"]),
    ("safe_open", &[]),
    ("readers", &["core"]),
    ("material", &["core", "readers", "safe_open"]),
    ("tls", &["core", "material"]),
    ("provider", &["core", "clock", "material", "tls"]),
    ("broker", &["core", "clock", "provider"]),
    ("registry", &["core", "broker"]),
    ("socket", &["safe_open"]),
    ("sys", &[]),
    ("caller", &["core", "sys"]),
    ("audit", &["core", "caller", "clock"]),
    (
        "server",
        &[
            "core", "clock", "audit", "broker", "registry", "socket", "caller", "proto", "sys",
        ],
    ),
    ("files", &[]),
    ("supervisor", &["sys"]),
    ("telemetry", &[]),
    ("dev", &["core", "clock"]),
    ("client", &["core", "clock", "proto", "safe_open"]),
    ("cli", &["core", "client", "clock", "proto"]),
];

/// Names that must not occur in `core`: it does no I/O, reads no clock, spawns nothing, logs nothing, draws nothing.
const NOT_IN_CORE: &[&str] = &[
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "SystemTime",
    "Instant::now",
    "tokio",
    "tracing",
    "reqwest",
    "rustix",
    "aws_lc_rs::rand",
    "println!",
    "eprintln!",
    "OnceLock",
    "static mut",
    "thread_local",
];

/// The files with that extension in a folder, and in those below.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    found
}

/// The room of a file, and its text without comments and tests.
fn rooms() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    files(&src, "rs")
        .into_iter()
        .filter(|path| {
            let path = path.strip_prefix(&src).expect("below src");
            !path.components().any(|part| {
                matches!(
                    part.as_os_str().to_str(),
                    Some("tests" | "tests.rs" | "fake.rs")
                )
            })
        })
        .map(|path| {
            let relative = path.strip_prefix(&src).expect("below src");
            let room = relative
                .components()
                .next()
                .expect("a name")
                .as_os_str()
                .to_string_lossy();
            let room = room.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).expect("readable");
            let text = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default();
            let code: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .fold(String::new(), |code, line| code + line + "\n");
            (room, path, code)
        })
        .collect()
}

/// The rooms that a text names: `crate::room`.
fn named(code: &str) -> BTreeSet<String> {
    code.match_indices("crate::")
        .map(|(at, prefix)| {
            code[at + prefix.len()..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

#[test]
fn rooms_name_only_whom_they_may() {
    let may: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for (room, path, code) in rooms() {
        if matches!(room.as_str(), "app" | "main" | "lib") {
            continue;
        }
        let Some(allowed) = may.get(room.as_str()) else {
            wrong.push(format!(
                "{}: the room {room} is not in the table",
                path.display()
            ));
            continue;
        };
        for other in named(&code) {
            if other != room && !allowed.contains(&other.as_str()) {
                wrong.push(format!("{}: {room} names {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn core_touches_nothing() {
    let mut wrong = Vec::new();
    for (room, path, code) in rooms() {
        if room == "core" {
            for name in NOT_IN_CORE.iter().filter(|name| code.contains(**name)) {
                wrong.push(format!("{}: core names {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_one_module_only() {
    let with: Vec<_> = rooms()
        .into_iter()
        .filter(|(_, _, code)| {
            code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
        })
        .map(|(_, path, _)| path)
        .collect();
    assert!(
        matches!(with.as_slice(), [one] if one.ends_with("src/sys.rs")),
        "{with:?}"
    );
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages: Vec<_> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .map(|page| root.join(page))
        .into();
    for folder in ["docs", "examples", "tests"] {
        pages.extend(files(&root.join(folder), "md"));
    }
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages {
        let text = fs::read_to_string(&page).expect("it is there");
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap_or_default();
            if !link.is_empty() && !link.contains(':') {
                seen += 1;
                if !page.with_file_name(link).exists() {
                    wrong.push(format!("{}: {link}", page.display()));
                }
            }
        }
    }
    assert!(seen > 20, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
