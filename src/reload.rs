//! The reload of a running server, after SIGHUP or a changed file: reads everything again and applies it.
//!
//! It runs in a process that PID 1 forks, and has the script in the server ([`live`]) apply the new configuration. Where
//! there is none, PID 1 forwards SIGHUP to Prosody.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::mem;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, anyhow};
use nix::unistd::Pid;
use signal_hook::consts::SIGHUP;
use time::OffsetDateTime;

use crate::configure::watch;
use crate::configure::{PlanRequest, gone, make_plan, read_settings, renewal, state_of, written};
use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::facts::running::{self, Running};
use crate::facts::{self, Facts, Places};
use crate::init::{Cause, NO_SIGNAL};
use crate::layout::{CERTIFICATES_DIR, CURRENT, HEALTH_FILE, MAIN_FILE, STARTED_FILE};
use crate::live::{self, ANSWER_TIMEOUT, Connection, Outcome, SOCKET_TIMEOUT};
use crate::os::trusted_file;
use crate::os::users::User;
use crate::os::watch::{Watch, Watched};
use crate::plan::{self, Changes, Plan, State};
use crate::report::Report;
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::survey::certificates::ScannedCertificates;
use crate::survey::certificates::assign::{CertificateOrigin, SelfSigned, Served};
use crate::text::several;
use crate::{apply, log};

/// The time limit for Prosody's start, until it handles SIGHUP. With many hosts, a start is slow.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// The time limit for a whole reload, that wait included.
pub const TIME_LIMIT: Duration = Duration::from_secs(420);

/// The time between two looks at the expiry of certificates.
pub const EXPIRY_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a failing look at the server's process is repeated.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Files without a change for this long are assumed to be completely written.
const QUIET: Duration = Duration::from_millis(150);

/// The time limit for this. Later changes cause another reload.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(500);

/// How long an incomplete certificate, or a file that keeps changing, is assumed to be still being written.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Makes a new plan and applies it, for the server with this process id. Events of the watch are consumed.
///
/// The status is success if the server should get SIGHUP.
pub fn run(server: Pid, cause: Cause, watch: Option<&Watch>) -> ExitStatus {
    // Until it handles SIGHUP, its start may still write the same files, or read them.
    if cause != Cause::Daily && !wait_for_sighup_handler(|| takes_hangup(server), READ_TIMEOUT) {
        // The remaining events would cause another wait of the same length.
        watch.inspect(|watch| watch.discard());
        return NO_SIGNAL;
    }
    let reloaded = match cause {
        Cause::Daily => {
            warn_of_expiry(&Places::of_running(&read_settings().0));
            Ok(false)
        }
        _ => reload_or_renew(cause, watch),
    };
    match reloaded {
        Ok(true) => ExitStatus::SUCCESS,
        Ok(false) => NO_SIGNAL,
        Err(Failure { error, .. }) if is_end_of_server(&error) => {
            tracing::debug!("{error:#}");
            NO_SIGNAL
        }
        Err(Failure { status, error }) => {
            let error = error.context("Not reloaded, the server goes on as it was");
            log::report_failure(&Failure { status, error })
        }
    }
}

/// What a reload starts from.
struct Inputs {
    /// When the inputs were read.
    read_at: SystemTime,
    settings: Settings,
    report: Report,
    places: Places,
    /// `None` with a custom main file.
    running: Option<Running>,
    /// `None` if nothing is watched.
    watched: Option<Watched>,
    certificates: Option<ScannedCertificates>,
}

impl Inputs {
    /// Reads the inputs, and watches the present places.
    fn read(watch: Option<&Watch>) -> Result<Self, Failure> {
        let read_at = SystemTime::now();
        let (settings, report) = read_settings();
        let places = Places::of_running(&settings);
        let running = Running::in_directory(&places.runtime_dir)
            .with_context(|| format!("reading {} or /proc", places.runtime_dir.join(STARTED_FILE).display()));
        let running = running.status(ExitStatus::CANNOT_WRITE)?;
        let scan = |watch| watch::scan(watch, &settings, &places, running.is_none());
        let (watched, certificates) = watch.and_then(scan).unzip();
        Ok(Self { read_at, settings, report, places, running, watched, certificates: certificates.flatten() })
    }

    /// Whether a watched file of the configuration may have been read while it was being written.
    fn may_be_incomplete(&self) -> bool {
        watch::is_config_reload_enabled(&self.settings)
            && watch::has_changed_since(self.read_at - QUIET, &self.settings, &self.places)
    }

