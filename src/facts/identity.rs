//! The user that Prosody runs as.
//!
//! This reads `/etc/passwd` and `/etc/group` itself: the C library would load any library that the image's
//! `nsswitch.conf` names into our process.

use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::os::trusted_file::{self, Error, LARGEST};
use crate::os::users::User;
use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};
use std::cell::OnceCell;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

/// The user and group that Debian's package creates.
const PROSODY: &str = "prosody";

/// Chooses the user that Prosody runs as.
///
/// For root: the requested user, else the owner of `data_dir` unless that is root, else the user `prosody`. The group
/// of a uid is the group in its passwd entry, else the data directory's if the uid owns it and the group is not
/// root's, else the group `prosody`, else the uid's number. For other users: our own user and group.
/// Errors: 77 if a user other than root requests another user or group; 78 if a name does not exist, no user can be
/// chosen, or `/etc/passwd`, `/etc/group` or the owner of `data_dir` cannot be read.
pub fn resolve(requested: &Requested, data_dir: &Path) -> Result<User, Failure> {
    let image = Image::read(data_dir).status(ExitStatus::CONFIGURATION)?;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid == 0 {
        image.choose(requested).status(ExitStatus::CONFIGURATION)
    } else {
        image.unprivileged(uid, gid, requested)
    }
}

/// The user and group in the settings.
#[derive(Clone, Debug, Default)]
pub struct Requested<'a> {
    pub name: Option<&'a str>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// The users in the image and its volumes.
#[derive(Debug, Default)]
struct Image {
    /// The users in `/etc/passwd`, by name.
    passwd: Vec<(String, User)>,
    /// The text of `/etc/group`, read only if the group is not known otherwise.
    groups: OnceCell<String>,
    /// Uid and gid of the data directory, if it exists.
    data_owner: Option<(u32, u32)>,
}

impl Image {
    fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let data_owner = match fs::metadata(data_dir) {
            Ok(metadata) => Some((metadata.uid(), metadata.gid())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("looking at the owner of {}", data_dir.display()));
            }
        };
        Ok(Self { passwd: parse_passwd(&read_table("/etc/passwd")?), groups: OnceCell::new(), data_owner })
    }

    /// Chooses a user, as root.
    fn choose(&self, requested: &Requested) -> anyhow::Result<User> {
        let mut user = match (requested.name, requested.uid) {
            (Some(name), uid) => {
                let user = self.named(name)?;
                if let Some(uid) = uid.filter(|&uid| uid != user.uid) {
                    return Err(anyhow!(advice!(
                        "PROSODY_USER={name} has uid {}, and PROSODY_UID is {uid}: set one of them only",
                        user.uid
                    )));
                }
                user
            }
            (None, Some(uid)) => self.numbered(uid)?,
            (None, None) => match self.data_owner {
                Some((owner, _)) if owner != 0 => self.numbered(owner)?,
                _ => self.named(PROSODY).map_err(|_| {
                    anyhow!(advice!(
                        "there is no user `prosody` in this image and the data directory is not owned by anyone else \
                         than root: set PROSODY_UID to the uid that Prosody is to run as"
                    ))
                })?,
            },
        };
        if let Some(gid) = requested.gid {
            user.gid = valid("PROSODY_GID", gid)?;
        }
        Ok(user)
    }

    /// Our own user, because without root no other can be chosen.
    fn unprivileged(&self, uid: u32, gid: u32, requested: &Requested) -> Result<User, Failure> {
        let named = match requested.name {
            Some(name) => Some(self.named(name).status(ExitStatus::CONFIGURATION)?.uid),
            None => None,
        };
        for (setting, requested_id, ours, user) in [
            ("PROSODY_USER", named, uid, ""),
            ("PROSODY_UID", requested.uid, uid, ""),
            ("PROSODY_GID", requested.gid, gid, &format!("{uid}:")),
        ] {
            if let Some(requested_id) = requested_id.filter(|&requested_id| requested_id != ours) {
                let error = anyhow!(advice!(
                    "{setting} asks for id {requested_id}, but this container runs as {uid}:{gid} and cannot change that: \
                     start it with `--user {user}{requested_id}`, or as root, or leave {setting} out"
                ));
                return Err(Failure::new(ExitStatus::NO_PERMISSION, error));
            }
        }
        Ok(User { uid, gid })
    }

    fn named(&self, name: &str) -> anyhow::Result<User> {
        self.passwd.iter().find(|(known, _)| known == name).map(|(_, user)| *user).with_context(|| {
            advice!(
                "PROSODY_USER={name}: there is no such user in this image's /etc/passwd \
                 (for a user without an entry there, set PROSODY_UID)"
            )
        })
    }

    fn numbered(&self, uid: u32) -> anyhow::Result<User> {
        valid("PROSODY_UID", uid)?;
        if let Some((_, user)) = self.passwd.iter().find(|(_, user)| user.uid == uid) {
            return Ok(*user);
        }
        let gid = match self.data_owner {
            Some((owner, group)) if owner == uid && group != 0 => group,
            _ => self.prosody_group()?.unwrap_or(uid),
        };
        Ok(User { uid, gid })
    }

    fn prosody_group(&self) -> anyhow::Result<Option<u32>> {
        let groups = match self.groups.get() {
            Some(groups) => groups,
            None => &read_table("/etc/group")?,
        };
        Ok(find_group(groups, PROSODY))
    }
}

