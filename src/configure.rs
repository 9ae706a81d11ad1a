//! From the environment to files that Prosody reads: the stages in their order.

pub mod custom;
pub mod environment;
pub mod watch;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use nix::unistd::getppid;
use time::OffsetDateTime;

use crate::apply;
use crate::database;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::running::Running;
use crate::facts::{Facts, Places, next_generation};
use crate::intent;
use crate::layout::{CERTIFICATES_DIR, CURRENT, MAIN_FILE};
use crate::log;
use crate::lua::Secrets;
use crate::os::users::User;
use crate::os::watch::Watch;
use crate::plan::{self, Plan};
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::types::{LogFormat, LogLevel};
use crate::survey::certificates::ScannedCertificates;
use crate::survey::survey;
use crate::text::several;

/// How long a start waits for a database where `PROSODY_DB_WAIT` does not say otherwise.
const DB_WAIT: Duration = Duration::from_secs(60);

/// Reads the settings of this process's environment, and begins the log as they say.
pub fn read_settings() -> (Settings, Report) {
    let (settings, report) = Settings::read(std::env::vars_os());
    let format = match settings.entrypoint.entrypoint_log_format {
        Some(LogFormat::Json) => log::Format::Json,
        _ => log::Format::Text,
    };
    let level = match settings.entrypoint.entrypoint_log {
        Some(LogLevel::Debug) => tracing::Level::DEBUG,
        Some(LogLevel::Warn) => tracing::Level::WARN,
        Some(LogLevel::Error) => tracing::Level::ERROR,
        Some(LogLevel::Info) | None => tracing::Level::INFO,
    };
    log::init(format, level);
    (settings, report)
}

/// What a command wants of a plan.
pub struct PlanRequest {
    /// Whether its files hold secrets.
    pub secrets: Secrets,
    /// The directory of the generation; else the next one in the runtime directory.
    pub generation: Option<PathBuf>,
    /// Whom Prosody runs as already.
    pub user: Option<User>,
    /// Whether the modules that Prosody loads by itself are of interest, and what Prosody's own need.
    pub whole: bool,
    /// Where a running server's certificates are, which it keeps where there are no others.
    pub served_certificates: Option<PathBuf>,
}

impl PlanRequest {
    /// A plan for a generation that is about to be written.
    pub fn to_apply() -> Self {
        Self {
            secrets: Secrets::Written,
            generation: None,
            user: None,
            whole: false,
            served_certificates: None,
        }
    }

    /// A plan for people to look at.
    pub fn to_show() -> Self {
        Self { secrets: Secrets::Hidden, ..Self::to_apply() }
    }
}

/// From settings to a plan that can be applied. Certificates are scanned where that was not done yet.
///
/// # Errors
///
/// 78 with everything that is wrong; 127 where there is no Prosody.
pub fn make_plan(
    settings: &Settings,
    places: Places,
    mut report: Report,
    request: &PlanRequest,
    scanned: Option<ScannedCertificates>,
) -> Result<(Facts, Plan, Report), Failure> {
    let facts = match Facts::gather(settings, places, request.user.as_ref()) {
        Ok(facts) => facts,
        // What is wrong with the settings is what the user can mend first.
        Err(failure) => {
            intent::problems::unknown_names(settings, None, &mut report);
            return Err(refuse(settings, report).err().unwrap_or(failure));
        }
    };
    let now = OffsetDateTime::now_utc();
    let intent = intent::decide(settings, &facts, request.whole, &mut report);
    let findings = survey(&intent, &facts, scanned, request.served_certificates.as_deref(), now);
    let next = || next_generation(&facts.runtime_dir);
    let generation = request.generation.clone().unwrap_or_else(next);
    let mut plan = plan::make(intent, &facts, findings, &generation, request.secrets, now, &mut report);
    let report = refuse(settings, report)?;
    report.warnings().for_each(|warning| plan::add_warning(&mut plan.state, warning));
    Ok((facts, plan, report))
}

/// Where the certificates of the server are that runs here, if one does with what we rendered.
pub fn served_certificates(places: &Places) -> Option<PathBuf> {
    let folder = places.runtime_dir.join(CURRENT).join(CERTIFICATES_DIR);
    Running::find(places).map(|_| folder)
}

/// Ends here where something is wrong.
pub fn refuse(settings: &Settings, mut report: Report) -> Result<Report, Failure> {
    if settings.entrypoint.entrypoint_strict.is_some_and(|strict| strict.0) {
        report.make_strict();
    }
    if report.errors().is_empty() {
        return Ok(report);
    }
    Err(Failure::new(ExitStatus::CONFIGURATION, anyhow!("{report}")))
}

