//! What messages tell the user to do, done.
//!
//! `advice.txt` is a table. A row has a name in brackets, the texts of its advice as they are in the source, and then,
//! indented, a situation in a sandbox, in which `PROSODY_DOMAIN` is `chat.example`:
//!
//! - `NAME=value`: a variable, or none;
//! - `$ COMMAND`: a shell command, in the sandbox's directory; `write FILE TEXT` is one;
//! - `PATH = FIXTURE…` and `PATH -> TARGET`: a file or link, as in a case's `certificates`;
//! - `version VERSION`: of Prosody;
//! - `arguments WORDS`: what is started, instead of `prosody -F`;
//! - `under WORDS`: a program that starts ours;
//! - `on-disk`: the sandbox is not in `/dev/shm`, where a runtime directory is for one user alone;
//! - `only-if CONDITION`: a machine that the row is for, as in a case.
//!
//! A start has to give the advice. Then the user does what follows `>`: one of the above, or `run`, each command in the
//! advice. What follows `run` is added to each command; ` | ` is between what follows the first, the second and so on. The
//! next start has to serve and not to give the advice, or to fail with the text after `<`. After a line `or`, the advice is
//! followed in another way. `by TEST` is a test that does it too, or instead, most of them in `tests/containers`.
//!
//! `ADVICE=NAME cargo test --test golden advice` tries the rows with NAME in their names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{fs, thread};

use libtest_mimic::{Failed, Trial};

use crate::BINARY;
use crate::case::applies;
use crate::golden;
use crate::prosody::VERSIONS;
use crate::sandbox::Sandbox;

/// A row of the table.
#[derive(Default)]
struct Row {
    name: String,
    /// The advice, with `{}` for everything that differs.
    texts: Vec<String>,
    situation: Vec<String>,
    /// For each way to follow the advice: what to do, and the text that the next start fails with.
    ways: Vec<(Vec<String>, Option<String>)>,
    version: Option<String>,
    is_on_disk: bool,
    conditions: Vec<String>,
    /// Other tests that follow the advice.
    tests: Vec<String>,
}

pub fn tests() -> Vec<Trial> {
    vec![
        Trial::test("advice::done_as_written", done_as_written),
        Trial::test("advice::all_advice_has_a_row", all_advice_has_a_row),
        Trial::test("advice::nothing_else_is_advice", nothing_else_is_advice),
    ]
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let table = fs::read_to_string(golden().join("advice.txt")).unwrap();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            rows.push(Row { name: name.to_owned(), ..Row::default() });
            continue;
        }
        let row = rows.last_mut().expect("a row begins with its name");
        let Some(line) = line.strip_prefix("  ") else {
            row.texts.push(line.to_owned());
            continue;
        };
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.to_owned();
        if word == "or" || (row.ways.is_empty() && [">", "<"].contains(&word)) {
            row.ways.push(Default::default());
        }
        match word {
            ">" => row.ways.last_mut().unwrap().0.push(rest),
            "<" => row.ways.last_mut().unwrap().1 = Some(rest),
            "or" => {}
            "version" => row.version = Some(rest),
            "on-disk" => row.is_on_disk = true,
            "only-if" => row.conditions.push(rest),
            "by" => row.tests.push(rest),
            _ => row.situation.push(line.to_owned()),
        }
    }
    rows
}

