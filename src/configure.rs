//! Runs the stages in order, from the environment to the files that Prosody reads.

pub mod custom;
pub mod environment;
pub mod lock;
pub mod renewal;
pub mod watch;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::Flock;
use nix::unistd::{geteuid, getppid};
use time::OffsetDateTime;

use crate::exit_status::{ExitStatus, Failure};
use crate::facts::running::Running;
use crate::facts::{Facts, Places, next_generation};
use crate::intent::databases::Database;
use crate::layout::{AUTHORITIES, CERTIFICATES_DIR, CURRENT, MAIN_FILE, MODULES_DIR, STATE_FILE};
use crate::lua::Secrets;
use crate::os::users::User;
use crate::os::watch::Watch;
use crate::os::{directory, trusted_file};
use crate::plan::{self, Plan};
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::settings::input;
use crate::settings::types::{Boolean, LogFormat, LogLevel};
use crate::survey::certificates::ScannedCertificates;
use crate::survey::survey;
use crate::text::several;
use crate::{apply, database, intent, log};

/// The default of `PROSODY_DB_WAIT`.
const DB_WAIT: Duration = Duration::from_secs(60);

/// How long to wait for a database.
pub fn db_wait(settings: &Settings) -> Duration {
    settings.storage.db_wait.map_or(DB_WAIT, |wait| wait.0)
}

/// Reads the settings from this process's environment and starts the log with their level and format.
pub fn read_settings() -> (Settings, Report) {
    let (settings, report) = Settings::read(std::env::vars_os());
    let format = log_format(settings.observability.log_format, settings.observability.log_timestamps);
    let level = settings.entrypoint.entrypoint_log.map_or("info", LogLevel::as_str);
    let level = level.parse().unwrap_or(tracing::Level::INFO);
    log::init(format, level);
    (settings, report)
}

/// The format of the log as far as the environment gives it without an error: for messages before the settings are read,
/// and for PID 1, which does not read them.
pub fn format_of_environment() -> log::Format {
    log_format(input::peek(Field::log_format), input::peek(Field::log_timestamps))
}

fn log_format(format: Option<LogFormat>, has_time: Option<Boolean>) -> log::Format {
    match (format, has_time) {
        (Some(LogFormat::Json), _) => log::Format::Json,
        (_, Some(Boolean(true))) => log::Format::TimedText,
        _ => log::Format::Text,
    }
}

/// Like [`read_settings`], for a command that writes and starts nothing, so that any user may run it with
/// `docker exec`.
pub fn read_settings_to_show() -> (Settings, Report) {
    let (mut settings, report) = read_settings();
    if !geteuid().is_root() {
        let entrypoint = &mut settings.entrypoint;
        (entrypoint.user, entrypoint.uid, entrypoint.gid) = (None, None, None);
    }
    (settings, report)
}

/// A command's options for a plan. By default, it is for a generation that will be written.
#[derive(Default)]
pub struct PlanRequest {
    pub secrets: Secrets,
    /// The directory of the generation. By default, the next one in the runtime directory.
    pub generation: Option<PathBuf>,
    /// The user of a running Prosody. By default, the settings decide.
    pub user: Option<User>,
    /// Whether to include the modules that Prosody loads itself, and the needs of Prosody's own modules.
    pub whole: bool,
    /// Whether to give the data directory to Prosody's user, unless there are errors. Modules in it are found only then.
    pub prepares_data_dir: bool,
    /// The directory of a running server's certificates. The server keeps them if no others are found.
    pub served_certificates: Option<PathBuf>,
}

/// Makes a plan that can be applied. Scans for certificates unless `scanned` has them.
/// Errors: 78 with all errors of the report; 127 if Prosody is not installed; 77 if it cannot run as the chosen user;
/// those of [`apply::prepare_data_dir`].
pub fn make_plan(
    settings: &Settings,
    places: Places,
    mut report: Report,
    request: &PlanRequest,
    scanned: Option<ScannedCertificates>,
) -> Result<(Facts, Plan, Report), Failure> {
    let facts = match Facts::gather(settings, places, request.user.as_ref()) {
        Ok(facts) => facts,
        // The user can fix errors in settings first.
        Err(failure) => {
            intent::problems::unknown_names(settings, None, &mut report);
            return Err(refuse(settings, report).err().unwrap_or(failure));
        }
    };
    let now = OffsetDateTime::now_utc();
    let intent = intent::decide(settings, &facts, request.whole, &mut report);
    if request.prepares_data_dir && report.errors().is_empty() {
        apply::prepare_data_dir(&facts.data_dir, &facts.identity)?;
    }
    let findings = survey(&intent, &facts, scanned, request.served_certificates.as_deref(), now)?;
    let next = || next_generation(&facts.runtime_dir);
    let generation = request.generation.clone().unwrap_or_else(next);
    let mut plan = plan::make(intent, &facts, findings, &generation, request.secrets, now, &mut report);
    let report = refuse(settings, report)?;
    report.warnings().for_each(|warning| plan::add_warning(&mut plan.state, warning));
    Ok((facts, plan, report))
}

