//! Configure, then become Prosody or another program under PID 1.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use nix::unistd::getppid;

use super::prosodyctl;
use crate::accounts;
use crate::apply;
use crate::configure::{Wish, log_report, make_plan, read_settings, refuse};
use crate::configure::{is_reloading, watch_certificates, wrong};
use crate::database;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::prosody::{self, Prosody};
use crate::facts::running::Running;
use crate::facts::{self, Places, custom_files as user_files};
use crate::init::{self, Command, Kind, Options, Reload};
use crate::layout::{CURRENT, MAIN_FILE};
use crate::lua::Secrets;
use crate::os::privileges;
use crate::os::users::User;
use crate::os::watch::{self, Watch};
use crate::plan;
use crate::report::{Mistake, Report};
use crate::settings::catalogue::PREFIX;
use crate::settings::{Settings, catalogue, input};
use crate::survey::certificates::Certificates;
use crate::{log, reload, text};

/// How long a start waits for a database where `PROSODY_DB_WAIT` does not say otherwise.
const DB_WAIT: Duration = Duration::from_secs(60);

/// The variable from which `prosody` and `prosodyctl` take the configuration file.
pub const CONFIG_VARIABLE: &str = "PROSODY_CONFIG";

/// Runs `arguments` as a program under PID 1, configured first.
///
/// Returns the program's exit status, or ours where it never came to that.
pub fn run(arguments: Vec<OsString>) -> Result<ExitStatus, Failure> {
    let command = resolve(arguments);
    let is_server = Path::new(&command[0]).file_name() == Some(OsStr::new("prosody"));
    // PID 1 is to be told of events, so it is the one to make this. The child says what is watched.
    let watch = is_server.then(Watch::new);
    let events = watch.as_ref().and_then(|watch| watch.as_ref().ok());
    let run = |server, cause| reload::run(server, cause, events);
    let reload = is_server.then_some(Reload { run: &run, watch: events });
    init::supervise(&Options::entrypoint(), reload, || {
        log::report_failure(&become_program(command, watch.as_ref()))
    })
}

/// What the server's certificates are watched with, or why they cannot be. Other programs have no use for it.
type MaybeWatch<'a> = Option<&'a nix::Result<Watch>>;

/// In the child: everything up to the exec, which does not return.
fn become_program(command: Vec<OsString>, watch: MaybeWatch) -> Failure {
    let is_server = watch.is_some();
    if is_server {
        init::ignore_hangup();
    }
    match configure(watch) {
        Ok(ready) => match ready.exec(command, is_server) {
            Ok(never) => match never {},
            Err(failure) => failure,
        },
        Err(failure) => failure,
    }
}

/// What the arguments mean: nothing is the server, and a command of `prosodyctl`'s may stand without it.
fn resolve(mut arguments: Vec<OsString>) -> Vec<OsString> {
    match arguments.first().and_then(|first| first.to_str()) {
        None if arguments.is_empty() => vec!["prosody".into(), "-F".into()],
        Some(first) if prosodyctl::is_command(first) => {
            arguments.insert(0, "prosodyctl".into());
            arguments
        }
        _ => arguments,
    }
}

/// Everything that a program of Prosody's needs to know.
struct Ready {
    user: User,
    main_file: PathBuf,
    data_dir: PathBuf,
    runtime_dir: PathBuf,
    is_13: bool,
    environment: Vec<(OsString, OsString)>,
}

impl Ready {
    fn exec(self, mut command: Vec<OsString>, is_server: bool) -> Result<std::convert::Infallible, Failure> {
        if Running::in_directory(&self.runtime_dir).is_none() {
            prosodyctl::warn_without_server(&command, self.is_13);
        }
        privileges::drop_to(&self.user)?;
        let mut program = command.remove(0);
        if program == "prosodyctl" {
            program = prosodyctl::program()?.into();
        }
        let command = Command {
            program,
            arguments: command,
            environment: environment(self.environment, &self.main_file, &self.data_dir),
            directory: None,
            kind: if is_server { Kind::Server } else { Kind::Program },
        };
        Err(command.exec())
    }
}

