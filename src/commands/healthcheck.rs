//! `healthcheck`: whether the server answers, for Docker's `HEALTHCHECK`; whether it is alive or ready, for the probes of
//! Kubernetes. As JSON, also what a reload has left undone.

use std::time::Duration;

use serde_json::{Value, json};

use super::render::print;
use crate::cli::Healthcheck;
use crate::configure::read_settings;
use crate::database;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::running::{self, Activity, Running};
use crate::facts::{self, Places};
use crate::health::{ANY_HOST, LISTENING, Service, Target, check};
use crate::intent::databases::Database;
use crate::layout::HEALTH_FILE;
use crate::live::{self, Connection, Status};
use crate::os::{listening, privileges};
use crate::settings::Settings;
use crate::text::several;

/// The time limit for an answer of the server. A server that is busy for longer is not healthy.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit for what is not as it is configured.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// The time limits of `--ready` for an answer of the server, and for one of all databases.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
const DATABASE_TIMEOUT: Duration = Duration::from_millis(500);

/// Checks whether the server answers, is alive, or is ready.
/// Errors: 1 if it does not, or is not.
pub fn run(options: &Healthcheck) -> Result<ExitStatus, Failure> {
    let (settings, _) = read_settings();
    let places = Places::of_running(&settings);
    let health = health_file(&places);
    let running = Running::find(&places);
    let (checked, name, mut all) = match options {
        Healthcheck { live: true, .. } => (activity(running.as_ref()).map(drop), "alive", json!({})),
        Healthcheck { ready: true, .. } => {
            let (checked, all) =
                readiness(running.as_ref(), &settings, &places, health.as_deref(), options.json);
            (checked, "ready", all)
        }
        _ => {
            let script = running.filter(|_| options.json).and_then(|running| connect(&running, &places));
            let status = script.and_then(|mut script| script.status().ok());
            let checked = check_answer(targets(health.as_deref(), &settings, &places), TIMEOUT);
            (checked, "answers", left_undone(status.as_ref()))
        }
    };
    if options.json {
        all[name] = checked.is_ok().into();
        all["reason"] = json!(checked.as_ref().err());
        print(&format!("{all:#}\n"))?;
        return Ok(if checked.is_ok() { ExitStatus::SUCCESS } else { ExitStatus::exited(1) });
    }
    checked.map(|()| ExitStatus::SUCCESS).map_err(|why| ExitStatus::exited(1).failure(why))
}

/// The file with what to check. The one of the running server: the latest generation may have ports that need a restart.
/// `None` with a custom main file, which decides everything.
fn health_file(places: &Places) -> Option<String> {
    let text = running::read(&places.runtime_dir, HEALTH_FILE).ok().flatten();
    text.filter(|_| places.custom_main_file().is_none())
}

/// The script in the server. `None` without one: the server does not answer, or nothing was rendered.
fn connect(running: &Running, places: &Places) -> Option<Connection> {
    let script = live::connect(&places.runtime_dir, &running.user, Duration::ZERO, STATUS_TIMEOUT).ok()?;
    script.ok().flatten()
}

/// What a reload has left undone, as JSON. `null` if this is not known.
fn left_undone(status: Option<&Status>) -> Value {
    json!({
        "not_as_configured": status.map(|status| &status.outcome.failed),
        "waits_for_restart": status.map(|status| &status.outcome.restart),
    })
}

/// What the server's process does, if that is known.
/// Errors: why it is not alive.
fn activity(running: Option<&Running>) -> Result<Option<Activity>, String> {
    match running::activity(running) {
        Some(Activity::Gone) => Err("the server's process has ended".to_owned()),
        Some(Activity::Stopped) => Err("the server's process is stopped, as by SIGSTOP".to_owned()),
        activity => Ok(activity),
    }
}

