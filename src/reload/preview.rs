//! What a reload would do in the running server, for `render --diff`.

use std::time::Duration;

use nix::unistd::geteuid;

use crate::apply;
use crate::configure::{PlanRequest, make_plan, state_of};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::running::{self, Running};
use crate::facts::{Places, current_generation};
use crate::layout::CERTIFICATES_DIR;
use crate::live::{self, Outcome};
use crate::plan::State;
use crate::report::Report;
use crate::settings::Settings;

use super::{acceptable_changes, no_answer, other_user};

/// The time limit for the next line of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What a reload would do.
#[derive(Debug, PartialEq)]
pub enum Preview {
    /// No server runs, or it cannot be asked, for this reason.
    NotKnown(String),
    /// It would change nothing, for this reason.
    Refused(String),
    /// What it would change, and what is not as it is configured until then.
    Known { would_be: Outcome, is: Outcome },
}

/// Has the running server compare the configuration that a reload would render with its own. The settings have no
/// errors.
pub fn preview(settings: &Settings, places: &Places) -> Preview {
    ask(settings, places).unwrap_or_else(|Failure { error, .. }| Preview::NotKnown(format!("{error:#}")))
}

fn ask(settings: &Settings, places: &Places) -> Result<Preview, Failure> {
    let (Some(Running { user, started, .. }), Ok(before)) =
        (Running::find(places), current_generation(&places.runtime_dir))
    else {
        return Ok(Preview::NotKnown("no server runs".to_owned()));
    };
    // Its starter can write anything into that directory.
    if geteuid().is_root() && running::user(places).is_none() {
        return Ok(Preview::NotKnown(
            "not asked as root, because another user started the server".to_owned(),
        ));
    }
    let request = PlanRequest {
        user: Some(user),
        served_certificates: Some(before.join(CERTIFICATES_DIR)),
        ..PlanRequest::default()
    };
    let (facts, mut plan, _) = make_plan(settings, places.clone(), Report::default(), &request, None)?;
    let last = state_of(&before);
    let (started, last, new) = (State::parse(&started), State::parse(&last), State::parse(&plan.state));
    let other_user = other_user(&user, settings, &facts)?;
    match acceptable_changes(&started, &last, &new) {
        Err(Failure { status: ExitStatus::CONFIGURATION, error }) => {
            return Ok(Preview::Refused(format!("{error:#}")));
        }
        changes => drop(changes?),
    }
    let connected = live::connect(&places.runtime_dir, &user, Duration::ZERO, ANSWER_TIMEOUT)?;
    let Some(mut server) = connected.map_err(no_answer)? else {
        return Ok(Preview::NotKnown("each change needs a restart".to_owned()));
    };
    let is = server.status().map_err(no_answer)?.outcome;
    plan.self_signed.clear();
    let mut answer = None;
    let compare = || {
        answer = Some(server.compare(&plan.main_file()).map_err(no_answer)?);
        Ok(false)
    };
    apply::apply_if(&plan, &facts.runtime_dir, &facts.data_dir, &facts.identity, compare)?;
    Ok(match answer {
        Some(Ok(mut would_be)) => {
            would_be.restart.splice(..0, other_user);
            Preview::Known { would_be, is }
        }
        Some(Err(reason)) => Preview::Refused(reason),
        None => Preview::NotKnown("it was not asked".to_owned()),
    })
}
