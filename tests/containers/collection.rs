//! Debian's collection of community modules, each in a start of its own that names nothing else. What
//! does not load, and why, is in tests/collection. `make test` starts those and a quarter of the others, in turn with code
//! of its own for each host and with shared code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::docker::{BOOKWORM, Recipe, TRIXIE, is_all_wanted};

/// How the start of one module went.
struct Start {
    status: i32,
    /// Whether the module is loaded somewhere when the server is up.
    loaded: bool,
    /// Whether there is an error in the log until then.
    errors: bool,
    /// The warnings and errors in the log until then.
    complaints: String,
}

impl Start {
    /// From what a start printed.
    fn from_log(module: &str, log: &str, status: i32) -> Self {
        let mut start = Start { status, loaded: false, errors: false, complaints: String::new() };
        let mut level = "";
        for line in log.lines().take_while(|line| !line.contains("Shutting down: all is said")) {
            // Lines of a record after its first have no level of their own.
            let head: Vec<_> = line.split('\t').next().unwrap().split_whitespace().collect();
            if let [_, found @ ("debug" | "info" | "warn" | "error")] = head[..] {
                level = found;
            }
            if level == "warn" || level == "error" {
                start.errors |= level == "error";
                start.complaints += line;
                start.complaints += "\n";
            }
            if let Some((_, loaded)) = line.split_once("loaded on ") {
                start.loaded |= loaded.split(' ').skip(1).any(|name| name == module);
            }
        }
        start
    }

    fn succeeded(&self) -> bool {
        self.status == 0 && self.loaded && !self.errors
    }

    /// The modules and libraries that were wanted and not found.
    fn not_found(&self) -> impl Iterator<Item = &str> {
        self.complaints.lines().filter_map(|line| {
            let (_, name) = ["Unable to load module '", "Failed to load plugin library '"]
                .iter()
                .filter(|_| line.contains("No such file"))
                .chain(&["no module `"])
                .find_map(|before| line.split_once(before))?;
            name.split(['\'', '`']).next()
        })
    }
}

/// The modules of the collection, and the start of each that was started, in one container. The listed ones are. `shared`
/// is that of `start-each.sh`.
fn starts<'a>(
    image: &str,
    shared: &str,
    listed: impl Iterator<Item = &'a String>,
) -> BTreeMap<String, Option<Start>> {
    let step = if is_all_wanted() { "1" } else { "4" };
    let recipe = Recipe::new(image)
        .file(
            "/etc/prosody/modules/mod_what_is_loaded.lua",
            include_bytes!("../collection/mod_what_is_loaded.lua"),
        )
        .file("/start-each.sh", include_bytes!("../collection/start-each.sh"))
        .command(["init", "--", "sh", "/start-each.sh", step, shared]);
    let output = listed.fold(recipe, |recipe, module| recipe.word(module)).run().ok();
    let starts: BTreeMap<_, _> = output
        .split("=== module ")
        .skip(1)
        .map(|text| {
            let (module, rest) = text.split_once('\n').unwrap();
            let (log, status) = rest.rsplit_once("=== status ").unwrap();
            let status = status.trim().parse().ok();
            (module.to_owned(), status.map(|status| Start::from_log(module, log, status)))
        })
        .collect();
    assert!(starts.len() > 75, "only {} modules", starts.len());
    starts
}

/// The modules that fail, each with a piece of what the log says, from the list of this version.
fn listed(version: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/collection/{version}.txt"));
    fs::read_to_string(&path)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.split(" | ").collect::<Vec<_>>()[..] {
            [module, piece, _why] => (module.to_owned(), piece.to_owned()),
            _ => panic!("{}: not `module | what the log says | why`: {line}", path.display()),
        })
        .collect()
}

fn what_fails_is_listed(image: &str, version: &str) {
    let ways: &[&str] = if is_all_wanted() { &["false", "true"] } else { &["turns"] };
    for shared in ways {
        what_fails_is_listed_with(image, version, shared);
    }
}

fn what_fails_is_listed_with(image: &str, version: &str, shared: &str) {
    let mut listed = listed(version);
    let starts = starts(image, shared, listed.keys());
    let mut differences = Vec::new();
    // What a start could want and not find; the library is the collection's only one.
    let collection: BTreeSet<_> = starts.keys().map(String::as_str).chain(["ldap"]).collect();
    for (module, start) in starts.iter().filter_map(|(module, start)| Some((module, start.as_ref()?))) {
        for name in start.not_found().filter(|name| collection.contains(name)) {
            differences.push(format!("{module}: {name} is in the collection and was not found"));
        }
        let said = format!("status {}, loaded: {}\n{}", start.status, start.loaded, start.complaints);
        match listed.remove(module) {
            Some(_) if start.succeeded() => {
                differences.push(format!("{module} is listed, and loads without an error"));
            }
            Some(piece) if !start.complaints.contains(&piece) => {
                differences.push(format!("{module} fails otherwise than with {piece:?}: {said}"));
            }
            None if !start.succeeded() => differences.push(format!("{module} is not listed: {said}")),
            _ => {}
        }
    }
    differences.extend(listed.keys().map(|module| format!("{module} is listed, and not in the collection")));
    assert!(
        differences.is_empty(),
        "{} differences from tests/collection/{version}.txt, code shared: {shared}:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_fails_of_the_collection_is_listed_for_13_0() {
    what_fails_is_listed(TRIXIE, "13.0");
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn what_fails_of_the_collection_is_listed_for_0_12() {
    what_fails_is_listed(BOOKWORM, "0.12");
}