/// Checks whether the server is ready, and describes it as JSON if `all` is wanted. What is not known is `null`.
///
/// Databases and modules count until the server was ready for the first time, which it remembers itself: afterwards, a
/// database that is away would make every replica unready at once, and help nobody.
/// Errors: why it is not ready.
fn readiness(
    running: Option<&Running>,
    settings: &Settings,
    places: &Places,
    health: Option<&str>,
    all: bool,
) -> (Result<(), String>, Value) {
    let activity = activity(running);
    let runs = matches!(activity, Ok(None | Some(Activity::Runs)));
    let mut script = running.filter(|_| runs).and_then(|running| connect(running, places));
    let status = script.as_mut().and_then(|script| script.status().ok());
    let answer = match &status {
        _ if !runs => Ok(()),
        // Prosody would log a stream.
        Some(status) if is_open(health, &status.ports) => Ok(()),
        _ => check_answer(targets(health, settings, places), READY_TIMEOUT)
            .map_err(|why| format!("Prosody does not answer: {why}")),
    };
    let is_first = status.as_ref().is_some_and(|status| !status.was_ready);
    let databases = health.filter(|_| is_first || all).map(check_databases);

    let check = || {
        if activity? == Some(Activity::Starts) {
            return Err(
                "the start has not ended: it configures, or waits for a database or the data".to_owned()
            );
        }
        if status.as_ref().is_some_and(|status| status.is_stopping) {
            return Err("Prosody is stopping".to_owned());
        }
        answer?;
        let Some(status) = &status else { return Ok(()) };
        if !status.not_loaded.is_empty() {
            return Err(format!("not loaded: {}", several(&status.not_loaded)));
        }
        let away =
            databases.iter().flatten().find_map(|(name, checked)| Some((name, checked.as_ref().err()?)));
        match (away, &status.outcome.failed[..]) {
            _ if status.was_ready => Ok(()),
            (Some((name, why)), _) => Err(format!("{name}: {why}")),
            (None, []) => Ok(()),
            (None, failed) => Err(format!("not as configured: {}", several(failed))),
        }
    };
    let checked = check();
    if let (Some(script), true, Ok(())) = (&mut script, is_first, &checked) {
        // Otherwise the next success is the first.
        let _ = script.set_ready();
    }
    let mut json = left_undone(status.as_ref());
    json["was_ready"] = json!(status.as_ref().map(|status| status.was_ready));
    json["hosts_not_loaded"] = json!(status.as_ref().map(|status| &status.not_loaded));
    json["databases"] = json!(databases.map(|databases| {
        let describe = |(name, checked): (String, Result<(), String>)| {
            json!({ "name": name, "answers": checked.is_ok(), "reason": checked.err() })
        };
        databases.into_iter().map(describe).collect::<Vec<_>>()
    }));
    (checked, json)
}

/// Asks the servers of all databases. They share the time.
fn check_databases(health: &str) -> Vec<(String, Result<(), String>)> {
    let databases: Vec<Database> = health.lines().filter_map(Database::parse).collect();
    let share = DATABASE_TIMEOUT / databases.len().max(1) as u32;
    databases.iter().map(|it| (it.to_string(), database::check(it, share))).collect()
}

/// Opens a stream to the targets.
/// Errors: why none of them answers.
fn check_answer(targets: Option<Vec<Target>>, timeout: Duration) -> Result<(), String> {
    targets.map_or(Ok(()), |targets| check(&targets, timeout))
}

/// Whether one of the targets is among the open ports; if a custom file decides the ports, whether one is open.
fn is_open(health: Option<&str>, ports: &[u16]) -> bool {
    let is_open = |target: Target| ports.contains(&target.address.port());
    let is_met = |line: &str| line == LISTENING || Target::parse(line).is_some_and(is_open);
    !ports.is_empty() && health.is_some_and(|text| text.lines().any(is_met))
}

/// The targets of the running server's plan. If a custom file decides the ports, the targets are whatever the server
/// listens on. `None` if there are no ports for clients or servers, and nothing to check.
fn targets(health: Option<&str>, settings: &Settings, places: &Places) -> Option<Vec<Target>> {
    match health {
        Some(text) if !text.lines().any(|line| line == LISTENING) => {
            let targets: Vec<Target> = text.lines().filter_map(Target::parse).collect();
            (!targets.is_empty()).then_some(targets)
        }
        _ => Some(listening(settings, places)),
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
