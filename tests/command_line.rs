//! The man page and the shells' completions in `docs/` are those of the command line.
//!
//! `make docs` writes them anew.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use prosody_entrypoint::cli::Cli;

/// Compares a file in `docs/` with what it should contain, or writes it.
fn compare(file: &str, expected: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, expected).unwrap();
    }
    let found = fs::read(&path).unwrap_or_default();
    assert!(found == expected, "docs/{file} is stale: run `make docs`");
}

/// The exit statuses before a program runs, as the page about commands lists them.
fn exit_statuses() -> Vec<(&'static str, String)> {
    let page = include_str!("../docs/usage.md");
    let (_, table) =
        page.split_once("| status | reason |\n| --- | --- |\n").expect("the table of exit statuses");
    table
        .lines()
        .map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .map(|(status, reason)| (status, without_markup(reason)))
        .collect()
}

/// Markdown's text, without the targets of its links and without its backquotes.
fn without_markup(text: &str) -> String {
    let mut parts = text.split('[');
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        let (label, rest) = part.split_once("](").expect("the end of a link's text");
        plain += label;
        plain += rest.split_once(')').expect("the end of a link's target").1;
    }
    plain.replace('`', "")
}

fn man_page() -> Vec<u8> {
    let mut command = Cli::command();
    command.build();
    // Without a date, it changes only with the command line.
    let man = Man::new(command.clone()).manual("Prosody in a container");
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        describe(subcommand, &mut page);
    }
    let mut end = Roff::new();
    end.control("SH", ["EXIT STATUS"]);
    end.text([roman(
        "The program's own, or 128 plus the number of the signal that ended it. Before a program runs:",
    )]);
    for (status, reason) in exit_statuses() {
        end.control("TP", []).text([bold(status)]).text([roman(reason)]);
    }
    end.control("SH", ["ENVIRONMENT"]);
    end.text([
        roman("The settings are variables whose names begin with PROSODY_: "),
        bold("prosody-entrypoint settings"),
        roman(" lists them."),
    ]);
    end.control("SH", ["SEE ALSO"]).text([roman("prosodyctl(8), tini(1)")]);
    end.to_writer(&mut page).unwrap();
    page
}

/// Adds a section about a command.
fn describe(command: &Command, page: &mut Vec<u8>) {
    let name = command.get_name().to_owned();
    let mut options = Vec::new();
    let man = Man::new(command.clone());
    let mut heading = Roff::new();
    heading.control("SH", [format!("COMMAND: {name}").as_str()]);
    heading.to_writer(page).unwrap();
    man.render_description_section(&mut options).unwrap();
    man.render_options_section(&mut options).unwrap();
    // Below the command's heading, the sections have none.
    for line in String::from_utf8(options).unwrap().lines().filter(|line| !line.starts_with(".SH ")) {
        page.extend_from_slice(line.as_bytes());
        page.push(b'\n');
    }
}

#[test]
fn the_man_page_is_the_command_lines() {
    compare("man/prosody-entrypoint.1", &man_page());
}

#[test]
fn the_completions_are_the_command_lines() {
    for (shell, file) in [
        (Shell::Bash, "prosody-entrypoint.bash"),
        (Shell::Zsh, "_prosody-entrypoint"),
        (Shell::Fish, "prosody-entrypoint.fish"),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "prosody-entrypoint", &mut script);
        compare(&format!("completions/{file}"), &script);
    }
}
