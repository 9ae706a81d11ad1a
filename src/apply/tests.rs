//! Plans made by hand, applied in a temporary directory.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::rc::Rc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::lstat;
use nix::sys::statvfs::statvfs;

use crate::intent::hosts::{Options, ServedHosts};
use crate::layout;
use crate::plan::certificates::CertificatePlan;
use crate::survey::certificates::Pair;
use crate::survey::certificates::assign::SelfSigned;
use crate::tests::TestDir;
use crate::tests::as_somebody;

fn self_signed(host: &str) -> SelfSigned {
    SelfSigned { host_ascii: host.to_owned(), names: vec![host.to_owned()], ..SelfSigned::default() }
}

const SOMEBODY: User = User { uid: 12345, gid: 1234 };

/// A runtime directory, which does not exist yet, and a data directory.
struct Place {
    directory: TestDir,
    owner: User,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            directory: TestDir::new(),
            owner: if geteuid().is_root() { SOMEBODY } else { User::current() },
        };
        place.directory.set_mode("", 0o755);
        fs::create_dir(place.data()).unwrap();
        chown(place.data(), Some(place.owner.uid), Some(place.owner.gid)).unwrap();
        place
    }

    fn runtime(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn in_runtime(&self, name: &str) -> PathBuf {
        self.runtime().join(name)
    }

    /// A plan with one entry of every kind except a self-signed certificate.
    fn plan(&self, number: u64) -> Plan {
        let pair = Pair::example("a.example", OffsetDateTime::UNIX_EPOCH, "certificate and key\n");
        Plan {
            generation: self.in_runtime(&layout::generation(number)),
            files: vec![
                file("global.cfg.lua", &format!("-- {number}\n")),
                file("prosody.cfg.lua", "Include \"global.cfg.lua\"\n"),
                file("community-modules/mod_one.lua", "-- one\n"),
                file("health", "c2s 127.0.0.1:5222 a.example\n"),
            ],
            links: vec![
                link("conf.d", "/etc/prosody/conf.d"),
                link("community-modules/mod_two", "/collection/mod_two"),
                link("community-modules/mod_three", "/collection/mod_three"),
                link("certificates/b.example.pem", "a.example.pem"),
            ],
            imports: vec![Import {
                path: "certificates/a.example.pem".into(),
                certificate: pair.certificate.clone(),
                key: pair.key.clone(),
                pair,
            }],
            self_signed: Vec::new(),
            certificates: CertificatePlan::default(),
            virtual_hosts: vec!["a.example".to_owned()],
            hosts: ServedHosts::default(),
            options: Options::new(),
            databases: Vec::new(),
            accounts: None,
            modules: Vec::new(),
            time: None,
            shard: None,
            state: format!("host\ta.example\t\noption\t\tx\t{number}\n"),
        }
    }

    fn apply(&self, plan: &Plan) -> Result<(), Failure> {
        apply(plan, &self.runtime(), &self.data(), &self.owner)
    }

    /// The contents of the runtime directory, including incomplete entries.
    fn everything(&self) -> BTreeMap<PathBuf, String> {
        everything_in(&self.runtime())
    }

    /// The names in the runtime directory.
    fn names(&self) -> Vec<String> {
        names_in(&self.runtime())
    }

    fn current(&self) -> PathBuf {
        fs::read_link(self.in_runtime(CURRENT)).unwrap()
    }

    /// Applies a plan, which must fail and leave the current generation as it was. Returns the failure.
    fn fails(&self, plan: &Plan, what: &str) -> Failure {
        let before = self.everything();
        let failure = self.apply(plan).expect_err(what);
        assert_eq!(self.everything(), before, "{what}");
        failure
    }
}

fn file(path: &str, content: &str) -> PlannedFile {
    PlannedFile { path: path.into(), content: content.to_owned(), source: None }
}

fn link(path: &str, target: &str) -> Link {
    Link { path: path.into(), target: target.into() }
}

/// Every entry below a directory, with its content or link target, its mode and its owner.
fn everything_in(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let content = match () {
            () if about.is_symlink() => format!("-> {}", fs::read_link(&path).unwrap().display()),
            () if about.is_dir() => {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                "a directory".to_owned()
            }
            () => fs::read_to_string(&path).unwrap(),
        };
        let owner = format!("{}:{} {:o}", about.uid(), about.gid(), about.mode() & 0o7777);
        found.insert(path.strip_prefix(directory).unwrap().to_owned(), format!("{owner} {content}"));
    }
    found
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode_and_owner(path: impl AsRef<Path>) -> (u32, u32, u32) {
    let about = fs::symlink_metadata(path).unwrap();
    (about.mode() & 0o7777, about.uid(), about.gid())
}

