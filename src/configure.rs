//! From the environment to a plan: the stages in their order, and what commands share of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use time::OffsetDateTime;

use crate::exit_status::{ExitStatus, Failure};
use crate::facts::running::Running;
use crate::facts::{Facts, Places};
use crate::layout::{CERTIFICATES_DIR, CURRENT, DEFAULT_CERTIFICATES, STATE_FILE};
use crate::log;
use crate::lua::Secrets;
use crate::os::users::User;
use crate::os::watch::{Watch, Watched};
use crate::plan::{self, Hosts, Plan};
use crate::report::{Mistake, Report};
use crate::settings::Settings;
use crate::settings::catalogue::PREFIX;
use crate::settings::types::{LogFormat, LogLevel};
use crate::settings::{compat, input};
use crate::survey::certificates::{self as files, Certificates, Source};

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
pub struct Wish<'a> {
    /// Whether its files hold secrets.
    pub secrets: Secrets,
    /// The directory of the generation, from the runtime directory.
    pub generation: &'a dyn Fn(&Path) -> PathBuf,
    /// Whom Prosody runs as already.
    pub user: Option<User>,
    /// Whether what Prosody's own modules need is looked at too.
    pub reads_own_modules: bool,
    /// Where a running server's certificates are, which it keeps where there are no others.
    pub served_certificates: Option<&'a Path>,
}

/// From settings to a plan that can be applied. Certificates are looked at where that was not done yet.
///
/// # Errors
///
/// 78 with everything that is wrong; 127 where there is no Prosody.
pub fn make_plan(
    settings: &Settings,
    places: Places,
    mut report: Report,
    wish: &Wish,
    found: Option<Certificates>,
) -> Result<(Facts, Plan, Report), Failure> {
    let facts = Facts::gather(settings, places, &mut report);
    let mut facts = match facts {
        Ok(facts) => facts,
        // What is wrong with the settings is what the user can mend first.
        Err(failure) => {
            unknown_names(settings, None, &mut report);
            return Err(refuse(settings, report).err().unwrap_or(failure));
        }
    };
    if let Some(user) = &wish.user {
        facts.identity = user.clone();
    }
    unknown_names(settings, Some(&facts), &mut report);
    for name in facts.user_files.environment().into_iter().filter(|name| settings.is_secret(name)) {
        report.warning(format!(
            "{name}: a file of yours reads it, but a secret is not in Prosody's environment: use a template \
             (`.cfg.lua.j2`), or a variable that does not begin with PROSODY_"
        ));
    }
    plan::check(settings, &facts, &mut report);
    let hosts = Hosts::decide(settings, &facts, &mut report);
    let found = found.unwrap_or_else(|| {
        let sources = plan::certificates::sources(settings, &facts.config_dir);
        files::look(&sources, OffsetDateTime::now_utc())
    });
    let served = wish.served_certificates;
    let decision = plan::certificates::decide(settings, &facts, &hosts, &found, served, &mut report);
    let generation = (wish.generation)(&facts.runtime_dir);
    let manner = plan::Manner {
        generation: &generation,
        secrets: wish.secrets,
        reads_own_modules: wish.reads_own_modules,
    };
    let mut plan = plan::make(settings, &facts, hosts, decision, manner, &mut report);
    let report = refuse(settings, report)?;
    report.warnings().for_each(|warning| plan::add_warning(&mut plan.state, warning));
    Ok((facts, plan, report))
}

/// What was found of certificates while they are watched.
pub struct Looked {
    pub watched: Watched,
    pub certificates: Certificates,
}

/// Has the certificates watched and looks at them, with `own_configuration` where Prosody looks for them by itself. `None`
/// where they are not to be watched.
pub fn watch_certificates(
    watch: &Watch,
    settings: &Settings,
    places: &Places,
    own_configuration: bool,
) -> Option<Looked> {
    if !is_reloading(settings) {
        return None;
    }
    let sources = match own_configuration {
        true => vec![Source { path: places.config_dir.join(DEFAULT_CERTIFICATES), only: None }],
        false => plan::certificates::sources(settings, &places.config_dir),
    };
    let mut found = None;
    let watched = watch.add(|show| {
        found = Some(files::look_and_show(&sources, OffsetDateTime::now_utc(), show));
    });
    Some(Looked { watched, certificates: found? })
}

/// Where the certificates of the server are that runs here, if one does with what we rendered.
pub fn served_certificates(places: &Places) -> Option<PathBuf> {
    let folder = places.runtime_dir.join(CURRENT).join(CERTIFICATES_DIR);
    Running::find(places).map(|_| folder)
}

/// Whether certificates that change are to be served without anybody's doing.
pub fn is_reloading(settings: &Settings) -> bool {
    settings.tls.certificate_reload.is_none_or(|on| on.0)
}

/// Ends here where something is wrong.
pub fn refuse(settings: &Settings, mut report: Report) -> Result<Report, Failure> {
    if settings.entrypoint.entrypoint_strict.is_some_and(|strict| strict.0) {
        report.make_strict();
    }
    if report.mistakes().is_empty() {
        return Ok(report);
    }
    Err(Failure::new(ExitStatus::CONFIGURATION, anyhow!("{report}")))
}

/// Warns about names that are no settings, unless a file of the user's reads them.
pub fn unknown_names(settings: &Settings, facts: Option<&Facts>, report: &mut Report) {
    let read = facts.map(|facts| facts.user_files.environment()).unwrap_or_default();
    // Where the user's own files define the hosts, `DOMAIN` is no sign that what any program could have is meant for us.
    let is_meant =
        !settings.has_foreign_domain() || !facts.is_some_and(|facts| facts.user_files.define_host());
    let is_warned_of =
        |name: &&String| !read.contains(name.as_str()) && (is_meant || name.starts_with(PREFIX));
    for name in settings.source.unknown.iter().filter(is_warned_of) {
        report.warning(compat::hint(name).unwrap_or_else(|| {
            let near = input::suggestion(name);
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            format!("{name}: there is no such setting{hint}")
        }));
    }
}

/// The files of a generation that a plan no longer has.
pub fn gone(generation: &Path, plan: &Plan) -> Vec<PathBuf> {
    let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let is_planned =
        |path: &PathBuf| path == Path::new(STATE_FILE) || plan.files.iter().any(|file| file.path == *path);
    let entries = fs::read_dir(generation).into_iter().flatten().flatten().filter(is_file);
    entries.map(|entry| PathBuf::from(entry.file_name())).filter(|path| !is_planned(path)).collect()
}

/// Writes what was noticed into the log.
pub fn log_report(report: &Report) {
    for note in report.notes() {
        tracing::debug!("{note}");
    }
    for remark in report.remarks() {
        tracing::info!("{remark}");
    }
    for warning in report.warnings() {
        tracing::warn!("{warning}");
    }
}

/// A mistake about a place or a file, as a failure of its own.
pub fn wrong(mistake: Mistake) -> Failure {
    let mut report = Report::default();
    report.mistake(mistake);
    Failure::new(ExitStatus::CONFIGURATION, anyhow!("{report}"))
}
