//! Which module names which. The test reads paths that begin with `crate`, `super` or `self`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::rooms;

/// A module as the names on its path; the path of the crate itself is empty.
pub type Module = Vec<String>;

/// Every module of `src` with the modules that its code names. Tests do not count.
pub fn modules() -> BTreeMap<Module, BTreeSet<Module>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let code: BTreeMap<Module, String> = rooms()
        .into_iter()
        .map(|(_, path, code)| {
            let path = path.strip_prefix(&src).expect("below src").to_owned();
            let parts = path.with_extension("");
            let parts = parts.iter().map(|part| part.to_string_lossy().into_owned());
            (parts.filter(|part| part != "lib").collect(), code)
        })
        .collect();
    let known = |mut path: Module| {
        while !code.contains_key(&path) {
            path.pop();
        }
        path
    };
    code.iter()
        .map(|(module, text)| {
            let named = paths(text, module).into_iter().map(known);
            (module.clone(), named.collect())
        })
        .collect()
}

/// The paths after `crate::`, `super::` and `self::` in a text, from the crate on, with braces
/// expanded.
fn paths(text: &str, module: &Module) -> Vec<Module> {
    let mut found = Vec::new();
    for (word, up) in [("crate::", None), ("self::", Some(0)), ("super::", Some(1))] {
        for (at, _) in text.match_indices(word) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "_:".contains(c)) {
                continue;
            }
            let mut rest = &text[at + word.len()..];
            let mut up = up;
            while let Some(after) = rest.strip_prefix("super::") {
                rest = after;
                up = up.map(|up| up + 1);
            }
            let kept = up.map_or(0, |up| module.len().saturating_sub(up));
            tree(&mut rest, &module[..kept].to_vec(), &mut found);
        }
    }
    found
}

/// Reads one `use` tree, `a::b` or `a::{b, c::d}`, and moves `rest` behind it.
fn tree(rest: &mut &str, base: &Module, found: &mut Vec<Module>) {
    let mut path = base.clone();
    loop {
        *rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('{') {
            *rest = inner;
            while !rest.trim_start().starts_with('}') && !rest.is_empty() {
                tree(rest, &path, found);
                let end = rest.find([',', '}']).unwrap_or(rest.len());
                *rest = rest[end..].trim_start_matches(',');
            }
            *rest = rest.trim_start().trim_start_matches('}');
            return;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        if !matches!(name, "" | "self") {
            path.push(name.to_owned());
        }
        *rest = after;
        match after.strip_prefix("::") {
            Some(after) if !name.is_empty() => *rest = after,
            _ => break,
        }
    }
    found.push(path);
}

/// Circles of sibling modules, each with its parent. In a circle each module names the next one,
/// and the last names the first, directly or through others.
pub fn circles() -> BTreeSet<String> {
    let mut names: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, named) in modules() {
        for other in named {
            let same = module.iter().zip(&other).take_while(|(a, b)| a == b);
            let same = same.count();
            if module.len() > same && other.len() > same {
                let one = module[..=same].to_vec();
                names
                    .entry(one)
                    .or_default()
                    .insert(other[..=same].to_vec());
            }
        }
    }
    let reached = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&Module> = names[from].iter().collect();
        while let Some(one) = next.pop() {
            if seen.insert(one) {
                next.extend(names.get(one).into_iter().flatten());
            }
        }
        seen
    };
    let all: BTreeMap<&Module, BTreeSet<&Module>> =
        names.keys().map(|one| (one, reached(one))).collect();
    all.iter()
        .filter(|(one, reached)| reached.contains(**one))
        .map(|(one, reached)| {
            let circle = reached
                .iter()
                .filter(|other| all.get(**other).is_some_and(|theirs| theirs.contains(*one)));
            let members: Vec<&str> = circle
                .filter_map(|member| member.last())
                .map(String::as_str)
                .collect();
            let parent = one[..one.len() - 1].join("/");
            format!("{parent}: {}", members.join(", "))
        })
        .collect()
}

/// Without this test, a reader of paths that finds no path would find no fault either.
#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let module: Module = ["app", "upstream"].map(str::to_owned).into();
    let text = "use super::{Plan, assembly::{self, Assembly}, heartbeat};\n\
                use crate::core::time;\nself::inner::go(super::super::sys::x)";
    let read: BTreeSet<String> = paths(text, &module)
        .into_iter()
        .map(|path| path.join("::"))
        .collect();
    let want = [
        "app::Plan",
        "app::assembly",
        "app::assembly::Assembly",
        "app::heartbeat",
        "app::upstream::inner::go",
        "core::time",
        "sys::x",
    ];
    assert_eq!(read, want.map(str::to_owned).into());
}