/// Whether we are root. Some tests need it.
fn is_root() -> bool {
    geteuid().is_root()
}

#[test]
fn a_plan_becomes_the_current_generation() {
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    assert_eq!(place.names(), ["current", "generation-1", "server"]);
    assert_eq!(place.current(), Path::new("generation-1"));
    let generation = place.in_runtime("generation-1");
    let text = |name: &str| fs::read_to_string(generation.join(name)).unwrap();
    assert_eq!(text("global.cfg.lua"), "-- 1\n");
    assert_eq!(text("community-modules/mod_one.lua"), "-- one\n");
    assert_eq!(text("certificates/a.example.pem"), "certificate and key\n");
    assert_eq!(text("certificates/b.example.pem"), "certificate and key\n", "through the link");
    assert_eq!(text("state"), place.plan(1).state);
    let target = |name: &str| fs::read_link(generation.join(name)).unwrap();
    assert_eq!(target("conf.d"), Path::new("/etc/prosody/conf.d"));
    assert_eq!(target("community-modules/mod_two"), Path::new("/collection/mod_two"));
    assert_eq!(target("community-modules/mod_three"), Path::new("/collection/mod_three"));
    assert_eq!(
        names_in(&generation),
        [
            "certificates", "community-modules", "conf.d", "global.cfg.lua", "health", "prosody.cfg.lua",
            "state"
        ]
    );
}

#[test]
fn a_generation_without_certificates_has_their_folder() {
    let place = Place::new();
    let plan = Plan { imports: Vec::new(), links: Vec::new(), ..place.plan(1) };
    place.apply(&plan).unwrap();
    assert!(names_in(&place.in_runtime("current/certificates")).is_empty());
}

#[test]
fn recent_generations_stay_unchanged_and_older_ones_are_removed() {
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    let first = everything_in(&place.in_runtime("generation-1"));
    place.apply(&place.plan(2)).unwrap();
    assert_eq!(everything_in(&place.in_runtime("generation-1")), first);
    for number in 3..=6 {
        place.apply(&place.plan(number)).unwrap();
    }
    assert_eq!(
        place.names(),
        ["current", "generation-3", "generation-4", "generation-5", "generation-6", "server"]
    );
    assert_eq!(place.current(), Path::new("generation-6"));
}

#[test]
fn the_generation_that_the_server_was_started_with_stays() {
    let place = Place::new();
    let first = place.plan(1);
    place.apply(&first).unwrap();
    publish_runtime_state(&first, &place.runtime(), Pid::this(), &place.owner, None).unwrap();
    for number in 2..=6 {
        place.apply(&place.plan(number)).unwrap();
    }
    let generations: Vec<u64> = facts::generations(&place.runtime());
    assert_eq!(generations, [1, 3, 4, 5, 6]);
}

#[test]
fn incomplete_entries_are_removed_unless_their_process_runs() {
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    for name in [".new-4194304", ".new-1", ".new-x", ".generation-7", ".next", ".other"] {
        fs::create_dir_all(place.in_runtime(name).join("certificates")).unwrap();
        fs::write(place.in_runtime(name).join("certificates/a.pem"), "").unwrap();
    }
    place.apply(&place.plan(2)).unwrap();
    assert_eq!(
        place.names(),
        [".new-1", ".other", "current", "generation-1", "generation-2", "server"],
        "process 1 runs"
    );
}

#[test]
fn a_failed_write_leaves_the_current_generation() {
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    let long = "x".repeat(256);
    type Change<'a> = &'a dyn Fn(&mut Plan);
    let changes: [(&str, Change); 7] = [
        ("a file's name is too long", &|plan| plan.files.push(file(&long, ""))),
        ("a folder's name is too long", &|plan| plan.files.push(file(&format!("{long}/a"), ""))),
        ("two files of one name", &|plan| plan.files.push(file("health", ""))),
        ("a link's name is too long", &|plan| plan.links.push(link(&long, "/"))),
        ("a link in a folder whose name is too long", &|plan| {
            plan.links.push(link(&format!("{long}/a"), "/"));
        }),
        ("a link to nowhere", &|plan| plan.links.push(link("a", ""))),
        ("a certificate's name is too long", &|plan| {
            let pair = Rc::clone(&plan.imports[0].pair);
            let (certificate, key) = (pair.certificate.clone(), pair.key.clone());
            plan.imports.push(Import { path: format!("certificates/{long}").into(), certificate, key, pair });
        }),
    ];
    for (what, change) in changes {
        let mut plan = place.plan(2);
        change(&mut plan);
        let failure = place.fails(&plan, what);
        assert_eq!(failure.status, ExitStatus::CANNOT_WRITE, "{what}");
        let start = format!("{} cannot be written", place.runtime().display());
        assert!(failure.to_string().starts_with(&start), "{failure}");
    }
    // The next attempt succeeds.
    place.apply(&place.plan(2)).unwrap();
    assert_eq!(place.current(), Path::new("generation-2"));
}