    /// Consumes the watch's events, and reads the inputs when writers have finished. `None` without a change in a watched
    /// place.
    fn after_changes(watch: &Watch) -> Result<Option<Self>, Failure> {
        match Self::read(Some(watch)) {
            Ok(Self { watched: Some(watched), .. }) => {
                let is_changed = watch.settle(&watched, QUIET, SETTLE_TIMEOUT);
                is_changed.then(|| Self::read(Some(watch))).transpose()
            }
            other => {
                watch.discard();
                other.map(|_| None)
            }
        }
    }
}

/// Reloads, or renews certificates alone if the configuration has an error. `true` if the server should get SIGHUP.
fn reload_or_renew(cause: Cause, watch: Option<&Watch>) -> Result<bool, Failure> {
    let inputs = match (cause, watch) {
        (Cause::FilesChanged, Some(watch)) => Inputs::after_changes(watch)?,
        _ => {
            // Everything is read from now on.
            watch.inspect(|watch| watch.discard());
            Some(Inputs::read(watch)?)
        }
    };
    let Some(mut inputs) = inputs else { return Ok(false) };
    let begin = Instant::now();
    let is_early = |inputs: &Inputs| {
        cause == Cause::FilesChanged && begin.elapsed() < WRITE_TIME && inputs.may_be_incomplete()
    };
    let reloaded = loop {
        match reload(cause, watch, &mut inputs, &is_early) {
            Err(failure) if is_too_early(&failure) || is_early(&inputs) => {
                sleep(QUIET);
                watch.inspect(|watch| watch.discard());
                inputs = Inputs::read(watch)?;
            }
            reloaded => break reloaded,
        }
    };
    reloaded.or_else(|failure| {
        let places = &inputs.places;
        let error = (failure.status == ExitStatus::CONFIGURATION).then(|| failure.to_string());
        let is_known = error.is_some() && error == last_error(places);
        let renewed = renew_certificates(failure, &inputs.settings, places);
        // It is the last error of a generation with renewed certificates, too.
        error.iter().for_each(|error| record(error, places));
        match renewed {
            Err(_) if is_known && cause == Cause::FilesChanged => Ok(false),
            renewed => renewed,
        }
    })
}

/// The last error that was logged since the configuration became current.
fn last_error(places: &Places) -> Option<String> {
    let current = facts::current_generation(&places.runtime_dir).ok()?;
    running::last_error(&places.runtime_dir, &current)
}

/// Records an error as the last one.
fn record(error: &str, places: &Places) {
    let current = facts::current_generation(&places.runtime_dir);
    if let (Some(Running { user, .. }), Ok(current)) = (Running::find(places), current) {
        let description = running::describe_error(&current, error);
        let published = apply::publish_error(&description, &places.runtime_dir, &user);
        // It will be logged once more.
        published.unwrap_or_else(|failure| tracing::debug!("{failure}"));
    }
}

/// The failure of a reload that has read files which are still being written.
fn too_early() -> Failure {
    Failure::new(ExitStatus::UNAVAILABLE, io::Error::from(ErrorKind::ResourceBusy))
}

fn is_too_early(failure: &Failure) -> bool {
    failure.error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::ResourceBusy)
}

