//! What SIGHUP does while a server runs, and a changed certificate: read everything again, and apply it.
//!
//! It runs in a process that PID 1 forks for it. Only where it succeeds is SIGHUP sent on to Prosody.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use nix::unistd::Pid;
use signal_hook::consts::SIGHUP;

use crate::apply;
use crate::configure::watch::{self, WatchedCertificates};
use crate::configure::{PlanRequest, gone, make_plan, read_settings};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::running::Running;
use crate::facts::{self, Facts, Places};
use crate::init::Cause;
use crate::layout::{self, CERTIFICATES_DIR, CURRENT, HEALTH_FILE, MAIN_FILE, MODULES_DIR, STATE_FILE};
use crate::log;
use crate::os::watch::Watch;
use crate::plan::certificates::SelfSignedRequest;
use crate::plan::{self, Changes, Plan, State};
use crate::settings::Settings;
use crate::survey::certificates::assign::{CertificateOrigin, Served};
use crate::text::several;

/// How long Prosody may take until it can be signalled; with many hosts it is busy with its start for so long.
const PATIENCE: Duration = Duration::from_secs(300);

/// For how long nothing may happen to certificates until whoever writes them is taken to be finished.
const QUIET: Duration = Duration::from_millis(150);

/// How long that may take. What happens later is another reload's.
const AT_MOST: Duration = Duration::from_millis(500);

/// How long what is only half there may be somebody's who is just writing it.
const WRITING: Duration = Duration::from_secs(10);

/// The status where the server is not to be told.
const NOTHING_TO_TELL: ExitStatus = ExitStatus::exited(1);

/// Plans and applies again, for the server with this process id.
///
/// The status is success where the server is to be told.
pub fn run(server: Pid, cause: Cause, watch: Option<&Watch>) -> ExitStatus {
    // Before this, its own start may not be over: that writes too, and reads what would be written here.
    if !wait_until_it_can_reload(server) {
        // It would be waited for as long again.
        watch.inspect(|watch| watch.discard());
        return NOTHING_TO_TELL;
    }
    match reload(cause, watch) {
        Ok(true) => ExitStatus::SUCCESS,
        Ok(false) => NOTHING_TO_TELL,
        Err(Failure { status, error }) => {
            let error = error.context("Not reloaded, the server goes on as it was");
            log::report_failure(&Failure { status, error })
        }
    }
}

