//! Finds the wanted modules, with everything that they need, and the wanted certificates.
//!
//! Modules and our self-signed certificates are read as Prosody's user. Certificates of other programs may be readable
//! by root alone, so root reads them.

pub mod certificates;
pub mod modules;

use std::fs;
use std::path::Path;

use time::OffsetDateTime;

use self::certificates::assign::{Assignments, assign};
use self::certificates::{ScannedCertificates, UnusedFile};
use self::modules::closure::Findings as Modules;
use crate::exit_status::Failure;
use crate::facts::Facts;
use crate::intent::Intent;
use crate::os::privileges;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    pub modules: Modules,
    pub certificates: Assignments,
    /// For each file with certificates of authorities, the certificates as PEM, or why there are none.
    pub authorities: Vec<Result<String, UnusedFile>>,
}

/// Finds the wanted modules and certificates. Scans for certificates unless `scanned` is given. `served` is the
/// directory with the certificates of a running server.
/// Errors: 77 if root cannot read as Prosody's user.
pub fn survey(
    intent: &Intent,
    facts: &Facts,
    scanned: Option<ScannedCertificates>,
    served: Option<&Path>,
    now: OffsetDateTime,
) -> Result<Findings, Failure> {
    let scanned = scanned.unwrap_or_else(|| certificates::scan(&intent.certificates.sources, now));
    let mut certificates =
        assign(&intent.certificates, &facts.data_dir, &facts.identity, &scanned, served, now)?;
    certificates.find_single_mounts(|| fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    let modules = privileges::as_user(&facts.identity, || Modules::gather(&intent.modules, facts))?;
    let authorities = intent.certificates.authorities.iter().map(|path| {
        certificates::read_authorities(path).map_err(|flaw| UnusedFile { path: path.clone(), flaw })
    });
    Ok(Findings { modules, certificates, authorities: authorities.collect() })
}
