//! The documents name only what exists, and nothing outside the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::files;

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

/// A reader has only the repository, so every document that is named must be in it.
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

/// docs/traps.md and docs/promises.md name files and tests that exist, and have a line for each
/// numbered test.
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

/// docs/http.md has every path, query parameter and reason of the HTTP side, and no others.
#[test]
fn the_page_of_the_http_api_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("readable");
    let (page, http) = (read("docs/http.md"), read("src/server/http.rs"));
    let http = http.split("#[cfg(test)]").next().expect("code");

    let paths: BTreeSet<String> = http
        .split(".route(\"")
        .skip(1)
        .filter_map(|route| {
            let (path, rest) = route.split_once("\", ")?;
            let (method, _) = rest.split_once('(')?;
            Some(format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let told: BTreeSet<String> = page
        .lines()
        .filter_map(|line| Some(line.strip_prefix("### ")?.to_owned()))
        .collect();
    assert!(paths.len() > 5, "{paths:?}");
    assert_eq!(told, paths);

    let parameters: BTreeSet<&str> = http
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" =>"))
        .map(|(name, _)| name)
        .collect();
    let told: BTreeSet<&str> = page
        .split("| parameter | is | default |")
        .skip(1)
        .flat_map(|table| table.lines().skip(2).take_while(|line| !line.is_empty()))
        .filter_map(|line| line.split('`').nth(1))
        .collect();
    assert!(parameters.len() > 5, "{parameters:?}");
    assert_eq!(told, parameters);

    let mut reasons: BTreeSet<String> = capitals(http);
    reasons.extend(capitals(&read("src/server/error.rs")));
    reasons.extend(capitals(&read("src/proto.rs")));
    reasons.remove("OUT_DIR");
    let (_, table) = page
        .split_once("| status | `code` | `reason` | means |")
        .expect("the table of errors");
    let told: BTreeSet<String> = table
        .lines()
        .skip(2)
        .flat_map(|line| line.split('`').skip(1).step_by(2).take(2))
        .map(str::to_owned)
        .collect();
    assert!(reasons.len() > 15, "{reasons:?}");
    assert_eq!(told, reasons);
}

/// docs/operations.md names every environment variable that the code reads.
#[test]
fn variables_of_the_environment_are_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/operations.md")).expect("readable");
    let mut seen = BTreeSet::new();
    for (_, code) in super::production(&root.join("src")) {
        let reads = ["env::var", "environment", "first(["];
        let lines = code
            .lines()
            .filter(|line| reads.iter().any(|read| line.contains(read)));
        for line in lines {
            seen.extend(capitals(line));
        }
    }
    seen.remove("TOKEND_BLESS");
    assert!(seen.len() > 10, "{seen:?}");
    let missing: Vec<_> = seen
        .iter()
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The texts in a piece of code that are words in capital letters.
fn capitals(code: &str) -> BTreeSet<String> {
    code.split('"')
        .filter(|text| text.len() > 3 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .map(str::to_owned)
        .collect()
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