/// Reloads. `true` if the server should get SIGHUP.
/// Errors: [`too_early`] if `is_early` says so. Then nothing has changed.
fn reload(
    cause: Cause,
    watch: Option<&Watch>,
    inputs: &mut Inputs,
    is_early: &dyn Fn(&Inputs) -> bool,
) -> Result<bool, Failure> {
    let places = inputs.places.clone();
    let Some(Running { user, started, .. }) = inputs.running.take() else {
        let main_file = places.config_dir.join(MAIN_FILE);
        tracing::info!("Reloading {}, untouched", main_file.display());
        return Ok(true);
    };
    if let Some(main_file) = places.custom_main_file() {
        let error =
            anyhow!(advice!("{} is new: restart the container to use it, or remove it", main_file.display()));
        return Err(Failure::new(ExitStatus::CONFIGURATION, error));
    }
    let current = places.runtime_dir.join(CURRENT);
    let before = facts::current_generation(&places.runtime_dir).map_err(|error| {
        let error = anyhow!(advice!("{}: {error}: restart the container", current.display()));
        Failure::new(ExitStatus::CANNOT_WRITE, error)
    })?;
    let last = state_of(&before);
    let last = State::parse(&last);

    let started = State::parse(&started);
    let served = before.join(CERTIFICATES_DIR);
    let request =
        PlanRequest { user: Some(user), served_certificates: Some(served), ..PlanRequest::default() };
    let begin = Instant::now();
    let (facts, plan, report) = loop {
        let (report, certificates) = (mem::take(&mut inputs.report), inputs.certificates.take());
        let (facts, mut plan, mut report) =
            make_plan(&inputs.settings, inputs.places.clone(), report, &request, certificates)?;
        for problem in inputs.watched.take().into_iter().flat_map(|watched| watched.problems) {
            plan::add_warning(&mut plan.state, &problem);
            report.warning(problem);
        }
        // A certificate may still be being written. If so, another event follows.
        let left = WRITE_TIME.saturating_sub(begin.elapsed());
        let new = State::parse(&plan.state);
        let is_final = cause == Cause::Hangup || left.is_zero() || last.has_no_new_pending(&new);
        let Some(watch) = watch.filter(|_| !is_final) else {
            break (facts, plan, report);
        };
        // Complete certificates do not wait for incomplete ones. Another reload checks those.
        if has_new_certificate(&plan, &last) {
            watch.remind(&facts.runtime_dir);
            plan.state = last.without_new_pending(&plan.state);
            report.forget_warnings();
            break (facts, plan, report);
        }
        if !watch.wait(left) {
            break (facts, plan, report);
        }
        *inputs = Inputs::after_changes(watch)?.map_or_else(|| Inputs::read(None), Ok)?;
    };
    let new = State::parse(&plan.state);
    let rendered = rendered_differences(&before, &plan);
    let files = last.changed_files(&new);
    let has_accounts = last.has_other_accounts(&new);
    let has_certificates = !plan.self_signed.is_empty() || last.has_other_certificates(&new);
    // After an error, the log says that it is over.
    let is_new = has_certificates
        || has_accounts
        || !rendered.is_empty()
        || !files.is_empty()
        || running::last_error(&places.runtime_dir, &before).is_some();
    let is_watched = watch::is_config_reload_enabled(&inputs.settings);
    if cause == Cause::FilesChanged && !has_certificates && !(is_watched && is_new) {
        return Ok(false);
    }
    if is_early(inputs) {
        return Err(too_early());
    }
    let mut changes = acceptable_changes(&started, &last, &new)?;
    let other_user = other_user(&user, &inputs.settings, &facts)?;
    let mut server = connect(&facts.runtime_dir, &facts.identity)?;
    if is_new {
        let accept = || {
            load(server.as_mut(), &plan.main_file())?;
            // It has read custom files.
            if is_early(inputs) { Err(too_early()) } else { Ok(true) }
        };
        let applied = apply::apply_if(&plan, &facts.runtime_dir, &facts.data_dir, &facts.identity, accept);
        // Otherwise it may have parsed the new one.
        applied.inspect_err(|_| drop(load(server.as_mut(), &before.join(MAIN_FILE))))?;
        for warning in report.warnings().filter(|warning| !last.has_warned(warning)) {
            tracing::warn!("{warning}");
        }
    } else {
        load(server.as_mut(), &before.join(MAIN_FILE))?;
    }
    let accounts = inputs.settings.source.given.get(&Field::accounts).and_then(|given| given.file.as_ref());
    let accounts = accounts.filter(|file| has_accounts && !files.contains(file));
    let files: Vec<&Path> = rendered.iter().chain(&files).chain(accounts).map(PathBuf::as_path).collect();
    let changed = changed_names(&files, &plan, &facts.config_dir);
    // The script creates them.
    let takes_accounts = server.is_some() && (cause == Cause::Hangup || (is_watched && has_accounts));
    if let Some(accounts) = plan.accounts.as_ref().filter(|_| takes_accounts) {
        // The new configuration is in force, so Prosody must be told of it in any case.
        let written = apply::write_accounts_file(accounts, &facts.runtime_dir, &facts.identity);
        written.unwrap_or_else(|error| tracing::error!("New accounts are not created: {error}"));
    }
    if let Some(server) = server {
        let outcome = apply_live(server, &plan, &last, &last.changed_modules(&new))?;
        let health = apply::publish_health(&plan, &facts.runtime_dir, &facts.identity);
        health.unwrap_or_else(|error| tracing::error!("{error}"));
        let restart: Vec<String> = other_user.into_iter().chain(outcome.restart).collect();
        log_outcome(&changed, &outcome.done, &outcome.failed, &restart);
        plan.certificates.lines.iter().for_each(|line| tracing::info!("{line}"));
        return Ok(false);
    }
    changes.restart.extend(other_user);
    log_outcome(&changed, &[], &[], &changes.restart);
    plan.certificates.lines.iter().for_each(|line| tracing::info!("{line}"));
    Ok(true)
}

