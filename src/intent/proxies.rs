//! Proxies in front of the server, and the ports where they announce clients' addresses by the PROXY protocol.

use super::hosts::Options;
use crate::facts::Facts;
use crate::lua::Value;
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::settings::types::{Lua, Proxy};

/// The option with the services on ports of the PROXY protocol.
pub const PROXIED_PORTS: &str = "proxy_port_mappings";

/// Proxies, with the addresses of host names in their place. `mod_net_proxy` also resolves names itself, later, unless
/// DNSSEC is required: then it has no answer for the names of a container network.
pub fn options(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) {
    let ports = settings.network.proxy_protocol_ports.iter().flat_map(|ports| ports.iter());
    let services: Vec<_> =
        ports.map(|proxied| (proxied.port.get().to_string(), proxied.service.as_str())).collect();
    let has_ports = !services.is_empty();
    if has_ports {
        options.insert(PROXIED_PORTS.into(), Value::table(services));
    }
    let Some(proxies) = &settings.network.trusted_proxies else { return };
    let variable = settings.variable(Field::trusted_proxies);
    let (mut trusted, mut names): (Vec<String>, Vec<String>) = Default::default();
    for proxy in proxies.iter() {
        match proxy {
            Proxy::Network(network) => trusted.push(network.to_string()),
            Proxy::Host(host) => {
                let name = host.ascii().into_owned();
                match facts.proxies.get(&name) {
                    Some(found) if !found.is_empty() => trusted.extend(found.iter().map(ToString::to_string)),
                    _ => report.warning(advice!(
                        "{variable}: the name {host} does not resolve now, so its `X-Forwarded-For` is not believed: start \
                         it first, and restart this container"
                    )),
                }
                names.push(name);
            }
        }
    }
    if has_ports {
        names.extend(trusted.iter().cloned());
        options.insert("proxy_trusted_proxies".into(), names.into());
    }
    options.insert("trusted_proxies".into(), trusted.into());
    // 13.0.1 compares addresses of either family with a network, and fails if the families differ.
    let is_network = |proxy: &Proxy| matches!(proxy, Proxy::Network(network) if network.is_network());
    if facts.prosody.is_13() && proxies.iter().any(is_network) {
        report.setting_warning(advice!(
            "{variable}: Prosody {} answers 500 to clients from public IPv6 addresses where a network stands in this list: \
             write single addresses",
            facts.prosody.version
        ));
    }
}

/// Checks the ports of the PROXY protocol against those of all services.
pub fn check(settings: &Settings, facts: &Facts, options: &Options, report: &mut Report) {
    let network = &settings.network;
    let Some(proxied) = network.proxy_protocol_ports.as_ref().filter(|ports| !ports.is_empty()) else {
        return;
    };
    let variable = settings.variable(Field::proxy_protocol_ports);
    let mut refuse = |reason: &str| report.error(SettingError::new(&variable, reason));
    let ports_of = |service: &str, default: i64| match options.get(&format!("{service}_ports")) {
        Some(Value::List(ports)) => ports.clone(),
        Some(port) => vec![port.clone()],
        None => Vec::from_iter((default != 0).then_some(Value::Integer(default))),
    };
    let mut taken = Vec::new();
    for (service, default) in [
        ("c2s", 5222),
        ("c2s_direct_tls", 0),
        ("s2s", 5269),
        ("s2s_direct_tls", 0),
        ("http", 5280),
        ("https", 5281),
        ("component", 5347),
        ("proxy65", 5000),
    ] {
        let ports = ports_of(service, default);
        let needs_own = ["c2s_direct_tls", "s2s_direct_tls", "https"].contains(&service);
        let is_proxied = proxied.iter().any(|proxied| proxied.service.as_str() == service);
        let is_known = !facts.custom_files.fragments().any(|file| file.summary.sets_ports);
        if ports.is_empty() && needs_own && is_proxied && is_known {
            refuse(&advice!(
                "{service} takes the certificates of its own ports, and has none: set PROSODY_{}_PORTS, and do not publish it",
                service.to_ascii_uppercase()
            ));
        }
        taken.extend(ports.into_iter().map(|port| (port, service)));
    }
    for proxied in proxied.iter() {
        let (port, service) = (proxied.port.lua(), proxied.service.as_str());
        match taken.iter().find(|(taken, _)| *taken == port) {
            Some((_, other)) => refuse(&advice!(
                "{} is a port of {other} already, so {service} cannot have it: choose another port",
                proxied.port.get()
            )),
            None => taken.push((port, service)),
        }
    }
    if network.network_backend.is_some_and(|backend| backend.as_str() == "select") {
        refuse("the PROXY protocol does not work with PROSODY_NETWORK_BACKEND=select");
    }
    if network.trusted_proxies.is_none() && !options.contains_key("proxy_trusted_proxies") {
        report.setting_warning(advice!(
            "{variable}: only proxies in this container may connect there: name yours in PROSODY_TRUSTED_PROXIES"
        ));
    }
}
