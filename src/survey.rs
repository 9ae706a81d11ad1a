//! What there is of what is wanted: modules with all that they need, and certificates.
//!
//! Modules and our own self-signed certificates are read as Prosody's user; certificates may be readable by root alone.

pub mod certificates;
pub mod modules;

use std::path::Path;

use time::OffsetDateTime;

use self::certificates::ScannedCertificates;
use self::certificates::assign::{Assignments, assign};
use self::modules::closure::Findings as Modules;
use crate::facts::Facts;
use crate::intent::Intent;
use crate::os::privileges;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// The modules.
    pub modules: Modules,
    /// The certificate of each name.
    pub certificates: Assignments,
}

/// Looks for what is wanted. Certificates are scanned where that was not done yet; `served` is the folder of a running
/// server's.
pub fn survey(
    intent: &Intent,
    facts: &Facts,
    scanned: Option<ScannedCertificates>,
    served: Option<&Path>,
    now: OffsetDateTime,
) -> Findings {
    let scanned = scanned.unwrap_or_else(|| certificates::scan(&intent.certificates.sources, now));
    let certificates = assign(&intent.certificates, &facts.data_dir, &facts.identity, &scanned, served, now);
    let modules = privileges::as_user(&facts.identity, || Modules::gather(&intent.modules, facts));
    Findings { modules, certificates }
}