/// The changes since the start of the server, which a running server may get.
/// Errors: 78 if it would look for its data elsewhere.
fn acceptable_changes(started: &State, last: &State, new: &State) -> Result<Changes, Failure> {
    // Compares with the state at the start, because changes that need a restart have had no effect since. Hosts of today
    // may not have been there.
    let mut changes = started.changes(new);
    for place in last.changes(new).places {
        if !changes.places.contains(&place) {
            changes.places.push(place);
        }
    }
    if changes.places.is_empty() {
        return Ok(changes);
    }
    let error = anyhow!(advice!(
        "{} changed, and a running server would look for its data in two places: restart the container, or undo the \
         change",
        several(&changes.places)
    ));
    Err(Failure::new(ExitStatus::CONFIGURATION, error))
}

/// The change of the user that Prosody should run as, in words.
fn other_user(user: &User, settings: &Settings, facts: &Facts) -> Result<Option<String>, Failure> {
    let now = facts::identity(settings, &facts.data_dir)?;
    let is_other = (user.uid, user.gid) != (now.uid, now.gid);
    Ok(is_other.then(|| {
        format!(
            "the user that Prosody runs as (uid {}, gid {}; now {}, {})",
            user.uid, user.gid, now.uid, now.gid
        )
    }))
}

/// Connects to the script in the server. `None` if the server can only be told by SIGHUP.
fn connect(runtime_dir: &Path, user: &User) -> Result<Option<Connection>, Failure> {
    live::connect(runtime_dir, user, SOCKET_TIMEOUT, ANSWER_TIMEOUT)?.map_err(no_answer)
}

/// Has the server parse a main file.
/// Errors: 78 for an error in it; 69 if the server does not answer.
fn load(server: Option<&mut Connection>, main_file: &Path) -> Result<(), Failure> {
    let loaded = server.map_or(Ok(Ok(())), |server| server.load(main_file)).map_err(no_answer)?;
    loaded.map_err(|reason| Failure::new(ExitStatus::CONFIGURATION, anyhow!(reason)))
}

fn apply_live(
    mut server: Connection,
    plan: &Plan,
    last: &State,
    modules: &[String],
) -> Result<Outcome, Failure> {
    let new = State::parse(&plan.state);
    let certificates = [last, &new].map(State::certificates_digest);
    let self_signed = plan.self_signed.iter().map(|own| own.host.clone());
    let renewed = last.renewed_names(&new).into_iter().chain(self_signed).collect();
    server.apply(certificates, &renewed, modules).map_err(no_answer)
}

fn no_answer(error: io::Error) -> Failure {
    let error =
        anyhow::Error::from(error).context("Prosody does not answer, and the next reload asks it again");
    Failure::new(ExitStatus::UNAVAILABLE, error)
}

