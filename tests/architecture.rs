//! The arrows between modules: what docs/architecture.md allows, and that there is no circle.
#![allow(clippy::string_slice, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path, `survey::certificates`, and its source without tests and comments.
type Modules = BTreeMap<String, String>;

#[test]
fn every_import_is_one_that_the_documentation_allows() {
    let allowed = allowed();
    let mut wrong = Vec::new();
    for (module, imported) in arrows(&modules()) {
        let (stage, other) = (stage(&module), stage(&imported));
        if stage == other {
            continue;
        }
        let is_allowed = allowed
            .get(stage)
            .unwrap_or_else(|| panic!("docs/architecture.md has no row for `{stage}`"))
            .iter()
            .any(|row| imported == *row || imported.starts_with(&format!("{row}::")));
        if !is_allowed {
            wrong.push(format!("{module} imports {imported}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "the table in docs/architecture.md allows none of these:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_row_of_the_table_is_a_module_and_every_module_has_a_row() {
    let stages: BTreeSet<String> = modules().keys().map(|module| stage(module).to_owned()).collect();
    let rows: BTreeSet<String> = allowed().into_keys().collect();
    assert_eq!(rows, stages);
}

#[test]
fn no_arrow_of_the_table_is_unused() {
    let arrows = arrows(&modules());
    for (stage, rows) in allowed() {
        for row in rows {
            let is_used = arrows.iter().any(|(module, imported)| {
                self::stage(module) == stage
                    && (*imported == row || imported.starts_with(&format!("{row}::")))
            });
            assert!(is_used, "docs/architecture.md allows {stage} to import {row}, and it does not");
        }
    }
}

#[test]
fn there_is_no_circle() {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, imported) in arrows(&modules()) {
        imports.entry(module).or_default().insert(imported);
    }
    // What imports nothing that is left cannot be in a circle.
    loop {
        let free: Vec<String> = imports
            .iter()
            .filter(|(_, imported)| imported.iter().all(|one| !imports.contains_key(one)))
            .map(|(module, _)| module.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        free.iter().for_each(|module| drop(imports.remove(module)));
    }
    // What only leads to a circle is in none.
    loop {
        let is_imported = |module: &String| imports.values().any(|imported| imported.contains(module));
        let Some(end) = imports.keys().find(|module| !is_imported(module)).cloned() else { break };
        imports.remove(&end);
    }
    assert!(imports.is_empty(), "these import each other in a circle: {:#?}", imports.keys());
}

#[test]
fn what_reads_imports_understands_every_form_of_them() {
    let modules: Modules = [
        ("a", "use crate::b::{self, c::D, e as f};\nuse super::g;"),
        ("b", ""),
        ("b::c", "use super::super::a; fn x() { crate::g::h(); }"),
        ("b::e", "use super::c::D;"),
        ("g", ""),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    let expected = [
        ("a", "b::c"),
        ("a", "b::e"),
        ("a", "b"),
        ("a", "g"),
        ("b::c", "a"),
        ("b::c", "g"),
        ("b::e", "b::c"),
    ];
    let expected: BTreeSet<(String, String)> =
        expected.into_iter().map(|(module, other)| (module.to_owned(), other.to_owned())).collect();
    assert_eq!(arrows(&modules), expected);
}

/// The rows of the table: each module with those that it may import.
fn allowed() -> BTreeMap<String, Vec<String>> {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let table = page.split("## Which module may import which").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let names =
            |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        (names(cells[1]).remove(0), names(cells[2]))
    })
    .collect()
}

/// The part of the program that a module belongs to.
fn stage(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn modules() -> Modules {
    let mut modules = Modules::new();
    collect(&root().join("src"), "", &mut modules);
    modules
}

fn collect(folder: &Path, prefix: &str, modules: &mut Modules) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let name = match stem {
            "mod" => prefix.trim_end_matches("::").to_owned(),
            stem => format!("{prefix}{stem}"),
        };
        if path.is_dir() {
            collect(&path, &format!("{name}::"), modules);
        } else if path.extension().is_some_and(|end| end == "rs") && !["lib", "main", "tests"].contains(&stem)
        {
            modules.insert(name, code(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Source without its tests and comments.
fn code(source: &str) -> String {
    let source = source.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every import of one module by another. Those between a module and one that it is in are none.
fn arrows(modules: &Modules) -> BTreeSet<(String, String)> {
    let mut arrows = BTreeSet::new();
    for (module, text) in modules {
        for path in paths(text) {
            let Some(imported) = resolve(&path, module, modules) else { continue };
            let is_inside =
                |inner: &str, outer: &str| inner == outer || inner.starts_with(&format!("{outer}::"));
            if !is_inside(module, &imported) && !is_inside(&imported, module) {
                arrows.insert((module.clone(), imported));
            }
        }
    }
    arrows
}

/// Every path in some source that begins with `crate`, `super` or `self`.
fn paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut others = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("use ") {
        let is_word = !rest[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        others.push_str(&rest[..at]);
        rest = &rest[at + 4..];
        if let Some((tree, after)) = rest.split_once(';').filter(|_| is_word) {
            expand("", tree, &mut paths);
            rest = after;
        }
    }
    others.push_str(rest);
    let words = others.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    paths.extend(words.filter(|word| word.contains("::")).map(str::to_owned));
    paths.retain(|path| ["crate::", "super::", "self::"].iter().any(|start| path.starts_with(start)));
    paths
}

/// Takes a tree of imports, `a::{b, c::d as e}`, apart.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, branches)) = tree.split_once('{') else {
        let path = tree.split_whitespace().next().unwrap_or_default();
        paths.push(format!("{prefix}{path}"));
        return;
    };
    let branches = branches.strip_suffix('}').unwrap_or(branches);
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in branches.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&format!("{prefix}{head}"), &branches[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !branches[start..].trim().is_empty() {
        expand(&format!("{prefix}{head}"), &branches[start..], paths);
    }
}

/// The module that a path leads to or into.
fn resolve(path: &str, module: &str, modules: &Modules) -> Option<String> {
    let mut place: Vec<&str> = module.split("::").collect();
    let mut steps = path.split("::").peekable();
    if steps.next_if_eq(&"crate").is_some() {
        place.clear();
    }
    steps.next_if_eq(&"self");
    while steps.next_if(|step| *step == "super").is_some() {
        place.pop();
    }
    place.extend(steps.filter(|step| *step != "self"));
    while !place.is_empty() {
        let name = place.join("::");
        if modules.contains_key(&name) {
            return Some(name);
        }
        place.pop();
    }
    None
}
