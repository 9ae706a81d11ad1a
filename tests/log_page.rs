//! The page about logs, `docs/logs.md`: its lines of JSON, and its commands for jq.
#![allow(clippy::string_slice, clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

const PAGE: &str = include_str!("../docs/logs.md");

/// Lines of a log that are not ours.
const OTHER_LINES: &str = "lua5.4: out of memory\n\n42\n\"text\"\n[1]\n{\"cut\n";

/// The code blocks in this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let blocks: Vec<&str> = PAGE
        .split(&format!("```{language}\n"))
        .skip(1)
        .map(|rest| rest.split_once("```").expect("the end of a block").0)
        .collect();
    assert!(!blocks.is_empty(), "no block in {language}");
    blocks
}

#[test]
fn the_lines_of_json_have_the_fields_of_the_table() {
    for line in blocks("json").concat().lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for name in ["time", "level", "source", "message"] {
            assert!(object[name].is_string(), "{name}: {line}");
        }
        for name in object.as_object().unwrap().keys() {
            assert!(PAGE.contains(&format!("\n| `{name}` | ")), "{name} is not in the table");
        }
    }
}

#[test]
fn the_commands_for_jq_print_something_and_pass_over_other_lines() {
    let log = format!("{OTHER_LINES}{}{OTHER_LINES}", blocks("json").concat());
    let commands: Vec<&str> = blocks("sh").iter().flat_map(|block| block.lines()).collect();
    assert!(commands.len() > 4, "{commands:?}");
    for command in commands {
        let (_, filter) = command.split_once(" | ").unwrap();
        let mut jq = Command::new("sh")
            .args(["-c", filter])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        jq.stdin.take().unwrap().write_all(log.as_bytes()).unwrap();
        let output = jq.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(!printed.trim().is_empty() && !printed.contains("null"), "{command} printed {printed:?}");
    }
}
