//! Every statement of the pages `docs/moving-from-….md` is one that a test shows.
#![allow(clippy::string_slice, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// For each row of each page, by the row's first cell, what shows it: the name of a test, or in capitals a variable with
/// cases in `tests/oracle/cases`, all of which Prosody's own loader is asked about.
const SHOWN_BY: &str = include_str!("moving_pages.txt");

/// The rows of a page, each with what shows it.
type Rows = Vec<(&'static str, Vec<&'static str>)>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The first cells of a page's tables, but for their heads.
fn rows(page: &str) -> Vec<&str> {
    let mut rows = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("| ")) {
        if line.starts_with("---") {
            // The line before was the head.
            rows.pop();
        } else {
            rows.push(line.split(" | ").next().unwrap());
        }
    }
    rows
}

/// The pages of the list.
fn list() -> Vec<(&'static str, Rows)> {
    let mut pages: Vec<(&str, Rows)> = Vec::new();
    for line in SHOWN_BY.lines().filter(|line| !line.is_empty()) {
        let text = line.trim_start();
        match line.len() - text.len() {
            0 => pages.push((text, Vec::new())),
            2 => pages.last_mut().unwrap().1.push((text, Vec::new())),
            _ => pages.last_mut().unwrap().1.last_mut().unwrap().1.push(text),
        }
    }
    pages
}

#[test]
fn every_row_has_a_test() {
    let documents = files(&root().join("docs"));
    let names = documents.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
    let pages: BTreeSet<&str> = names.filter(|name| name.starts_with("moving-from-")).collect();
    assert_eq!(pages, list().iter().map(|(page, _)| *page).collect::<BTreeSet<_>>(), "the pages in the list");
    for (page, listed) in list() {
        let text = read(&root().join("docs").join(page));
        let listed: Vec<&str> = listed.iter().map(|(row, _)| *row).collect();
        assert_eq!(rows(&text), listed, "the rows of {page}, and those in tests/moving_pages.txt");
    }
}

#[test]
fn every_test_of_a_row_exists() {
    let (mut sources, mut cases) = (String::new(), String::new());
    for path in files(&root().join("tests")) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => sources += &read(&path),
            Some("json") if path.starts_with(root().join("tests/oracle/cases")) => cases += &read(&path),
            _ => {}
        }
    }
    let exists = |name: &str| match name.starts_with(|first: char| first.is_ascii_uppercase()) {
        true => cases.contains(&format!("\n  \"{name}\": [")),
        false => sources.contains(&format!("\nfn {name}() {{")),
    };
    for (page, rows) in list() {
        for (row, tests) in rows {
            assert!(!tests.is_empty(), "{page}: {row:?}: nothing shows it");
            let missing: Vec<&&str> = tests.iter().filter(|name| !exists(name)).collect();
            assert!(missing.is_empty(), "{page}: {row:?}: there is no {missing:?}");
        }
    }
}

#[test]
fn the_pages_are_linked() {
    let readme = read(&root().join("README.md"));
    let usage = read(&root().join("docs/usage.md"));
    for (page, _) in list() {
        assert!(readme.contains(&format!("(docs/{page})")), "README.md does not link {page}");
        assert!(usage.contains(&format!("({page})")), "docs/usage.md does not link {page}");
    }
}