/// The directory of a running server's certificates, if it has a rendered configuration.
pub fn served_certificates(places: &Places) -> Option<PathBuf> {
    let folder = places.runtime_dir.join(CURRENT).join(CERTIFICATES_DIR);
    Running::find(places).map(|_| folder)
}

/// Returns the report if it has no errors. In strict mode, warnings about settings are errors.
/// Errors: 78 with all errors of the report.
pub fn refuse(settings: &Settings, mut report: Report) -> Result<Report, Failure> {
    if settings.entrypoint.entrypoint_strict.is_some_and(|strict| strict.0) {
        report.make_strict();
    }
    if report.errors().is_empty() {
        return Ok(report);
    }
    Err(ExitStatus::CONFIGURATION.failure(report))
}

/// A failure (78) for one error about a place or a file.
pub fn wrong(error: SettingError) -> Failure {
    let mut report = Report::default();
    report.error(error);
    ExitStatus::CONFIGURATION.failure(report)
}

/// Logs everything in the report except errors.
pub fn log_report(report: &Report) {
    report.debugs.iter().for_each(|message| tracing::debug!("{message}"));
    report.infos.iter().for_each(|message| tracing::info!("{message}"));
    report.warnings().for_each(|warning| tracing::warn!("{warning}"));
}

/// The variable of libpq for the seconds that a connection may take. A shard cannot wait longer for a database that hangs.
const CONNECT_TIMEOUT: &str = "PGCONNECT_TIMEOUT";

/// The inputs for starting Prosody or another program.
pub struct Ready {
    pub user: User,
    pub main_file: PathBuf,
    pub data_dir: PathBuf,
    pub runtime_dir: PathBuf,
    pub is_13: bool,
    /// The program's environment, before [`environment::complete`].
    pub environment: Vec<(OsString, OsString)>,
    /// The databases of the settings, of which a program may need some.
    pub databases: Vec<Database>,
    /// The server's locks on the data directory.
    pub data_locks: Vec<Flock<OwnedFd>>,
}

