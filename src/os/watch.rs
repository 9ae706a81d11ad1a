//! Watches files and directories for changes (inotify(7)).
//!
//! PID 1 and its forked children share a [`Watch`] and its queue of events. PID 1 gets a signal for events, but reads
//! none. Its first child adds the watched places. A child for a reload reads the events. Nothing records the watch
//! descriptors: adding the same place again returns the same descriptor.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::unistd::{geteuid, read};

use crate::os::system;
use crate::os::trusted_file::{MAX_LINKS, push};
use crate::text::several;

/// Entries appear in or vanish from a directory, or the directory itself vanishes.
const COMING_AND_GOING: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(ITSELF_GONE);

/// A directory was moved or deleted.
const ITSELF_GONE: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);

/// Events that the kernel always reports. After an overflow, any event may be lost.
const WITHOUT_ASKING: AddWatchFlags = AddWatchFlags::IN_UNMOUNT.union(AddWatchFlags::IN_Q_OVERFLOW);

/// Content of files: a writer has closed one, or permissions changed.
const CONTENT: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE.union(AddWatchFlags::IN_ATTRIB);

/// Adds to an existing watch's events, because two paths may lead to one directory. nix lacks this constant.
const MASK_ADD: AddWatchFlags = AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD);

/// Limit of retries for links that change while watches are added. Later changes cause events.
const ATTEMPTS: usize = 5;

/// The kernel's queue of events for the watched places.
pub struct Watch(Inotify);

impl Watch {
    /// Creates an empty queue. For each event, the kernel sends SIGIO to this process, but not to forked processes.
    /// Executed programs do not inherit the queue.
    /// Errors: EMFILE if the user has too many queues, or others if the kernel lacks inotify: see [`refused`].
    pub fn new() -> nix::Result<Self> {
        let watch = Self(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?);
        system::own_signals_of(watch.0.as_fd())?;
        watch.set_flags(OFlag::O_NONBLOCK | OFlag::O_ASYNC)?;
        Ok(watch)
    }

    /// Stops signals for events.
    pub fn pause(&self) {
        // `new` has done the same with success.
        let _ = self.set_flags(OFlag::O_NONBLOCK);
    }

    /// Resumes signals for events. Earlier events cause none: check [`Watch::has_events`].
    pub fn resume(&self) {
        // `new` has done the same with success.
        let _ = self.set_flags(OFlag::O_NONBLOCK | OFlag::O_ASYNC);
    }

    fn set_flags(&self, flags: OFlag) -> nix::Result<()> {
        fcntl(&self.0, FcntlArg::F_SETFL(flags)).map(drop)
    }

    pub fn has_events(&self) -> bool {
        system::readable_bytes(self.0.as_fd()).is_ok_and(|bytes| bytes > 0)
    }

    /// Discards all events. It allocates nothing, because PID 1 calls it.
    pub fn discard(&self) {
        let mut events = [0; 4096];
        while read(&self.0, &mut events).is_ok_and(|length| length > 0) {}
    }

    /// Watches the absolute paths that `find` passes to its argument. A directory is watched with all its entries, a
    /// file alone. A missing path is watched until it appears, and each link in a path for changes. Nothing is read.
    ///
    /// The watch begins when a path is passed: every change after a later read causes an event. Existing watches stay.
    pub fn add(&self, find: impl FnOnce(&mut dyn FnMut(&Path))) -> Watched {
        let mut adding =
            Adding { watch: self, places: Places::default(), watched: HashMap::new(), is_full: false };
        find(&mut |path| adding.add(path));
        let mut interests = BTreeMap::new();
        for (path, interest) in &adding.places.interests {
            if let Some(descriptor) = adding.watched.get(path) {
                interests.entry(*descriptor).or_insert_with(Interest::default).add(interest);
            }
        }
        Watched { interests, problems: not_watched(adding.places.problems) }
    }

    /// Makes the next new entry in a directory an event, for a caller that will create one to cause another reload.
    pub fn remind(&self, directory: &Path) {
        // If the kernel's limit of watches is reached, the next real event does the same.
        let _ = self.0.add_watch(directory, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ONESHOT);
    }