#[test]
fn another_process_keeps_its_generation_number() {
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    fs::create_dir(place.in_runtime("generation-2")).unwrap();
    fs::write(place.in_runtime("generation-2/state"), "another's").unwrap();
    let failure = place.fails(&place.plan(2), "the number is taken");
    assert_eq!(failure.status, ExitStatus::CANNOT_WRITE);
    assert!(failure.to_string().contains("another command wrote there at the same moment"), "{failure}");
}

#[test]
fn a_directory_in_place_of_the_link_stays_with_all_else() {
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    fs::remove_file(place.in_runtime(CURRENT)).unwrap();
    fs::create_dir(place.in_runtime(CURRENT)).unwrap();
    fs::write(place.in_runtime("current/state"), "").unwrap();
    let failure = place.fails(&place.plan(2), "the link cannot be made");
    assert_eq!(failure.status, ExitStatus::CANNOT_WRITE);
    assert_eq!(names_in(&place.in_runtime(CURRENT)), ["state"]);
}

#[test]
fn a_runtime_state_that_cannot_be_written_leaves_no_incomplete_entry() {
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    fs::create_dir_all(place.in_runtime(HEALTH_FILE).join("x/".repeat(70))).unwrap();
    publish_runtime_state(&place.plan(1), &place.runtime(), Pid::this(), &place.owner, None).unwrap_err();
    assert_eq!(
        place.names(),
        ["current", PID_FILE, "generation-1", HEALTH_FILE, "server", STARTED_FILE],
        "and nothing that begins with `.new-`"
    );
}

#[test]
fn nothing_in_the_servers_directory_is_in_the_way_of_a_start() {
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    // More levels than are removed.
    fs::create_dir_all(place.in_runtime("server/accounts").join("x/".repeat(70))).unwrap();
    for number in [2, 3] {
        publish_runtime_state(&place.plan(number - 1), &place.runtime(), Pid::this(), &place.owner, None)
            .unwrap();
        assert!(names_in(&place.in_runtime("server")).is_empty());
        write_accounts_file("a@a.example\t\tone\n", &place.runtime(), &place.owner).unwrap();
        assert_eq!(mode_and_owner(place.in_runtime("server")).0, 0o770);
        place.apply(&place.plan(number)).unwrap();
    }
    // At a reload, the directory stays as it is.
    let accounts = layout::accounts_file(&place.runtime());
    fs::remove_file(&accounts).unwrap();
    fs::create_dir_all(accounts.join("x")).unwrap();
    chown(&accounts, Some(place.owner.uid), Some(place.owner.gid)).unwrap();
    chown(accounts.join("x"), Some(place.owner.uid), Some(place.owner.gid)).unwrap();
    write_accounts_file("a@a.example\t\ttwo\n", &place.runtime(), &place.owner).unwrap();
    assert_eq!(fs::read_to_string(&accounts).unwrap(), "a@a.example\t\ttwo\n");
}

