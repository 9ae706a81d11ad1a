//! Golden tests: an environment in, every rendered file out, compared whole.
//!
//! A case is a folder in `tests/golden/cases` or, where the settings have to be rejected, in `tests/golden/failures`. To add a
//! case, add a folder: there is one test for each, `cases::FOLDER` or `failures::FOLDER`, found when the tests run. In it are
//!
//! - `env`: `NAME=value` lines, `NAME<<END` for a value of several lines that ends before a line `END`, and comments (`#`);
//! - `config/` and `data/`: the files in the configuration and in the data directory;
//! - `certificates`: files below `{temp}` and the fixtures that each is made of (`config/certs/a.pem = pair.crt pair.key`, see
//!   [`fixtures::fixture`]), and links (`live/a.pem -> ../archive/a1.pem`);
//! - `version`: the only version of Prosody to run the case with; without it, both are used;
//! - `only-if`: the machines that the case runs on (see `applies` in `case.rs`);
//! - `before`: an environment that is put in force first, for `--diff`;
//! - `arguments`: the command line, if it is not `render --output {output}`;
//! - `expected/`: every file in the output directory, a folder in it as a list of its links and of the fixtures in its PEM
//!   files, the log as `log`, standard output as `stdout`. What differs between the versions is in `expected-13.0.1/` and
//!   `expected-0.12.3/`. A failure has only its log: `report`, or `report-13.0.1` and `report-0.12.3`;
//! - `status`: the exit status, if it is not 0 (78 for a failure).
//!
//! `{temp}`, `{config}`, `{data}`, `{output}` and `{run}` stand for directories that differ from run to run. In `env`, `{uid}`,
//! `{gid}` and `{user}` stand for a user that Prosody may run as (`{user}` is empty if that user has no name). Prosody is a
//! stand-in (see [`prosody`]). Each case is planned twice too (see [`plans`]). In the same sandbox, [`advice`] does what messages
//! tell the user to do.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` writes what is rendered now as what is expected. A word after it chooses the
//! tests with that word in their names: `UPDATE_GOLDEN=1 cargo test --test golden cases::smallest`.
#![allow(clippy::string_slice, clippy::unwrap_used)]

mod advice;
mod case;
mod cases;
mod failures;
mod fixtures;
mod plans;
mod prosody;
mod sandbox;
mod without_folder;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::Arguments;

const BINARY: &str = env!("CARGO_BIN_EXE_prosody-entrypoint");

/// The folder with this file and the cases.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn main() -> ExitCode {
    if plans::is_asked_for() {
        return plans::plan_twice();
    }
    let tests = [cases::tests(), failures::tests(), without_folder::tests(), advice::tests()]
        .into_iter()
        .flatten()
        .collect();
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}
