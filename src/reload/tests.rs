use std::os::unix::fs::symlink;
use std::rc::Rc;

use time::OffsetDateTime;

use super::*;
use crate::intent::hosts::{Options, ServedHosts};
use crate::plan::certificates::CertificatePlan;
use crate::plan::{File, Link};
use crate::survey::certificates::assign::Assignments;
use crate::survey::certificates::{Flaw, Pair, UnusedFile};
use crate::tests::TestDir;

/// A plan with these files, for a generation that does not exist.
fn plan(generation: &Path, files: &[(&str, &str)]) -> Plan {
    let file = |(path, content): &(&str, &str)| File {
        path: path.into(),
        content: (*content).to_owned(),
        source: None,
    };
    Plan {
        generation: generation.to_owned(),
        files: files.iter().map(file).collect(),
        links: Vec::new(),
        imports: Vec::new(),
        self_signed: Vec::new(),
        certificates: CertificatePlan::default(),
        virtual_hosts: Vec::new(),
        hosts: ServedHosts::default(),
        options: Options::new(),
        databases: Vec::new(),
        accounts: None,
        modules: Vec::new(),
        time: None,
        shard: None,
        state: String::new(),
    }
}

/// A runtime directory with a written generation.
struct Before {
    directory: TestDir,
    before: PathBuf,
    after: PathBuf,
}

impl Before {
    fn new() -> Before {
        let directory = TestDir::new();
        let [before, after] = ["generation-1", "generation-2"].map(|name| directory.path().join(name));
        directory.write("generation-1/health", "c2s\n");
        directory.write("generation-1/state", "");
        let include = format!("Include \"{}/global.cfg.lua\"\n", before.display());
        directory.write("generation-1/prosody.cfg.lua", include);
        directory.write("generation-1/global.cfg.lua", "x = 1\n");
        for (link, target) in [("motd", "/etc/prosody/motd"), ("community-modules/mod_one", "/c/mod_one")] {
            directory.write("generation-1/community-modules/mod_own.lua", "-- own\n");
            symlink(target, before.join(link)).unwrap();
        }
        Before { directory, before, after }
    }

    /// The plan of a reload without changes.
    fn plan(&self) -> Plan {
        let include = format!("Include \"{}/global.cfg.lua\"\n", self.after.display());
        let files = [
            ("prosody.cfg.lua", &*include),
            ("global.cfg.lua", "x = 1\n"),
            ("community-modules/mod_own.lua", "-- own\n"),
            ("health", "c2s\n"),
        ];
        let link = |path: &str, target: &str| Link { path: path.into(), target: target.into() };
        Plan {
            links: vec![link("motd", "/etc/prosody/motd"), link("community-modules/mod_one", "/c/mod_one")],
            ..plan(&self.after, &files)
        }
    }

    fn differences(&self, plan: &Plan) -> Vec<String> {
        let differences = rendered_differences(&self.before, plan);
        differences.iter().map(|path| path.display().to_string()).collect()
    }
}

#[test]
fn another_generation_with_the_same_content_is_no_difference() {
    let before = Before::new();
    assert_eq!(before.differences(&before.plan()), [""; 0]);
}

#[test]
fn changed_and_new_files_are_listed() {
    let before = Before::new();
    let mut plan = before.plan();
    plan.files[0].content.push_str("-- more\n");
    plan.files[1].source = Some("/etc/prosody/templates/global.cfg.lua.j2".into());
    plan.files[1].content = "x = 2\n".to_owned();
    plan.files.push(File { path: "new.cfg.lua".into(), content: String::new(), source: None });
    assert_eq!(
        before.differences(&plan),
        ["prosody.cfg.lua", "/etc/prosody/templates/global.cfg.lua.j2", "new.cfg.lua"]
    );
}

#[test]
fn added_and_removed_files_and_links_are_listed() {
    let before = Before::new();
    before.directory.write("generation-1/storage.cfg.lua", "");
    let mut plan = before.plan();
    plan.links.remove(1);
    plan.links.push(Link { path: "certificates/b.example.pem".into(), target: "a.example.pem".into() });
    assert_eq!(
        before.differences(&plan),
        ["storage.cfg.lua", "certificates/b.example.pem", "community-modules/mod_one"]
    );
}

#[test]
fn changed_health_check_targets_are_no_difference() {
    let before = Before::new();
    let mut plan = before.plan();
    plan.files.retain(|file| file.path != Path::new(HEALTH_FILE));
    plan.files.push(File { path: HEALTH_FILE.into(), content: "s2s\n".to_owned(), source: None });
    assert_eq!(before.differences(&plan), [""; 0]);
}

#[test]
fn a_different_complete_certificate_is_new() {
    let pair = |text: &str| Pair::example("a.example", OffsetDateTime::UNIX_EPOCH, text);
    let before = format!("certificate\ta.example\t/certs/a.example.crt\t{:x}\n", pair("old").digest);
    let before = State::parse(&before);
    let is_new = |origin: CertificateOrigin, is_incomplete: bool| {
        let unused = UnusedFile {
            path: "/certs/b.pem".into(),
            flaw: Flaw { why: "is cut".into(), is_incomplete, is_worse: false },
        };
        let served = Served { name: "a.example".to_owned(), is_host: true, origin, unused: vec![unused] };
        let found = Assignments { served: vec![served], ..Assignments::default() };
        let plan = Plan {
            certificates: CertificatePlan { found, lines: Vec::new() },
            ..plan(Path::new("/run/generation-2"), &[])
        };
        has_new_certificate(&plan, &before)
    };
    let (old, new): (Rc<Pair>, Rc<Pair>) = (pair("old"), pair("new"));
    assert!(is_new(CertificateOrigin::Found(Rc::clone(&new)), false));
    assert!(!is_new(CertificateOrigin::Found(Rc::clone(&new)), true), "somebody is writing another one");
    assert!(!is_new(CertificateOrigin::Found(old), false));
    assert!(!is_new(CertificateOrigin::Kept(Rc::clone(&new)), false));
    assert!(!is_new(CertificateOrigin::OfParent("example".to_owned(), new), false));
    assert!(!is_new(CertificateOrigin::None, false));
}

#[test]
fn a_failing_look_at_the_server_is_repeated() {
    let too_many = || Err(nix::errno::Errno::EMFILE.into());
    let mut looks = vec![Ok(Some(true)), Ok(Some(false)), too_many(), too_many()];
    assert!(wait_for_sighup_handler(|| looks.pop().unwrap(), Duration::from_secs(20)));
    assert!(looks.is_empty());
    assert!(!wait_for_sighup_handler(too_many, Duration::ZERO));
    assert!(!wait_for_sighup_handler(|| Ok(None), Duration::ZERO));
    // Itself, and a process that is not there.
    assert_eq!(takes_hangup(Pid::this()).unwrap(), Some(false));
    assert_eq!(takes_hangup(Pid::from_raw(i32::MAX)).unwrap(), None);
}
