//! The lock on the data directory: two servers with one data directory overwrite each other's data.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;

use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::os::users::User;
use crate::os::{directory, privileges};

/// How long a start waits for another server to end.
pub const WAIT: Duration = Duration::from_secs(60);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Locks the data directory (flock(2)) for the server that this process becomes. The kernel releases the lock when the
/// last copy of the descriptor is closed, however the server ends. If another server has the lock, waits for up to `limit`.
///
/// Returns `None`, with a warning, if the file system has no locks.
/// Errors: 69 if the other server has not ended; 73 if the directory cannot be opened; 77 if a privilege is missing.
pub fn data_dir(path: &Path, user: &User, limit: Duration) -> Result<Option<Flock<OwnedFd>>, Failure> {
    wait_for(path, user, limit, FlockArg::LockExclusiveNonblock)
}

fn wait_for(
    path: &Path,
    user: &User,
    limit: Duration,
    kind: FlockArg,
) -> Result<Option<Flock<OwnedFd>>, Failure> {
    let shown = path.display();
    let mut opened = privileges::as_user(user, || directory::open(path))?
        .map_err(|error| anyhow::anyhow!("{shown}: {error}"))
        .status(ExitStatus::CANNOT_WRITE)?;
    let start = Instant::now();
    let mut has_waited = false;
    loop {
        let error = match Flock::lock(opened, kind) {
            Ok(lock) => {
                if has_waited {
                    tracing::info!("The other server has ended");
                }
                return Ok(Some(lock));
            }
            Err((again, error)) => {
                opened = again;
                error
            }
        };
        match error {
            Errno::EINTR => {}
            Errno::EWOULDBLOCK if start.elapsed() >= limit => {
                return Err(ExitStatus::UNAVAILABLE.failure(advice!(
                    "another server still uses {shown} after {} s, and two would overwrite each other's data: stop it \
                     first; for updates, set `order: stop-first` (Swarm) or `strategy: Recreate` (Kubernetes, `type: \
                     Recreate` in the Deployment's `strategy`)",
                    limit.as_secs()
                )));
            }
            Errno::EWOULDBLOCK => {
                if !has_waited {
                    has_waited = true;
                    tracing::warn!(
                        "Another server uses {shown}: waiting up to {} s for its end",
                        limit.as_secs()
                    );
                }
                sleep(PAUSE);
            }
            _ => {
                tracing::warn!(
                    "{shown} cannot be locked ({error}), so a second server with it would not be noticed"
                );
                return Ok(None);
            }
        }
    }
}

/// The name of a shard's directory in the data directory, without its number. Its lock is the shard's.
const SHARD: &str = ".shard-";

/// The file in the data directory by which shards know that they have the same.
const SHARED_ID: &str = ".shards-id";

/// The locks of a shard.
#[derive(Default)]
pub struct ShardLocks {
    pub held: Vec<Flock<OwnedFd>>,
    /// What identifies the data directory. `None` if the file system has no locks.
    pub directory: Option<String>,
}

/// Locks the number of a shard in the data directory, as [`data_dir`] locks the directory, which stays open to other
/// shards.
/// Errors: those of [`data_dir`].
pub fn shard(path: &Path, user: &User, limit: Duration, number: i64) -> Result<ShardLocks, Failure> {
    let own = path.join(format!("{SHARD}{number}"));
    let make = || -> io::Result<String> {
        drop(directory::make(&own, Mode::S_IRWXU)?);
        let file = path.join(SHARED_ID);
        // The first of several shards that start together wins.
        let new = path.join(format!("{SHARED_ID}.{number}"));
        let _ = fs::remove_file(&new);
        fs::write(&new, fs::read("/proc/sys/kernel/random/uuid")?)?;
        let linked = fs::hard_link(&new, &file);
        fs::remove_file(&new)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Ok(fs::read_to_string(&file)?.trim().to_owned())
    };
    let id = privileges::as_user(user, make)?
        .map_err(|error| anyhow::anyhow!("{}: {error}", own.display()))
        .status(ExitStatus::CANNOT_WRITE)?;
    let Some(lock) = data_dir(&own, user, limit)? else { return Ok(ShardLocks::default()) };
    // Whoever needs the whole directory waits for its end, or is refused.
    let shared = wait_for(path, user, limit, FlockArg::LockSharedNonblock)?;
    Ok(ShardLocks { held: [lock].into_iter().chain(shared).collect(), directory: Some(id) })
}

/// A claim on a data directory, of a command that works beside servers or in place of one.
pub enum Claim {
    /// No server uses the directory, and none starts before this is dropped.
    Held(Flock<OwnedFd>),
    /// A server uses it, or another command.
    Used,
    /// The file system has no locks.
    Unknown,
}

/// Claims a data directory without a wait.
/// Errors: 73 if the directory cannot be opened; 77 if a privilege is missing.
pub fn claim(path: &Path, user: &User) -> Result<Claim, Failure> {
    let opened = privileges::as_user(user, || directory::open(path))?
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
        .status(ExitStatus::CANNOT_WRITE)?;
    Ok(match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Claim::Held(lock),
        Err((_, Errno::EWOULDBLOCK)) => Claim::Used,
        Err(_) => Claim::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestDir;

    #[test]
    fn a_locked_directory_is_refused_until_the_lock_is_released() {
        let place = TestDir::new();
        let user = User::current();
        let first = data_dir(place.path(), &user, Duration::ZERO).unwrap().unwrap();
        let failure = data_dir(place.path(), &user, Duration::from_millis(1)).unwrap_err();
        assert_eq!(failure.status, ExitStatus::UNAVAILABLE);
        assert!(failure.to_string().contains("order: stop-first"), "{failure}");
        drop(first);
        assert!(data_dir(place.path(), &user, Duration::ZERO).unwrap().is_some());
    }

    #[test]
    fn claims_are_refused_while_a_server_or_a_command_has_the_directory() {
        let place = TestDir::new();
        let user = User::current();
        let claim = || claim(place.path(), &user).unwrap();
        let server = data_dir(place.path(), &user, Duration::ZERO).unwrap();
        assert!(matches!(claim(), Claim::Used));
        drop(server);
        let first = claim();
        assert!(matches!((&first, claim()), (Claim::Held(_), Claim::Used)));
        assert!(data_dir(place.path(), &user, Duration::from_millis(1)).is_err(), "a server waits");
        assert!(shard(place.path(), &user, Duration::from_millis(1), 0).is_err(), "a shard waits");
        drop(first);
        assert!(matches!(claim(), Claim::Held(_)));
    }

    #[test]
    fn shards_leave_a_directory_to_each_other_and_to_nobody_else() {
        let place = TestDir::new();
        let user = User::current();
        let shard = |number| shard(place.path(), &user, Duration::from_millis(1), number);
        let (first, second) = (shard(0).unwrap(), shard(1).unwrap());
        assert!(first.directory.is_some() && first.directory == second.directory);
        assert!(shard(1).is_err(), "it has a number that is taken");
        assert!(matches!(claim(place.path(), &user).unwrap(), Claim::Used));
        assert!(data_dir(place.path(), &user, Duration::from_millis(1)).is_err());
        drop((first, second));
        assert!(matches!(claim(place.path(), &user).unwrap(), Claim::Held(_)));
        assert!(shard(1).is_ok());
    }
}
