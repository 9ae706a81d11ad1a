//! `healthcheck`: whether the server answers, for Docker's `HEALTHCHECK`. As JSON, also what a reload has left undone.

use std::time::Duration;

use serde_json::json;

use super::render::print;
use crate::cli::Healthcheck;
use crate::configure::read_settings;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::running::{self, Running};
use crate::facts::{self, Places};
use crate::health::{ANY_HOST, LISTENING, Service, Target, check};
use crate::layout::HEALTH_FILE;
use crate::live::{self, Outcome};
use crate::os::{listening, privileges};
use crate::settings::Settings;

/// The time limit for the whole check. A server that is busy for longer is not healthy.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit for what is not as it is configured.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Checks whether the server answers.
/// Errors: 1 if it does not.
pub fn run(options: &Healthcheck) -> Result<ExitStatus, Failure> {
    let (settings, _) = read_settings();
    let places = Places::of_running(&settings);
    let status = if options.json { status(&places) } else { None };
    let answer = answer(&settings, &places);
    if options.json {
        let all = json!({
            "answers": answer.is_ok(),
            "reason": answer.as_ref().err(),
            "not_as_configured": status.as_ref().map(|status| &status.failed),
            "waits_for_restart": status.as_ref().map(|status| &status.restart),
        });
        print(&format!("{all:#}\n"))?;
        return Ok(if answer.is_ok() { ExitStatus::SUCCESS } else { ExitStatus::exited(1) });
    }
    answer.map(|()| ExitStatus::SUCCESS).map_err(|why| ExitStatus::exited(1).failure(why))
}

/// What is not as it is configured. `None` if this is not known: the server does not answer, or nothing was rendered.
fn status(places: &Places) -> Option<Outcome> {
    let user = Running::find(places)?.user;
    let server = live::connect(&places.runtime_dir, &user, Duration::ZERO, STATUS_TIMEOUT).ok()?;
    server.ok()??.status().ok()
}

/// Checks the targets of the running server's plan. If a custom file decides the ports, the targets are whatever the
/// server listens on.
/// Errors: why none of them answers.
fn answer(settings: &Settings, places: &Places) -> Result<(), String> {
    // The file of the running server: the latest generation may have ports that need a restart.
    let text = running::read(&places.runtime_dir, HEALTH_FILE).ok().flatten();
    let text = text.filter(|_| places.custom_main_file().is_none());
    let targets: Vec<Target> = match text {
        Some(text) if text.trim_end() != LISTENING => {
            let targets: Vec<Target> = text.lines().filter_map(Target::parse).collect();
            if targets.is_empty() {
                // There are no ports for clients or servers, and nothing to check.
                return Ok(());
            }
            targets
        }
        _ => listening(settings, places),
    };
    check(&targets, TIMEOUT)
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