    /// Reads events until none has come for `quiet`, so that writers have finished, but no longer than `at_most`.
    /// Returns whether any event is about a watched place.
    pub fn settle(&self, watched: &Watched, quiet: Duration, at_most: Duration) -> bool {
        let end = Instant::now() + at_most;
        let mut is_relevant = false;
        loop {
            is_relevant |= self.take(watched);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait(quiet.min(left)) {
                return is_relevant;
            }
        }
    }

    /// Waits for events, no longer than `limit`. Returns whether there are events to read.
    pub fn wait(&self, limit: Duration) -> bool {
        let mut queue = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match poll(&mut queue, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                // A signal has nothing to do with the queue.
                Err(Errno::EINTR) => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Reads all queued events. Returns whether any is about a watched place.
    fn take(&self, watched: &Watched) -> bool {
        let mut is_relevant = false;
        while let Ok(events) = self.0.read_events() {
            for event in events {
                is_relevant |= watched.is_relevant(&event);
                // This place needs no further events.
                if watched.is_foreign(&event) {
                    // The watch may have been removed already.
                    let _ = self.0.rm_watch(event.wd);
                }
            }
        }
        is_relevant
    }
}

/// The work of [`Watch::add`].
struct Adding<'a> {
    watch: &'a Watch,
    places: Places,
    watched: HashMap<PathBuf, WatchDescriptor>,
    /// Whether the kernel's limit of watches is reached.
    is_full: bool,
}

impl Adding<'_> {
    fn add(&mut self, path: &Path) {
        if self.places.interests.get(path).is_some_and(|interest| interest.in_everything) {
            return;
        }
        // Follow the path again, because a link may have changed just before its directory was watched.
        for _ in 0..ATTEMPTS {
            if let Err(problem) = self.places.follow(path) {
                self.problem(problem);
            }
            let changed = std::mem::take(&mut self.places.changed);
            if changed.is_empty() {
                break;
            }
            changed.into_iter().for_each(|place| self.watch(place));
        }
    }

    fn watch(&mut self, place: PathBuf) {
        let interest = self.places.interests.get(&place);
        let in_content = interest.is_some_and(|interest| interest.in_content);
        let content = if in_content { CONTENT } else { AddWatchFlags::empty() };
        if self.is_full {
            return;
        }
        match self.watch.0.add_watch(&place, COMING_AND_GOING | content | MASK_ADD) {
            Ok(descriptor) => drop(self.watched.insert(place, descriptor)),
            // It has vanished since `follow` found it.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(error) => {
                self.is_full = error == Errno::ENOSPC;
                self.problem((place, error));
            }
        }
    }

    fn problem(&mut self, problem: (PathBuf, Errno)) {
        if !self.places.problems.contains(&problem) {
            self.places.problems.push(problem);
        }
    }
}

/// The watched directories and files.
pub struct Watched {
    interests: BTreeMap<WatchDescriptor, Interest>,
    /// The places that cannot be watched, one sentence per reason, with a remedy.
    pub problems: Vec<String>,
}

impl Watched {
    fn is_relevant(&self, event: &InotifyEvent) -> bool {
        // It follows a relevant event, or our own call.
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            return false;
        }
        if event.mask.intersects(ITSELF_GONE | WITHOUT_ASKING) {
            return true;
        }
        match self.interests.get(&event.wd) {
            Some(interest) => {
                interest.in_everything
                    || event.name.as_ref().is_some_and(|name| interest.in_names.contains(name))
            }
            // This event has changed the set of watched places.
            None => true,
        }
    }

    /// Whether an event's place no longer needs its watch.
    fn is_foreign(&self, event: &InotifyEvent) -> bool {
        let is_over = event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_Q_OVERFLOW);
        !is_over && !self.interests.contains_key(&event.wd)
    }
}

/// The relevant entries of a directory. For a file, its changes are in everything.
#[derive(Debug, Default, PartialEq)]
struct Interest {
    in_everything: bool,
    in_names: BTreeSet<OsString>,
    /// Whether changed content of files is relevant, and not only their names.
    in_content: bool,
}

impl Interest {
    fn add(&mut self, other: &Self) {
        self.in_everything |= other.in_everything;
        self.in_content |= other.in_content;
        self.in_names.extend(other.in_names.iter().cloned());
    }
}

