//! The cases that are rendered, or that a command answers.

use std::collections::BTreeSet;

use libtest_mimic::{Failed, Trial};

use crate::case::{self, Case, Files, folders};
use crate::sandbox::Sandbox;

pub fn tests() -> Vec<Trial> {
    let mut tests = case::tests("cases", run);
    tests.push(Trial::test("every_setting_is_in_a_case", every_setting_is_in_a_case));
    tests
}

/// Everything that a case writes.
fn run(case: &Case, sandbox: &Sandbox) -> Result<Files, Failed> {
    let output = sandbox.run(&case.environment, &case.arguments);
    let mut found = sandbox.files_below("output");
    found.insert("log".into(), sandbox.stable(&output.stderr));
    if !output.stdout.is_empty() {
        found.insert("stdout".into(), sandbox.stable(&output.stdout));
    }
    if output.status.code() != Some(case.status) {
        return Err(format!("{}, not exit status {}:\n{}", output.status, case.status, found["log"]).into());
    }
    Ok(found)
}

/// `settings --format json-schema` lists every setting, and each is in some case.
fn every_setting_is_in_a_case() -> Result<(), Failed> {
    let sandbox = Sandbox::without_prosody();
    let output = sandbox.run(&[], &["settings", "--format", "json-schema"].map(str::to_owned));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let environments = folders("cases").into_iter().flat_map(|name| Case::read("cases", &name).environment);
    let used: BTreeSet<String> = environments.map(|(name, _)| name).collect();
    let settings = schema["properties"].as_object().unwrap().keys();
    let unused: Vec<&String> =
        settings.filter(|name| !name.ends_with("_FILE") && !used.contains(*name)).collect();
    if unused.is_empty() { Ok(()) } else { Err(format!("in no case's env: {unused:?}").into()) }
}
