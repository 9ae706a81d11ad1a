//! Shows the certificate of each host and port, and the reasons against others.

use std::rc::Rc;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::render::print;
use crate::cli::Certificates as Options;
use crate::configure::{PlanRequest, log_report, make_plan, read_settings_to_show, served_certificates};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::Places;
use crate::lua::Secrets;
use crate::os::privileges;
use crate::plan::certificates::lasts;
use crate::settings::Settings;
use crate::survey::certificates::assign::{CertificateOrigin, Served};
use crate::survey::certificates::pairs::SelfSignedPairs;
use crate::survey::certificates::{Pair, UnusedFile};
use crate::text::grouped;

/// Shows the certificates. Returns 1 if a host has none, or one that expires too soon.
pub fn run(options: &Options) -> Result<ExitStatus, Failure> {
    let (settings, report) = read_settings_to_show();
    let places = Places::find(&settings);
    if let Some(main_file) = places.custom_main_file() {
        tracing::warn!(
            "{} is the configuration: which certificates it has is not known",
            main_file.display()
        );
        return Ok(ExitStatus::SUCCESS);
    }
    let served_certificates = served_certificates(&places);
    let request = PlanRequest { secrets: Secrets::Hidden, served_certificates, ..PlanRequest::default() };
    let (facts, plan, mut report) = make_plan(&settings, places, report, &request, None)?;
    // The output has the same information.
    report.forget_warnings();
    log_report(&report);

    let now = OffsetDateTime::now_utc();
    let hosts: Vec<Host> = privileges::as_user(&facts.identity, || {
        let mut own = SelfSignedPairs::new(now);
        plan.certificates
            .found
            .served
            .iter()
            .map(|served| Host { served, pair: own.pair_of(served) })
            .collect()
    })?;
    let default = plan.certificates.default_host().map(str::to_owned);
    let ports = ports(&settings);
    let problems = &plan.certificates.found.problems;
    if options.json {
        let hosts: Vec<Value> = hosts.iter().map(|host| host.as_object(now)).collect();
        let ports: Vec<Value> = ports
            .iter()
            .map(|(service, ports)| json!({"service": service, "ports": ports, "host": default}))
            .collect();
        let problems: Vec<Value> = problems.iter().map(unused).collect();
        let all = json!({"hosts": hosts, "ports": ports, "not_used": problems});
        print(&format!("{all:#}\n"))?;
    } else {
        let mut text = String::new();
        for (what, names) in grouped(hosts.iter().map(|host| (host.as_text(now), &*host.served.name))) {
            text += &format!("{}\n{what}\n", names.join(", "));
        }
        for (service, ports) in ports {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            let host = default.as_deref().map_or("no certificate".to_owned(), |host| format!("{host}'s"));
            text += &format!("port {} ({service}): clients without SNI get {host}\n", ports.join(", "));
        }
        if !problems.is_empty() {
            text += "\nunused files:\n";
            problems.iter().for_each(|problem| text += &format!("  {problem}\n"));
        }
        // File names can contain control characters.
        print(&text.replace(|letter: char| letter.is_control() && letter != '\n', "?"))?;
    }
    let limit = Duration::days(options.warn_days.into());
    let is_good = |host: &Host| host.is_good(now, limit);
    let are_all_good = hosts.iter().filter(|host| host.served.is_host).all(is_good);
    Ok(if are_all_good { ExitStatus::SUCCESS } else { ExitStatus::exited(1) })
}

/// The direct TLS ports, by service.
fn ports(settings: &Settings) -> Vec<(&'static str, Vec<u16>)> {
    let network = &settings.network;
    let all = [
        ("clients", &network.c2s_direct_tls_ports, Some(5223)),
        ("other servers", &network.s2s_direct_tls_ports, None),
        ("HTTPS", &network.https_ports, Some(5281)),
    ];
    let ports = all.into_iter().map(|(service, given, default)| match given {
        Some(ports) => (service, ports.iter().map(|port| port.get()).collect()),
        None => (service, default.into_iter().collect::<Vec<u16>>()),
    });
    ports.filter(|(_, ports)| !ports.is_empty()).collect()
}

