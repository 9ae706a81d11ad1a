//! Dropping privileges, and running single tasks with fewer privileges.

use crate::exit_status::{ExitStatus, Failure};
use crate::os::system::{self, Capabilities};
use crate::os::trusted_file::Kind;
use crate::os::users::User;
use crate::text::Advice;
use anyhow::Context;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::stat::fstat;
use nix::unistd::{
    Gid, Pid, Uid, fchown, getegid, geteuid, getgroups, setfsgid, setfsuid, setgroups, setresgid, setresuid,
};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

/// A capability (capabilities(7)): its number, and its name for Docker's `--cap-add`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    number: u8,
    name: &'static str,
}

impl Capability {
    /// To change the owner of a file.
    pub const CHOWN: Self = Self { number: 0, name: "CHOWN" };
    /// To bypass file permissions.
    pub const DAC_OVERRIDE: Self = Self { number: 1, name: "DAC_OVERRIDE" };
    /// To signal processes of other users.
    pub const KILL: Self = Self { number: 5, name: "KILL" };
    /// To change our groups.
    pub const SETGID: Self = Self { number: 6, name: "SETGID" };
    /// To become another user.
    pub const SETUID: Self = Self { number: 7, name: "SETUID" };

    const fn bit(self) -> Capabilities {
        1 << self.number
    }

    pub fn is_ours(self) -> bool {
        system::effective_capabilities().is_ok_and(|ours| ours & self.bit() != 0)
    }
}

/// The capabilities in `more`, and those for becoming `user`, that root lacks, as `--cap-add` options.
pub fn missing(user: &User, more: &[Capability]) -> Vec<String> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    let mut needed = more.to_vec();
    if user.uid != 0 {
        needed.push(Capability::SETUID);
    }
    if user.gid != getegid().as_raw() || (user.uid != 0 && getgroups().is_ok_and(|groups| !groups.is_empty()))
    {
        needed.push(Capability::SETGID);
    }
    let missing = needed.iter().filter(|capability| !capability.is_ours());
    missing.map(|capability| format!("--cap-add {}", capability.name)).collect()
}

/// Checks that root has the capabilities in `more` and those to run Prosody as `user`.
/// Errors: 77 with all missing capabilities, so that the operator can add them at once.
pub fn require(user: &User, more: &[Capability]) -> Result<(), Failure> {
    let missing = missing(user, more);
    if missing.is_empty() {
        return Ok(());
    }
    let User { uid, gid, .. } = user;
    // That user cannot change owners either, so `--user` would not help.
    let other_way =
        if more.is_empty() { advice!(", or start it with `--user {uid}:{gid}`") } else { Advice::default() };
    let give = if more.is_empty() { "" } else { ", and to give the data directory to it" };
    Err(ExitStatus::NO_PERMISSION.failure(advice!(
        "root lacks the capabilities to become uid {uid}, gid {gid}{give}: add `{}` to the container{other_way}",
        missing.join(" ")
    )))
}

/// Runs `work` with the file permissions of `user` (setfsuid(2)), who also owns new files. So planted links or names
/// cannot lead to files that `user` cannot access.
///
/// Drops our supplementary groups for good, because Prosody has none. Only runs `work` if we are not root.
/// Errors: 77 if root cannot get these permissions. `work` does not run then.
pub fn as_user<T>(user: &User, work: impl FnOnce() -> T) -> Result<T, Failure> {
    if !geteuid().is_root() {
        return Ok(work());
    }
    match setgroups(&[]) {
        Err(error) if user.uid != 0 && getgroups().is_ok_and(|groups| !groups.is_empty()) => {
            return Err(require(user, &[]).err().unwrap_or_else(|| refused(user, error)));
        }
        _ => {}
    }
    let _before = FileIds::change(Uid::from_raw(user.uid), user)?;
    Ok(work())
}

/// Runs `work` as root, with new files belonging to the group of `owner`. This does not need CAP_CHOWN.
/// Errors: 77 if root cannot get that group. `work` does not run then.
pub fn with_group<T>(owner: &User, work: impl FnOnce() -> T) -> Result<T, Failure> {
    if !geteuid().is_root() {
        return Ok(work());
    }
    let _before = FileIds::change(FileIds::current().0, owner)?;
    Ok(work())
}