/// The directories and files to watch for some paths.
#[derive(Debug, Default, PartialEq)]
struct Places {
    /// By their paths without links.
    interests: HashMap<PathBuf, Interest>,
    /// Paths without access.
    problems: Vec<(PathBuf, Errno)>,
    /// Known directories.
    known: HashSet<PathBuf>,
    /// New places, and directories that now need more events.
    changed: Vec<PathBuf>,
}

impl Places {
    /// Follows a path like the kernel, and records each place where a change could redirect it.
    fn follow(&mut self, path: &Path) -> Result<(), (PathBuf, Errno)> {
        let mut directory = PathBuf::from("/");
        let mut links = 0;
        let mut rest = Vec::new();
        push(&mut rest, path);
        while let Some(name) = rest.pop() {
            if name == ".." {
                directory.pop();
                continue;
            }
            let entry = directory.join(&name);
            if name == "/" || self.known.contains(&entry) {
                directory = entry;
                continue;
            }
            let error = |error: io::Error| (entry.clone(), errno(&error));
            match fs::symlink_metadata(&entry) {
                Ok(found) if found.is_dir() => {
                    self.known.insert(entry.clone());
                    directory = entry;
                }
                Ok(found) if found.is_symlink() => {
                    self.name(&directory, &name, false);
                    links += 1;
                    if links > MAX_LINKS {
                        return Err((entry, Errno::ELOOP));
                    }
                    push(&mut rest, &fs::read_link(&entry).map_err(error)?);
                }
                Ok(_) => {
                    self.name(&directory, &name, true);
                    // If the file alone is mounted, its directory here gets no events for its content.
                    directory = entry;
                    break;
                }
                Err(found) if found.kind() == io::ErrorKind::NotFound => {
                    self.name(&directory, &name, false);
                    return Ok(());
                }
                Err(found) => return Err(error(found)),
            }
        }
        self.note(directory, |interest| (interest.in_everything, interest.in_content) = (true, true));
        Ok(())
    }

    /// Records a name in a directory.
    fn name(&mut self, directory: &Path, name: &OsStr, in_content: bool) {
        self.note(directory.to_owned(), |interest| {
            interest.in_names.insert(name.to_owned());
            interest.in_content |= in_content;
        });
    }

