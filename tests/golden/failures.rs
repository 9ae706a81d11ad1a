//! The cases that are rejected: the report of every error, and nothing written.

use libtest_mimic::{Failed, Trial};

use crate::case::{self, Case, Files};
use crate::sandbox::Sandbox;

pub fn tests() -> Vec<Trial> {
    case::tests("failures", run)
}

/// The report of a case.
fn run(case: &Case, sandbox: &Sandbox) -> Result<Files, Failed> {
    let before = sandbox.everything();
    let output = sandbox.run(&case.environment, &case.arguments);
    let report = sandbox.stable(&output.stderr);
    if output.status.code() != Some(case.status) {
        return Err(format!("{}, not exit status {}:\n{report}", output.status, case.status).into());
    }
    if !output.stdout.is_empty() {
        return Err(format!("standard output: {}", sandbox.stable(&output.stdout)).into());
    }
    let after = sandbox.everything();
    if after != before {
        let changed: Vec<_> = after.symmetric_difference(&before).collect();
        return Err(format!("something was written or removed: {changed:?}").into());
    }
    Ok(Files::from([("report".to_owned(), report)]))
}
