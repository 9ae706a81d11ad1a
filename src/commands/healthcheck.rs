//! Whether the server answers, for Docker's `HEALTHCHECK`.

use std::time::Duration;

use anyhow::anyhow;

use crate::configure::read_settings;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::Places;
use crate::health::{ANY_HOST, Service, Target, check};
use crate::layout::HEALTH_FILE;
use crate::os::trusted_file::{self, LARGEST, Links};

/// How long an answer may take. A server that is busy for longer does not serve.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Succeeds when one of the addresses that the plan names answers; fails with 1 where none does.
pub fn run() -> Result<ExitStatus, Failure> {
    let (settings, _) = read_settings();
    let places = Places::of_running(&settings);
    // The one of the running server: what a reload has written since may name ports that it has not.
    let file = places.runtime_dir.join(HEALTH_FILE);
    let text = trusted_file::read(&file, Links::All, LARGEST).ok();
    let targets: Vec<Target> = match text.and_then(|text| String::from_utf8(text).ok()) {
        Some(text) if places.custom_main_file().is_none() => {
            text.lines().filter_map(|line| line.parse().ok()).collect()
        }
        // A configuration of the user's own is not read here.
        _ => vec![Target {
            service: Service::C2s,
            address: ([127, 0, 0, 1], 5222).into(),
            host: ANY_HOST.to_owned(),
        }],
    };
    if targets.is_empty() {
        // Neither clients nor servers have a port: nothing can be asked.
        return Ok(ExitStatus::SUCCESS);
    }
    match check(&targets, TIMEOUT) {
        Ok(()) => Ok(ExitStatus::SUCCESS),
        Err(why) => Err(Failure::new(ExitStatus::exited(1), anyhow!(why))),
    }
}
