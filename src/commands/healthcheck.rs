//! `healthcheck`: whether the server answers, for Docker's `HEALTHCHECK`.

use std::time::Duration;

use anyhow::anyhow;

use crate::configure::read_settings;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::{self, Places, running};
use crate::health::{ANY_HOST, LISTENING, Service, Target, check};
use crate::layout::HEALTH_FILE;
use crate::os::{listening, privileges};
use crate::settings::Settings;

/// The time limit for the whole check. A server that is busy for longer is not healthy.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Checks the targets of the running server's plan. Succeeds if one of them answers. If a custom file decides the ports,
/// the targets are whatever the server listens on.
/// Errors: 1 if none answers.
pub fn run() -> Result<ExitStatus, Failure> {
    let (settings, _) = read_settings();
    let places = Places::of_running(&settings);
    // The file of the running server: the latest generation may have ports that need a restart.
    let text = running::read(&places.runtime_dir, HEALTH_FILE).ok().flatten();
    let text = text.filter(|_| places.custom_main_file().is_none());
    let targets: Vec<Target> = match text {
        Some(text) if text.trim_end() != LISTENING => {
            let targets: Vec<Target> = text.lines().filter_map(Target::parse).collect();
            if targets.is_empty() {
                // There are no ports for clients or servers, and nothing to check.
                return Ok(ExitStatus::SUCCESS);
            }
            targets
        }
        _ => listening(&settings, &places),
    };
    match check(&targets, TIMEOUT) {
        Ok(()) => Ok(ExitStatus::SUCCESS),
        Err(why) => Err(Failure::new(ExitStatus::exited(1), anyhow!(why))),
    }
}

/// The addresses on which the server listens, the usual ports first.
fn listening(settings: &Settings, places: &Places) -> Vec<Target> {
    // Only a process's own user may read which sockets it has. Without the privilege, all sockets count.
    if let Ok(user) = running::user(places).map_or_else(|| facts::identity(settings, &places.data_dir), Ok) {
        let _ = privileges::drop_to(&user);
    }
    let mut addresses = listening::addresses();
    addresses.sort_by_key(|address| ![5222, 5269].contains(&address.port()));
    let target = |address| Target { service: Service::C2s, address, host: ANY_HOST.to_owned() };
    addresses.into_iter().map(target).collect()
}
