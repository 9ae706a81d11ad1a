//! The lock on the data directory: two servers with one data directory overwrite each other's data.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

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
    let shown = path.display();
    let mut opened = privileges::as_user(user, || directory::open(path))?
        .map_err(|error| anyhow::anyhow!("{shown}: {error}"))
        .status(ExitStatus::CANNOT_WRITE)?;
    let start = Instant::now();
    let mut has_waited = false;
    loop {
        let error = match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
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

/// Whether others may have the same claim.
#[derive(Clone, Copy)]
pub enum Kind {
    Shared,
    Exclusive,
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
pub fn claim(path: &Path, user: &User, kind: Kind) -> Result<Claim, Failure> {
    let opened = privileges::as_user(user, || directory::open(path))?
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
        .status(ExitStatus::CANNOT_WRITE)?;
    let kind = match kind {
        Kind::Shared => FlockArg::LockSharedNonblock,
        Kind::Exclusive => FlockArg::LockExclusiveNonblock,
    };
    Ok(match Flock::lock(opened, kind) {
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
    fn claims_are_refused_while_a_server_has_the_directory() {
        let place = TestDir::new();
        let user = User::current();
        let claim = |kind| claim(place.path(), &user, kind).unwrap();
        let server = data_dir(place.path(), &user, Duration::ZERO).unwrap();
        assert!(matches!(claim(Kind::Shared), Claim::Used));
        drop(server);
        let first = claim(Kind::Shared);
        assert!(matches!((&first, claim(Kind::Shared)), (Claim::Held(_), Claim::Held(_))));
        assert!(matches!(claim(Kind::Exclusive), Claim::Used));
        assert!(data_dir(place.path(), &user, Duration::from_millis(1)).is_err(), "a server waits");
        drop(first);
        assert!(matches!(claim(Kind::Exclusive), Claim::Held(_)));
    }
}
