//! The examples, run as their readers would run them.

use std::process::Command;

use crate::docker::{TRIXIE, client, docker, require, unique};

/// One run of `examples/compose/server`, under a project name and on an address of its own.
struct Example {
    project: String,
}

impl Example {
    fn server(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/compose/server"))
            .args(arguments)
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .env("DOMAIN", "localhost")
            .env("PUBLISH", "127.0.0.77")
            .output()
            .expect("the script runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    fn container(&self) -> String {
        let filter = format!("label=com.docker.compose.project={}", self.project);
        docker(["ps", "--quiet", "--filter", &filter]).ok()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.server(&["down", "--volumes"]);
    }
}

fn value<'a>(printed: &'a str, name: &str) -> &'a str {
    let line = printed.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no line {name:?} in:\n{printed}")).trim()
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_client_logs_in_with_what_make_up_prints() {
    require(TRIXIE);
    let example = Example { project: unique("compose") };

    let (succeeded, printed) = example.server(&["up"]);
    assert!(succeeded, "{printed}");
    assert_eq!(value(&printed, "JID:"), "admin@localhost");
    assert_eq!(value(&printed, "connect:"), "127.0.0.77:5222");
    let account = format!("admin:{}", value(&printed, "password:"));
    let container = example.container();
    let answer = client(&format!("container:{container}"), "localhost", [&account, &account], &["login"]);
    assert_eq!(answer.status, 0, "{}", answer.all());

    // Again, with nothing changed between: the same container, and a way to a new password.
    let (succeeded, printed) = example.server(&["up"]);
    assert!(succeeded, "{printed}");
    assert!(value(&printed, "password:").contains("prosodyctl passwd admin@localhost"), "{printed}");
    assert_eq!(example.container(), container);
}