/// Whether the server has closed the connection, as it does when it ends.
fn is_end_of_server(error: &anyhow::Error) -> bool {
    let kinds = [ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    error.downcast_ref::<io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
}

/// Warns about certificates in force that end soon.
fn warn_of_expiry(places: &Places) {
    // With a custom main file, it is not known which certificates are in force.
    if let (Some(_), Ok(generation)) = (Running::find(places), facts::current_generation(&places.runtime_dir))
    {
        let warnings = renewal::due(&generation, OffsetDateTime::now_utc());
        warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
}

/// After a failed reload: renews certificates alone if the error is in the configuration. `true` if the server should get
/// SIGHUP.
fn renew_certificates(failure: Failure, settings: &Settings, places: &Places) -> Result<bool, Failure> {
    let before = facts::current_generation(&places.runtime_dir);
    let (Some(Running { user, .. }), Ok(before), ExitStatus::CONFIGURATION) =
        (Running::find(places), before, failure.status)
    else {
        return Err(failure);
    };
    let Some(plan) = renewal::plan(settings, places, &user, &before) else { return Err(failure) };
    apply::apply(&plan, &places.runtime_dir, &places.data_dir, &user)?;
    let error = failure.error.context("Reloaded are certificates alone, all else goes on as it was");
    log::report_failure(&Failure { status: failure.status, error });
    let last = state_of(&before);
    let last = State::parse(&last);
    let changed = last.changed_files(&State::parse(&plan.state));
    let changed: Vec<&Path> = changed.iter().map(PathBuf::as_path).collect();
    let server = connect(&places.runtime_dir, &user)?;
    // It keeps the configuration that it has, and finds the certificates in the same place.
    let outcome = server.map(|server| apply_live(server, &plan, &last, &[])).transpose()?;
    log_outcome(&changed_names(&changed, &plan, &places.config_dir), &[], &[], &[]);
    plan.certificates.lines.iter().for_each(|line| tracing::info!("{line}"));
    Ok(outcome.is_none())
}

/// Whether a host has a new certificate, and none that is incomplete.
fn has_new_certificate(plan: &Plan, before: &State) -> bool {
    let is_complete = |served: &&Served| !served.unused.iter().any(|file| file.flaw.is_incomplete);
    let mut complete = plan.certificates.found.served.iter().filter(is_complete);
    complete.any(|served| match &served.origin {
        CertificateOrigin::Found(pair) => !before.serves(&served.name, pair.digest),
        _ => false,
    })
}

/// The rendered files and links that differ from those in `before`, except for the generation's own path in them.
fn rendered_differences(before: &Path, plan: &Plan) -> Vec<PathBuf> {
    let (before_name, name) = (before.to_string_lossy(), plan.generation.to_string_lossy());
    let is_same = |path: &Path, content: &str| {
        trusted_file::text(&before.join(path)).is_ok_and(|text| text.replace(&*before_name, &name) == content)
    };
    let mut different: Vec<PathBuf> = plan
        .files
        .iter()
        .filter(|file| file.path != Path::new(HEALTH_FILE) && !is_same(&file.path, &file.content))
        .map(|file| file.source.clone().unwrap_or_else(|| file.path.clone()))
        .collect();
    let (files, links_before) = written(before).unwrap_or_default();
    different.extend(gone(&files, plan).cloned());
    let links: BTreeSet<PathBuf> = plan.links.iter().map(|link| link.path.clone()).collect();
    different.extend(links_before.symmetric_difference(&links).cloned());
    different
}

/// The changed files and self-signed certificates.
fn changed_names(files: &[&Path], plan: &Plan, config_dir: &Path) -> Vec<String> {
    let short = |path: &&Path| path.strip_prefix(config_dir).unwrap_or(path).display().to_string();
    let certificate = |request: &SelfSigned| format!("the self-signed certificate of {}", request.host_ascii);
    files.iter().map(short).chain(plan.self_signed.iter().map(certificate)).collect()
}

/// Logs one line of what has changed, and one of what is not as configured.
fn log_outcome(changed: &[String], done: &[String], failed: &[String], restart: &[String]) {
    let text = match changed {
        [] => "no file has changed".to_owned(),
        _ => format!("changed: {}", several(changed)),
    };
    let text = [vec![text], done.to_owned()].concat().join("; ");
    if restart.is_empty() {
        tracing::info!("Reloading, {text}");
    } else {
        tracing::warn!("Reloading, {text}; without effect before a restart: {}", several(restart));
    }
    for failure in failed {
        tracing::error!("Not as configured: {failure}");
    }
}

/// Waits until a server handles SIGHUP, or blocks it to read it from a descriptor. Before that, the signal would kill
/// the server or be lost. `false` if the server has exited or a time limit is over, `unreadable` if `look` fails.
fn wait_for_sighup_handler(mut look: impl FnMut() -> io::Result<Option<bool>>, unreadable: Duration) -> bool {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        let (why, limit) = match look() {
            Ok(None) => return false,
            Ok(Some(true)) => return true,
            Ok(Some(false)) => ("Prosody does not take SIGHUP".to_owned(), START_TIMEOUT),
            Err(error) => (
                advice!("its process cannot be looked at in /proc ({error}): send SIGHUP again").into(),
                unreadable,
            ),
        };
        if start.elapsed() > limit {
            tracing::error!("Not reloaded: {why}");
            return false;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Whether a process is Prosody and takes SIGHUP. `None` if there is no such process, or it is a zombie.
fn takes_hangup(process: Pid) -> io::Result<Option<bool>> {
    // Before it executes Prosody, the child has our name, and briefly blocks all signals.
    let ours = running::of_process(Pid::this(), "status")?.unwrap_or_default();
    let Some(text) = running::of_process(process, "status")? else { return Ok(None) };
    let has_hangup = |set: &str| {
        let set = u64::from_str_radix(field(&text, set), 16).unwrap_or_default();
        set & (1 << (SIGHUP - 1)) != 0
    };
    if field(&text, "State").starts_with('Z') {
        return Ok(None);
    }
    let is_prosody = field(&text, "Name") != field(&ours, "Name");
    // A pending SIGHUP is the last reload's: Prosody may not have read that configuration yet.
    Ok(Some(is_prosody && (has_hangup("SigCgt") || has_hangup("SigBlk")) && !has_hangup("ShdPnd")))
}

/// A field of `/proc/PID/status` (proc(5)). Empty if there is no such field.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).unwrap_or_default().trim()
}

pub mod preview;
#[cfg(test)]
mod tests;