/// The former ids for file permissions, which come back on drop.
struct FileIds(Uid, Gid);

impl FileIds {
    /// setfsuid(2) and setfsgid(2) have no error result. They return the former id, and refuse -1.
    fn current() -> (Uid, Gid) {
        (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)))
    }

    fn change(uid: Uid, user: &User) -> Result<Self, Failure> {
        // setfsuid(2) removes only the capabilities for files, so the group can be restored.
        let gid = Gid::from_raw(user.gid);
        let before = Self(setfsuid(uid), setfsgid(gid));
        if Self::current() == (uid, gid) {
            return Ok(before);
        }
        Err(require(user, &[]).err().unwrap_or_else(|| refused(user, Errno::EINVAL)))
    }
}

impl Drop for FileIds {
    fn drop(&mut self) {
        setfsgid(self.1);
        setfsuid(self.0);
    }
}

/// Hides our environment, and the secrets in it, from other processes of our user (PR_SET_DUMPABLE(2const)). Forked
/// processes stay hidden, executed programs do not.
pub fn hide_environment() {
    // It fails only for invalid values.
    let _ = prctl::set_dumpable(false);
}

/// Drops all capabilities that PID 1 no longer needs. KILL is for forwarding signals (or SETUID, see
/// [`become_user_of`]). Reloads also need DAC_OVERRIDE, SETUID and SETGID, to read custom files and to write as
/// Prosody's user.
pub fn keep_for_supervision(reloads: bool) {
    let Ok(ours) = system::effective_capabilities() else { return };
    let mut kept = Capability::KILL.bit();
    if reloads {
        kept |= Capability::DAC_OVERRIDE.bit() | Capability::SETUID.bit() | Capability::SETGID.bit();
    } else if !Capability::KILL.is_ours() {
        kept |= Capability::SETUID.bit();
    }
    if ours & !kept != 0 {
        // Dropping capabilities is always permitted.
        let _ = system::set_capabilities(ours & kept);
    }
}

/// Becomes the user of a process, to signal it without CAP_KILL.
/// Fails if the user is unknown or CAP_SETUID is missing.
pub fn become_user_of(process: Pid) -> anyhow::Result<()> {
    let uid = uid_of(process).context("finding its user")?;
    setresuid(uid, uid, uid).with_context(|| format!("becoming uid {uid}"))
}

/// The effective user of a process. The owner of its directory in /proc is root if it is not dumpable (proc(5)).
pub fn uid_of(process: Pid) -> Option<Uid> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    Some(Uid::from_raw(ids.split_whitespace().nth(1)?.parse().ok()?))
}

/// Becomes `user` for good: with its uid and gid, no supplementary groups, no capabilities in any set (capabilities(7))
/// and no way to gain any (`no_new_privs`). The user also gets the standard streams.
///
/// If we are not root, our user and groups stay, because a volume may be writable only for a supplementary group. The
/// capabilities are dropped as far as the kernel permits.
/// Errors: 77 with the missing capabilities.
pub fn drop_to(user: &User) -> Result<(), Failure> {
    require(user, &[])?;
    if geteuid().is_root() {
        give_standard_streams(user);
        change_ids(user).map_err(|error| refused(user, error))?;
    }
    drop_remaining_privileges().map_err(|error| Failure::new(ExitStatus::NO_PERMISSION, error))
}

/// Changes groups, bounding set and user. No other order works: changing the user drops the needed capabilities.
fn change_ids(user: &User) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let is_unchanged = (geteuid(), getegid()) == (uid, gid);
    match setgroups(&[]) {
        // Root stays root, so it does not need the capability.
        Err(Errno::EPERM) if is_unchanged => {}
        result => result?,
    }
    empty_bounding_set();
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Empties the bounding set. Without CAP_SETPCAP it stays full, but `no_new_privs` makes it ineffective. The kernel
/// refuses the numbers that it does not know.
fn empty_bounding_set() {
    for capability in 0..u64::from(Capabilities::BITS) {
        let _ = system::drop_from_bounding_set(capability);
    }
}

fn drop_remaining_privileges() -> anyhow::Result<()> {
    system::set_capabilities(0).context("giving up capabilities")?;
    prctl::set_no_new_privs().context("setting no_new_privs")
}