/// Writes the configuration, unless the user has one.
fn configure(watch: MaybeWatch) -> Result<Ready, Failure> {
    let is_server = watch.is_some();
    let (settings, report) = read_settings();
    let places = Places::find(&settings);
    let own_main_file = places.own_main_file();
    // Before certificates are read: what happens to them later, an event tells of.
    let start = |watch| start_watching(watch, &settings, &places, own_main_file.is_some());
    let (unwatched, found) = watch.map(start).unwrap_or_default();
    if let Some(main_file) = own_main_file {
        let ready = own_configuration(&settings, report, places, main_file, is_server)?;
        unwatched.iter().for_each(|problem| tracing::warn!("{problem}"));
        return Ok(ready);
    }

    let wish = Wish {
        secrets: Secrets::Written,
        generation: &apply::next_generation,
        user: None,
        reads_own_modules: false,
        served_certificates: None,
    };
    let (facts, mut plan, report) = make_plan(&settings, places, report, &wish, found)?;
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
    let own_environment = without_settings(&settings, &facts.user_files.environment());
    if is_server && !plan.databases.is_empty() {
        let limit = settings.storage.db_wait.map_or(DB_WAIT, |wait| wait.0);
        let environment = environment(own_environment.clone(), &main_file, &facts.data_dir);
        let who = database::Who { prosody: &facts.prosody, user: &facts.identity, environment: &environment };
        database::wait(&plan.databases, limit, &who, &facts.data_dir)?;
    }
    apply::apply(&plan, &facts.runtime_dir, &facts.data_dir, &facts.identity)?;
    if is_server {
        apply::announce(&plan, &facts.runtime_dir, getppid(), &facts.identity)?;
        if let Some(accounts) = &plan.accounts {
            apply::hand_over(accounts, &facts.runtime_dir, &facts.identity)?;
        }
        let hosts = text::several(&plan.virtual_hosts);
        let own = facts.user_files.define_host().then(|| "the hosts of your own files".to_owned());
        let hosts: Vec<String> = [hosts].into_iter().filter(|hosts| !hosts.is_empty()).chain(own).collect();
        tracing::info!(
            "Serving {} with Prosody {}; the configuration is in {}",
            hosts.join(" and "),
            facts.prosody.version,
            plan.generation.display()
        );
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

/// Has certificates watched. Returns what is not, a sentence each, for the server does without; and what was found.
fn start_watching(
    watch: &nix::Result<Watch>,
    settings: &Settings,
    places: &Places,
    own_configuration: bool,
) -> (Vec<String>, Option<Certificates>) {
    match watch {
        Ok(watch) => match watch_certificates(watch, settings, places, own_configuration) {
            Some(looked) => (looked.watched.problems, Some(looked.certificates)),
            None => (Vec::new(), None),
        },
        Err(error) if is_reloading(settings) => (vec![watch::refused(*error)], None),
        Err(_) => (Vec::new(), None),
    }
}

/// A `prosody.cfg.lua` of the user's own is the configuration: nothing is rendered, and its environment is whole.
fn own_configuration(
    settings: &Settings,
    report: Report,
    places: Places,
    main_file: PathBuf,
    is_server: bool,
) -> Result<Ready, Failure> {
    let (report, user, prosody) = check_own_configuration(settings, report, &places, &main_file)?;
    apply::prepare_data_dir(&places.data_dir, &user)?;
    let own_environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    if is_server {
        apply::prepare_log_dir(&user);
        log_report(&report);
        tracing::info!("The configuration is {}, untouched", main_file.display());
        let has_effect = |field: &&str| has_effect(field) || ["accounts", "account"].contains(field);
        let given = settings.source.given.iter().filter(|(field, _)| !has_effect(field));
        let given = given.map(|(_, given)| given.variable.as_str());
        // Any program could have the others, that file for one.
        let without_effect: Vec<&str> = given.filter(|name| name.starts_with(PREFIX)).collect();
        if !without_effect.is_empty() {
            tracing::warn!("Without effect beside that file: {}", without_effect.join(", "));
        }
        if let Some((accounts, prosody)) = accounts::text(settings).zip(prosody.as_ref()) {
            let program = prosodyctl::program()?;
            let environment = environment(own_environment.clone(), &main_file, &places.data_dir);
            accounts::make(&accounts, &program, prosody, &user, &environment);
        }
    }
    Ok(Ready {
        user,
        main_file,
        data_dir: places.data_dir,
        runtime_dir: places.runtime_dir,
        is_13: prosody.is_some_and(|prosody| prosody.is_13()),
        environment: own_environment,
    })
}

/// Finds what is wrong with a configuration of the user's own before Prosody reads it, and with the settings that have an
/// effect beside it. Returns what is left to say, whom Prosody runs as, and the Prosody that there is.
pub fn check_own_configuration(
    settings: &Settings,
    mut report: Report,
    places: &Places,
    main_file: &Path,
) -> Result<(Report, User, Option<Prosody>), Failure> {
    check_main_file(main_file)?;
    // The others have no effect, and may be variables that this very file reads.
    let without_file = |name: &str| name.strip_suffix("_FILE").unwrap_or(name).to_owned();
    let fields = catalogue::settings().map(|setting| setting.field);
    let fields = fields.filter(|field| has_effect(field) || *field == "accounts");
    let mut names: Vec<String> = fields.map(|field| without_file(&settings.variable(field))).collect();
    names.extend(["LOCAL", "PASSWORD"].map(str::to_owned));
    names.extend(settings.is_given("account").then(|| "DOMAIN".to_owned()));
    report.retain(|variable| names.contains(&without_file(variable)));
    let report = refuse(settings, report)?;
    // Where there is no Prosody at all, that is for the program to say.
    let prosody = prosody::find(std::env::var_os("PATH").as_deref()).ok();
    if let Some(hidden) = prosody.as_ref().and_then(Prosody::hidden_modules) {
        return Err(wrong(Mistake::about(&hidden)));
    }
    let user = facts::identity(settings, &places.data_dir)?;
    check_readable(main_file, &user)?;
    Ok((report, user, prosody))
}

/// Whether a setting, by its field, concerns us and not the configuration.
fn has_effect(field: &str) -> bool {
    field == "certificate_reload"
        || catalogue::Entrypoint::SECTION.settings.iter().any(|setting| setting.field == field)
}

/// Refuses what is no file, or none that Prosody can read.
fn check_main_file(main_file: &Path) -> Result<(), Failure> {
    let why = match fs::metadata(main_file) {
        Ok(found) if found.is_file() => {
            if !user_files::is_foreign_template(main_file) {
                return Ok(());
            }
            "it has `${…}` in it, which another image's start replaces and Lua does not know: remove the file and use \
             settings, or write Lua"
        }
        Ok(found) if found.is_dir() => {
            "it is a directory, which Docker makes where the file to mount does not exist: correct the mount"
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "it is a link to nothing: correct or remove it"
        }
        _ => "it is no regular file: correct or remove it",
    };
    Err(wrong(Mistake::about(&format!("{}: {why}", main_file.display()))))
}

/// Refuses a file that Prosody's user cannot read, of which Prosody would say that there is none.
fn check_readable(main_file: &Path, user: &User) -> Result<(), Failure> {
    let Err(error) = privileges::as_user(user, || fs::File::open(main_file)) else { return Ok(()) };
    let (why, User { uid, gid, .. }) = (text::reason(&error), user);
    Err(wrong(Mistake::about(&format!(
        "{}: Prosody's user (uid {uid}, gid {gid}) cannot read it ({why}): run `chgrp {gid}` and `chmod g+r` on it, and \
         `chmod g+x` on its directory",
        main_file.display()
    ))))
}

/// This process's environment without what begins with `PROSODY_`: secrets are among it, under misspelt names too. What
/// the user's files read stays, unless it is a secret. Another image's `PASSWORD` that was taken goes as well.
pub fn without_settings(settings: &Settings, read: &BTreeSet<&str>) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &OsStr| {
        let Some(name) = name.to_str() else { return true };
        let is_ours = name.starts_with(PREFIX) && !input::NOT_OURS.contains(&name);
        !settings.is_secret(name) && (!is_ours || read.contains(name))
    };
    std::env::vars_os().filter(|(name, _)| is_kept(name)).collect()
}

/// What Prosody's programs find in their environment besides.
pub fn environment(
    mut environment: Vec<(OsString, OsString)>,
    main_file: &Path,
    data_dir: &Path,
) -> Vec<(OsString, OsString)> {
    environment.retain(|(name, _)| name != CONFIG_VARIABLE && name != "HOME");
    environment.push((CONFIG_VARIABLE.into(), main_file.into()));
    environment.push(("HOME".into(), data_dir.into()));
    environment
}
