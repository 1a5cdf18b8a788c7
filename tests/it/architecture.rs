//! Holds the direction of `use` lines, and what `core` must not name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may name. `core` names nobody; nothing points back.
const MAY_USE: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("proto", &["core"]),
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
    ("client", &["core", "clock", "proto", "safe_open"]),
    ("cli", &["core", "client", "clock", "proto"]),
];

/// Names that must not occur in `core`: it does no I/O, reads no clock, spawns nothing, logs
/// nothing, draws nothing.
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
    let mut pages: Vec<_> = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ]
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

/// A crate that nothing names is built, shipped and looked after for nothing.
#[test]
fn every_dependency_is_named_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(path).expect("readable");
    let mut unused = Vec::new();
    for (package, folders) in [(".", &["src", "tests"][..]), ("issuer", &["src"])] {
        let package = root.join(package);
        let code: String = folders
            .iter()
            .flat_map(|folder| files(&package.join(folder), "rs"))
            .map(|path| read(&path))
            .collect();
        let path = package.join("Cargo.toml");
        let manifest: toml::Table = read(&path).parse().expect("TOML");
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let code = match table {
                "build-dependencies" => {
                    &fs::read_to_string(package.join("build.rs")).unwrap_or_default()
                }
                _ => &code,
            };
            let names = manifest.get(table).and_then(toml::Value::as_table);
            for name in names.into_iter().flat_map(toml::Table::keys) {
                if !code.contains(&format!("{}::", name.replace('-', "_"))) {
                    unused.push(format!("{}, {table}: {name}", path.display()));
                }
            }
        }
    }
    assert!(unused.is_empty(), "{}", unused.join("\n"));
}

/// A reader has the repository and nothing else.
#[test]
fn documents_that_are_named_are_in_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (folder, ending) in [
        ("issuer", "rs"),
        ("src", "rs"),
        ("tests", "rs"),
        ("tests", "sh"),
    ] {
        for path in files(&root.join(folder), ending) {
            let text = fs::read_to_string(&path).expect("readable");
            let words = text.split(|c: char| !c.is_alphanumeric() && !"._-/".contains(c));
            for page in words.filter(|word| word.len() > 3 && word.ends_with(".md")) {
                seen += 1;
                if !root.join(page).exists() && !path.with_file_name(page).exists() {
                    wrong.push(format!("{}: {page}", path.display()));
                }
            }
        }
    }
    assert!(seen > 5, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// docs/traps.md and docs/promises.md: files and names of tests are those of today, and no numbered
/// test lacks its line.
#[test]
fn tests_that_documents_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let mut wrong = Vec::new();
    let mut lines = BTreeMap::new();
    for page in ["docs/traps.md", "docs/promises.md"] {
        for line in read(page).lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
            let &[number, _, tests] = cells.as_slice() else {
                wrong.push(format!("{page}: not three columns: {line}"));
                continue;
            };
            let numbered = page == "docs/traps.md" && number.parse::<u32>().is_ok();
            if numbered && lines.insert(number.to_owned(), line.to_owned()).is_some() {
                wrong.push(format!("{page}: {number} is there twice"));
            }
            for test in tests.split('`').skip(1).step_by(2) {
                let (path, name) = test.split_once(": ").unwrap_or((test, ""));
                let text = read(path);
                let there = match name {
                    "" if numbered && path.ends_with(".rs") => numbers(&text).contains(number),
                    "" => !text.is_empty(),
                    name => text.contains(&format!("fn {name}(")),
                };
                if !there {
                    wrong.push(format!("{page}, {number}: {test}"));
                }
            }
        }
    }
    for folder in ["src", "tests"] {
        for path in files(&root.join(folder), "rs") {
            for number in numbers(&fs::read_to_string(&path).expect("readable")) {
                if !lines.contains_key(&number) {
                    wrong.push(format!("{}: trap {number} has no line", path.display()));
                }
            }
        }
    }
    assert!(!lines.is_empty(), "no numbers in docs/traps.md");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The numbers in the names of tests: `trap_N_…`, `traps_N_M_…`.
fn numbers(text: &str) -> BTreeSet<String> {
    text.split("fn trap")
        .skip(1)
        .flat_map(|name| {
            let parts = name.split('_').skip(1);
            parts.take_while(|part| part.parse::<u32>().is_ok())
        })
        .map(str::to_owned)
        .collect()
}
