//! Every case is planned twice: of one input there is one plan, whatever order a map of it has.
//!
//! That is done in a process of its own with the case's environment, which is this program again.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::Failed;
use prosody_entrypoint::facts::{Facts, Places};
use prosody_entrypoint::lua::Secrets;
use prosody_entrypoint::plan::Plan;
use prosody_entrypoint::report::Report;
use prosody_entrypoint::settings::Settings;
use prosody_entrypoint::survey::survey;
use prosody_entrypoint::{intent, plan};
use time::OffsetDateTime;

use crate::case::Case;
use crate::sandbox::Sandbox;

/// What this program is told to plan twice.
const TWICE: &str = "--plan-twice";

/// Whether this process is one that plans.
pub fn is_asked_for() -> bool {
    env::args_os().nth(1).is_some_and(|argument| argument == TWICE)
}

/// Plans a case twice.
pub fn check(case: &Case, sandbox: &Sandbox) -> Result<(), Failed> {
    let output = sandbox.run_program(&env::current_exe()?, &case.environment, &[TWICE.to_owned()]);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("planned twice: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Plans twice for this process's environment.
pub fn plan_twice() -> ExitCode {
    let (settings, _) = Settings::read(env::vars_os());
    let places = Places::find(&settings);
    if places.custom_main_file().is_some() {
        return ExitCode::SUCCESS;
    }
    // Without a user to run as there are no facts, and no plan.
    let Ok(facts) = Facts::gather(&settings, places, None) else { return ExitCode::SUCCESS };
    let now = OffsetDateTime::now_utc();
    let intent = || {
        let mut report = Settings::read(env::vars_os()).1;
        (intent::decide(&settings, &facts, true, &mut report), report)
    };
    let Ok(findings) = survey(&intent().0, &facts, None, None, now) else { return ExitCode::SUCCESS };
    let plan = || {
        let (intent, mut report) = intent();
        let generation = Path::new("/run/prosody/generation-1");
        let plan =
            plan::make(intent, &facts, findings.clone(), generation, Secrets::Written, now, &mut report);
        (plan, everything_said(&report))
    };
    let ((one, said), (other, said_again)) = (plan(), plan());
    // The places that differ, and not two plans in a row.
    let lines = |plan: &Plan| -> Vec<String> { format!("{plan:#?}").lines().map(str::to_owned).collect() };
    let differs = if said != said_again {
        Some(format!("{said:#?}\nand then {said_again:#?}"))
    } else if one != other {
        let first = lines(&one).into_iter().zip(lines(&other)).find(|(one, other)| one != other);
        Some(format!("{first:#?}"))
    } else {
        None
    };
    match differs {
        None => ExitCode::SUCCESS,
        Some(what) => {
            eprintln!("two plans of the same input differ: {what}");
            ExitCode::FAILURE
        }
    }
}

fn everything_said(report: &Report) -> Vec<String> {
    let mistakes = report.errors().iter().map(ToString::to_string);
    let others = report.infos.iter().chain(&report.debugs).cloned();
    mistakes.chain(others).chain(report.warnings().map(str::to_owned)).collect()
}
