//! System calls that fail: a start and a reload with one failing call each. Never a half-written generation, more
//! privileges than promised, a hang, or status 0 with something missing.
//!
//! strace makes the calls fail, with the scripts in tests/faults. `make test` tries a sample, the same at each run;
//! `make test-all` tries every error at every call.

use std::thread;

use crate::docker::{Container, Recipe, is_all_wanted};

/// The image with strace.
pub const STRACE: &str = "prosody-entrypoint-test-strace:latest";

/// The system calls of a start, with an upper bound of how often one process calls each.
const CALLS: [(&str, usize); 25] = [
    ("capset", 2),
    ("clone", 1),
    ("close", 40),
    ("execve", 2),
    ("fchmod", 12),
    ("fchown", 5),
    ("fstat", 30),
    ("getdents64", 18),
    ("mkdirat", 5),
    ("newfstatat", 12),
    ("openat", 50),
    ("openat2", 6),
    ("prctl", 10),
    ("read", 20),
    ("readlinkat", 2),
    ("renameat", 6),
    ("setfsgid", 18),
    ("setfsuid", 18),
    ("setgroups", 6),
    ("setresgid", 1),
    ("setresuid", 1),
    ("statx", 25),
    ("symlinkat", 2),
    ("unlinkat", 6),
    ("write", 14),
];

/// What a call fails with. KILL ends the process instead.
const FAULTS: [&str; 8] = ["EACCES", "EINTR", "EIO", "EMFILE", "ENOMEM", "ENOSPC", "EPERM", "KILL"];

/// How many cases `make test` tries.
const STARTS: usize = 160;
const RELOADS: usize = 40;

/// The cases as lines for a script, at most `sample` of them unless all are wanted.
fn cases(sample: usize) -> Vec<String> {
    let numbers = |(call, count): (&'static str, usize)| (1..=count).map(move |number| (call, number));
    let all: Vec<String> = CALLS
        .into_iter()
        .flat_map(numbers)
        .flat_map(|(call, number)| FAULTS.iter().map(move |fault| format!("{call} {fault} {number}")))
        .collect();
    let count = if is_all_wanted() { all.len() } else { sample };
    // Evenly spread. A step that has no divisor in common with the number of faults meets each of them.
    let step = (all.len() / count) | 1;
    all.into_iter().step_by(step).collect()
}

fn container() -> Recipe {
    Recipe::new(STRACE).with(["--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined"])
}

/// Gives the cases to a script in the container, and fails with what it says.
fn run(container: &Container, script: &str, cases: &[String]) -> String {
    let path = format!("{}/tests/faults/{script}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    container.put("/tmp/faults", &text);
    container.put("/tmp/cases", format!("{}\n", cases.join("\n")).as_bytes());
    let answer = container.exec(["bash", "-c", "bash /tmp/faults </tmp/cases"]);
    let complaints = answer.all();
    if answer.status == 0 { complaints } else { format!("status {}: {complaints}", answer.status) }
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_start_with_a_failing_system_call_is_whole_or_says_why_not() {
    let cases = cases(STARTS);
    // Each is mostly one process at a time.
    let complaints: String = thread::scope(|scope| {
        let workers: Vec<_> = cases
            .chunks(cases.len().div_ceil(2))
            .map(|cases| {
                scope.spawn(move || {
                    let recipe = container().with(["--tmpfs", "/case:exec", "--entrypoint", "sleep"]);
                    run(&recipe.command(["infinity"]).start(), "start", cases)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert!(complaints.is_empty(), "of {} cases:\n{complaints}", cases.len());
}

#[test]
#[ignore = "needs Docker and the images: make test"]
fn a_reload_with_a_failing_system_call_leaves_the_server_and_the_next_reload_whole() {
    let cases = cases(RELOADS);
    let server = container().env("PROSODY_DOMAIN", "chat.example").serve();
    let complaints = run(&server, "reload", &cases);
    assert!(complaints.is_empty(), "of {} cases:\n{complaints}\n{}", cases.len(), server.logs());
}
