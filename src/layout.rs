//! Names and places: what is called what, in the image, in the runtime directory and in a generation.

use std::path::{Path, PathBuf};

/// The configuration directory, where no setting says otherwise.
pub const CONFIG_DIR: &str = "/etc/prosody";

/// The data directory, where no setting says otherwise.
pub const DATA_DIR: &str = "/var/lib/prosody";

/// The runtime directory, where no setting says otherwise.
pub const RUNTIME_DIR: &str = "/run/prosody";

/// The directory that Prosody's own default configuration writes log files to, and other images have a volume for.
pub const LOG_DIR: &str = "/var/log/prosody";

/// The main file's name, and the name of a custom configuration file.
pub const MAIN_FILE: &str = "prosody.cfg.lua";

/// The link in the runtime directory that names the generation in force.
pub const CURRENT: &str = "current";

/// The directory for Prosody's process id and its admin socket: the only one in the runtime directory that Prosody writes to.
pub const SERVER_DIR: &str = "server";

/// The addresses for the health check to try, in the runtime directory and in each generation.
pub const HEALTH_FILE: &str = "health";

/// Our process id, for whoever signals us where we are not process 1.
pub const PID_FILE: &str = "entrypoint.pid";

/// The state that the server was started with, in the runtime directory.
pub const STARTED_FILE: &str = "started";

/// The state of a generation, in its directory.
pub const STATE_FILE: &str = "state";

/// The folder of certificates in a generation.
pub const CERTIFICATES_DIR: &str = "certificates";

/// The folder of a generation that modules of the collection are linked into.
pub const MODULES_DIR: &str = "community-modules";

/// The module that creates accounts, without `mod_`.
pub const ACCOUNTS_MODULE: &str = "entrypoint_accounts";

/// The accounts to create, in the server's directory.
pub const ACCOUNTS_FILE: &str = "accounts";

/// The folder of certificates in the configuration directory, where no setting says otherwise. Prosody looks there by itself
/// with a custom configuration file.
pub const DEFAULT_CERTIFICATES: &str = "certs";

/// The folder that some images in use today fill with modules for their users.
pub const MODULES_ENABLED_DIR: &str = "/opt/prosody-modules-enabled";

/// The collection of community modules, where no setting says otherwise.
pub const COLLECTION_DIR: &str = "/opt/prosody-modules-available";

/// The SQLite file that the storage `sqlite` uses, in the data directory.
pub const SQLITE_FILE: &str = "prosody.sqlite";

/// DNSSEC's trust anchor, from Debian's `dns-root-data`.
pub const ROOT_ANCHOR: &str = "/usr/share/dns/root.ds";

/// The directory of self-signed certificates in the data directory. No host's own directory can have this name: Prosody
/// (`util/datamanager.lua`) percent-encodes everything in a host's name but ASCII letters and digits.
pub const SELF_SIGNED_DIR: &str = "self-signed";

/// The prefix of generations' names.
const GENERATION: &str = "generation-";

/// The name of a generation.
pub fn generation(number: u64) -> String {
    format!("{GENERATION}{number}")
}

/// The number of the generation that has this name.
pub fn generation_number(name: &str) -> Option<u64> {
    // Beyond this there would soon be no next one.
    name.strip_prefix(GENERATION)?.parse().ok().filter(|&number: &u64| number < u64::MAX / 2)
}

/// The accounts' file in a runtime directory.
pub fn accounts_file(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SERVER_DIR).join(ACCOUNTS_FILE)
}

/// The module that creates accounts, below a generation's directory.
pub fn accounts_module() -> PathBuf {
    Path::new(MODULES_DIR).join(format!("mod_{ACCOUNTS_MODULE}.lua"))
}

/// The directory of self-signed certificates in a data directory.
pub fn self_signed_dir(data_dir: &Path) -> PathBuf {
    data_dir.join(SELF_SIGNED_DIR)
}

/// The self-signed certificate of `host` (in ASCII), below its directory. Prosody takes the key from [`self_signed_key`].
pub fn self_signed_certificate(host: &str) -> String {
    format!("{host}.crt")
}

/// The key of the self-signed certificate of `host` (in ASCII), below the same directory.
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