/// Whether the server is to be told.
fn reload(cause: Cause, watch: Option<&Watch>) -> Result<bool, Failure> {
    let (settings, report) = read_settings();
    let places = Places::of_running(&settings);
    let running = Running::find(&places);
    let looked = watch.and_then(|watch| look_at(watch, cause, &settings, &places, running.is_none()));
    if cause == Cause::FilesChanged && looked.is_none() {
        return Ok(false);
    }
    let Some(Running { user, started, generation }) = running else {
        let main_file = places.config_dir.join(MAIN_FILE);
        tracing::info!("Reloading {}, untouched", main_file.display());
        return Ok(true);
    };
    if let Some(main_file) = places.custom_main_file() {
        let error = anyhow!("{} is new: restart the container to use it, or remove it", main_file.display());
        return Err(Failure::new(ExitStatus::CONFIGURATION, error));
    }
    let current = places.runtime_dir.join(CURRENT);
    let before = fs::read_link(&current).map(|name| places.runtime_dir.join(name));
    let before = before.map_err(|error| {
        let error = anyhow!("{}: {error}: restart the container", current.display());
        Failure::new(ExitStatus::CANNOT_WRITE, error)
    })?;
    let last = fs::read_to_string(before.join(STATE_FILE)).unwrap_or_default();
    let last = State::parse(&last);

    let started = State::parse(&started);
    let served = before.join(CERTIFICATES_DIR);
    let request = PlanRequest {
        user: Some(user.clone()),
        served_certificates: Some(served),
        ..PlanRequest::to_apply()
    };
    let begin = Instant::now();
    let (mut settings_report, mut looked) = (report, looked);
    let (facts, plan, report) = loop {
        let (watched, found) = looked.map(|looked| (looked.watched, looked.certificates)).unzip();
        let (facts, mut plan, mut report) =
            make_plan(&settings, places.clone(), settings_report, &request, found)?;
        for problem in watched.into_iter().flat_map(|watched| watched.problems) {
            plan::add_warning(&mut plan.state, &problem);
            report.warning(problem);
        }
        // Whoever writes certificates may not be finished: then the next event tells of more.
        let left = WRITING.saturating_sub(begin.elapsed());
        let new = State::parse(&plan.state);
        let is_over = cause == Cause::Hangup || left.is_zero() || last.has_no_new_pending(&new);
        let Some(watch) = watch.filter(|_| !is_over) else {
            break (facts, plan, report);
        };
        // What is complete does not wait for what is not, which is looked at again then.
        if has_new_certificate(&plan, &last) {
            watch.remind(&facts.runtime_dir);
            plan.state = last.without_new_pending(&plan.state);
            report.forget_warnings();
            break (facts, plan, report);
        }
        if !watch.wait(left) {
            break (facts, plan, report);
        }
        looked = look_at(watch, Cause::FilesChanged, &settings, &places, false);
        settings_report = read_settings().1;
    };
    if cause == Cause::FilesChanged
        && plan.certificates.is_empty()
        && !last.has_other_certificates(&State::parse(&plan.state))
    {
        return Ok(false);
    }
    let new = State::parse(&plan.state);
    // What was taken up since the start, without effect, is nothing to compare with.
    let mut changes = started.changes(&new);
    let now = facts::identity(&settings, &facts.data_dir)?;
    if (user.uid, user.gid) != (now.uid, now.gid) {
        changes.restart.push(format!(
            "the user that Prosody runs as (uid {}, gid {}; now {}, {})",
            user.uid, user.gid, now.uid, now.gid
        ));
    }
    if !changes.places.is_empty() {
        return Err(Failure::new(
            ExitStatus::CONFIGURATION,
            anyhow!(
                "{} changed, and a running server would look for its data in two places: restart the container, or \
                 undo the change",
                several(&changes.places)
            ),
        ));
    }
    let rendered = rendered_differences(&before, &plan);
    let files = last.changed_files(&new);
    let has_certificates = !plan.certificates.is_empty() || last.has_other_certificates(&new);
    if has_certificates || !rendered.is_empty() || !files.is_empty() {
        for warning in report.warnings().filter(|warning| !last.has_warned(warning)) {
            tracing::warn!("{warning}");
        }
        apply::apply(&plan, &facts.runtime_dir, &facts.data_dir, &facts.identity)?;
    }
    let files: Vec<&Path> = rendered.iter().chain(&files).map(PathBuf::as_path).collect();
    say(&files, &changes, &plan, &facts);
    // A server that was started without accounts has nobody who would take them.
    let takes_accounts = facts.runtime_dir.join(generation).join(layout::accounts_module()).exists();
    if let Some(accounts) = plan.accounts.as_ref().filter(|_| takes_accounts && cause == Cause::Hangup) {
        apply::write_accounts_file(accounts, &facts.runtime_dir, &facts.identity)?;
    }
    plan.decision.lines.iter().for_each(|line| tracing::info!("{line}"));
    Ok(true)
}

/// Whether a host has another certificate than before that is complete.
fn has_new_certificate(plan: &Plan, before: &State) -> bool {
    let is_complete = |served: &&Served| !served.passed_over.iter().any(|file| file.is_incomplete);
    let mut complete = plan.decision.found.served.iter().filter(is_complete);
    complete.any(|served| match &served.origin {
        CertificateOrigin::Found(pair) => !before.serves(&served.name, pair.digest),
        _ => false,
    })
}

/// Takes what has happened to certificates, and watches those that are there now. `None` where nothing has happened, or
/// they are not watched.
fn look_at(
    watch: &Watch,
    cause: Cause,
    settings: &Settings,
    places: &Places,
    own_configuration: bool,
) -> Option<WatchedCertificates> {
    let add = || watch::scan(watch, settings, places, own_configuration);
    match (cause, add()) {
        (Cause::FilesChanged, Some(looked)) => {
            watch.settle(&looked.watched, QUIET, AT_MOST).then(add).flatten()
        }
        // All is read now.
        (_, looked) => {
            watch.discard();
            looked
        }
    }
}

