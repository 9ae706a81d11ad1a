//! Names and paths in the image, in the runtime directory and in a generation.

use std::path::{Path, PathBuf};

/// The default configuration directory.
pub const CONFIG_DIR: &str = "/etc/prosody";

/// The default data directory.
pub const DATA_DIR: &str = "/var/lib/prosody";

/// The default runtime directory.
pub const RUNTIME_DIR: &str = "/run/prosody";

/// The log directory in Prosody's default configuration. Other images have a volume for it.
pub const LOG_DIR: &str = "/var/log/prosody";

/// The name of the main file, rendered or custom.
pub const MAIN_FILE: &str = "prosody.cfg.lua";

/// The link in the runtime directory to the current generation.
pub const CURRENT: &str = "current";

/// The directory for Prosody's process id and its admin socket. Prosody writes nowhere else in the runtime directory.
pub const SERVER_DIR: &str = "server";

/// Prosody's process id, in [`SERVER_DIR`].
pub const SERVER_PID_FILE: &str = "prosody.pid";

/// The addresses for the health check, in the runtime directory and in each generation.
pub const HEALTH_FILE: &str = "health";

/// Our process id, for signals when we are not process 1.
pub const PID_FILE: &str = "entrypoint.pid";

/// The state that the server was started with, in the runtime directory.
pub const STARTED_FILE: &str = "started";

/// The last error of a reload, in the runtime directory.
pub const ERROR_FILE: &str = "error";

/// The state of a generation, in its directory.
pub const STATE_FILE: &str = "state";

/// The folder of certificates in a generation.
pub const CERTIFICATES_DIR: &str = "certificates";

/// The folder of a generation with links to modules of the collection.
pub const MODULES_DIR: &str = "community-modules";

/// The accounts to create, in [`SERVER_DIR`].
pub const ACCOUNTS_FILE: &str = "accounts";

/// The script that changes a running server, in the runtime directory.
pub const LIVE_SCRIPT: &str = "live.lua";

/// The socket of that script, in [`SERVER_DIR`].
pub const LIVE_SOCKET: &str = "live.sock";

/// The default folder of certificates in the configuration directory. With a custom main file, Prosody itself searches
/// it.
pub const DEFAULT_CERTIFICATES: &str = "certs";

/// A folder of modules for users in some other images.
pub const MODULES_ENABLED_DIR: &str = "/opt/prosody-modules-enabled";

/// The default collection of community modules.
pub const COLLECTION_DIR: &str = "/opt/prosody-modules-available";

/// The SQLite file of the storage `sqlite`, in the data directory.
pub const SQLITE_FILE: &str = "prosody.sqlite";

/// The DNSSEC trust anchor, from Debian's `dns-root-data`.
pub const ROOT_ANCHOR: &str = "/usr/share/dns/root.ds";

/// The names of the TLS groups that OpenSSL has, one a line. The build of the image writes it.
pub const TLS_GROUPS_FILE: &str = "/usr/local/share/prosody-entrypoint/tls-groups";

/// A generation's link to its file of trusted authorities.
pub const AUTHORITIES: &str = "trusted-authorities.pem";

/// The system's certificate authorities (Debian's `ca-certificates`).
pub const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs";

/// The directory of self-signed certificates in the data directory. A host's directory cannot have this name: Prosody
/// (`util/datamanager.lua`) percent-encodes all characters in it except ASCII letters and digits.
pub const SELF_SIGNED_DIR: &str = "self-signed";

/// The directory in the data directory that exists while `restore` moves files to their places. Its Lua names it, too.
pub const RESTORING_DIR: &str = ".restoring";

/// The same for `migrate`.
pub const MIGRATING_DIR: &str = ".migrating";

/// The directory in the runtime directory with the configuration that `migrate` migrates to.
pub const MIGRATION_DIR: &str = "migration";

/// The prefix of a generation's name.
const GENERATION: &str = "generation-";

/// The name of a generation.
pub fn generation(number: u64) -> String {
    format!("{GENERATION}{number}")
}

/// The number in a generation's name; `None` for other names.
pub fn generation_number(name: &str) -> Option<u64> {
    // Leave room for the next numbers.
    name.strip_prefix(GENERATION)?.parse().ok().filter(|&number: &u64| number < u64::MAX / 2)
}

/// The file of accounts in a runtime directory.
pub fn accounts_file(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SERVER_DIR).join(ACCOUNTS_FILE)
}

/// The socket of the script that changes a running server, in a runtime directory.
pub fn live_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SERVER_DIR).join(LIVE_SOCKET)
}

/// The directory of self-signed certificates in a data directory.
pub fn self_signed_dir(data_dir: &Path) -> PathBuf {
    data_dir.join(SELF_SIGNED_DIR)
}

/// The self-signed certificate of `host` (in ASCII), below [`SELF_SIGNED_DIR`].
pub fn self_signed_certificate(host: &str) -> String {
    format!("{host}.crt")
}

/// The key of the self-signed certificate of `host` (in ASCII), below [`SELF_SIGNED_DIR`]. Prosody expects it there.
pub fn self_signed_key(host: &str) -> String {
    format!("{host}.key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_have_numbers() {
        assert_eq!(generation_number(&generation(7)), Some(7));
        for other in ["generation-", "generation-x", ".generation-1", "generation-18446744073709551615"] {
            assert_eq!(generation_number(other), None, "{other}");
        }
    }
}
