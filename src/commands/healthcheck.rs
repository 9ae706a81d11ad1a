//! `healthcheck`: whether the server answers, for Docker's `HEALTHCHECK`.

use std::time::Duration;

use anyhow::anyhow;

use crate::configure::read_settings;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::Places;
use crate::health::{ANY_HOST, Service, Target, check};
use crate::layout::HEALTH_FILE;
use crate::os::trusted_file::{self, LARGEST, Links};

/// The time limit for the whole check. A server that is busy for longer is not healthy.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Checks the targets of the running server's plan. Succeeds if one of them answers.
///
/// # Errors
///
/// 1 if none answers.
pub fn run() -> Result<ExitStatus, Failure> {
    let (settings, _) = read_settings();
    let places = Places::of_running(&settings);
    // The file of the running server: the latest generation may have ports that need a restart.
    let file = places.runtime_dir.join(HEALTH_FILE);
    let text = trusted_file::read(&file, Links::All, LARGEST).ok();
    let targets: Vec<Target> = match text.and_then(|text| String::from_utf8(text).ok()) {
        Some(text) if places.custom_main_file().is_none() => {
            text.lines().filter_map(|line| line.parse().ok()).collect()
        }
        // A custom main file is not read here, so its ports and hosts are unknown.
        _ => vec![Target {
            service: Service::C2s,
            address: ([127, 0, 0, 1], 5222).into(),
            host: ANY_HOST.to_owned(),
        }],
    };
    if targets.is_empty() {
        // There are no ports for clients or servers, and nothing to check.
        return Ok(ExitStatus::SUCCESS);
    }
    match check(&targets, TIMEOUT) {
        Ok(()) => Ok(ExitStatus::SUCCESS),
        Err(why) => Err(Failure::new(ExitStatus::exited(1), anyhow!(why))),
    }
}
