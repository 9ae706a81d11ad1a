//! A folder as a test: what it is run with, and what is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};
use nix::unistd::{User, geteuid};

use crate::golden;
use crate::plans;
use crate::prosody::VERSIONS;
use crate::sandbox::Sandbox;

/// Names and texts.
pub type Files = BTreeMap<String, String>;

/// Runs a case in a sandbox and gives every text that it wrote.
pub type Run = fn(&Case, &Sandbox) -> Result<Files, Failed>;

/// A test for each folder in `tests/golden/KIND`.
pub fn tests(kind: &'static str, run: Run) -> Vec<Trial> {
    let test = |name: String| {
        Trial::ignorable_test(format!("{kind}::{name}"), move || Case::read(kind, &name).check(run))
    };
    folders(kind).into_iter().map(test).collect()
}

/// The names in `tests/golden/KIND`.
pub fn folders(kind: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(golden().join(kind)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A folder with a case in it.
pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub environment: Vec<(String, String)>,
    pub before: Option<Vec<(String, String)>>,
    pub arguments: Vec<String>,
    pub status: i32,
    versions: Vec<&'static str>,
    conditions: String,
}

impl Case {
    pub fn read(kind: &str, name: &str) -> Case {
        let folder = golden().join(kind).join(name);
        let optional = |file: &str| fs::read_to_string(folder.join(file)).ok();
        let is_meant = |version: &&str| optional("version").is_none_or(|only| only.trim() == *version);
        let arguments = optional("arguments").unwrap_or_else(|| "render --output {output}".to_owned());
        let status = optional("status").map(|status| status.trim().parse().expect("`status` is a number"));
        let environment_of_case = fs::read_to_string(folder.join("env"))
            .unwrap_or_else(|error| panic!("{}: {error}", folder.join("env").display()));
        Case {
            name: format!("{kind}::{name}"),
            environment: environment(&environment_of_case),
            before: optional("before").map(|text| environment(&text)),
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            status: status.unwrap_or(if kind == "failures" { 78 } else { 0 }),
            versions: VERSIONS.into_iter().filter(is_meant).collect(),
            conditions: optional("only-if").unwrap_or_default(),
            folder,
        }
    }

    /// Runs the case with each version of Prosody and compares, unless this machine is not one of its machines.
    fn check(&self, run: Run) -> Result<Completion, Failed> {
        if let Some(condition) = self.conditions.lines().find(|condition| !applies(condition)) {
            return Ok(Completion::ignored_with(format!("only if: {condition}")));
        }
        let run = |&version| {
            let sandbox = Sandbox::new(self, version);
            match run(self, &sandbox).and_then(|found| plans::check(self, &sandbox).map(|()| found)) {
                Ok(found) => Ok((version, found)),
                Err(failed) => {
                    Err(format!("Prosody {version}: {}", failed.message().unwrap_or_default()).into())
                }
            }
        };
        self.compare(self.versions.iter().map(run).collect::<Result<_, Failed>>()?)?;
        Ok(Completion::Completed)
    }

    /// Compares with the folder, after writing it where `UPDATE_GOLDEN` asks for that.
    fn compare(&self, found: Vec<(&str, Files)>) -> Result<(), Failed> {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            self.write(&found);
        }
        let mut wrong = self.unknown_files();
        for (version, found) in &found {
            let expected = self.expected(version);
            let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
            for name in names {
                let [old, new] = [&expected, found].map(|files| files.get(name).map_or("", String::as_str));
                let header =
                    |what: &str| format!("{}, Prosody {version}: {name}, {what}", self.folder.display());
                if old != new {
                    let diff = similar::TextDiff::from_lines(old, new);
                    let mut diff = diff.unified_diff();
                    let _ = write!(wrong, "{}", diff.header(&header("expected"), &header("found")));
                } else if expected.contains_key(name) != found.contains_key(name) {
                    let _ = writeln!(wrong, "{}", header("is on one side only, and empty"));
                }
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let update = format!("UPDATE_GOLDEN=1 cargo test --test golden {}", self.name);
        Err(format!("{wrong}\nRead the difference. If it is right: {update}").into())
    }

    /// A line for each entry of the folder that no part of a case is called: a slip in a name would go unnoticed.
    fn unknown_files(&self) -> String {
        let known = [
            "arguments", "before", "certificates", "config", "data", "env", "expected", "only-if", "report",
            "status", "version",
        ];
        let is_known = |name: &str| {
            let of_version =
                |version| name == format!("expected-{version}") || name == format!("report-{version}");
            known.contains(&name) || self.versions.iter().any(of_version)
        };
        let entries = fs::read_dir(&self.folder).unwrap();
        let names: BTreeSet<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let unknown = names.into_iter().filter(|name| !is_known(name));
        unknown.map(|name| format!("{}/{name}: not a part of this case\n", self.folder.display())).collect()
    }

    fn expected(&self, version: &str) -> Files {
        let mut expected = BTreeMap::new();
        for folder in [
            self.folder.clone(),
            self.folder.join("expected"),
            self.folder.join(format!("expected-{version}")),
        ] {
            let is_report = folder == self.folder;
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().into_string().unwrap();
                let is_ours = !is_report || name == "report" || name == format!("report-{version}");
                if is_ours && entry.path().is_file() {
                    let name = if is_report { "report".to_owned() } else { name };
                    let mut text = fs::read_to_string(entry.path()).unwrap();
                    if !has_ipv6() {
                        text = text.replace(r#"{ "*", "::" }"#, r#"{ "*" }"#);
                    }
                    expected.insert(name, text);
                }
            }
        }
        expected
    }

    fn write(&self, found: &[(&str, Files)]) {
        assert!(
            has_ipv6(),
            "expectations are written on a machine with IPv6: without it the rendered files differ"
        );
        let place = |version: Option<&str>, name: &str| {
            let suffix = version.map_or_else(String::new, |version| format!("-{version}"));
            if name == "report" {
                self.folder.join(format!("report{suffix}"))
            } else {
                self.folder.join(format!("expected{suffix}")).join(name)
            }
        };
        for version in std::iter::once(None).chain(VERSIONS.map(Some)) {
            let _ = fs::remove_file(place(version, "report"));
            let _ = fs::remove_dir_all(place(version, ""));
        }
        for (version, files) in found {
            for (name, text) in files {
                let is_common = found.iter().all(|(_, others)| others.get(name) == Some(text));
                let path = place((!is_common).then_some(version), name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
        }
    }
}

/// Whether this machine fulfils a line of `only-if`.
pub fn applies(condition: &str) -> bool {
    match condition {
        "root" => geteuid().is_root(),
        "namespaces" => {
            let mut unshare = Command::new("/usr/bin/unshare");
            let unshare =
                unshare.args(["--user", "--map-root-user", "--mount", "--net", "--uts", "/bin/true"]);
            unshare.status().is_ok_and(|status| status.success())
        }
        "no user prosody" => matches!(User::from_name("prosody"), Ok(None)),
        "DNSSEC's trust anchor" => Path::new("/usr/share/dns/root.ds").exists(),
        "no DNSSEC's trust anchor" => !Path::new("/usr/share/dns/root.ds").exists(),
        // If no setting names a host, the machine's own name is served when it has a dot.
        "a host name without a dot" => !nix::unistd::gethostname().unwrap().to_string_lossy().contains('.'),
        _ => panic!("unknown condition {condition:?}"),
    }
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Reads `NAME=value` and `NAME<<END`.
pub fn environment(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name: String = line.chars().take_while(|&c| c.is_ascii_alphanumeric() || c == '_').collect();
        let rest = &line[name.len()..];
        let value = if let Some(end) = rest.strip_prefix("<<") {
            lines.by_ref().take_while(|line| *line != end).collect::<Vec<_>>().join("\n")
        } else {
            rest.strip_prefix('=').unwrap_or_else(|| panic!("no `=` in {line:?}")).to_owned()
        };
        pairs.push((name, value));
    }
    pairs
}