/// Lets `user` open `/dev/stdout` and similar paths, which reopens the file behind the descriptor.
///
/// Changes only the container's own pipes and terminal: a log file or `/dev/null` has other users. If the kernel
/// refuses the change, the open descriptors still work.
fn give_standard_streams(user: &User) {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let is_pipe = fstat(stream).is_ok_and(|stat| Kind::of(&stat) == Kind::Fifo);
        if is_pipe || stream.is_terminal() {
            let _ = fchown(stream, Some(Uid::from_raw(user.uid)), None);
        }
    }
}

/// The error if we cannot become a user although no capability is missing.
fn refused(user: &User, error: Errno) -> Failure {
    let User { uid, gid, .. } = user;
    let advice = match error {
        Errno::EINVAL => advice!(
            "the container's user namespace does not map these ids: choose others with PROSODY_UID and PROSODY_GID (0 and 0 \
             where it maps root alone)"
        )
        .into(),
        _ => "a security module or the engine's filter of system calls may forbid it".to_owned(),
    };
    ExitStatus::NO_PERMISSION.failure(format!("cannot become uid {uid}, gid {gid} ({error}): {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestDir;
    use crate::tests::{as_somebody, in_child};
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;

    const SOMEBODY: User = User { uid: 12345, gid: 1234 };
    const ROOT: User = User { uid: 0, gid: 0 };

    fn user(uid: u32, gid: u32) -> User {
        User { uid, gid }
    }

    /// Whether we are root. Some tests need it.
    fn is_root() -> bool {
        geteuid().is_root()
    }

    /// Runs `work` as root with only these capabilities and supplementary groups.
    fn with_capabilities(capabilities: &[Capability], groups: &[u32], work: impl FnOnce()) {
        in_child(|| {
            let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            setgroups(&groups).unwrap();
            system::set_capabilities(capabilities.iter().map(|one| one.bit()).sum()).unwrap();
            work();
        });
    }

    #[test]
    fn all_missing_capabilities_are_named_at_once() {
        if !is_root() {
            return;
        }
        let all = "--cap-add CHOWN --cap-add SETUID --cap-add SETGID";
        let (chown, setuid, setgid) = (Capability::CHOWN, Capability::SETUID, Capability::SETGID);
        type Case<'a> = (&'a [Capability], &'a [u32], User, &'a [Capability], &'a str);
        let cases: [Case; 9] = [
            (&[], &[], SOMEBODY, &[chown], all),
            (&[setgid], &[], SOMEBODY, &[chown], "--cap-add CHOWN --cap-add SETUID"),
            (&[chown, setuid, setgid], &[], SOMEBODY, &[chown], ""),
            (&[setuid, setgid], &[], SOMEBODY, &[], ""),
            // Staying root needs nothing, with any groups.
            (&[], &[7], ROOT, &[], ""),
            (&[], &[], ROOT, &[chown], "--cap-add CHOWN"),
            (&[], &[], user(0, 5), &[], "--cap-add SETGID"),
            // Leaving groups needs a capability, unless there are none.
            (&[setuid], &[7], user(5, 0), &[], "--cap-add SETGID"),
            (&[setuid], &[], user(5, 0), &[], ""),
        ];
        for (number, (ours, groups, user, more, expected)) in cases.into_iter().enumerate() {
            with_capabilities(ours, groups, || {
                assert_eq!(missing(&user, more).join(" "), expected, "{number}");
                assert_eq!(require(&user, more).is_ok(), expected.is_empty(), "{number}");
            });
        }
    }

    #[test]
    fn the_advice_for_missing_capabilities_works() {
        if !is_root() {
            return;
        }
        with_capabilities(&[], &[], || {
            let failure = require(&SOMEBODY, &[]).unwrap_err();
            assert_eq!(failure.status, ExitStatus::NO_PERMISSION);
            assert_eq!(
                failure.to_string(),
                "root lacks the capabilities to become uid 12345, gid 1234: add `--cap-add SETUID --cap-add SETGID` to the \
                 container, or start it with `--user 12345:1234`"
            );
            // That user could not change the directory's owner.
            assert_eq!(
                require(&SOMEBODY, &[Capability::CHOWN]).unwrap_err().to_string(),
                "root lacks the capabilities to become uid 12345, gid 1234, and to give the data directory to it: add \
                 `--cap-add CHOWN --cap-add SETUID --cap-add SETGID` to the container"
            );
        });
    }

    #[test]
    fn other_users_need_no_capabilities() {
        let check = || {
            assert!(missing(&user(5, 6), &[Capability::CHOWN]).is_empty());
            require(&user(5, 6), &[Capability::CHOWN]).unwrap();
            // Other users keep their own ids.
            let ids = (geteuid(), getegid());
            assert_eq!(as_user(&user(5, 6), || (geteuid(), getegid())).unwrap(), ids);
            assert_eq!(with_group(&user(5, 6), || (geteuid(), getegid())).unwrap(), ids);
        };
        match is_root() {
            true => as_somebody(&SOMEBODY, check),
            false => check(),
        }
    }

    #[test]
    fn as_user_acts_as_that_user_only_during_the_work() {
        if !is_root() {
            return;
        }
        let directory = TestDir::new();
        directory.write("roots/secret", "");
        directory.write("theirs/file", "");
        directory.set_mode("", 0o755);
        directory.set_mode("roots", 0o700);
        directory.set_mode("roots/secret", 0o600);
        let path = |name: &str| directory.path().join(name);
        std::os::unix::fs::chown(path("theirs"), Some(SOMEBODY.uid), Some(SOMEBODY.gid)).unwrap();
        let owner = |name: &str| {
            let about = fs::metadata(path(name)).unwrap();
            (about.uid(), about.gid())
        };
        let denied = |result: io::Result<()>| result.unwrap_err().kind() == ErrorKind::PermissionDenied;
        let answer = as_user(&SOMEBODY, || {
            fs::write(path("theirs/made"), "").unwrap();
            fs::create_dir(path("theirs/folder")).unwrap();
            assert!(denied(fs::read(path("roots/secret")).map(drop)), "root's rights are set aside");
            assert!(denied(fs::write(path("roots/made"), "")));
            assert!(denied(fs::write(path("made"), "")));
            // We stay root, so that processes of that user cannot signal us.
            assert!(geteuid().is_root());
            7
        });
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(owner("theirs/made"), (SOMEBODY.uid, SOMEBODY.gid));
        assert_eq!(owner("theirs/folder"), (SOMEBODY.uid, SOMEBODY.gid));
        fs::read(path("roots/secret")).unwrap();
        fs::write(path("theirs/later"), "").unwrap();
        assert_eq!(owner("theirs/later"), (0, getegid().as_raw()), "and root again afterwards");
    }

    #[test]
    fn as_user_drops_our_groups() {
        if !is_root() {
            return;
        }
        let directory = TestDir::new();
        directory.write("file", "");
        directory.set_mode("", 0o755);
        directory.set_mode("file", 0o040);
        std::os::unix::fs::chown(directory.path().join("file"), None, Some(77)).unwrap();
        in_child(|| {
            setgroups(&[Gid::from_raw(77)]).unwrap();
            let read = || fs::read(directory.path().join("file"));
            assert!(as_user(&SOMEBODY, read).unwrap().is_err(), "the group's");
            assert!(as_user(&user(12345, 77), read).unwrap().is_ok(), "that user's own group");
        });
    }

    #[test]
    fn as_user_can_be_nested_in_with_group() {
        if !is_root() {
            return;
        }
        let directory = TestDir::new();
        directory.set_mode("", 0o777);
        let owner = |name: &str| {
            fs::write(directory.path().join(name), "").unwrap();
            let about = fs::metadata(directory.path().join(name)).unwrap();
            (about.uid(), about.gid())
        };
        let ours = owner("before");
        with_group(&user(0, 77), || {
            assert_eq!(owner("a"), (0, 77));
            as_user(&SOMEBODY, || assert_eq!(owner("b"), (12345, 1234))).unwrap();
            assert_eq!(owner("c"), (0, 77));
        })
        .unwrap();
        assert_eq!(owner("after"), ours);
    }

    #[test]
    fn nothing_runs_with_permissions_that_the_kernel_did_not_give() {
        if !is_root() {
            return;
        }
        let (setuid, setgid) = (Capability::SETUID, Capability::SETGID);
        type Case<'a> = (&'a [Capability], &'a [u32], &'a str);
        let cases: [Case; 3] = [
            (&[], &[], "--cap-add SETUID --cap-add SETGID"),
            (&[setgid], &[], "--cap-add SETUID"),
            (&[setuid], &[7], "--cap-add SETGID"),
        ];
        for (ours, groups, missing) in cases {
            with_capabilities(ours, groups, || {
                let failure = as_user(&SOMEBODY, || panic!("this runs as root")).unwrap_err();
                assert_eq!(failure.status, ExitStatus::NO_PERMISSION);
                assert!(failure.to_string().contains(missing), "{failure}");
                assert_eq!(FileIds::current(), (geteuid(), getegid()), "what was changed came back");
            });
        }
        with_capabilities(&[setuid], &[], || {
            let failure = with_group(&user(0, 77), || panic!("this runs with root's group")).unwrap_err();
            assert!(failure.to_string().contains("--cap-add SETGID"), "{failure}");
        });
        // Root stays root without any capability.
        with_capabilities(&[], &[7], || {
            let root = User::current();
            as_user(&root, || with_group(&root, || ()).unwrap()).unwrap();
        });
    }

    #[test]
    fn pid_1_drops_unneeded_capabilities() {
        if !is_root() {
            return;
        }
        let (chown, dac, kill, setgid, setuid) = (
            Capability::CHOWN,
            Capability::DAC_OVERRIDE,
            Capability::KILL,
            Capability::SETGID,
            Capability::SETUID,
        );
        type Case<'a> = (&'a [Capability], bool, &'a [Capability]);
        let cases: [Case; 5] = [
            (&[chown, dac, kill, setgid, setuid], true, &[dac, kill, setgid, setuid]),
            (&[chown, dac, kill, setgid, setuid], false, &[kill]),
            (&[chown, dac, setgid, setuid], false, &[setuid]),
            (&[chown, kill], true, &[kill]),
            (&[], true, &[]),
        ];
        for (number, (ours, reloads, kept)) in cases.into_iter().enumerate() {
            with_capabilities(ours, &[], || {
                keep_for_supervision(reloads);
                let kept: Capabilities = kept.iter().map(|one| one.bit()).sum();
                assert_eq!(system::effective_capabilities().unwrap(), kept, "{number}");
            });
        }
    }

    #[test]
    fn dropped_privileges_cannot_be_regained() {
        if !is_root() {
            return;
        }
        in_child(|| {
            setgroups(&[Gid::from_raw(0), Gid::from_raw(77)]).unwrap();
            drop_to(&SOMEBODY).unwrap();
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let field = |key: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
                value.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
            };
            assert_eq!(field("Uid"), "12345 12345 12345 12345");
            assert_eq!(field("Gid"), "1234 1234 1234 1234");
            assert_eq!((field("Groups"), field("NoNewPrivs")), (String::new(), "1".to_owned()));
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(field(set), "0000000000000000", "{set}");
            }
            let root = Uid::from_raw(0);
            assert_eq!(setresuid(root, root, root), Err(Errno::EPERM));
            assert_eq!(setgroups(&[]), Err(Errno::EPERM));
        });
    }

    #[test]
    fn a_user_that_the_kernel_refuses_is_named() {
        let failure = refused(&SOMEBODY, Errno::EINVAL);
        assert_eq!(failure.status, ExitStatus::NO_PERMISSION);
        assert!(failure.to_string().contains("uid 12345, gid 1234"), "{failure}");
        assert!(failure.to_string().contains("PROSODY_UID"), "{failure}");
        assert!(!refused(&SOMEBODY, Errno::EPERM).to_string().contains("PROSODY_UID"));
    }

    #[test]
    fn uid_of_returns_the_effective_user() {
        assert_eq!(uid_of(Pid::this()), Some(geteuid()));
        assert_eq!(uid_of(Pid::from_raw(i32::MAX)), None);
        if is_root() {
            in_child(|| {
                let (root, other) = (Uid::from_raw(0), Uid::from_raw(12345));
                setresuid(root, other, root).unwrap();
                assert_eq!(uid_of(Pid::this()), Some(other));
            });
        }
    }
}
