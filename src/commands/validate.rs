//! Finds what a start would refuse or warn about, and what users would miss: the settings, the plan, the data, and Prosody's
//! own checks.

mod features;

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::checks::{Checks, Temporary};
use super::dns::{Zone, wrong_records, zone_of};
use super::render::print;
use crate::apply;
use crate::cli::Validate as Options;
use crate::configure::{
    PlanRequest, custom, environment, log_report, make_plan, read_settings, read_settings_to_show,
};
use crate::data::ServedSince;
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::prosody::Prosody;
use crate::facts::{self, Places, running};
use crate::layout::MAIN_FILE;
use crate::os::privileges;
use crate::os::users::User;
use crate::report::Report;

/// Something that was found. Its text says what to do.
#[derive(Serialize)]
struct Finding {
    /// `error` for what a start refuses, `warning` for what it goes on with, `missing` for what users will miss.
    level: &'static str,
    text: String,
}

/// Everything that was found.
struct Findings<'a> {
    options: &'a Options,
    all: Vec<Finding>,
    /// The reports of Prosody's own checks, by their names.
    reports: Map<String, Value>,
}

/// Checks the configuration. Returns 0, 78 if Prosody finds an error, or 1 if DNS was to be checked and lacks something.
/// Errors: 78 with all errors in settings and custom files; 73 or 77 for a data directory that a start refuses; other
/// statuses if a check cannot run. With `--json`, they are in the object.
pub fn run(options: &Options) -> Result<ExitStatus, Failure> {
    let mut findings = Findings { options, all: Vec::new(), reports: Map::new() };
    let checked = check(&mut findings);
    if !options.json {
        return checked;
    }
    let status = checked.unwrap_or_else(|failure| {
        match failure.error.downcast_ref::<Report>() {
            Some(report) => {
                report.errors().iter().for_each(|error| findings.add("error", error.to_string()));
                report.warnings().for_each(|warning| findings.add("warning", warning.to_owned()));
            }
            None => findings.add("error", failure.to_string()),
        }
        failure.status
    });
    let passed = status == ExitStatus::SUCCESS;
    let object = json!({"passed": passed, "findings": findings.all, "reports": findings.reports});
    print(&format!("{object:#}\n"))?;
    Ok(status)
}

fn check(findings: &mut Findings) -> Result<ExitStatus, Failure> {
    let (settings, report) = if findings.options.json { read_settings_to_show() } else { read_settings() };
    let places = Places::find(&settings);
    let running_since = running::since(&places);
    if let Some(main_file) = places.custom_main_file() {
        let (report, user, prosody) = custom::check(&settings, report, &places, &main_file)?;
        findings.add_warnings(&report);
        findings.check_data(&places.data_dir, &user)?;
        let run = Checks {
            user: &user,
            variables: std::env::vars_os().collect(),
            main_file: &main_file,
            data_dir: &places.data_dir,
        };
        findings.check_lists(&run, prosody.as_ref(), running_since)?;
        let is_13 = prosody.is_some_and(|prosody| prosody.is_13());
        return findings.check_with_prosody(&run, is_13, None);
    }

    // `make_plan` reports errors of the user, with all others.
    let user = facts::identity(&settings, &places.data_dir).unwrap_or_else(|_| User::current());
    let directory = Temporary::create(user)?;
    let request = PlanRequest { generation: Some(directory.path.clone()), ..PlanRequest::default() };
    let (facts, plan, report) = make_plan(&settings, places, report, &request, None)?;
    findings.add_warnings(&report);
    findings.check_data(&facts.data_dir, &facts.identity)?;
    privileges::as_user(&user, || apply::write_to(&directory.path, &plan))??;
    let run = Checks {
        user: &user,
        variables: environment::without_settings(&settings, &facts.custom_files.environment()),
        main_file: &directory.path.join(MAIN_FILE),
        data_dir: &facts.data_dir,
    };
    findings.check_lists(&run, Some(&facts.prosody), running_since)?;
    findings.check_with_prosody(&run, facts.prosody.is_13(), Some(&zone_of(&settings, &facts, &plan)))
}

impl Findings<'_> {
    /// Adds a finding, and logs it unless the findings are shown as JSON.
    fn add(&mut self, level: &'static str, text: String) {
        match level {
            _ if self.options.json => {}
            "error" => tracing::error!("{text}"),
            "warning" => tracing::warn!("{text}"),
            _ => tracing::info!("{text}"),
        }
        self.all.push(Finding { level, text });
    }

    fn add_warnings(&mut self, report: &Report) {
        if self.options.json {
            report.warnings().for_each(|warning| self.add("warning", warning.to_owned()));
        } else {
            log_report(report);
        }
    }

    /// Looks for data that Prosody cannot use, in all files of hosts.
    fn check_data(&mut self, data_dir: &Path, user: &User) -> Result<(), Failure> {
        apply::check_data_dir(data_dir, user)?;
        let unusable = apply::unusable_data(data_dir, user, apply::Depth::Files)?;
        unusable.into_iter().for_each(|why| self.add("warning", why.to_string()));
        Ok(())
    }

    /// Looks for damaged lists of configured hosts.
    fn check_lists(
        &mut self,
        checks: &Checks,
        prosody: Option<&Prosody>,
        running_since: ServedSince,
    ) -> Result<(), Failure> {
        let Some(prosody) = prosody else { return Ok(()) };
        let found = checks.damaged_lists(prosody, running_since)?;
        found.into_iter().for_each(|why| self.add("warning", why));
        Ok(())
    }

    /// Runs Prosody's own checks as its user.
    fn check_with_prosody(
        &mut self,
        checks: &Checks,
        is_13: bool,
        zone: Option<&Zone>,
    ) -> Result<ExitStatus, Failure> {
        let (mut is_good, report) = checks.run("config")?;
        if !self.options.json {
            print(&report)?;
        }
        self.keep("config", is_good, &report);
        if !is_good {
            self.add(
                "error",
                "Prosody's own check of the configuration fails, and its report says why".to_owned(),
            );
            return Ok(ExitStatus::CONFIGURATION);
        }
        if is_13 {
            let (is_complete, report) = checks.run("features")?;
            self.keep("features", is_complete, &report);
            features::missing(&report)
                .into_iter()
                .for_each(|missing| self.add("missing", missing.to_string()));
        }
        if self.options.dns {
            let (passed, report) = checks.run("dns")?;
            let wrong = wrong_records(&report, zone);
            is_good = passed && wrong.is_empty();
            self.keep("dns", is_good, &report);
            for wrong in wrong {
                self.add("error", format!("DNS: {wrong}; `prosody-entrypoint dns` shows the records"));
            }
        }
        Ok(if is_good { ExitStatus::SUCCESS } else { ExitStatus::exited(1) })
    }

    fn keep(&mut self, check: &str, passed: bool, report: &str) {
        let lines: Vec<&str> = report.lines().collect();
        self.reports.insert(check.to_owned(), json!({"passed": passed, "report": lines}));
    }
}