/// Refuses the number that means "unchanged" in setresuid(2) and chown(2).
fn valid(setting: &str, id: u32) -> anyhow::Result<u32> {
    if id == u32::MAX {
        return Err(anyhow!("{setting}={id} is no id; the greatest is {}", id - 1));
    }
    Ok(id)
}

/// Reads a file of `/etc`. A missing file is empty. We need only ASCII names; other text, such as a person's name, may
/// have any encoding.
fn read_table(path: &str) -> anyhow::Result<String> {
    match trusted_file::beginning(Path::new(path), LARGEST) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(Error::Refused(Errno::ENOENT)) => Ok(String::new()),
        Err(error) => Err(io::Error::from(error)).with_context(|| format!("reading {path}")),
    }
}

/// The users of a passwd(5) file. Other lines, such as comments and NIS entries, are skipped.
fn parse_passwd(text: &str) -> Vec<(String, User)> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, User { uid, gid }))
    };
    text.lines().filter_map(entry).collect()
}

fn find_group(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(data_owner: Option<(u32, u32)>) -> Image {
        Image {
            passwd: parse_passwd(
                "root:x:0:0:root:/root:/bin/bash\n\
                 # a comment\n\
                 +::::::\n\
                 broken:x:one:two:::\n\
                 prosody:x:101:102:Prosody,,,:/var/lib/prosody:/usr/sbin/nologin\n\
                 alice:x:1000:1001::/home/alice:/bin/sh\n",
            ),
            groups: OnceCell::from("root:x:0:\nprosody-x:x:7:\nprosody:x:102:alice\n".to_owned()),
            data_owner,
        }
    }

    fn user(uid: u32, gid: u32) -> User {
        User { uid, gid }
    }

    fn requesting<'a>(name: Option<&'a str>, uid: Option<u32>, gid: Option<u32>) -> Requested<'a> {
        Requested { name, uid, gid }
    }

    const NOTHING: Requested = Requested { name: None, uid: None, gid: None };

    #[test]
    fn root_runs_prosody_as_the_data_directorys_owner() {
        let choose = |owner| image(owner).choose(&NOTHING).unwrap();
        assert_eq!(choose(Some((1000, 5))), user(1000, 1001));
        assert_eq!(choose(Some((12345, 1234))), user(12345, 1234));
        // The group of root is never a default.
        assert_eq!(choose(Some((12345, 0))), user(12345, 102));
    }

    #[test]
    fn root_runs_prosody_as_prosody_without_another_data_owner() {
        for owner in [Some((0, 0)), None] {
            assert_eq!(image(owner).choose(&NOTHING).unwrap(), user(101, 102));
        }
    }

    #[test]
    fn settings_win_over_the_owner() {
        let choose = |requested| image(Some((1234, 1234))).choose(&requested).unwrap();
        assert_eq!(choose(requesting(Some("alice"), None, None)), user(1000, 1001));
        assert_eq!(choose(requesting(None, Some(1000), None)), user(1000, 1001));
        assert_eq!(choose(requesting(None, Some(5), None)), user(5, 102));
        assert_eq!(choose(requesting(None, Some(5), Some(6))), user(5, 6));
        assert_eq!(choose(requesting(None, None, Some(6))), user(1234, 6));
        assert!(choose(requesting(None, Some(0), None)).is_root());
    }

    #[test]
    fn a_uid_without_a_known_group_gets_its_own_number() {
        let bare = Image { groups: OnceCell::from(String::new()), ..Image::default() };
        assert_eq!(bare.choose(&requesting(None, Some(5), None)).unwrap(), user(5, 5));
        let error = bare.choose(&NOTHING).unwrap_err().to_string();
        assert!(error.contains("set PROSODY_UID"), "{error}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (requested, expected) in [
            (requesting(Some("bob"), None, None), "PROSODY_USER=bob"),
            (requesting(Some("alice"), Some(5), None), "set one of them"),
            (requesting(None, Some(u32::MAX), None), "PROSODY_UID=4294967295"),
            (requesting(None, None, Some(u32::MAX)), "PROSODY_GID=4294967295"),
        ] {
            let error = image(None).choose(&requested).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn without_root_prosody_runs_as_our_own_user() {
        let image = image(Some((1000, 1001)));
        let resolve = |requested| image.unprivileged(12345, 0, &requested);
        assert_eq!(resolve(NOTHING).unwrap(), user(12345, 0));
        assert_eq!(resolve(requesting(None, Some(12345), Some(0))).unwrap(), user(12345, 0));
        assert_eq!(
            image.unprivileged(1000, 0, &requesting(Some("alice"), None, None)).unwrap(),
            user(1000, 0)
        );
        for (requested, expected) in [
            (requesting(Some("alice"), None, None), "`--user 1000`"),
            (requesting(None, Some(5), None), "`--user 5`"),
            (requesting(None, None, Some(6)), "`--user 12345:6`"),
        ] {
            let error = resolve(requested).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_owner_is_read_from_the_directory() {
        let directory = std::env::temp_dir().join(format!("identity-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let owner = if uid == 0 { (54321, 54322) } else { (uid, gid) };
        std::os::unix::fs::chown(&directory, Some(owner.0), Some(owner.1)).unwrap();
        let user = resolve(&NOTHING, &directory);
        fs::remove_dir(&directory).unwrap();
        let user = user.unwrap();
        assert_eq!((user.uid, user.gid), owner);
    }
}