#[test]
fn data_that_prosody_cannot_use_are_named_with_the_command() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let why = || unusable_data(&place.data(), &SOMEBODY, Depth::Stores).unwrap();
    let give = |name: &str| chown(place.data().join(name), Some(SOMEBODY.uid), Some(SOMEBODY.gid)).unwrap();
    let make = |name: &str, mode: u32| {
        fs::create_dir_all(place.data().join(name)).unwrap();
        place.directory.set_mode(&format!("data/{name}"), mode);
    };
    // Nobody needs these to be Prosody's.
    make("lost+found", 0o700);
    make(".snapshot", 0o700);
    make("custom_plugins/mod_x", 0o755);
    make("a%2eexample/accounts", 0o755);
    fs::write(place.data().join("a%2eexample/accounts/juliet.dat"), "").unwrap();
    place.directory.set_mode("data/a%2eexample/accounts/juliet.dat", 0o600);
    give("a%2eexample");
    give("a%2eexample/accounts");
    assert_eq!(why(), None, "the files in a store are not looked at");
    for (name, mode) in [("a%2eexample/accounts", 0o750), ("a%2eexample", 0o755), ("old", 0o700)] {
        make(name, mode);
        chown(place.data().join(name), Some(0), Some(0)).unwrap();
        let data = place.data();
        let data = data.display();
        assert_eq!(
            why().unwrap().to_string(),
            format!(
                "{data}/{name} belongs to uid 0, gid 0 (mode {mode:o}), and Prosody (uid 12345, gid 1234) cannot use \
                 it: run `chown -R 12345:1234 {data}`"
            )
        );
        give(name);
    }
    make("self-signed", 0o700);
    let request = self_signed("c.example");
    let plan = Plan { self_signed: vec![request], ..place.plan(1) };
    let failure = place.apply(&plan).unwrap_err();
    assert_eq!(
        (failure.status, Some(failure.to_string())),
        (ExitStatus::CANNOT_WRITE, why().map(String::from))
    );
    give("self-signed");
    place.apply(&plan).unwrap();
}

#[test]
fn planted_links_are_never_followed() {
    // The links of an attacker lead to directories and files elsewhere.
    let elsewhere = TestDir::new();
    elsewhere.write("victim/state", "victim's");
    let victim = elsewhere.path().join("victim");
    let before = everything_in(elsewhere.path());
    let incomplete = incomplete().to_str().unwrap().to_owned();

    for name in ["server", "generation-2"] {
        let place = Place::new();
        place.apply(&place.plan(1)).unwrap();
        let _ = fs::remove_dir(place.in_runtime(name));
        symlink(&victim, place.in_runtime(name)).unwrap();
        let failure = place.fails(&place.plan(2), name);
        assert_eq!(failure.status, ExitStatus::CANNOT_WRITE, "{name}: {failure}");
    }
    // These are replaced.
    for name in [CURRENT, &incomplete] {
        let place = Place::new();
        place.apply(&place.plan(1)).unwrap();
        let _ = fs::remove_file(place.in_runtime(name));
        symlink(&victim, place.in_runtime(name)).unwrap();
        place.apply(&place.plan(2)).unwrap();
        assert_eq!(place.current(), Path::new("generation-2"), "{name}");
        assert_eq!(place.names(), ["current", "generation-1", "generation-2", "server"], "{name}");
    }
    // The directory itself.
    let place = Place::new();
    symlink(&victim, place.runtime()).unwrap();
    let failure = place.apply(&place.plan(1)).unwrap_err();
    assert!(failure.to_string().contains("a link is in its place"), "{failure}");
    assert_eq!(everything_in(elsewhere.path()), before);
}

#[test]
fn old_generations_are_removed_without_following_links() {
    let elsewhere = TestDir::new();
    elsewhere.write("victim/state", "victim's");
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    symlink(elsewhere.path().join("victim"), place.in_runtime("generation-1/link")).unwrap();
    symlink(elsewhere.path().join("victim"), place.in_runtime(".new-x")).unwrap();
    for number in 2..=5 {
        place.apply(&place.plan(number)).unwrap();
    }
    assert!(!place.in_runtime("generation-1").exists());
    assert_eq!(fs::read_to_string(elsewhere.path().join("victim/state")).unwrap(), "victim's");
}

#[test]
fn root_owns_files_and_only_prosody_reads_keys() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let request = self_signed("c.example");
    place.apply(&Plan { self_signed: vec![request], ..place.plan(1) }).unwrap();
    let User { uid, gid, .. } = place.owner;
    for (path, mode, owner) in [
        ("run", 0o750, 0),
        ("run/server", 0o770, 0),
        ("run/generation-1", 0o750, 0),
        ("run/generation-1/prosody.cfg.lua", 0o640, 0),
        ("run/generation-1/state", 0o640, 0),
        ("run/generation-1/community-modules", 0o750, 0),
        ("run/generation-1/community-modules/mod_one.lua", 0o640, 0),
        ("run/generation-1/certificates", 0o750, 0),
        ("run/generation-1/certificates/a.example.pem", 0o600, uid),
        ("data/self-signed", 0o700, uid),
        ("data/self-signed/c.example.key", 0o600, uid),
        ("data/self-signed/c.example.crt", 0o644, uid),
    ] {
        let path = place.directory.path().join(path);
        assert_eq!(mode_and_owner(&path), (mode, owner, gid), "{}", path.display());
    }
    assert_eq!(fs::symlink_metadata(place.in_runtime(CURRENT)).unwrap().uid(), 0);
}