/// Follows all advice. Together, because the stand-ins for Prosody take longer to make than the rows.
fn done_as_written() -> Result<(), Failed> {
    let wanted = std::env::var("ADVICE").unwrap_or_default();
    let is_wanted =
        |row: &Row| row.name.contains(&wanted) && row.conditions.iter().all(|condition| applies(condition));
    let rows = Mutex::new(rows().into_iter().filter(is_wanted));
    let installed = VERSIONS.map(Sandbox::with_prosody);
    let wrong = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(row) = rows.lock().unwrap().next() else { break };
            let version = row.version.as_deref().unwrap_or(VERSIONS[0]);
            let installed = &installed[VERSIONS.iter().position(|known| *known == version).unwrap()];
            let mut advice = Vec::new();
            for (steps, failure) in &row.ways {
                if let Err(why) = follow(&row, steps, failure.as_deref(), &mut advice, installed) {
                    wrong.lock().unwrap().push(format!("{}, {steps:?}: {why}", row.name));
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner().unwrap();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// Starts, follows the advice in one way, and starts again. What was advised in the first way is not asked for again.
fn follow(
    row: &Row,
    steps: &[String],
    failure: Option<&str>,
    advice: &mut Vec<String>,
    installed: &Sandbox,
) -> Result<(), String> {
    let mut situation = Situation::new(Sandbox::with_prosody_of(installed, !row.is_on_disk));
    row.situation.iter().try_for_each(|step| situation.act(step, &[]))?;
    if advice.is_empty() {
        let (said, _) = situation.start();
        let given: Option<Vec<&str>> = row.texts.iter().map(|text| find(text, &said)).collect();
        let given = given.ok_or_else(|| format!("the advice is not given:\n{said}"))?;
        *advice = given.into_iter().map(str::to_owned).collect();
    }
    steps.iter().try_for_each(|step| situation.act(step, advice))?;
    let (said, serves) = situation.start();
    let wrong = match failure {
        None if !serves => "it does not serve",
        Some(text) if serves || !said.contains(text) => "it does not fail as expected",
        _ if row.texts.iter().any(|text| find(text, &said).is_some()) => "the advice is given again",
        _ => return Ok(()),
    };
    Err(format!("{wrong} after {advice:?}:\n{said}"))
}

/// What a start depends on.
struct Situation {
    sandbox: Sandbox,
    environment: BTreeMap<String, String>,
    arguments: Option<Vec<String>>,
    /// The program that starts ours.
    starter: Vec<String>,
}

impl Situation {
    fn new(sandbox: Sandbox) -> Self {
        let environment = BTreeMap::from([("PROSODY_DOMAIN".to_owned(), "chat.example".to_owned())]);
        Situation { sandbox, environment, arguments: None, starter: Vec::new() }
    }

    /// What a start says, and whether it serves.
    fn start(&self) -> (String, bool) {
        let environment: Vec<(String, String)> = self.environment.clone().into_iter().collect();
        let server = ["prosody", "-F"].map(str::to_owned).to_vec();
        let mut line = self.starter.clone();
        line.push(BINARY.to_owned());
        line.extend(self.arguments.clone().unwrap_or(server));
        let output = self.sandbox.run_program(Path::new(&line[0]), &environment, &line[1..]);
        let is_other = self.arguments.as_ref().is_some_and(|words| !words.is_empty());
        let serves = output.status.success() && (is_other || output.stdout == b"serves\n");
        (self.sandbox.stable(&[output.stderr, output.stdout].concat()), serves)
    }

    fn act(&mut self, step: &str, advice: &[String]) -> Result<(), String> {
        let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
        match word {
            "$" => self.shell(rest)?,
            "run" => {
                let advice = self.sandbox.filled_in(&advice.join(" "));
                let commands = advice.split('`').skip(1).step_by(2);
                let ends: Vec<&str> = rest.split(" | ").collect();
                for (number, command) in commands.enumerate() {
                    let end = ends.get(number).or(ends.last()).unwrap();
                    self.shell(&match command.contains('…') {
                        true => command.replace('…', end),
                        false => format!("{command} {end}"),
                    })?;
                }
            }
            "arguments" => self.arguments = Some(rest.split_whitespace().map(str::to_owned).collect()),
            "under" => self.starter = rest.split_whitespace().map(str::to_owned).collect(),
            _ if rest.starts_with("= ") || rest.starts_with("-> ") => {
                self.sandbox.make_certificates(&self.sandbox.filled_in(step));
            }
            _ => {
                let (name, value) = step.split_once('=').ok_or_else(|| format!("no step: {step}"))?;
                match value {
                    "" => drop(self.environment.remove(name)),
                    value => drop(self.environment.insert(name.to_owned(), value.to_owned())),
                }
            }
        }
        Ok(())
    }

    fn shell(&self, script: &str) -> Result<(), String> {
        const WRITE: &str = r#"write() { mkdir -p "$(dirname "$1")"; printf '%s\n' "$2" >"$1"; }"#;
        let script = self.sandbox.filled_in(script);
        let mut shell = Command::new("/bin/sh");
        let shell = shell.args(["-ec", &format!("{WRITE}\n{script}")]).current_dir(&self.sandbox.path);
        let output = shell.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("{script}: {text}")) }
    }
}

/// The part of a text that is a piece of advice, from the advice's first letter to its last.
fn find<'a>(advice: &str, text: &'a str) -> Option<&'a str> {
    let parts = pieces(advice);
    let first = parts.iter().find(|part| !part.is_empty())?;
    text.match_indices(first.as_str()).find_map(|(start, _)| {
        let mut end = start;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let line = text[end..].split('\n').next().unwrap_or_default();
            end += line.find(part.as_str())? + part.len();
        }
        Some(&text[start..end])
    })
}

