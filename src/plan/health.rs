//! The targets of the health check.

use std::net::{IpAddr, SocketAddr};

use crate::lua::Value;

use crate::health::{ANY_HOST, Service, Target};
use crate::intent::hosts::{Options, ServedHosts};

/// The lines of the health check's file: the first host at the first port for clients, on each bound address, loopback
/// first. Without ports for clients, it is the first port for servers.
pub fn targets(options: &Options, hosts: &ServedHosts) -> String {
    // The hosts in custom files are not known for certain.
    let host = hosts.virtual_hosts.first().map_or(ANY_HOST, |host| &host.name);
    let strings = |value: &Value| -> Vec<String> {
        value.items().iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let interfaces = options.get("interfaces").map(strings).unwrap_or_else(|| vec!["*".into(), "::".into()]);
    let address = |interface: &str| match interface {
        "*" | "0.0.0.0" => Some("127.0.0.1".parse().ok()?),
        "::" => Some("::1".parse().ok()?),
        address => address.parse().ok(),
    };
    let addresses = interfaces.iter().filter_map(|interface| address(interface));
    let (mut addresses, others): (Vec<IpAddr>, Vec<IpAddr>) = addresses.partition(IpAddr::is_loopback);
    addresses.extend(others);
    let ports = |option: &str, default: u16| -> Vec<u16> {
        let Some(ports) = options.get(option) else {
            return vec![default];
        };
        let number = |item: &Value| match item {
            Value::Integer(port) => u16::try_from(*port).ok(),
            _ => None,
        };
        ports.items().iter().filter_map(number).collect()
    };
    let disabled = |module: &str| {
        options.get("modules_disabled").is_some_and(|list| strings(list).contains(&module.to_owned()))
    };
    let mut targets = Vec::new();
    for (service, module, option, default) in
        [(Service::C2s, "c2s", "c2s_ports", 5222), (Service::S2s, "s2s", "s2s_ports", 5269)]
    {
        if !disabled(module) && targets.is_empty() {
            for port in ports(option, default).into_iter().take(1) {
                targets.extend(addresses.iter().map(|address| {
                    Target { service, address: SocketAddr::new(*address, port), host: host.to_owned() }
                        .to_string()
                }));
            }
        }
    }
    targets.iter().map(|target| format!("{target}\n")).collect()
}
