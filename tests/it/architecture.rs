//! Checks the direction of `use` lines, the names that `core` must not use, and the length of
//! files.

mod documents;
mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms that each room may name. `core` names none; nothing points back.
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
    ("caller", &["core", "clock", "sys"]),
    ("audit", &["core", "caller", "clock"]),
    (
        "server",
        &[
            "core", "clock", "audit", "broker", "registry", "socket", "caller", "proto", "sys",
        ],
    ),
    ("files", &["safe_open"]),
    ("supervisor", &["sys"]),
    ("telemetry", &[]),
    ("client", &["core", "clock", "proto", "safe_open"]),
    ("cli", &["core", "client", "clock", "proto"]),
    (
        "app",
        &[
            "core",
            "audit",
            "broker",
            "caller",
            "cli",
            "clock",
            "dev",
            "files",
            "material",
            "provider",
            "readers",
            "registry",
            "safe_open",
            "server",
            "socket",
            "supervisor",
            "sys",
            "telemetry",
        ],
    ),
    (
        "doctor",
        &[
            "app", "core", "caller", "cli", "client", "clock", "files", "material", "proto",
            "provider", "readers", "socket",
        ],
    ),
];

/// The modules of `app` in order. Each may name those before it, and none names `app` itself.
const ORDER_OF_APP: &[&str] = &[
    "error",
    "signals",
    "heartbeat",
    "load",
    "socket_guard",
    "privacy",
    "configuration",
    "last_good",
    "warm_restart",
    "listener",
    "assembly",
    "interest",
    "unconfigured",
    "start",
    "upstream",
    "daemon",
    "dev",
];

/// Modules of `app` that name `app` itself today. Remove a module here when it no longer does.
const NAME_APP_ITSELF: &[&str] = &[];

/// Sibling modules that name each other in a circle. Add none.
const CIRCLES: &[&str] = &[];

/// The most lines of a file. A longer file is about more than one thing.
const LONGEST_FILE: usize = 500;

/// Files that are longer today. Remove a file here when it no longer is.
const LONGER_FILES: &[&str] = &[];

/// Names that must not occur in `core`: it does no I/O, reads no clock, spawns nothing, logs
/// nothing, and uses no random numbers.
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

/// The files with this extension in a folder and below.
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

/// The source files of a package without its tests, each with its text. The text contains neither
/// comments nor test modules.
fn production(src: &Path) -> Vec<(PathBuf, String)> {
    files(src, "rs")
        .into_iter()
        .filter(|path| {
            let path = path.strip_prefix(src).expect("below src");
            !path.components().any(|part| {
                matches!(
                    part.as_os_str().to_str(),
                    Some("tests" | "tests.rs" | "fake.rs")
                )
            })
        })
        .map(|path| {
            let text = fs::read_to_string(&path).expect("readable");
            let text = text
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .unwrap_or_default();
            let code: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .fold(String::new(), |code, line| code + line + "\n");
            (path, code)
        })
        .collect()
}

/// The room of a file, and its text without comments and tests.
fn rooms() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    production(&src)
        .into_iter()
        .map(|(path, code)| {
            let relative = path.strip_prefix(&src).expect("below src");
            let room = relative
                .components()
                .next()
                .expect("a name")
                .as_os_str()
                .to_string_lossy();
            let room = room.trim_end_matches(".rs").to_owned();
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
        if matches!(room.as_str(), "main" | "lib") {
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

/// `app` is wired from the bottom to the top: a reader understands each file without the files that
/// come after it.
#[test]
fn modules_of_app_name_only_those_before_them() {
    let place = |name: &str| ORDER_OF_APP.iter().position(|one| *one == name);
    let mut wrong = Vec::new();
    let mut name_app = BTreeSet::new();
    for (module, named) in modules::modules() {
        let ["app", name, ..] = module.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
            continue;
        };
        let Some(own) = place(name) else {
            wrong.push(format!("app/{name} is not in ORDER_OF_APP"));
            continue;
        };
        for other in named.iter().filter(|other| other.first() == module.first()) {
            match other.get(1) {
                None => {
                    name_app.insert(name.to_owned());
                }
                Some(other) if place(other).is_none_or(|at| at > own) => {
                    wrong.push(format!("app/{name} names {other}"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let name_app: Vec<&str> = name_app.iter().map(String::as_str).collect();
    assert_eq!(name_app, NAME_APP_ITSELF, "against NAME_APP_ITSELF");
}

#[test]
fn no_modules_beside_each_other_name_each_other() {
    let found: Vec<String> = modules::circles().into_iter().collect();
    assert_eq!(found, CIRCLES, "against CIRCLES");
}

#[test]
fn no_file_is_too_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut longer = Vec::new();
    for folder in ["src", "tests", "bench", "fuzz", "issuer"] {
        let folder = root.join(folder);
        let there = if folder.exists() {
            files(&folder, "rs")
        } else {
            Vec::new()
        };
        for path in there {
            let relative = path.strip_prefix(root).expect("below the root");
            let built = relative
                .components()
                .any(|part| part.as_os_str() == "target");
            let lines = || fs::read_to_string(&path).expect("readable").lines().count();
            if !built && lines() > LONGEST_FILE {
                longer.push(relative.display().to_string());
            }
        }
    }
    longer.sort();
    assert_eq!(longer, LONGER_FILES, "against LONGER_FILES");
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

/// The type that a line defines. A type inside a trait or its implementation belongs to the trait.
fn defined(line: &str) -> Option<String> {
    let mut words = line
        .split_whitespace()
        .skip_while(|word| word.starts_with("pub"));
    match words.next()? {
        "struct" | "enum" | "trait" | "union" => {}
        "type" if !line.starts_with(' ') => {}
        _ => return None,
    }
    words
        .next()?
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
        .map(str::to_owned)
}

/// A reader who looks for a type by its name finds one type.
#[test]
fn no_type_name_stands_for_two_things() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for folder in ["src", "issuer/src"] {
        for (path, code) in production(&root.join(folder)) {
            for name in code.lines().filter_map(defined) {
                let places = types.entry(name).or_default();
                places.push(path.display().to_string());
            }
        }
    }
    assert!(types.len() > 300, "{}", types.len());
    types.retain(|_, places| places.len() > 1);
    assert!(types.is_empty(), "{types:#?}");
}

/// A dependency that no code names would be built, shipped and maintained for nothing.
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