/// A mistake about a place or a file, as a failure of its own.
pub fn wrong(mistake: SettingError) -> Failure {
    let mut report = Report::default();
    report.error(mistake);
    Failure::new(ExitStatus::CONFIGURATION, anyhow!("{report}"))
}

/// Writes what was noticed into the log.
pub fn log_report(report: &Report) {
    for note in report.debugs() {
        tracing::debug!("{note}");
    }
    for remark in report.infos() {
        tracing::info!("{remark}");
    }
    for warning in report.warnings() {
        tracing::warn!("{warning}");
    }
}

/// Everything that a program of Prosody's needs to know.
pub struct Ready {
    /// Whom it runs as.
    pub user: User,
    /// Its configuration.
    pub main_file: PathBuf,
    /// Where data are.
    pub data_dir: PathBuf,
    /// Where generations are.
    pub runtime_dir: PathBuf,
    /// Whether it is Prosody 13.0 or newer.
    pub is_13: bool,
    /// Its environment, less what [`environment::complete`] adds.
    pub environment: Vec<(OsString, OsString)>,
}

/// Writes the configuration, unless the user has one, for a program that is about to start; for the server with what
/// certificates are watched with, or why they cannot be.
pub fn configure(watch: Option<&nix::Result<Watch>>) -> Result<Ready, Failure> {
    let is_server = watch.is_some();
    let (settings, report) = read_settings();
    let places = Places::find(&settings);
    let custom_main_file = places.custom_main_file();
    // Before certificates are read: what happens to them later, an event tells of.
    let start = |watch| watch::start(watch, &settings, &places, custom_main_file.is_some());
    let (unwatched, scanned) = watch.map(start).unwrap_or_default();
    if let Some(main_file) = custom_main_file {
        let ready = custom::configure(&settings, report, places, main_file, is_server)?;
        unwatched.iter().for_each(|problem| tracing::warn!("{problem}"));
        return Ok(ready);
    }

    let (facts, mut plan, report) = make_plan(&settings, places, report, &PlanRequest::to_apply(), scanned)?;
    if is_server {
        log_report(&report);
        plan.decision.lines.iter().for_each(|line| tracing::info!("{line}"));
    }
    for problem in unwatched {
        tracing::warn!("{problem}");
        plan::add_warning(&mut plan.state, &problem);
    }
    apply::prepare_data_dir(&facts.data_dir, &facts.identity)?;
    if is_server {
        apply::prepare_log_dir(&facts.identity);
    }
    let main_file = facts.runtime_dir.join(CURRENT).join(MAIN_FILE);
    let own_environment = environment::without_settings(&settings, &facts.custom_files.environment());
    if is_server && !plan.databases.is_empty() {
        let limit = settings.storage.db_wait.map_or(DB_WAIT, |wait| wait.0);
        let environment = environment::complete(own_environment.clone(), &main_file, &facts.data_dir);
        let who = database::LoginContext {
            prosody: &facts.prosody,
            user: &facts.identity,
            environment: &environment,
        };
        database::wait(&plan.databases, limit, &who, &facts.data_dir)?;
    }
    apply::apply(&plan, &facts.runtime_dir, &facts.data_dir, &facts.identity)?;
    if is_server {
        apply::publish_runtime_state(&plan, &facts.runtime_dir, getppid(), &facts.identity)?;
        if let Some(accounts) = &plan.accounts {
            apply::write_accounts_file(accounts, &facts.runtime_dir, &facts.identity)?;
        }
        say_what_is_served(&plan, &facts);
    }
    Ok(Ready {
        user: facts.identity,
        main_file,
        data_dir: facts.data_dir,
        runtime_dir: facts.runtime_dir,
        is_13: facts.prosody.is_13(),
        environment: own_environment,
    })
}

fn say_what_is_served(plan: &Plan, facts: &Facts) {
    let hosts = several(&plan.virtual_hosts);
    let own = facts.custom_files.define_host().then(|| "the hosts of your own files".to_owned());
    let hosts: Vec<String> = [hosts].into_iter().filter(|hosts| !hosts.is_empty()).chain(own).collect();
    tracing::info!(
        "Serving {} with Prosody {}; the configuration is in {}",
        hosts.join(" and "),
        facts.prosody.version,
        plan.generation.display()
    );
}

/// The files of a generation that a plan no longer has.
pub fn gone(generation: &Path, plan: &Plan) -> Vec<PathBuf> {
    let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let is_planned = |path: &PathBuf| {
        path == Path::new(crate::layout::STATE_FILE) || plan.files.iter().any(|file| file.path == *path)
    };
    let entries = fs::read_dir(generation).into_iter().flatten().flatten().filter(is_file);
    entries.map(|entry| PathBuf::from(entry.file_name())).filter(|path| !is_planned(path)).collect()
}
