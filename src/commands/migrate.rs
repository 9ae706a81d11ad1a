//! Copies all data of a stopped server into another storage.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::data::{ServerData, supervise};
use super::render::print;
use crate::apply;
use crate::cli::Migrate;
use crate::configure::{PlanRequest, db_wait, lock, make_plan, read_settings};
use crate::database::{self, LoginContext};
use crate::exit_status::{ExitStatus, Failure, WithStatus};
use crate::facts::Places;
use crate::layout::{CURRENT, MAIN_FILE, MIGRATING_DIR, MIGRATION_DIR};
use crate::os::trusted_file;
use crate::settings::catalogue::Field;
use crate::settings::types::{DatabaseUrl, SettingType};
use crate::settings::{DATABASE_FIELDS, Settings};
use crate::text::several;

/// Migrates the data, and prints the settings to change.
/// Errors: 64 if the storage is none, or has the data already; 66 if the file cannot be read; 69 if a server uses the data
/// directory; 78 with a main file of one's own, or if the settings do not allow that storage; those of
/// [`ServerData::migrate`].
pub fn run(options: &Migrate) -> Result<ExitStatus, Failure> {
    supervise(|| migrate(options))
}

fn migrate(options: &Migrate) -> Result<ExitStatus, Failure> {
    let storage = storage(options)?;
    let (settings, _) = read_settings();
    if let Some(main_file) = Places::of_running(&settings).custom_main_file() {
        return Err(ExitStatus::CONFIGURATION.failure(advice!(
            "{}: `migrate` changes settings, which have no effect beside this file: make a backup, change the storage in the \
             file, and restore the backup into an empty data directory",
            main_file.display()
        )));
    }
    let change = Change::to(&storage, &settings);
    let server = ServerData::find()?;
    let claim = lock::claim(&server.data_dir, &server.user)?;
    if server.served_since(&claim).is_some() {
        return Err(ExitStatus::UNAVAILABLE.failure(advice!(
            "a server or another command uses {}: stop it, and run `docker run --rm OPTIONS IMAGE migrate` with this \
             container's options",
            server.data_dir.display()
        )));
    }
    apply::refuse_half_moved(&server.data_dir, &server.user, Some(MIGRATING_DIR))?;

    let (changed, report) = Settings::read(change.environment());
    let mut places = Places::find(&changed);
    places.runtime_dir.push(MIGRATION_DIR);
    let runtime_dir = places.runtime_dir.clone();
    let request = PlanRequest { user: Some(server.user), ..PlanRequest::default() };
    let (facts, plan, _) = make_plan(&changed, places, report, &request, None)?;
    let main_file = runtime_dir.join(CURRENT).join(MAIN_FILE);
    let copied = apply::apply(&plan, &runtime_dir, &server.data_dir, &server.user).and_then(|()| {
        let environment = server.environment_with(&main_file);
        let context = LoginContext { prosody: &facts.prosody, user: &server.user, environment: &environment };
        database::wait(&plan.databases, db_wait(&settings), &context, &server.data_dir)?;
        server.migrate(&main_file, &claim)
    });
    // It contains the database's password.
    let _ = fs::remove_dir_all(&runtime_dir);
    copied?;
    print(&change.instructions(&settings, plan.databases.is_empty()))?;
    Ok(ExitStatus::SUCCESS)
}

/// Where the data go.
enum Storage {
    Internal,
    Sqlite,
    /// A database, by its URL.
    Url(String),
}

fn storage(options: &Migrate) -> Result<Storage, Failure> {
    let (name, text) = match (&options.to, &options.to_file) {
        (Some(text), _) => ("--to".to_owned(), text.clone()),
        (None, file) => {
            let path = file.as_deref().unwrap_or(Path::new(""));
            let text = trusted_file::text(path).with_context(|| path.display().to_string());
            (path.display().to_string(), text.status(ExitStatus::NO_INPUT)?)
        }
    };
    match text.trim_end() {
        "internal" => Ok(Storage::Internal),
        "sqlite" => Ok(Storage::Sqlite),
        url => match DatabaseUrl::parse(url) {
            Ok(_) => Ok(Storage::Url(url.to_owned())),
            // The reason has nothing of the text, which may have a password.
            Err(reason) => Err(ExitStatus::USAGE
                .failure(format!("{name}: expected `internal`, `sqlite` or a URL: {reason}"))),
        },
    }
}

/// A change of the settings: the variable that names the new storage, and those that name others.
struct Change {
    set: (&'static str, String),
    left_out: Vec<String>,
}

impl Change {
    fn to(storage: &Storage, settings: &Settings) -> Self {
        let set = match storage {
            Storage::Internal => ("PROSODY_DEFAULT_STORAGE", "internal".to_owned()),
            Storage::Sqlite => ("PROSODY_DEFAULT_STORAGE", "sqlite".to_owned()),
            Storage::Url(url) => ("PROSODY_DATABASE_URL", url.clone()),
        };
        // Single stores may be in a database of their own choice beside files.
        let keeps_database = matches!(storage, Storage::Internal) && !settings.has_sql_family();
        let fields = [Field::default_storage].into_iter();
        let others = [Field::database_url].into_iter().chain(DATABASE_FIELDS).filter(|_| !keeps_database);
        let left_out = given(fields.chain(others), settings);
        Self { set, left_out }
    }

    /// This process's environment, changed.
    fn environment(&self) -> impl Iterator<Item = (OsString, OsString)> {
        let is_left_out = |name: &OsString| self.left_out.iter().any(|other| name == other.as_str());
        let (name, value) = &self.set;
        std::env::vars_os()
            .filter(move |(name, _)| !is_left_out(name))
            .chain([(OsString::from(name), OsString::from(value))])
    }

    /// What to do with the settings. `needs_no_database` is whether no store is in a database any more.
    fn instructions(&self, settings: &Settings, needs_no_database: bool) -> String {
        let (name, value) = &self.set;
        let mut left_out = self.left_out.clone();
        if needs_no_database {
            let others = [Field::database_url].into_iter().chain(DATABASE_FIELDS);
            left_out
                .extend(given(others, settings).into_iter().filter(|other| !self.left_out.contains(other)));
        }
        left_out.retain(|other| other != name);
        let set = advice!("Before the next start, set {name}={}", without_password(value));
        let mut text = format!("{set}\n");
        if !left_out.is_empty() {
            text += &advice!("and leave out {}", several(&left_out));
            text.push('\n');
        }
        text
    }
}

/// The variables that set these fields.
fn given(fields: impl Iterator<Item = Field>, settings: &Settings) -> Vec<String> {
    fields.filter(|field| settings.is_given(*field)).map(|field| settings.variable(field)).collect()
}

/// A URL with a placeholder for its password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    match rest.split_once('@').and_then(|(login, server)| Some((login.split_once(':')?.0, server))) {
        Some((user, server)) => format!("{scheme}://{user}:PASSWORD@{server}"),
        None => url.to_owned(),
    }
}
