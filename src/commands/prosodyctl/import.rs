//! `prosodyctl cert import`, the renewal hook of Prosody's manual. Prosody's own would copy certificates and keys to where
//! no rendered configuration looks for them. Here they are found where they are, so this reloads and tells the outcome.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use signal_hook::consts::SIGHUP;
use time::OffsetDateTime;

use crate::configure::state_of;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::{Places, current_generation, running};
use crate::intent::certificates::{SearchPlace, Service, sources};
use crate::layout::PID_FILE;
use crate::os::system;
use crate::plan::State;
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::settings::types::ascii;
use crate::survey::certificates::{Pair, scan};
use crate::text::several;

/// How long a reload may take, on a busy machine and with many hosts.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// The time between two looks at the state.
const PAUSE: Duration = Duration::from_millis(50);

/// Brings the certificates in directories into force. `arguments` are host names, by default those of all hosts, and
/// directories or files.
/// Errors: 1 if no certificate is found there, or if one is not in force after a reload.
pub fn run(settings: &Settings, places: &Places, arguments: &[OsString]) -> Result<ExitStatus, Failure> {
    let state = || current_generation(&places.runtime_dir).map(|path| state_of(&path)).unwrap_or_default();
    let text = state();
    let names = State::parse(&text).names();
    let is_name = |argument: &&OsString| argument.to_str().is_some_and(|name| names.contains(name));
    let count = arguments.iter().take_while(is_name).count();
    let (hosts, paths) = arguments.split_at(count);
    if paths.is_empty() {
        return Err(failure("expected a directory: `prosodyctl cert import [HOST …] DIRECTORY …`"));
    }
    let chosen: Vec<&str> = match hosts {
        [] => names.into_iter().collect(),
        hosts => hosts.iter().filter_map(|name| name.to_str()).collect(),
    };
    let paths: Vec<PathBuf> =
        paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into())).collect();
    let given = several(paths.iter().map(|path| path.display()));
    let places_given: Vec<SearchPlace> =
        paths.iter().map(|path| SearchPlace { path: path.clone(), only: None }).collect();
    let scanned = scan(&places_given, OffsetDateTime::now_utc());
    let pair = |name: &str| scanned.choose(&ascii(name)?, Service::Xmpp).pair;
    let found: BTreeMap<&str, Rc<Pair>> =
        chosen.iter().filter_map(|name| Some((*name, pair(name)?))).collect();
    if found.is_empty() {
        let problems = scanned.problems().iter().map(|problem| format!("; {problem}"));
        let problems: String = problems.collect();
        return Err(failure(&format!(
            "there is no certificate for {} in {given}{problems}",
            several(&chosen)
        )));
    }
    let missing = || -> Vec<String> {
        let text = state();
        let state = State::parse(&text);
        let missing = found.iter().filter(|(name, pair)| !state.serves(name, pair.digest));
        missing.map(|(name, _)| (*name).to_owned()).collect()
    };
    if !missing().is_empty() {
        let sources = sources(settings, &places.config_dir);
        if !paths.iter().all(|path| sources.iter().any(|source| is_within(path, &source.path))) {
            return Err(failure(&advice!(
                "certificates are not searched for in {given}: name it in {}, and restart the container; then each \
                 renewal there is served without this command",
                settings.variable(Field::import_certificate_directories)
            )));
        }
        let init = running::read(&places.runtime_dir, PID_FILE).ok().flatten().unwrap_or_default();
        // Without the permission for this, the watch for certificates has the same effect.
        let _ = init.trim().parse().map(|init| system::send_signal(Pid::from_raw(init), SIGHUP));
    }
    let start = Instant::now();
    while !missing().is_empty() {
        if start.elapsed() > RELOAD_TIMEOUT {
            return Err(failure(&format!(
                "what is in {given} for {} is not in force: the server's log says why, or `prosody-entrypoint certificates`",
                several(missing())
            )));
        }
        sleep(PAUSE);
    }
    for (name, pair) in found {
        tracing::info!("In force for {name}: {}", pair.certificate.display());
    }
    Ok(ExitStatus::SUCCESS)
}

fn failure(why: &str) -> Failure {
    ExitStatus::exited(1).failure(format!("Nothing is imported: {why}"))
}

/// Whether a path is below a source or leads to it.
fn is_within(path: &Path, source: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (path, source) = (real(path), real(source));
    path.starts_with(&source) || source.starts_with(&path)
}