/// Writes the configuration for a program that will start, unless there is a custom main file.
///
/// `watch` is given for the server only. It is the watch for changed files, or the error of its creation.
/// Errors: the exit statuses of [`make_plan`], [`lock::data_dir`], [`apply::apply`], [`database::wait`] and [`custom::configure`].
pub fn configure(watch: Option<&nix::Result<Watch>>) -> Result<Ready, Failure> {
    let is_server = watch.is_some();
    let (mut settings, mut report) = read_settings();
    let places = Places::find(&settings);
    let custom_main_file = places.custom_main_file();
    // The watch starts before files are read, so that it reports every later change.
    let start = |watch| watch::start(watch, &settings, &places, custom_main_file.is_some());
    let (watch_problems, scanned) = watch.map(start).unwrap_or_default();
    if is_server && watch::is_config_reload_enabled(&settings) {
        (settings, report) = read_settings();
    }
    if let Some(main_file) = custom_main_file {
        let ready = custom::configure(&settings, report, places, main_file, is_server)?;
        watch_problems.iter().for_each(|problem| tracing::warn!("{problem}"));
        return Ok(ready);
    }

    let is_watched = scanned.is_some();
    let request = PlanRequest { prepares_data_dir: true, ..PlanRequest::default() };
    let (facts, mut plan, report) = make_plan(&settings, places, report, &request, scanned)?;
    if is_server {
        log_report(&report);
        plan.certificates.lines.iter().for_each(|line| tracing::info!("{line}"));
    }
    for problem in watch_problems {
        tracing::warn!("{problem}");
        plan::add_warning(&mut plan.state, &problem);
    }
    if is_server {
        apply::prepare_log_dir(&facts.identity);
    }
    let main_file = facts.runtime_dir.join(CURRENT).join(MAIN_FILE);
    let mut program_environment = environment::without_settings(&settings, &facts.custom_files.environment());
    if plan.has_authorities() {
        environment::trust(&mut program_environment, &facts.runtime_dir.join(CURRENT).join(AUTHORITIES));
    }
    if plan.shard.is_some() && !program_environment.iter().any(|(name, _)| name == CONNECT_TIMEOUT) {
        program_environment.push((CONNECT_TIMEOUT.into(), "5".into()));
    }
    let shard = plan.shard.filter(|_| is_server);
    let mut shared_directory = None;
    let data_locks = match shard {
        Some(number) => {
            let locks = lock::shard(&facts.data_dir, &facts.identity, lock::WAIT, number)?;
            shared_directory = locks.directory;
            locks.held
        }
        None if is_server => {
            lock::data_dir(&facts.data_dir, &facts.identity, lock::WAIT)?.into_iter().collect()
        }
        None => Vec::new(),
    };
    if is_server {
        apply::refuse_half_moved(&facts.data_dir, &facts.identity, None)?;
    }
    apply::apply(&plan, &facts.runtime_dir, &facts.data_dir, &facts.identity)?;
    if is_server && !plan.databases.is_empty() {
        let limit = db_wait(&settings);
        let environment = environment::complete(program_environment.clone(), &main_file, &facts.data_dir);
        let context = database::LoginContext {
            prosody: &facts.prosody,
            user: &facts.identity,
            environment: &environment,
        };
        database::wait(&plan.databases, limit, &context, &facts.data_dir)?;
    }
    if is_server {
        apply::warn_about_data(&facts.data_dir, &facts.identity)?;
        if let Some(Ok(watch)) = watch.filter(|_| is_watched && !plan.certificates.found.pending.is_empty()) {
            // The next file is an event, and causes another look at certificates that could not be read.
            watch.remind(&facts.runtime_dir);
        }
        let directory = shared_directory.as_deref();
        apply::publish_runtime_state(&plan, &facts.runtime_dir, getppid(), &facts.identity, directory)?;
        if let Some(accounts) = &plan.accounts {
            apply::write_accounts_file(accounts, &facts.runtime_dir, &facts.identity)?;
        }
        log_served_hosts(&plan, &facts);
    }
    Ok(Ready {
        user: facts.identity,
        main_file,
        data_dir: facts.data_dir,
        runtime_dir: facts.runtime_dir,
        is_13: facts.prosody.is_13(),
        environment: program_environment,
        databases: plan.databases,
        data_locks,
    })
}

fn log_served_hosts(plan: &Plan, facts: &Facts) {
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

/// The state of a generation, or an empty one.
pub fn state_of(generation: &Path) -> String {
    trusted_file::text(&generation.join(STATE_FILE)).unwrap_or_default()
}

/// The paths of a generation's files, without its state, and of its links, relative to it.
pub fn written(generation: &Path) -> io::Result<(BTreeSet<PathBuf>, BTreeSet<PathBuf>)> {
    let (mut files, mut links) = (BTreeSet::new(), BTreeSet::new());
    for folder in ["", MODULES_DIR, CERTIFICATES_DIR].map(Path::new) {
        let names = match directory::list(&generation.join(folder)) {
            Err(trusted_file::Error::Refused(Errno::ENOENT)) => continue,
            names => names?,
        };
        for path in names.into_iter().map(|name| folder.join(name)) {
            let found = fs::symlink_metadata(generation.join(&path))?;
            if found.is_symlink() {
                links.insert(path);
            } else if found.is_file() && path != Path::new(STATE_FILE) {
                files.insert(path);
            }
        }
    }
    Ok((files, links))
}

/// The written files beside the main file that are not in a plan.
pub fn gone<'a>(written: &'a BTreeSet<PathBuf>, plan: &'a Plan) -> impl Iterator<Item = &'a PathBuf> {
    let is_planned = |path: &PathBuf| plan.files.iter().any(|file| file.path == *path);
    written.iter().filter(move |path| path.parent() == Some(Path::new("")) && !is_planned(path))
}
