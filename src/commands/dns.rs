//! Shows the DNS records that the configuration needs, or compares them with what resolves.

mod check;
mod records;
mod zone;

use serde_json::{Value, json};

pub use self::check::wrong_records;
pub use self::records::Zone;
use self::records::{Configuration, records};
use super::checks::{Checks, Temporary};
use super::render::print;
use crate::apply;
use crate::cli::Dns as Options;
use crate::configure::{
    PlanRequest, custom, environment, log_report, make_plan, read_settings_to_show, served_certificates,
};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::{self, Facts, Places};
use crate::intent::hosts::network_hostname;
use crate::layout::MAIN_FILE;
use crate::lua::Secrets;
use crate::os::privileges;
use crate::os::users::User;
use crate::plan::Plan;
use crate::settings::Settings;
use crate::text::several;

/// Shows the records. With `--check`, returns 1 if one is missing or wrong.
pub fn run(options: &Options) -> Result<ExitStatus, Failure> {
    let (settings, report) = read_settings_to_show();
    let places = Places::find(&settings);
    if let Some(main_file) = places.custom_main_file() {
        tracing::warn!("{} is the configuration: which records it needs is not known", main_file.display());
        if !options.check {
            return Ok(ExitStatus::SUCCESS);
        }
        let (_, user, _) = custom::check(&settings, report, &places, &main_file)?;
        let variables = std::env::vars_os().collect();
        let checks = Checks { user: &user, variables, main_file: &main_file, data_dir: &places.data_dir };
        return check(&checks, None, options.json);
    }
    let served_certificates = served_certificates(&places);
    if !options.check {
        let request = PlanRequest { secrets: Secrets::Hidden, served_certificates, ..PlanRequest::default() };
        let (facts, plan, report) = make_plan(&settings, places, report, &request, None)?;
        log_report(&report);
        let zone = zone_of(&settings, &facts, &plan);
        print(&if options.json {
            format!("{:#}\n", Value::Object(zone::object(&zone)))
        } else {
            zone::text(&zone)
        })?;
        return Ok(ExitStatus::SUCCESS);
    }

    // `make_plan` reports errors of the user, with all others.
    let user = facts::identity(&settings, &places.data_dir).unwrap_or_else(|_| User::current());
    let directory = Temporary::create(user)?;
    let generation = Some(directory.path.clone());
    let request = PlanRequest { generation, served_certificates, ..PlanRequest::default() };
    let (facts, plan, report) = make_plan(&settings, places, report, &request, None)?;
    log_report(&report);
    privileges::as_user(&user, || apply::write_to(&directory.path, &plan))??;
    let zone = zone_of(&settings, &facts, &plan);
    let variables = environment::without_settings(&settings, &facts.custom_files.environment());
    let main_file = directory.path.join(MAIN_FILE);
    let checks = Checks { user: &user, variables, main_file: &main_file, data_dir: &facts.data_dir };
    check(&checks, Some(&zone), options.json)
}

/// The records that the configuration needs.
pub fn zone_of(settings: &Settings, facts: &Facts, plan: &Plan) -> Zone {
    let hostname = network_hostname(settings, &facts.custom_files);
    records(&Configuration {
        hosts: &plan.hosts,
        options: &plan.options,
        network_hostname: hostname.map(|name| name.ascii().into_owned()),
        served: &plan.certificates.found.served,
        custom_files: &facts.custom_files,
    })
}

/// Runs Prosody's own check, and shows its report. In JSON, it is a member of the object with the records.
/// Errors: 1 if a record is missing or wrong.
fn check(checks: &Checks, zone: Option<&Zone>, as_json: bool) -> Result<ExitStatus, Failure> {
    let (passed, report) = checks.run("dns")?;
    let wrong = wrong_records(&report, zone);
    let is_good = passed && wrong.is_empty();
    if as_json {
        let mut object = zone.map(zone::object).unwrap_or_default();
        let lines: Vec<&str> = report.lines().collect();
        object.insert("check".to_owned(), json!({"passed": is_good, "wrong": wrong, "report": lines}));
        print(&format!("{:#}\n", Value::Object(object)))?;
    } else {
        print(&report)?;
    }
    if is_good {
        return Ok(ExitStatus::SUCCESS);
    }
    let what = if wrong.is_empty() { "the report says what".to_owned() } else { several(wrong) };
    Err(ExitStatus::exited(1).failure(format!(
        "DNS does not have what this configuration needs, and `prosody-entrypoint dns` shows: {what}"
    )))
}