/// The fixed parts of a format string.
fn pieces(format: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '{' | '}' if letters.next_if_eq(&letter).is_some() => pieces.last_mut().unwrap().push(letter),
            '{' => {
                let _ = letters.by_ref().find(|letter| *letter == '}');
                pieces.push(String::new());
            }
            _ => pieces.last_mut().unwrap().push(letter),
        }
    }
    pieces
}

/// A string literal of the source.
struct Literal {
    place: String,
    text: String,
    is_advice: bool,
}

/// The string literals in `src` outside of tests and comments.
fn literals() -> Vec<Literal> {
    let sources = files("src").into_iter().filter(|path| !path.ends_with("tests.rs"));
    sources.flat_map(|path| literals_of(&path)).collect()
}

fn literals_of(path: &Path) -> Vec<Literal> {
    let source = fs::read_to_string(path).unwrap();
    let source = source.split("\n#[cfg(test)]\nmod ").next().unwrap();
    let mut literals = Vec::new();
    let mut rest = source;
    // A comment, a letter or a text, whatever comes first.
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let (before, token) = rest.split_at(at);
        let length = if token.starts_with("//") {
            token.find('\n').unwrap_or(token.len())
        } else if let Some(text) = token.strip_prefix('"') {
            let hashes = before.len() - before.trim_end_matches('#').len();
            let is_raw = before.trim_end_matches('#').ends_with('r');
            let end = if is_raw {
                text.find(&format!("\"{}", "#".repeat(hashes))).unwrap()
            } else {
                let mut is_escaped = false;
                let is_end = |letter: char| {
                    let is_end = letter == '"' && !is_escaped;
                    is_escaped = letter == '\\' && !is_escaped;
                    is_end
                };
                text.find(is_end).unwrap_or_else(|| panic!("{}: {before} {text}", path.display()))
            };
            let line = source[..source.len() - token.len()].lines().count();
            literals.push(Literal {
                place: format!("{}:{line}", path.display()),
                text: if is_raw { text[..end].to_owned() } else { unescaped(&text[..end]) },
                is_advice: before.trim_end().ends_with("advice!("),
            });
            end + 2
        } else if let Some(escaped) = token.strip_prefix("'\\") {
            escaped.find('\'').map_or(1, |end| end + 3)
        } else if token.starts_with('\'') {
            let mut letters = token.char_indices().skip(2);
            letters.next().filter(|(_, letter)| *letter == '\'').map_or(1, |(at, _)| at + 1)
        } else {
            1
        };
        rest = &token[length..];
    }
    literals
}

/// A literal's text: an escaped line end and the indentation after it are none of it.
fn unescaped(literal: &str) -> String {
    let mut lines = literal.split("\\\n");
    let first = lines.next().unwrap().to_owned();
    let text = lines.fold(first, |text, line| text + line.trim_start());
    text.replace("\\\"", "\"").replace("\\\\", "\\")
}

/// A text with `{}` for each of its placeholders.
fn key(format: &str) -> String {
    pieces(format).join("{}")
}