/// A host and its certificate.
struct Host<'a> {
    served: &'a Served,
    pair: Option<Rc<Pair>>,
}

impl Host<'_> {
    fn is_good(&self, now: OffsetDateTime, limit: Duration) -> bool {
        match &self.served.origin {
            CertificateOrigin::None | CertificateOrigin::Unreadable(_) | CertificateOrigin::Kept(_) => false,
            // The next start makes or renews the first. The second is not read.
            CertificateOrigin::SelfSigned(_) | CertificateOrigin::FromOptions => true,
            CertificateOrigin::Found(_) | CertificateOrigin::OfParent(..) => {
                self.pair.as_ref().is_some_and(|pair| pair.not_after - now >= limit)
            }
        }
    }

    /// The certificate's origin, in one word for programs and in a sentence.
    fn origin(&self) -> (&'static str, String) {
        match &self.served.origin {
            CertificateOrigin::Found(_) => ("found", String::new()),
            CertificateOrigin::Kept(_) => (
                "kept",
                "it is the one that the server has until now; where it came from there is none that could be used"
                    .to_owned(),
            ),
            CertificateOrigin::OfParent(above, _) => {
                ("above", format!("it is that of {above}, and names none of these: other servers may refuse it"))
            }
            CertificateOrigin::SelfSigned(_) => {
                ("self-signed", "made here: clients warn about it, other servers refuse it".to_owned())
            }
            CertificateOrigin::FromOptions => ("options", "named by an option `certificate`, and not looked at".to_owned()),
            CertificateOrigin::Unreadable(path) => (
                "unreadable",
                format!("none: options name {}, which Prosody cannot read", path.display()),
            ),
            CertificateOrigin::None => ("none", "none: nobody can connect with TLS".to_owned()),
        }
    }

    fn as_text(&self, now: OffsetDateTime) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| text += &format!("  {name:12}{value}\n");
        let (_, why) = self.origin();
        match &self.pair {
            Some(pair) => {
                line("certificate", &pair.certificate.display().to_string());
                if pair.key != pair.certificate {
                    line("key", &pair.key.display().to_string());
                }
                line("names", &pair.names.join(", "));
                line("issuer", &pair.issuer);
                line("validity", &format!("from {}, {}", pair.not_before.date(), lasts(pair, now)));
                line("fingerprint", &format!("SHA-256 {}", pair.fingerprint));
                if !why.is_empty() {
                    line("", &why);
                }
                if !is_for_clients(pair) {
                    line(
                        "",
                        "its extended key usage has no `clientAuth`: old servers may refuse this server's connections to them",
                    );
                }
            }
            None => line("certificate", &why),
        }
        for file in &self.served.unused {
            line("not used", &file.to_string());
        }
        text
    }

    fn as_object(&self, now: OffsetDateTime) -> Value {
        let (origin, _) = self.origin();
        let mut object = json!({
            "name": self.served.name,
            "is_host": self.served.is_host,
            "from": origin,
            "not_used": self.served.unused.iter().map(unused).collect::<Vec<Value>>(),
        });
        if let Some(pair) = &self.pair {
            object["certificate"] = pair.certificate.to_string_lossy().into();
            object["key"] = pair.key.to_string_lossy().into();
            object["names"] = pair.names.clone().into();
            object["issuer"] = pair.issuer.clone().into();
            object["not_before"] = pair.not_before.unix_timestamp().into();
            object["not_after"] = pair.not_after.unix_timestamp().into();
            object["days_left"] = (pair.not_after - now).whole_days().into();
            object["client_auth"] = is_for_clients(pair).into();
            object["sha256"] = pair.fingerprint.clone().into();
        }
        object
    }
}

/// Whether other servers accept a certificate in connections from here, where this server is the client.
fn is_for_clients(pair: &Pair) -> bool {
    pair.leaf().is_none_or(|leaf| leaf.is_for_clients)
}

fn unused(file: &UnusedFile) -> Value {
    json!({"path": file.path.to_string_lossy(), "why": file.flaw.why})
}
