//! Bad input, given to the binary itself: what it reports, and that nothing is written.
//!
//! What takes an image is in tests/containers/bad_input.rs.
#![allow(clippy::string_slice, clippy::unwrap_used)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What is reported at once takes milliseconds; a read of an endless file would never end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A run of `render --output` in a directory of its own, which is removed with it.
struct Attempt {
    directory: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

/// How an attempt ended.
struct Report {
    status: Option<i32>,
    text: String,
    wrote: bool,
}

impl Attempt {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bad-input-{}-{number}", std::process::id()));
        fs::create_dir_all(directory.join("config")).unwrap();
        Attempt { directory, environment: Vec::new() }
    }

    fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// A path in the attempt's own directory.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn run(&self) -> Report {
        let mut child = Command::new(env!("CARGO_BIN_EXE_prosody-entrypoint"))
            .arg("render")
            .arg("--output")
            .arg(self.path("out"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("PROSODY_CONFIG_DIR", self.path("config"))
            .env("PROSODY_DATA_DIR", self.path("data"))
            .env("PROSODY_RUNTIME_DIR", self.path("run"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it does not end: {}", reader.join().unwrap());
            }
            thread::sleep(Duration::from_millis(5));
        };
        Report { status, text: reader.join().unwrap(), wrote: self.path("out/prosody.cfg.lua").exists() }
    }

    /// Runs it and checks that it is refused with a report that has all these texts.
    #[track_caller]
    fn is_refused(&self, texts: &[&str]) -> String {
        let report = self.run();
        assert_eq!(report.status, Some(78), "{}", report.text);
        assert!(!report.wrote, "refused, but something was written");
        for text in texts {
            assert!(report.text.contains(text), "the report has no {text:?}: {}", report.text);
        }
        assert!(!report.text.contains("panicked"), "{}", report.text);
        report.text
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn two_probes_at_once_are_refused() {
    let answer = Command::new(env!("CARGO_BIN_EXE_prosody-entrypoint"))
        .args(["healthcheck", "--ready", "--live", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8(answer.stderr).unwrap();
    assert_eq!((answer.status.code(), answer.stdout.len()), (Some(64), 0), "{said}");
    assert!(said.contains("'--ready' cannot be used with '--live'"), "{said}");
}

#[test]
fn three_wrong_values_and_a_misspelt_name_are_one_report() {
    Attempt::new()
        .env("PROSODY_C2S_PORTS", "5222,70000")
        .env("PROSODY_TLS_PROFILE", "modren")
        .env("PROSODY_USE_DANE", "perhaps")
        .env("PROSODY_MODULES_ENABELD", "mam")
        .is_refused(&[
            "PROSODY_C2S_PORTS",
            "70000",
            "PROSODY_TLS_PROFILE",
            "modren",
            "modern",
            "PROSODY_USE_DANE",
            "perhaps",
            "true",
            "PROSODY_MODULES_ENABELD",
            "PROSODY_MODULES_ENABLED",
        ]);
}

#[test]
fn a_wrong_secret_is_reported_without_its_value() {
    for (name, value) in [
        ("PROSODY_DATABASE_URL", "hush://user:hush@hush/hush"),
        ("PROSODY_EXTERNAL_COMPONENTS", "a.example:hush,hush!"),
        ("PROSODY_EXTERNAL_COMPONENTS", "[\"hush"),
        ("PROSODY_OPTIONS", "{\"a\": hush"),
    ] {
        let report = Attempt::new().env(name, value).is_refused(&[name]);
        assert!(!report.contains("hush"), "{report}");
    }
}

/// One line that says which file and why.
#[track_caller]
fn refused_with_one_line(attempt: Attempt, path: &Path, why: &[&str]) {
    let name = "PROSODY_TURN_SECRET_FILE";
    let path = path.to_str().unwrap().to_owned();
    let attempt = attempt.env(name, &path);
    let report = attempt.is_refused(&[name, &path]);
    let line = report.lines().find(|line| line.contains(name)).unwrap_or_default().to_lowercase();
    assert!(why.iter().any(|word| line.contains(word)), "none of {why:?} in {line:?}");
}

#[test]
fn a_secret_file_that_is_missing_is_named() {
    let attempt = Attempt::new();
    let path = attempt.path("missing");
    refused_with_one_line(attempt, &path, &["no such file", "does not exist", "not found"]);
}

#[test]
fn a_directory_is_no_secret_file() {
    let attempt = Attempt::new();
    let path = attempt.path("config");
    refused_with_one_line(attempt, &path, &["directory"]);
}

#[test]
fn a_fifo_is_not_waited_for() {
    let attempt = Attempt::new();
    let path = attempt.path("fifo");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    refused_with_one_line(attempt, &path, &["fifo", "pipe", "regular file"]);
}

#[test]
fn root_does_not_read_through_a_link_whose_owner_cannot() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let attempt = Attempt::new();
    let (path, secret) = (attempt.path("link"), attempt.path("secret"));
    fs::write(&secret, "root's alone").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&secret, &path).unwrap();
    std::os::unix::fs::lchown(&path, Some(12345), None).unwrap();
    refused_with_one_line(attempt, &path, &["a link of uid 12345"]);
}

#[test]
fn an_endless_file_is_not_read() {
    refused_with_one_line(Attempt::new(), Path::new("/dev/zero"), &["device", "regular file", "large"]);
}

#[test]
fn a_file_of_100_megabytes_is_not_read() {
    let attempt = Attempt::new();
    let path = attempt.path("huge");
    fs::File::create(&path).unwrap().set_len(100 * 1024 * 1024).unwrap();
    refused_with_one_line(attempt, &path, &["large", "big", "more than", "at most"]);
}

#[test]
fn a_file_that_is_not_utf_8_is_named() {
    let attempt = Attempt::new();
    let path = attempt.path("latin-1");
    fs::write(&path, b"gr\xfc\xdfe").unwrap();
    refused_with_one_line(attempt, &path, &["utf-8"]);
}

#[test]
fn a_setting_and_its_file_are_a_contradiction() {
    let attempt = Attempt::new();
    let path = attempt.path("admins");
    fs::write(&path, "b@a.example").unwrap();
    attempt
        .env("PROSODY_ADMINS", "a@a.example")
        .env("PROSODY_ADMINS_FILE", &path)
        .is_refused(&["PROSODY_ADMINS", "PROSODY_ADMINS_FILE"]);
}

#[test]
fn code_is_no_domain() {
    Attempt::new().env("PROSODY_DOMAIN", "a\"; os.execute(\"id\") --").is_refused(&["PROSODY_DOMAIN"]);
}

#[test]
fn a_variable_that_is_not_utf_8_is_named() {
    Attempt::new()
        .env("PROSODY_DOMAIN", OsStr::from_bytes(b"caf\xe9.example"))
        .is_refused(&["PROSODY_DOMAIN", "UTF-8"]);
}

/// Other programs' variables are not ours to judge.
#[test]
fn a_foreign_variable_that_is_not_utf_8_is_left_alone() {
    let report = Attempt::new()
        .env("LANGUAGE", OsStr::from_bytes(b"caf\xe9"))
        .env(OsStr::from_bytes(b"CAF\xc9"), "1")
        .env("PROSODY_TLS_PROFILE", "modren")
        .is_refused(&["PROSODY_TLS_PROFILE"]);
    assert!(!report.contains("LANGUAGE") && !report.contains("UTF-8"), "{report}");
}

#[test]
fn an_option_that_the_loader_would_take_for_something_else_is_named() {
    for name in [
        "a-b", "1a", "", "a b", "a;b", "end", "goto", "nil", "Include", "include", "VirtualHost", "Host",
        "host", "Component", "component", "RunScript", "FileContents", "FileLine", "FileLines", "Credential",
        "Lua", "ENV_HOME", "__currenthost", "caf\u{e9}",
    ] {
        let object = serde_json::json!({ name: 1 }).to_string();
        let shown = format!("{name:?}");
        Attempt::new()
            .env("PROSODY_OPTIONS", object)
            .is_refused(&["PROSODY_OPTIONS", shown.trim_matches('"')]);
        let hosts = serde_json::json!([{ "host": "a.example", "options": { name: 1 } }]);
        Attempt::new()
            .env("PROSODY_VIRTUAL_HOSTS", hosts.to_string())
            .is_refused(&["PROSODY_VIRTUAL_HOSTS", shown.trim_matches('"')]);
    }
}