/// The names of all tests, with those that a macro makes.
fn names_of_tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in files("src")
        .into_iter()
        .chain(files("tests"))
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
    {
        let source = fs::read_to_string(path).unwrap();
        let functions = source.split("fn ").skip(1).filter_map(|text| text.split("()").next());
        let of_macro = source.lines().filter_map(|line| line.trim().split_once(": ")).map(|(name, _)| name);
        names.extend(functions.chain(of_macro).map(str::to_owned));
    }
    names
}

/// All files below a folder of the repository.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut at = 0;
    while at < files.len() {
        if files[at].is_dir() {
            let folder = files.swap_remove(at);
            files.extend(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            at += 1;
        }
    }
    files
}

fn all_advice_has_a_row() -> Result<(), Failed> {
    let rows = rows();
    let in_table: BTreeSet<String> = rows.iter().flat_map(|row| &row.texts).map(|text| key(text)).collect();
    let mut in_source = BTreeSet::new();
    let mut wrong = Vec::new();
    for literal in literals().into_iter().filter(|literal| literal.is_advice) {
        let text = key(&literal.text);
        if !in_table.contains(&text) {
            wrong.push(format!("{}: no row in tests/golden/advice.txt: {}", literal.place, literal.text));
        }
        if !in_source.insert(text) {
            wrong.push(format!("{}: there is the same advice elsewhere: {}", literal.place, literal.text));
        }
    }
    wrong.extend(in_table.difference(&in_source).map(|text| format!("not in the source: {text}")));
    let has_test = |row: &&Row| !row.ways.is_empty() || !row.tests.is_empty();
    wrong.extend(rows.iter().filter(|row| !has_test(row)).map(|row| format!("{}: not followed", row.name)));
    let known = names_of_tests();
    let missing = rows.iter().flat_map(|row| &row.tests).filter(|name| !known.contains(*name));
    wrong.extend(missing.map(|name| format!("there is no test {name}")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// Files with the text of the documentation, and of tini.
const DOCUMENTATION: [&str; 3] = ["settings/catalogue.rs", "settings/reference.rs", "init/options.rs"];

/// Texts in which a word only looks like advice.
const NO_ADVICE: [&str; 4] =
    ["correct horse battery staple", "for _, name in ipairs(arg) do", "SET NAMES utf8mb4", "DELETE FROM"];

/// The words that advice begins with.
const VERBS: &str = "add allow change check choose come convert copy correct create decide delete disable drop edit \
    empty enable follow give have install keep leave let look make mount move name open pass publish put raise read \
    remove rename renew replace restart run save say search send set split start stop switch take try turn undo \
    update upgrade use wait write";

/// The type is the only one that tells the user to do something: no other text has a verb where a clause begins.
fn nothing_else_is_advice() -> Result<(), Failed> {
    let is_documentation = |literal: &Literal| DOCUMENTATION.iter().any(|file| literal.place.contains(file));
    let others = literals().into_iter().filter(|literal| !literal.is_advice && !is_documentation(literal));
    let advice = others.filter(|literal| {
        looks_like_advice(&literal.text) && !NO_ADVICE.iter().any(|text| literal.text.contains(text))
    });
    let wrong: Vec<String> =
        advice.map(|literal| format!("{}: not made by `advice!`: {}", literal.place, literal.text)).collect();
    assert!(looks_like_advice("PROSODY_X: it is off; turn it on"));
    assert!(looks_like_advice("there is no file, and {path} is a directory: correct or remove it"));
    assert!(!looks_like_advice("the start of {name} names no file"));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn looks_like_advice(text: &str) -> bool {
    let is_verb = |word: &str| VERBS.split_whitespace().any(|verb| verb == word.to_lowercase());
    let words: Vec<&str> = text.split_whitespace().collect();
    words.len() > 1
        && words.iter().enumerate().any(|(at, word)| {
            let before = at.checked_sub(1).map(|at| words[at]);
            is_verb(word)
                && before.is_none_or(|before| {
                    before.ends_with([':', ';', ',', '.']) || ["or", "and"].contains(&before)
                })
        })
}