    fn note(&mut self, place: PathBuf, note: impl FnOnce(&mut Interest)) {
        let before = self.interests.get(&place).map(|interest| interest.in_content);
        let interest = self.interests.entry(place.clone()).or_default();
        note(interest);
        if before != Some(interest.in_content) {
            self.changed.push(place);
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

/// The warning if [`Watch::new`] fails, with a remedy.
pub fn refused(error: Errno) -> String {
    let warning = match error {
        Errno::EMFILE => advice!(
            "No file is watched: this user's inotify instances on the host are used up: raise \
             fs.inotify.max_user_instances there, or send SIGHUP after a change"
        ),
        _ => advice!(
            "No file is watched: the kernel does not report changes (inotify: {}): send SIGHUP after a change",
            error.desc()
        ),
    };
    warning.into()
}

/// The warnings for places that cannot be watched: one sentence per reason, with a remedy.
fn not_watched(mut places: Vec<(PathBuf, Errno)>) -> Vec<String> {
    places.sort_unstable_by(|one, other| (one.1 as i32, &one.0).cmp(&(other.1 as i32, &other.0)));
    places.dedup();
    let describe = |places: &[(PathBuf, Errno)]| {
        let what = several(places.iter().map(|(path, _)| path.display()));
        match places[0].1 {
            Errno::ENOSPC => advice!(
                "Not watched: {what}: this user's inotify watches on the host are used up: raise \
                 fs.inotify.max_user_watches there, or send SIGHUP after a change"
            ),
            Errno::EACCES => advice!(
                "Not watched: {what}: uid {} may not read that: let it, or send SIGHUP after a change",
                geteuid()
            ),
            error => advice!("Not watched: {what}: {}: send SIGHUP after a change", error.desc()),
        }
    };
    places.chunk_by(|one, other| one.1 == other.1).map(describe).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestDir;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    const QUIET: Duration = Duration::from_millis(50);
    const AT_MOST: Duration = Duration::from_secs(20);

    /// A queue of events that sends no signals to the test harness.
    fn watch() -> Watch {
        let watch = Watch::new().unwrap();
        watch.pause();
        watch
    }

    /// A directory, and a watch for a path below it.
    struct Case {
        root: TestDir,
        path: PathBuf,
        watch: Watch,
    }

    impl Case {
        /// Creates the case. `prepare` creates the initial files.
        fn new(path: &str, prepare: impl FnOnce(&TestDir)) -> Self {
            let root = TestDir::new();
            prepare(&root);
            let case = Self { path: root.path().join(path), root, watch: watch() };
            assert_eq!(case.add().problems, [""; 0]);
            assert!(!case.watch.has_events());
            case
        }

        fn add(&self) -> Watched {
            self.watch.add(|show| show(&self.path))
        }

        fn at(&self, path: &str) -> PathBuf {
            self.root.path().join(path)
        }

        /// Whether `happen` causes relevant events. Like a forked child, this adds all watches again.
        fn sees(&self, happen: impl FnOnce(&TestDir)) -> bool {
            happen(&self.root);
            let is_relevant = self.watch.settle(&self.add(), QUIET, AT_MOST);
            assert!(!self.watch.has_events());
            is_relevant
        }
    }

    #[test]
    fn changes_in_a_directory_are_relevant() {
        let case = Case::new("certs", |root| root.write("certs/a.pem", "one"));
        assert!(!case.sees(|_| ()));
        assert!(!case.sees(|root| drop(fs::read(root.path().join("certs/a.pem")).unwrap())));
        assert!(!case.sees(|root| root.write("beside.pem", "")));
        assert!(case.sees(|root| root.write("certs/a.pem", "two")));
        assert!(case.sees(|root| root.write("certs/b.pem", "")));
        assert!(case.sees(|root| root.set_mode("certs/b.pem", 0o600)));
        assert!(case.sees(|_| fs::rename(case.at("certs/a.pem"), case.at("certs/c.pem")).unwrap()));
        assert!(case.sees(|_| fs::remove_file(case.at("certs/c.pem")).unwrap()));
        assert!(case.sees(|_| fs::rename(case.at("beside.pem"), case.at("certs/d.pem")).unwrap()));
    }

    #[test]
    fn for_a_file_its_neighbours_are_not_relevant() {
        let case = Case::new("certs/a.pem", |root| root.write("certs/a.pem", "one"));
        assert!(!case.sees(|root| root.write("certs/b.pem", "")));
        assert!(case.sees(|root| root.write("certs/a.pem", "two")));
        let new = case.at("certs/new");
        assert!(!case.sees(|_| fs::write(&new, "three").unwrap()));
        assert!(case.sees(|_| fs::rename(&new, &case.path).unwrap()));
        assert!(case.sees(|root| root.write("certs/a.pem", "four")));
    }

    /// As with a mount of a single file, another directory has the events.
    #[test]
    fn a_file_is_watched_under_all_its_names() {
        let case = Case::new("certs/a.pem", |root| {
            root.write("certs/a.pem", "one");
            root.write("elsewhere/other", "");
            fs::hard_link(root.path().join("certs/a.pem"), root.path().join("elsewhere/a.pem")).unwrap();
        });
        assert!(!case.sees(|root| root.write("elsewhere/other", "one")));
        assert!(case.sees(|root| root.write("elsewhere/a.pem", "two")));
        assert!(case.sees(|_| fs::remove_file(case.at("elsewhere/a.pem")).unwrap()));
    }

    #[test]
    fn a_new_directory_is_relevant_and_then_watched() {
        let case = Case::new("a/b/certs", |_| ());
        assert!(!case.sees(|root| root.write("other/file", "")));
        assert!(case.sees(|_| fs::create_dir(case.at("a")).unwrap()));
        assert!(!case.sees(|root| root.write("a/other", "")));
        assert!(case.sees(|root| root.write("a/b/certs/a.pem", "")));
        assert!(case.sees(|root| root.write("a/b/certs/b.pem", "")));
        // The directories above are no longer watched.
        case.sees(|root| root.write("a/once", ""));
        case.sees(|root| root.write("once", ""));
        assert!(!case.sees(|root| root.write("a/twice", "")));
        fs::write(case.at("twice"), "").unwrap();
        assert!(!case.watch.has_events());
    }

    #[test]
    fn a_replaced_directory_is_watched_again() {
        let case = Case::new("certs", |root| root.write("certs/a.pem", ""));
        assert!(case.sees(|_| fs::rename(case.at("certs"), case.at("old")).unwrap()));
        assert!(case.sees(|root| root.write("certs/a.pem", "")));
        assert!(case.sees(|root| root.write("certs/a.pem", "new")));
        assert!(case.sees(|_| fs::remove_dir_all(case.at("certs")).unwrap()));
        assert!(case.sees(|root| root.write("certs/a.pem", "")));
    }

    #[test]
    fn a_replaced_link_is_relevant_anywhere_in_a_path() {
        let prepare = |root: &TestDir| {
            for version in ["one", "two"] {
                root.write(&format!("{version}/live/a.pem"), version);
            }
            symlink("one", root.path().join("current")).unwrap();
        };
        for path in ["current/live", "current/live/a.pem", "current"] {
            let case = Case::new(path, prepare);
            let swapped = case.sees(|root| {
                symlink("two", root.path().join("new")).unwrap();
                fs::rename(root.path().join("new"), root.path().join("current")).unwrap();
            });
            assert!(swapped, "{path}");
            let content = if path == "current" { "two/b.pem" } else { "two/live/a.pem" };
            assert!(case.sees(|root| root.write(content, "three")), "{path}");
        }
    }

    #[test]
    fn a_renewal_by_certbot_is_relevant() {
        let case = Case::new("live/a.example/fullchain.pem", |root| {
            root.write("archive/a.example/fullchain1.pem", "one");
            root.write("live/a.example/README", "");
            let link = root.path().join("live/a.example/fullchain.pem");
            symlink("../../archive/a.example/fullchain1.pem", link).unwrap();
        });
        assert!(!case.sees(|root| root.write("archive/a.example/fullchain2.pem", "two")));
        let renewed = case.sees(|_| {
            fs::remove_file(&case.path).unwrap();
            symlink("../../archive/a.example/fullchain2.pem", &case.path).unwrap();
        });
        assert!(renewed);
        assert!(case.sees(|root| root.write("archive/a.example/fullchain2.pem", "written late")));
    }

    #[test]
    fn an_updated_kubernetes_volume_is_relevant() {
        let case = Case::new("certs/tls.crt", |root| {
            root.write("certs/..2030_01/tls.crt", "one");
            symlink("..2030_01", root.path().join("certs/..data")).unwrap();
            symlink("..data/tls.crt", root.path().join("certs/tls.crt")).unwrap();
        });
        for (old, new) in [("..2030_01", "..2030_02"), ("..2030_02", "..2030_03")] {
            let replaced = case.sees(|root| {
                root.write(&format!("certs/{new}/tls.crt"), new);
                symlink(new, root.path().join("certs/..data_tmp")).unwrap();
                fs::rename(root.path().join("certs/..data_tmp"), root.path().join("certs/..data")).unwrap();
                fs::remove_dir_all(root.path().join("certs").join(old)).unwrap();
            });
            assert!(replaced, "{new}");
        }
    }

    #[test]
    fn many_events_are_read_at_once() {
        let case = Case::new("certs", |root| root.write("certs/0.pem", ""));
        let storm = case.sees(|root| {
            (0..10_000).for_each(|number| root.write(&format!("certs/{}.pem", number % 7), ""));
        });
        assert!(storm);
    }

    #[test]
    fn an_overflow_of_the_queue_is_relevant() {
        let case = Case::new("certs/a.pem", |root| root.write("certs/a.pem", ""));
        let limit: usize =
            fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        let overflow = case.sees(|root| {
            // The kernel does not queue an event that equals the previous one.
            (0..=limit).for_each(|number| root.write(&format!("certs/{}", number % 2), ""));
        });
        assert!(overflow);
        assert!(case.sees(|root| root.write("certs/a.pem", "")));
    }

    #[test]
    fn settle_waits_for_writers_but_not_forever() {
        let case = Case::new("certs", |root| root.write("certs/a.pem", ""));
        let (path, quiet) = (case.at("certs/a.pem"), Duration::from_millis(500));
        let writer = std::thread::spawn(move || {
            for _ in 0..10 {
                fs::File::create(&path).unwrap().write_all(b"x").unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            Instant::now()
        });
        assert!(case.watch.wait(AT_MOST));
        assert!(case.watch.settle(&case.add(), quiet, AT_MOST));
        let settled = Instant::now();
        assert!(settled > writer.join().unwrap());

        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::write(case.at("certs/a.pem"), "").unwrap();
                }
            });
            assert!(case.watch.settle(&case.add(), AT_MOST, quiet));
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        case.watch.discard();
        assert!(!case.watch.has_events());
        assert!(!case.watch.wait(Duration::ZERO));
    }

    #[test]
    fn changes_while_watches_are_added_are_not_missed() {
        let root = TestDir::new();
        let path = root.path().join("certs");
        let watch = watch();
        let watched = watch.add(|show| {
            show(&path);
            // A later reader sees the directory, and an earlier one gets an event.
            fs::create_dir(&path).unwrap();
            assert!(watch.has_events());
            show(&path);
        });
        watch.discard();
        root.write("certs/a.pem", "");
        assert!(watch.settle(&watched, QUIET, AT_MOST));
    }

    #[test]
    fn loops_and_odd_paths_end() {
        let root = TestDir::new();
        root.write("file", "");
        symlink("loop", root.path().join("loop")).unwrap();
        symlink("/", root.path().join("root")).unwrap();
        let paths = ["loop/x", "file/x", "../../../../../..", "./file", "root/proc/self/fd/0/x"];
        let find = |show: &mut dyn FnMut(&Path)| paths.iter().for_each(|path| show(&root.path().join(path)));
        let (watch, looped) = (watch(), root.path().join("loop"));
        let expected = not_watched(vec![(looped, Errno::ELOOP)]);
        assert!(watch.add(find).problems.contains(&expected[0]));
    }

    #[test]
    fn unwatched_places_are_reported_with_a_remedy() {
        let describe = |errors: &[Errno]| {
            let places = errors.iter().enumerate();
            not_watched(places.map(|(number, error)| (format!("/certs/{number}").into(), *error)).collect())
        };
        for (sentences, words) in [
            (describe(&[Errno::ENOSPC]), ["/certs/0", "raise fs.inotify.max_user_watches"]),
            (describe(&[Errno::EACCES; 9]), ["/certs/0, /certs/1", "may not read"]),
            (describe(&[Errno::EIO]), ["/certs/0", "send SIGHUP"]),
            (vec![refused(Errno::EMFILE)], ["No file is watched", "raise fs.inotify.max_user_instances"]),
            (vec![refused(Errno::ENOSYS)], ["No file is watched", "send SIGHUP"]),
        ] {
            assert_eq!(sentences.len(), 1, "{sentences:?}");
            assert!(words.iter().all(|word| sentences[0].contains(word)), "{sentences:?}");
        }
        assert_eq!(describe(&[Errno::EACCES, Errno::EIO, Errno::EACCES]).len(), 2);
    }

    #[test]
    fn unreadable_places_are_reported_and_others_watched() {
        if !geteuid().is_root() {
            return;
        }
        let (root, watch) = (TestDir::new(), watch());
        root.set_mode("", 0o755);
        root.write("certs/locked/a.pem", "");
        root.set_mode("certs/locked", 0o700);
        let paths = ["certs", "certs/locked", "certs/locked/a/b"].map(|path| root.path().join(path)).to_vec();
        let user = crate::os::users::User { uid: 12345, gid: 12345 };
        let watched = crate::os::privileges::as_user(&user, || {
            watch.add(|show| paths.iter().for_each(|path| show(path)))
        })
        .unwrap();
        assert_eq!(watched.problems.len(), 1, "{:?}", watched.problems);
        let words = ["certs/locked, ", "certs/locked/a", "may not read"];
        assert!(words.iter().all(|word| watched.problems[0].contains(word)), "{:?}", watched.problems);
        root.write("certs/b.pem", "");
        assert!(watch.settle(&watched, QUIET, AT_MOST));
    }
}
