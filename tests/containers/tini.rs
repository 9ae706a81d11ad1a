//! tini's own tests, with our binary in tini's place.

use std::process::{Command, Stdio};

use crate::docker::{Answer, Recipe, TRIXIE, docker};

/// Debian's source of tini.
const TINI: &str = "prosody-entrypoint-test-tini:latest";

#[test]
#[ignore = "needs Docker"]
fn its_own_tests_pass() {
    let image = Recipe::new(TRIXIE).create();
    let tests = Recipe::new(TINI).create();
    // By this name it does what `init` does: tests/tini.rs compares the two.
    let mut binary = Command::new("docker")
        .args(["cp", &format!("{}:/usr/local/bin/prosody-entrypoint", image.name), "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let copied = Command::new("docker")
        .args(["cp", "-", &format!("{}:/build", tests.name)])
        .stdin(binary.stdout.take().unwrap())
        .output()
        .unwrap();
    Answer::from(copied).ok();
    assert!(binary.wait().unwrap().success());
    let answer = docker(["start", "--attach", &tests.name]);
    assert_eq!(answer.status, 0, "{}", answer.all());
    assert!(answer.stdout.contains("All done, tests as expected"), "{}", answer.all());
}