#[test]
fn root_takes_over_the_images_directory() {
    if !is_root() {
        return;
    }
    // The image's directory, with the set-group-ID bit, and another user's server directory from an earlier run.
    let place = Place::new();
    fs::create_dir_all(place.in_runtime("server")).unwrap();
    for (name, mode) in [("run", 0o3777), ("run/server", 0o2700)] {
        chown(place.directory.path().join(name), Some(54321), Some(54321)).unwrap();
        place.directory.set_mode(name, mode);
    }
    place.apply(&place.plan(1)).unwrap();
    let gid = place.owner.gid;
    assert_eq!(mode_and_owner(place.runtime()), (0o750, 0, gid));
    assert_eq!(mode_and_owner(place.in_runtime("server")), (0o770, 0, gid));
    assert_eq!(mode_and_owner(place.in_runtime("current/health")), (0o640, 0, gid));
}

#[test]
fn a_directory_with_other_files_is_refused() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.directory.write("run/photos/cat.jpg", "");
    let failure = place.fails(&place.plan(1), "somebody's files");
    assert!(failure.to_string().contains("it holds other files"), "{failure}");
}

#[test]
fn without_root_the_user_owns_all_files() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.runtime()).unwrap();
    chown(place.runtime(), Some(SOMEBODY.uid), Some(SOMEBODY.gid)).unwrap();
    as_somebody(&SOMEBODY, || {
        let request = self_signed("c.example");
        place.apply(&Plan { self_signed: vec![request], ..place.plan(1) }).unwrap();
        for (name, mode) in [
            ("run/generation-1", 0o750),
            ("run/generation-1/prosody.cfg.lua", 0o640),
            ("run/generation-1/certificates/a.example.pem", 0o600),
            ("data/self-signed/c.example.key", 0o600),
        ] {
            let found = mode_and_owner(place.directory.path().join(name));
            assert_eq!(found, (mode, SOMEBODY.uid, SOMEBODY.gid), "{name}");
        }
        place.apply(&place.plan(2)).unwrap();
        assert_eq!(place.current(), Path::new("generation-2"));
    });
    // What other users left where everybody may write.
    chown(place.runtime(), Some(0), Some(0)).unwrap();
    place.directory.set_mode("run", 0o1777);
    for (name, why) in [("server", "it belongs to uid 5"), (CURRENT, "another user's files are in the way")] {
        lchown(place.in_runtime(name), Some(5), None).unwrap();
        as_somebody(&SOMEBODY, || {
            let failure = place.apply(&place.plan(3)).unwrap_err();
            assert_eq!(failure.status, ExitStatus::CANNOT_WRITE, "{name}");
            assert!(failure.to_string().contains(why), "{failure}");
        });
        lchown(place.in_runtime(name), Some(SOMEBODY.uid), None).unwrap();
    }
    // Another user's directory.
    place.directory.set_mode("run", 0o755);
    as_somebody(&SOMEBODY, || {
        let failure = place.apply(&place.plan(3)).unwrap_err();
        assert_eq!(failure.status, ExitStatus::CANNOT_WRITE);
        assert!(failure.to_string().contains("uid 12345 (gid 1234) may not write there"), "{failure}");
        assert_eq!(place.current(), Path::new("generation-2"));
    });
}

#[test]
fn self_signed_certificates_stay_after_a_later_failure() {
    let place = Place::new();
    let request = self_signed("c.example");
    let mut plan = Plan { self_signed: vec![request], ..place.plan(1) };
    plan.files.push(file(&"x".repeat(256), ""));
    place.apply(&plan).unwrap_err();
    assert_eq!(names_in(&place.data().join("self-signed")), ["c.example.crt", "c.example.key"]);
    assert_eq!(place.names(), ["server"]);
}

#[test]
fn a_data_directory_that_is_a_link_gets_no_certificates() {
    let place = Place::new();
    let elsewhere = TestDir::new();
    fs::remove_dir(place.data()).unwrap();
    symlink(elsewhere.path(), place.data()).unwrap();
    let request = self_signed("c.example");
    let plan = Plan { self_signed: vec![request], ..place.plan(1) };
    let failure = place.apply(&plan).unwrap_err();
    assert!(failure.to_string().starts_with(&place.data().display().to_string()), "{failure}");
    assert!(names_in(elsewhere.path()).is_empty());
    assert_eq!(place.names(), ["server"]);
}

