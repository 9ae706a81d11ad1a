//! The options of the global section, including those that are not simply a setting's value.

use super::hosts::{Options, network_hostname, set_ssl};
use super::{features, proxies};
use crate::facts::Facts;
use crate::layout::{ROOT_ANCHOR, SERVER_DIR, SERVER_PID_FILE};
use crate::lua::Value;
use crate::report::{Report, SettingError};
use crate::settings::Settings;
use crate::settings::catalogue::Field;
use crate::settings::types::{
    Boolean, CustomOptions, LogFormat, LogLevel, Lua, Port, Set, TlsGroup, TlsProfile,
};

/// The group for the key exchange that withstands a quantum computer, with a classical one: draft-ietf-tls-ecdhe-mlkem.
const HYBRID_GROUP: &str = "X25519MLKEM768";

/// The groups of Prosody's TLS profiles (`core/certmanager.lua`), which are Mozilla's.
const GROUPS: [&str; 3] = ["X25519", "prime256v1", "secp384r1"];

/// The groups of Prosody's TLS profile `legacy`.
const LEGACY_GROUPS: [&str; 4] = ["X25519", "P-384", "P-256", "P-521"];

/// The size that encryption adds to a file, in bytes: the tag of AES-GCM (XEP-0454).
const ENCRYPTION_OVERHEAD: u64 = 16;

/// The default size limit of an HTTP request, in bytes. It is twice the limit of a client's stanza, for BOSH. Prosody's
/// own is 10 MB, and parsing that much XML before login takes some 500 MB. Uploads have a limit of their own.
const HTTP_REQUEST: i64 = 512 * 1024;

/// The time in front of a line of Prosody's log, for Lua's `os.date`: RFC 3339, in UTC, as in our own log.
const TIME_FORMAT: &str = "!%Y-%m-%dT%H:%M:%SZ";

