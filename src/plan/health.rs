//! The targets of the health check.

use std::net::{IpAddr, SocketAddr};

use crate::facts::custom_files::CustomFiles;
use crate::health::{ANY_HOST, LISTENING, Service, Target};
use crate::intent::databases::Database;
use crate::intent::hosts::{Options, ServedHosts};
use crate::intent::shards::SHARDS;
use crate::lua::Value;

/// The health check's file: its targets, and a line for each database server.
pub fn file(
    options: &Options,
    hosts: &ServedHosts,
    custom_files: &CustomFiles,
    databases: &[Database],
) -> String {
    let mut lines = targets(options, hosts, custom_files);
    for line in databases.iter().filter_map(Database::line) {
        lines += &line;
        lines.push('\n');
    }
    lines
}

/// The lines of the targets: the first host at the first port for clients, on each bound address, loopback
/// first. Without ports for clients, it is the first port for servers. If a custom file may decide the ports, or no address
/// is known, the line [`LISTENING`]. Empty if no port is open.
fn targets(options: &Options, hosts: &ServedHosts, custom_files: &CustomFiles) -> String {
    let listening = format!("{LISTENING}\n");
    if custom_files.fragments().any(|file| file.summary.sets_ports) {
        return listening;
    }
    // The hosts in custom files are not known for certain, and the first one may be another shard's.
    let host = hosts.virtual_hosts.first().filter(|_| !options.contains_key(SHARDS));
    let host = host.map_or(ANY_HOST, |host| &host.name);
    let is_disabled =
        |module: &str| texts(options.get("modules_disabled")).iter().any(|disabled| disabled == module);
    for (service, module, default) in [(Service::C2s, "c2s", &[5222]), (Service::S2s, "s2s", &[5269])] {
        let Some(port) = ports(options, module, default).into_iter().next().filter(|_| !is_disabled(module))
        else {
            continue;
        };
        let targets = addresses(options, module).into_iter().map(|address| {
            let target = Target { service, address: SocketAddr::new(address, port), host: host.to_owned() };
            format!("{target}\n")
        });
        return Some(targets.collect()).filter(|targets: &String| !targets.is_empty()).unwrap_or(listening);
    }
    String::new()
}

/// The addresses of a service, loopback first, as Prosody decides them (`core/portmanager.lua`): an option is a list or
/// a single value, and the first of these options counts.
fn addresses(options: &Options, service: &str) -> Vec<IpAddr> {
    let names = [format!("{service}_interfaces"), format!("{service}_interface")];
    let names = names.iter().map(String::as_str).chain(["interfaces", "interface"]);
    let interfaces = names.filter_map(|name| options.get(name)).next();
    let interfaces = interfaces.map_or_else(|| vec!["*".into(), "::".into()], |value| texts(Some(value)));
    let address = |interface: &String| match interface.as_str() {
        "*" | "0.0.0.0" => "127.0.0.1".parse().ok(),
        "::" => "::1".parse().ok(),
        address => address.parse().ok(),
    };
    let mut addresses: Vec<IpAddr> = interfaces.iter().filter_map(address).collect();
    addresses.sort_by_key(|address| !address.is_loopback());
    addresses
}

/// The ports of a service, by the same rule.
pub fn ports(options: &Options, service: &str, default: &[u16]) -> Vec<u16> {
    match options.get(&format!("{service}_ports")) {
        None => default.to_vec(),
        ports => texts(ports).iter().filter_map(|port| port.parse().ok()).collect(),
    }
}

/// The strings and integers in a list, or the single one.
pub fn texts(value: Option<&Value>) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Integer(integer) => Some(integer.to_string()),
        value => value.as_str().map(str::to_owned),
    };
    match value {
        Some(Value::List(items)) => items.iter().filter_map(text).collect(),
        value => value.and_then(text).into_iter().collect(),
    }
}