/// Runs `work` with a tmpfs mounted over a directory, in a private mount namespace. Does nothing without the privilege
/// to mount.
fn with_small_file_system(directory: &Path, work: impl FnOnce(&dyn Fn(MsFlags, &str)) + Send) {
    fs::create_dir_all(directory).unwrap();
    thread::scope(|scope| {
        let work = || {
            let none = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let is_ours = unshare(CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(none, "/", none, private, none))
                .and_then(|()| mount(none, directory, Some("tmpfs"), MsFlags::empty(), Some("mode=755")));
            if let Err(error) = is_ours {
                eprintln!("this test has to mount a file system, which is refused ({error}): not run");
                return;
            }
            work(&|flags, options| {
                mount(none, directory, none, flags | MsFlags::MS_REMOUNT, Some(options)).unwrap();
            });
        };
        if let Err(panic) = scope.spawn(work).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_full_file_system_leaves_the_current_generation() {
    let place = Place::new();
    with_small_file_system(&place.runtime(), |remount| {
        // More room with each attempt, until the plan fits.
        for what in ["nr_inodes", "nr_blocks"] {
            remount(MsFlags::empty(), "nr_inodes=1000,nr_blocks=1000");
            let number = facts::generations(&place.runtime()).last().map_or(1, |last| last + 1);
            place.apply(&place.plan(number)).unwrap();
            let (before, mut failures) = (place.everything(), 0);
            for room in 0.. {
                assert!(room < 100, "it is never enough");
                remount(MsFlags::empty(), "nr_inodes=1000,nr_blocks=1000");
                let about = statvfs(&place.runtime()).unwrap();
                let used = match what {
                    "nr_inodes" => about.files() - about.files_free(),
                    _ => about.blocks() - about.blocks_free(),
                };
                remount(MsFlags::empty(), &format!("{what}={}", used + room));
                let Err(failure) = place.apply(&place.plan(number + 1)) else { break };
                assert!(failure.to_string().contains("the file system is full"), "{failure}");
                assert_eq!(failure.status, ExitStatus::CANNOT_WRITE);
                assert_eq!(place.everything(), before, "{what}: room for {room}");
                failures += 1;
            }
            assert!(failures > 5, "{what}: {failures}");
            assert_eq!(place.current(), Path::new(&layout::generation(number + 1)));
        }
    });
}

#[test]
fn the_error_names_a_read_only_directory() {
    let place = Place::new();
    with_small_file_system(&place.runtime(), |remount| {
        place.apply(&place.plan(1)).unwrap();
        remount(MsFlags::MS_RDONLY, "");
        let failure = place.fails(&place.plan(2), "it is read-only");
        assert_eq!(failure.status, ExitStatus::CANNOT_WRITE);
        assert!(failure.to_string().contains("it is on a read-only file system"), "{failure}");
    });
}

#[test]
fn the_runtime_state_describes_the_server() {
    let place = Place::new();
    let plan = place.plan(1);
    place.apply(&plan).unwrap();
    // An earlier server's files.
    fs::write(place.in_runtime("server/prosody.pid"), "7\n").unwrap();
    symlink("/nowhere", place.in_runtime("server/prosody.sock")).unwrap();
    fs::create_dir(place.in_runtime("server/directory")).unwrap();
    // Debian's place for it, as an earlier custom main file may have left it.
    fs::write(place.in_runtime("prosody.pid"), "7\n").unwrap();
    publish_runtime_state(&plan, &place.runtime(), Pid::this(), &place.owner, None).unwrap();
    assert!(names_in(&place.in_runtime("server")).is_empty());
    assert_eq!(fs::read_link(place.in_runtime("prosody.pid")).unwrap(), Path::new("server/prosody.pid"));
    let text = |name: &str| fs::read_to_string(place.in_runtime(name)).unwrap();
    assert_eq!(text(PID_FILE), format!("{}\n", std::process::id()));
    assert_eq!(text(HEALTH_FILE), "c2s 127.0.0.1:5222 a.example\n");
    let running = Running::in_directory(&place.runtime()).unwrap().unwrap();
    assert_eq!((running.started, running.generation), (plan.state, "generation-1".to_owned()));
    assert_eq!((running.user.uid, running.user.gid), (place.owner.uid, place.owner.gid));
    let (owner, group) = if is_root() { (0, place.owner.gid) } else { (place.owner.uid, place.owner.gid) };
    for name in [PID_FILE, STARTED_FILE, HEALTH_FILE] {
        assert_eq!(mode_and_owner(place.in_runtime(name)), (0o640, owner, group), "{name}");
    }
    let names = [
        "current", PID_FILE, "generation-1", HEALTH_FILE, LIVE_SCRIPT, "prosody.pid", "server", STARTED_FILE,
    ];
    assert_eq!(place.names(), names);
}

#[test]
fn a_link_in_place_of_the_runtime_state_is_replaced() {
    let elsewhere = TestDir::new();
    elsewhere.write("victim", "victim's");
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    for name in [PID_FILE, STARTED_FILE, HEALTH_FILE, incomplete().to_str().unwrap()] {
        symlink(elsewhere.path().join("victim"), place.in_runtime(name)).unwrap();
    }
    publish_runtime_state(&place.plan(1), &place.runtime(), Pid::this(), &place.owner, None).unwrap();
    assert_eq!(fs::read_to_string(elsewhere.path().join("victim")).unwrap(), "victim's");
    assert!(fs::symlink_metadata(place.in_runtime(PID_FILE)).unwrap().is_file());
}

#[test]
fn only_prosody_reads_the_accounts_file() {
    let elsewhere = TestDir::new();
    elsewhere.write("victim", "victim's");
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    let accounts = layout::accounts_file(&place.runtime());
    // Prosody writes to this directory, so it may have any content.
    for name in [accounts.clone(), place.in_runtime("server").join(incomplete())] {
        symlink(elsewhere.path().join("victim"), name).unwrap();
    }
    write_accounts_file("a@a.example\t\tone\n", &place.runtime(), &place.owner).unwrap();
    write_accounts_file("a@a.example\t\ttwo\n", &place.runtime(), &place.owner).unwrap();
    assert_eq!(fs::read_to_string(&accounts).unwrap(), "a@a.example\t\ttwo\n");
    assert_eq!(mode_and_owner(&accounts), (0o600, place.owner.uid, place.owner.gid));
    assert_eq!(names_in(&place.in_runtime("server")), ["accounts"]);
    assert_eq!(fs::read_to_string(elsewhere.path().join("victim")).unwrap(), "victim's");
}

#[test]
fn a_failed_accounts_file_leaves_nothing() {
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    fs::create_dir_all(layout::accounts_file(&place.runtime()).join("x/".repeat(70))).unwrap();
    let failure = write_accounts_file("a@a.example\t\tone\n", &place.runtime(), &place.owner).unwrap_err();
    assert_eq!(failure.status, ExitStatus::CANNOT_WRITE);
    assert!(!failure.to_string().contains("one"), "{failure}");
    assert_eq!(names_in(&place.in_runtime("server")), ["accounts"]);
}

#[test]
fn the_accounts_file_needs_a_directory_writable_for_prosody() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.apply(&place.plan(1)).unwrap();
    fs::set_permissions(place.in_runtime("server"), fs::Permissions::from_mode(0o700)).unwrap();
    write_accounts_file("a@a.example\t\tone\n", &place.runtime(), &place.owner).unwrap_err();
    assert!(names_in(&place.in_runtime("server")).is_empty());
}

#[test]
fn a_plan_can_be_written_into_any_directory() {
    let place = Place::new();
    let output = place.directory.path().join("some/output");
    write_to(&output, &place.plan(1)).unwrap();
    assert_eq!(fs::read_to_string(output.join("global.cfg.lua")).unwrap(), "-- 1\n");
    assert_eq!(
        fs::read_to_string(output.join("certificates/a.example.pem")).unwrap(),
        "certificate and key\n"
    );
    assert_eq!(mode_and_owner(output.join("certificates/a.example.pem")).0, 0o600);
    assert_eq!(mode_and_owner(output.join("global.cfg.lua")).0, 0o640);
    assert!(!output.join("state").exists());
    let before = everything_in(&output);
    let failure = write_to(&output, &place.plan(2)).unwrap_err();
    assert_eq!(failure.status, ExitStatus::CANNOT_WRITE);
    assert!(failure.to_string().contains("there are files of that name already"), "{failure}");
    assert_eq!(everything_in(&output), before);
}

#[test]
fn a_failed_write_restores_the_directory() {
    let place = Place::new();
    for name in ["health", "conf.d"] {
        let output = place.directory.path().join(format!("output-{name}"));
        fs::create_dir(&output).unwrap();
        fs::write(output.join(name), "somebody's").unwrap();
        fs::create_dir(output.join("other")).unwrap();
        write_to(&output, &place.plan(1)).unwrap_err();
        assert_eq!(names_in(&output), [name, "other"]);
        assert_eq!(fs::read_to_string(output.join(name)).unwrap(), "somebody's");
    }
    let output = place.directory.path().join("output");
    fs::create_dir_all(output.join("community-modules/mod_three")).unwrap();
    fs::create_dir_all(output.join("certificates")).unwrap();
    let before = everything_in(&output);
    write_to(&output, &place.plan(1)).unwrap_err();
    assert_eq!(everything_in(&output), before);
}

#[test]
fn a_check_finds_what_a_start_refuses_and_changes_nothing() {
    if !is_root() {
        return;
    }
    let directory = TestDir::new();
    directory.write("theirs/a.dat", "");
    chown(directory.path().join("theirs"), Some(54321), Some(54321)).unwrap();
    directory.write("roots/a.dat", "");
    let before = everything_in(directory.path());
    let check = |name: &str| check_data_dir(&directory.path().join(name), &SOMEBODY);
    assert_eq!(check("theirs").unwrap_err().status, ExitStatus::CANNOT_WRITE);
    assert!(check("roots/a.dat").is_err(), "it is not a directory");
    check("roots").unwrap();
    check("missing").unwrap();
    assert_eq!(everything_in(directory.path()), before);
}

#[test]
fn prosody_gets_the_data_directory_from_root() {
    if !is_root() {
        return;
    }
    let User { uid, gid, .. } = SOMEBODY;
    let directory = TestDir::new();
    let prepare = |name: &str| prepare_data_dir(&directory.path().join(name), &SOMEBODY);
    let owner = |name: &str| mode_and_owner(directory.path().join(name));

    prepare("missing/data").unwrap();
    assert_eq!(owner("missing/data"), (0o755, uid, gid));
    assert_eq!(owner("missing").1, 0, "what is above it is not");

    directory.write("full/a.dat", "");
    prepare("full").unwrap();
    assert_eq!((owner("full").1, owner("full/a.dat").1), (uid, 0), "what is in it stays as it was");

    // Another user's directory is taken only if it is empty.
    for name in ["empty", "theirs"] {
        fs::create_dir(directory.path().join(name)).unwrap();
        chown(directory.path().join(name), Some(54321), Some(54321)).unwrap();
    }
    directory.write("theirs/a.dat", "");
    prepare("empty").unwrap();
    assert_eq!(owner("empty").1, uid);
    let failure = prepare("theirs").unwrap_err();
    assert_eq!(failure.status, ExitStatus::CANNOT_WRITE);
    assert!(failure.to_string().contains("belongs to uid 54321 (gid 54321)"), "{failure}");
    assert_eq!(owner("theirs").1, 54321);
    // Write permission for the group is enough.
    chown(directory.path().join("theirs"), None, Some(gid)).unwrap();
    directory.set_mode("theirs", 0o770);
    prepare("theirs").unwrap();
    assert_eq!(owner("theirs").1, 54321);

    directory.write("file", "");
    symlink("full", directory.path().join("link")).unwrap();
    for (name, why) in [("file", "it is not a directory"), ("link", "a link is in its place")] {
        let failure = prepare(name).unwrap_err();
        assert!(failure.to_string().contains(why), "{failure}");
    }
}

#[test]
fn the_mode_decides_who_can_write() {
    let directory = TestDir::new();
    let about = |mode| {
        directory.set_mode("", mode);
        lstat(directory.path()).unwrap()
    };
    let (uid, gid) = (about(0o700).st_uid, about(0o700).st_gid);
    let user = |uid, gid| User { uid, gid };
    for (mode, user, is_allowed) in [
        (0o700, user(uid, gid + 1), true),
        (0o500, user(uid, gid), false),
        (0o070, user(uid + 1, gid), true),
        (0o077, user(uid, gid), false),
        (0o007, user(uid + 1, gid + 1), true),
        (0o707, user(uid + 1, gid), false),
        (0o770, user(uid + 1, gid + 1), false),
        (0o755, user(uid + 1, gid + 1), false),
    ] {
        assert_eq!(may_write(&about(mode), &user), is_allowed, "{mode:o} {user:?}");
    }
    directory.set_mode("", 0o755);
}