pub fn options(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) {
    // Settings replace what features set.
    features::options(settings, facts, options);
    for section in [
        settings.hosts.plain_options(),
        settings.authentication.plain_options(),
        settings.tls.plain_options(),
        settings.network.plain_options(),
        settings.storage.plain_options(),
        settings.observability.plain_options(),
        settings.entrypoint.plain_options(),
    ] {
        options.extend(section.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    options.extend(
        settings.source.legacy.e2e_policy.iter().map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    runtime(settings, facts, options, report);
    contacts(settings, options);
    ports(settings, facts, options, report);
    http(settings, facts, options);
    encryption(settings, options, report);
    limits(settings, options);
    resolver(settings, facts, options, report);
    registration(settings, facts, options, report);
    turn(settings, facts, options, report);
    uploads(settings, options);
    observability(settings, options, report);
}

/// Directories, sockets and the identity.
fn runtime(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) {
    let mut set = |name: &str, value: Value| drop(options.insert(name.to_owned(), value));
    let path = |path: &std::path::Path| Value::from(path.to_string_lossy().into_owned());
    let server = facts.runtime_dir.join(SERVER_DIR);
    set("data_path", path(&facts.data_dir));
    set("pidfile", path(&server.join(SERVER_PID_FILE)));
    set("admin_socket", path(&server.join("prosody.sock")));
    if facts.identity.uid == 0 {
        set("run_as_root", Value::from(true));
        let field = if settings.is_given(Field::user) { Field::user } else { Field::uid };
        report.setting_warning(advice!(
            "{}: Prosody runs as root: whoever breaks into it has all of root's privileges in this container; leave it out",
            settings.variable(field)
        ));
    }
}

/// Contact addresses (XEP-0157, `mod_server_contact_info`).
fn contacts(settings: &Settings, options: &mut Options) {
    let hosts = &settings.hosts;
    let contacts: Vec<(&str, Value)> = [
        ("abuse", &hosts.contact_abuse),
        ("admin", &hosts.contact_admin),
        ("feedback", &hosts.contact_feedback),
        ("sales", &hosts.contact_sales),
        ("security", &hosts.contact_security),
        ("status", &hosts.contact_status),
        ("support", &hosts.contact_support),
    ]
    .into_iter()
    .filter_map(|(role, list)| Some((role, list.as_ref()?.lua())))
    .collect();
    if !contacts.is_empty() {
        options.insert("contact_info".into(), Value::table(contacts));
    }
}

fn ports(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) {
    let network = &settings.network;
    options.entry("c2s_direct_tls_ports".into()).or_insert_with(|| Value::from(vec![5223]));

    // By default, Prosody binds plain HTTP and components to loopback, which other containers cannot reach.
    let everywhere = || match &network.interfaces {
        Some(interfaces) => interfaces.lua(),
        None if facts.ipv6 && network.use_ipv6.is_none_or(|on| on.0) => Value::from(vec!["*", "::"]),
        None => Value::from(vec!["*"]),
    };
    let external = settings.hosts.external_components.as_ref().is_some_and(|list| !list.0.is_empty())
        || facts.custom_files.has_external_component();
    for (service, is_served) in [("http", true), ("https", true), ("component", external)] {
        if is_served {
            options.entry(format!("{service}_interfaces")).or_insert_with(everywhere);
        }
    }

    let is_select = network.network_backend.is_some_and(|backend| backend.as_str() == "select");
    if is_select && facts.prosody.is_13() {
        report.error(SettingError::new(
            &settings.variable(Field::network_backend),
            &advice!(
                "`select` ignores SIGTERM and SIGHUP on Prosody {}: use `epoll`, or leave it out",
                facts.prosody.version
            ),
        ));
    }

    let proxied: Option<Set<Port>> =
        network.proxy_protocol_ports.as_ref().map(|ports| ports.iter().map(|proxied| proxied.port).collect());
    for (field, ports) in [
        (Field::c2s_ports, &network.c2s_ports),
        (Field::c2s_direct_tls_ports, &network.c2s_direct_tls_ports),
        (Field::s2s_ports, &network.s2s_ports),
        (Field::s2s_direct_tls_ports, &network.s2s_direct_tls_ports),
        (Field::http_ports, &network.http_ports),
        (Field::https_ports, &network.https_ports),
        (Field::component_ports, &network.component_ports),
        (Field::proxy65_ports, &network.proxy65_ports),
        (Field::proxy_protocol_ports, &proxied),
    ] {
        let mut ports = ports.iter().flat_map(|ports| ports.iter()).map(|port| port.get());
        if let Some(port) = ports.find(|port| *port < facts.first_free_port) {
            report.setting_warning(advice!(
                "{}: Prosody may not bind port {port} here: start the container with `--sysctl \
                 net.ipv4.ip_unprivileged_port_start=0`, or choose a port above 1023 and publish it as {port}",
                settings.variable(field)
            ));
        }
    }
    proxies::options(settings, facts, options, report);
}

fn http(settings: &Settings, facts: &Facts, options: &mut Options) {
    options.insert("http_max_content_size".into(), Value::from(HTTP_REQUEST));
    let set = |options: &mut Options, name: &str, value: &str| {
        drop(options.insert(name.into(), Value::from(value)))
    };
    if let Some(name) = network_hostname(settings, &facts.custom_files) {
        set(options, "http_host", &name.ascii());
        set(options, "proxy65_address", &name.ascii());
    }
    if let Some(host) = &settings.hosts.http_host {
        set(options, "http_host", &host.ascii());
    }
    if let Some(url) = &settings.network.http_external_url {
        if !options.contains_key("http_host") {
            set(options, "http_host", &url.host);
        }
    }
}

fn encryption(settings: &Settings, options: &mut Options, report: &mut Report) {
    // By default, Prosody accepts servers without a valid certificate by dialback.
    options.entry("s2s_secure_auth".into()).or_insert_with(|| Value::from(true));
    let tls = &settings.tls;
    for (field, setting, what) in [
        (Field::s2s_secure_auth, tls.s2s_secure_auth, "other servers need no valid certificate"),
        (Field::c2s_require_encryption, tls.c2s_require_encryption, "clients may log in without encryption"),
        (
            Field::s2s_require_encryption,
            tls.s2s_require_encryption,
            "other servers may connect without encryption",
        ),
    ] {
        if setting.is_some_and(|on| !on.0) {
            report.setting_warning(format!("{}: it is off: {what}", settings.variable(field)));
        }
    }
}

/// The groups for the key exchange of TLS, in the option `ssl` beside its fields in `PROSODY_OPTIONS`.
pub fn tls_groups(
    settings: &Settings,
    facts: &Facts,
    written: &CustomOptions,
    options: &mut Options,
    report: &mut Report,
) {
    let known = |name: &str| facts.tls_groups.iter().find(|known| known.eq_ignore_ascii_case(name));
    let groups: Vec<&str> = match &settings.tls.tls_groups {
        Some(groups) => {
            let names = || groups.iter().map(TlsGroup::as_str);
            let unknown: Vec<&str> = names().filter(|name| known(name).is_none()).collect();
            if !unknown.is_empty() && !facts.tls_groups.is_empty() {
                report.error(SettingError::new(
                    &settings.variable(Field::tls_groups),
                    &format!(
                        "OpenSSL has no group {} here; it has {}",
                        unknown.join(", "),
                        facts.tls_groups.join(", ")
                    ),
                ));
            }
            names().map(|name| known(name).map_or(name, String::as_str)).collect()
        }
        None if known(HYBRID_GROUP).is_none() => return,
        None => {
            let is_legacy = settings.tls.tls_profile == Some(TlsProfile::Legacy);
            let own: &[&str] = if is_legacy { &LEGACY_GROUPS } else { &GROUPS };
            [&[HYBRID_GROUP], own].concat()
        }
    };
    set_ssl("curveslist", groups.into(), written, options);
}

fn limits(settings: &Settings, options: &mut Options) {
    let limits: Vec<(&str, Value)> =
        [("c2s", &settings.network.c2s_rate_limit), ("s2sin", &settings.network.s2s_rate_limit)]
            .into_iter()
            .filter_map(|(session, rate)| Some((session, Value::table([("rate", rate.as_ref()?.lua())]))))
            .collect();
    if !limits.is_empty() {
        options.insert("limits".into(), Value::table(limits));
    }
}

/// The options of libunbound: DNS servers, and the trust anchor for DANE.
fn resolver(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) {
    let mut unbound: Vec<(&str, Value)> = Vec::new();
    if let Some(resolvers) = &settings.network.dns_resolvers {
        unbound.push(("resolvconf", Value::from(false)));
        unbound.push(("forward", resolvers.lua()));
    }
    if settings.tls.use_dane.is_some_and(|on| on.0) {
        options.insert("use_dane".into(), Value::from(true));
        unbound.push(("trustfile", Value::from(ROOT_ANCHOR)));
        if !facts.has_root_anchor {
            report.error(SettingError::new(
                &settings.variable(Field::use_dane),
                &advice!(
                    "DANE needs DNSSEC's trust anchor, and {ROOT_ANCHOR} is missing: install dns-root-data"
                ),
            ));
        }
    }
    if !unbound.is_empty() {
        options.insert("unbound".into(), Value::table(unbound));
    }
}

fn registration(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) {
    let authentication = &settings.authentication;
    let is_open = authentication.allow_registration.is_some_and(|on| on.0);
    if is_open {
        options.entry("registration_invite_only".into()).or_insert(Value::from(false));
    }
    if is_open && authentication.registration_invite_only.is_none_or(|on| !on.0) {
        report.setting_warning(advice!(
            "{}: anyone on the network can make an account; PROSODY_REGISTRATION_INVITE_ONLY=true asks for an invitation",
            settings.variable(Field::allow_registration)
        ));
    }

    let is_ldap = authentication.authentication.as_ref().is_some_and(|provider| provider.as_str() == "ldap");
    if is_ldap && !settings.is_given(Field::ldap_base) && !has_option(settings, "ldap_base") {
        report.error(SettingError::new(
            &settings.variable(Field::ldap_base),
            "the provider `ldap` needs to know where to search: ou=people,dc=example,dc=org",
        ));
    }
    if authentication.ldap_filter.as_ref().is_some_and(|filter| !filter.as_str().contains("$user")) {
        report.setting_warning(advice!(
            "{}: there is no `$user` in it, so it finds the same for every user: write `(uid=$user)`, and `$$user` in a \
             Compose file",
            settings.variable(Field::ldap_filter)
        ));
    }
    if let Some(filter) = &authentication.ldap_admin_filter {
        if facts.prosody.is_13() {
            report.setting_warning(advice!(
                "{}: Prosody {} has no such option any more, it is left out: name administrators with PROSODY_ADMINS",
                settings.variable(Field::ldap_admin_filter),
                facts.prosody.version
            ));
        } else {
            options.insert("ldap_admin_filter".into(), filter.lua());
        }
    }
}

fn turn(settings: &Settings, facts: &Facts, options: &mut Options, report: &mut Report) {
    let network = &settings.network;
    let host = network.turn_host.as_ref().map(|host| host.lua());
    let host = host.or_else(|| {
        network
            .turn_secret
            .as_ref()
            .and(network_hostname(settings, &facts.custom_files))
            .map(|name| Value::from(name.ascii().as_ref()))
    });
    if let Some(host) = &host {
        options.insert("turn_external_host".into(), host.clone());
    }
    let rest = [Field::turn_host, Field::turn_port, Field::turn_tls_port, Field::turn_tcp, Field::turn_ttl];
    if !settings.is_given(Field::turn_secret) {
        for field in rest.into_iter().filter(|field| settings.is_given(*field)) {
            report.setting_warning(format!(
                "{}: without PROSODY_TURN_SECRET no TURN server is announced",
                settings.variable(field)
            ));
        }
    }
    // Prosody's option turn_external_tls_port announces the service without credentials.
    if let (Some(port), Some(secret)) = (&network.turn_tls_port, &network.turn_secret) {
        let mut service = vec![
            ("type", Value::from("turns")),
            ("transport", Value::from("tcp")),
            // 0.12 makes credentials for the type `turn` only.
            ("algorithm", Value::from("turn")),
            ("port", port.lua()),
            ("secret", secret.clone().into()),
        ];
        service.extend(host.map(|host| ("host", host)));
        service.extend(network.turn_ttl.as_ref().map(|ttl| ("ttl", ttl.lua())));
        options.insert("external_services".into(), Value::from(vec![Value::table(service)]));
    }
}

/// The options of `mod_http_file_share`, for all its components.
fn uploads(settings: &Settings, options: &mut Options) {
    let storage = &settings.storage;
    let mut set = |name: &str, value: Value| drop(options.insert(name.to_owned(), value));
    if let Some(limit) = &storage.upload_limit_mb {
        set("http_file_share_size_limit", Value::from((limit.bytes() + ENCRYPTION_OVERHEAD) as i64));
    }
    if let Some(days) = storage.upload_expiry_days.as_ref().or(storage.retention_days.as_ref()) {
        set("http_file_share_expires_after", days.0.or(-1));
    }
}

fn observability(settings: &Settings, options: &mut Options, report: &mut Report) {
    let observability = &settings.observability;
    let level = observability.log_level.unwrap_or(LogLevel::Info).as_str();
    let as_json = ("format", Value::from("json"));
    let with_time = ("timestamps", Value::from(TIME_FORMAT));
    let layout = match (observability.log_format, observability.log_timestamps) {
        (Some(LogFormat::Json), _) => Some(as_json),
        (_, Some(Boolean(true))) => Some(with_time),
        _ => None,
    };
    let rules = match layout {
        None => Value::table([(level, "*console")]),
        Some(layout) => {
            let levels = ("levels", Value::table([("min", level)]));
            Value::from(vec![Value::table([("to", Value::from("console")), levels, layout])])
        }
    };
    options.insert("log".into(), rules);

    if observability.openmetrics.is_some_and(|on| on.0) {
        for (field, option, value) in [
            (Field::statistics, "statistics", "internal"),
            (Field::statistics_interval, "statistics_interval", "manual"),
        ] {
            if options.get(option).is_some_and(|given| given.as_str() != Some(value)) {
                report.error(SettingError::new(
                    &settings.variable(field),
                    &advice!(
                        "PROSODY_OPENMETRICS needs `{option} = \"{value}\"`: leave {} out",
                        settings.variable(field)
                    ),
                ));
            }
            options.insert(option.into(), Value::from(value));
        }
    }
}

/// Whether `PROSODY_OPTIONS` sets an option.
pub fn has_option(settings: &Settings, option: &str) -> bool {
    settings.anything.options.as_ref().is_some_and(|options| options.get(option).is_some())
}