/// The rendered files that are not as they were. Each generation names itself in what it renders.
fn rendered_differences(before: &Path, plan: &Plan) -> Vec<PathBuf> {
    let (before_name, name) = (before.to_string_lossy(), plan.generation.to_string_lossy());
    let is_same = |path: &Path, content: &str| {
        fs::read_to_string(before.join(path)).is_ok_and(|text| text.replace(&*before_name, &name) == content)
    };
    let mut different: Vec<PathBuf> = plan
        .files
        .iter()
        .filter(|file| file.path != Path::new(HEALTH_FILE) && !is_same(&file.path, &file.content))
        .map(|file| file.source.clone().unwrap_or_else(|| file.path.clone()))
        .collect();
    different.extend(gone(before, plan));
    let links: BTreeSet<PathBuf> = plan.links.iter().map(|link| link.path.clone()).collect();
    different.extend(links_in(before).symmetric_difference(&links).cloned());
    different
}

/// The names of a generation's links, those in its folder of modules too.
fn links_in(generation: &Path) -> BTreeSet<PathBuf> {
    let is_link = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
    let links = |folder: &str| {
        let entries = fs::read_dir(generation.join(folder)).into_iter().flatten().flatten().filter(is_link);
        entries.map(|entry| Path::new(folder).join(entry.file_name())).collect::<Vec<PathBuf>>()
    };
    ["", MODULES_DIR, CERTIFICATES_DIR].into_iter().flat_map(links).collect()
}

/// One line: what is different, and what of that waits for a restart.
fn say(files: &[&Path], changes: &Changes, plan: &Plan, facts: &Facts) {
    let short = |path: &Path| path.strip_prefix(&facts.config_dir).unwrap_or(path).display().to_string();
    let mut names: Vec<String> = files.iter().map(|path| short(path)).collect();
    let certificate =
        |request: &SelfSignedRequest| format!("the self-signed certificate of {}", request.host);
    names.extend(plan.certificates.iter().map(certificate));
    let what = match names[..] {
        [] => "no file has changed".to_owned(),
        _ => format!("changed: {}", several(&names)),
    };
    if changes.restart.is_empty() {
        tracing::info!("Reloading, {what}");
    } else {
        tracing::warn!("Reloading, {what}; without effect before a restart: {}", several(&changes.restart));
    }
}

/// Waits until a server has its handler for SIGHUP, or blocks it so as to read it from a descriptor. Before that, the
/// signal would end it, or be lost. False where it has ended.
fn wait_until_it_can_reload(server: Pid) -> bool {
    let start = Instant::now();
    // Until it executes Prosody, the child has our name, and all signals blocked for a moment.
    let ours = Status::of(Pid::this()).map(|status| status.name);
    let mut pause = Duration::from_millis(2);
    while let Some(status) = Status::of(server) {
        // One that is pending is of the last reload, which Prosody may not have read yet.
        if status.takes_hangup && !status.has_hangup && Some(status.name) != ours {
            return true;
        }
        if start.elapsed() > PATIENCE {
            tracing::error!("Not reloaded: Prosody does not take SIGHUP");
            return false;
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    false
}

/// What `/proc/PID/status` says of a process (proc(5)).
struct Status {
    name: String,
    takes_hangup: bool,
    has_hangup: bool,
}

impl Status {
    /// `None` where there is no such process, or it has ended.
    fn of(process: Pid) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let has_hangup = |set: &str| {
            field(set)
                .and_then(|set| u64::from_str_radix(set, 16).ok())
                .is_some_and(|set| set & (1 << (SIGHUP - 1)) != 0)
        };
        if field("State")?.starts_with('Z') {
            return None;
        }
        Some(Self {
            name: field("Name")?.to_owned(),
            takes_hangup: has_hangup("SigCgt") || has_hangup("SigBlk"),
            has_hangup: has_hangup("ShdPnd"),
        })
    }
}

#[cfg(test)]
mod tests;
