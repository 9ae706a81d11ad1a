//! The declaration of every setting: name, type, default, meaning, aliases, and whether it is a secret.
//!
//! The field `c2s_ports` is the setting `PROSODY_C2S_PORTS`. Everything else is derived from here: the typed structs,
//! parsing, the `_FILE` variants, aliases, messages, suggestions, the reference in `docs/settings.md` and the JSON
//! schema.

use std::borrow::Cow;

use serde::Deserialize;

use super::types::{self, *};
use crate::lua::{Secret, Value};

/// The declaration of one setting.
pub struct Setting {
    pub field: Field,
    pub type_name: fn() -> Cow<'static, str>,
    pub example: &'static str,
    /// The default in Markdown for the reference. Empty if there is none.
    pub default: &'static str,
    pub meaning: &'static str,
    /// The full names of the same setting in other images.
    pub aliases: &'static [&'static str],
    /// Whether its values must never be shown.
    pub secret: bool,
    /// Whether the given value may contain a secret and must not be shown. For some types, only JSON may.
    pub hides: fn(&str) -> bool,
    /// The global Prosody options that the setting determines.
    pub options: &'static [&'static str],
}

impl Setting {
    /// Whether the whole value is one secret. Such a value normally has one line.
    pub fn is_plain_secret(&self) -> bool {
        (self.type_name)() == Secret::type_name()
    }

    pub fn shows(&self, value: &str) -> bool {
        !self.secret && !(self.hides)(value)
    }
}

/// The name of a setting in the program: `Field::c2s_ports` is `PROSODY_C2S_PORTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field(&'static str);

#[allow(non_upper_case_globals)]
impl Field {
    /// The account of another image's `LOCAL`, `DOMAIN` and `PASSWORD`. It is not in the catalogue.
    pub const account: Field = Field("account");

    /// The name in lower case without the prefix, which is also the name that `envy` deserialises.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// The environment variable: `PROSODY_C2S_PORTS`.
    pub fn variable(self) -> String {
        format!("{PREFIX}{}", self.0.to_ascii_uppercase())
    }
}

/// The prefix of every setting.
pub const PREFIX: &str = "PROSODY_";

/// One section of the reference.
pub struct Section {
    pub title: &'static str,
    /// The settings of the section, in the order of the reference.
    pub settings: &'static [Setting],
}

macro_rules! section {
    (
        $(#[$doc:meta])* $section:ident $title:literal
        $( $field:ident: $type:ty = $default:literal, $meaning:literal
           $(, option $option:ident)? $(, decides [$($decides:ident),+])? $(, aliases [$($alias:literal),+])?
           $(, secret: $secret:literal)?; )*
    ) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        pub struct $section {
            $( #[doc = $meaning] #[serde(deserialize_with = "types::parse_given")] pub $field: Option<$type>, )*
        }

        #[allow(non_upper_case_globals)]
        impl Field {
            $( #[doc = $meaning] pub const $field: Field = Field(stringify!($field)); )*
        }

        impl $section {
            pub const SECTION: Section = Section {
                title: $title,
                settings: &[ $( Setting {
                    field: Field::$field,
                    type_name: <$type as SettingType>::type_name,
                    example: <$type as SettingType>::EXAMPLE,
                    default: $default,
                    meaning: $meaning,
                    aliases: &[$($($alias),+)?],
                    secret: false $(|| $secret)?,
                    hides: <$type as SettingType>::hides,
                    options: &[$(stringify!($option),)? $($(stringify!($decides)),+)?],
                } ),* ],
            };

            /// The Prosody options that are set here and take the value of their setting unchanged.
            pub fn plain_options(&self) -> Vec<(&'static str, Value)> {
                #[allow(unused_mut)]
                let mut options = Vec::new();
                $( $( if let Some(value) = &self.$field {
                    options.push((stringify!($option), value.lua()));
                } )? )*
                options
            }
        }
    };
}

section! {
    /// Hosts, components and accounts.
    Hosts "Hosts"
    domain: Set<Domain> = "", "The one-variable set-up: for each domain a virtual host, the modules that clients expect today, and, unless `PROSODY_COMPONENTS` is set, `conference.` (chat rooms with an archive), `upload.` (file sharing) and `proxy.` (file transfer) below it.";
    virtual_hosts: VirtualHosts = "`PROSODY_DOMAIN`; else none where files of your own define a host; else the container's host name where it has a dot or the data directory has its data; else `localhost`", "Virtual hosts. JSON: `[{\"host\":\"a.example\",\"admins\":[…],\"modules_enabled\":[…],\"modules_disabled\":[…],\"options\":{…}}]`.";
    components: Components = "", "Internal components (`muc`, `http_file_share`, `proxy65`, `pubsub`, any other). They replace those of `PROSODY_DOMAIN`; an entry `+host:module`, or one with `\"add\":true`, is added to them. JSON: `[{\"host\":…,\"module\":…,\"add\":true,\"admins\":[…],\"modules_enabled\":[…],\"options\":{…}}]`.";
    external_components: ExternalComponents = "", "External components. JSON: `[{\"host\":…,\"secret\":…,\"modules_enabled\":[…],\"options\":{…}}]`.", secret: true;
    component_secret: Secret = "", "For external components that name no secret of their own.", secret: true;
    muc_modules: Set<Name> = "", "Modules for every `muc` component of `PROSODY_COMPONENTS`, and more modules for that of `PROSODY_DOMAIN`.";
    network_hostname: Domain = "where `PROSODY_COMPONENTS` is set, the only virtual host that a setting names", "`http_host`, `proxy65_address`, the target of SRV records in `dns`, and the TURN host where none is set. One `http_host` for all means that `https://upload.…` is no longer answered.", decides [http_host, proxy65_address];
    http_host: Domain = "", "`http_host` alone: the name under which HTTP services answer.", decides [http_host];
    admins: Set<BareOrDomain> = "", "The accounts of administrators.", option admins;
    unlimited_jids: Set<BareOrDomain> = "", "Bridges and bots without a rate limit.", option unlimited_jids;
    disco_items: DiscoItems = "", "Services that live elsewhere, for clients to discover. JSON: `[[\"host\",\"name\"],…]`.", option disco_items;
    restrict_room_creation: RoomCreation = "`local` for `PROSODY_DOMAIN`", "Who may create rooms: administrators (`true`), anyone on the network (`false`), the server's own users (`local`).";
    accounts: Accounts = "", "Accounts that are made when they do not exist yet; one that exists is left as it is. JSON: `[{\"jid\":\"alice@chat.example\",\"password\":…,\"role\":\"prosody:admin\"}]`, with a role on Prosody 13.0, or with `\"admin\":true`.", secret: true;
    contact_abuse: List<Uri> = "", "Where to report abuse; enables `server_contact_info`, as each of these does.", decides [contact_info];
    contact_admin: List<Uri> = "", "How to reach the administrators.", decides [contact_info];
    contact_feedback: List<Uri> = "", "Where feedback goes.", decides [contact_info];
    contact_sales: List<Uri> = "", "How to reach sales.", decides [contact_info];
    contact_security: List<Uri> = "", "Where to report security problems.", decides [contact_info];
    contact_status: List<Uri> = "", "Where the service's status is shown.", decides [contact_info];
    contact_support: List<Uri> = "", "Where users get help.", decides [contact_info];
}

section! {
    /// Prosody's modules.
    Modules "Modules"
    modules_enabled: Set<Name> = "", "Added to the default modules. Community modules among them are linked from the collection, with what they need; those for rooms are loaded on the `muc` components.", decides [modules_enabled], aliases ["PROSODY_ENABLE_MODULES"];
    modules_disabled: Set<Name> = "", "Taken from the default and the auto-loaded modules. `PROSODY_MODULES_ENABLED` wins over it.", decides [modules_disabled], aliases ["PROSODY_DISABLE_MODULES"];
    modules_available: Set<Name> = "", "Community modules to make available without enabling them, for files of your own.";
    plugin_paths: List<PluginPath> = "`modules` below the configuration directory, and `/opt/prosody-modules-enabled` where it exists", "Searched before Prosody's own modules and the collection: what is there wins.", decides [plugin_paths];
    community_modules_dir: Path = "`/opt/prosody-modules-available`", "The collection that community modules are linked from. A module that Prosody has itself is never taken from it.";
}

section! {
    /// Modules and options that belong together.
    Features "Features"
    features: Set<Feature> = "", "Modules and options that belong together, by one name: `settings --features` lists them, and [features](features.md) says what users get. A setting or a custom file overrides what a feature sets, and a module that this version does not have is left out with a warning.";
}

section! {
    /// Authentication and registration.
    Authentication "Authentication and registration"
    authentication: Name = "`internal_hashed`", "The authentication provider; one of the community's is linked by itself.", option authentication;
    ldap_server: Text = "`localhost`", "The directory server, for the provider `ldap`.", option ldap_server;
    ldap_base: Text = "", "Where the search begins. Required with the provider `ldap`.", option ldap_base;
    ldap_rootdn: Text = "", "The name to bind with for the search.", option ldap_rootdn;
    ldap_password: Secret = "", "The password for that name.", option ldap_password, secret: true;
    ldap_filter: Text = "`(uid=$user)`", "The search filter.", option ldap_filter;
    ldap_scope: LdapScope = "`subtree`", "How deep the search goes.", option ldap_scope;
    ldap_tls: Boolean = "`false`", "Whether to use StartTLS.", option ldap_tls;
    ldap_mode: LdapMode = "`bind`", "How a password is checked.", option ldap_mode;
    ldap_admin_filter: Text = "", "Which users are administrators; Prosody 0.12 only.", decides [ldap_admin_filter];
    allow_registration: Boolean = "`false`", "Open registration: everyone may make an account. Renders `registration_invite_only = false` unless that is set.", option allow_registration;
    registration_invite_only: Boolean = "", "Whether registration needs an invitation; `true` enables `invites_register` too.", option registration_invite_only;
}

section! {
    /// Certificates and encryption.
    Tls "TLS"
    certificates: Path = "`certs` below the configuration directory", "Where certificates are looked for. A relative path is one below the configuration directory.", decides [certificates];
    import_certificate_directories: List<Path> = "", "More places to look for certificates, for example `/etc/letsencrypt/live`. They are read as who starts the container: readable by root alone is fine.";
    import_certificate_hostnames: List<Domain> = "", "Import certificates for these hosts only. With as many names as directories they are pairs: each directory is for one host.";
    certificate_reload: Boolean = "`true`", "Serve a renewed certificate without a restart.";
    self_signed_certificates: Boolean = "`true`", "Make a certificate for a host that has none, kept in the data directory, with a warning in the log.";
    tls_profile: TlsProfile = "`intermediate`", "Which protocol versions and ciphers are offered.", option tls_profile;
    tls_groups: Set<TlsGroup> = "where OpenSSL has it, `X25519MLKEM768`; then Prosody's own", "The groups for the key exchange, best first: `curveslist` in the option `ssl`. The first of the default, which trixie's OpenSSL has, withstands a quantum computer.";
    ca_certificates: List<Path> = "", "Files with certificates of authorities (PEM) that are trusted besides the system's: for other servers, the directory of the provider `ldap`, and PostgreSQL. They are read as who starts the container.";
    c2s_require_encryption: Boolean = "`true`", "Whether clients must use TLS.", option c2s_require_encryption;
    s2s_require_encryption: Boolean = "`true`", "Whether other servers must use TLS.", option s2s_require_encryption;
    s2s_secure_auth: Boolean = "`true`", "Whether other servers must have a valid certificate.", option s2s_secure_auth;
    s2s_secure_domains: Set<Domain> = "", "Servers that must have a valid certificate even where `PROSODY_S2S_SECURE_AUTH` is `false`.", option s2s_secure_domains;
    s2s_insecure_domains: Set<Domain> = "", "Servers that need none.", option s2s_insecure_domains;
    use_dane: Boolean = "`false`", "Verify other servers by DNSSEC and DANE.", decides [use_dane, unbound];
}

section! {
    /// Ports, addresses, HTTP and limits.
    Network "Network"
    network_backend: NetworkBackend = "`epoll`", "How Prosody waits for the network; `select` is refused on 13.0, where it ignores SIGTERM and SIGHUP.", option network_backend;
    interfaces: List<Interface> = "all", "The addresses to bind.", option interfaces;
    use_ipv6: Boolean = "`true`", "Whether IPv6 is used.", option use_ipv6;
    c2s_ports: Set<Port> = "`5222`", "For clients.", option c2s_ports;
    c2s_direct_tls_ports: Set<Port> = "`5223`", "For clients that begin with TLS.", option c2s_direct_tls_ports;
    s2s_ports: Set<Port> = "`5269`", "For other servers.", option s2s_ports;
    s2s_direct_tls_ports: Set<Port> = "none", "For other servers that begin with TLS.", option s2s_direct_tls_ports;
    http_ports: Set<Port> = "`5280`", "For HTTP.", option http_ports;
    https_ports: Set<Port> = "`5281`", "For HTTPS.", option https_ports;
    http_interfaces: List<Interface> = "`*` and, where there is IPv6, `::`", "The addresses to bind for HTTP.", option http_interfaces;
    https_interfaces: List<Interface> = "`*` and, where there is IPv6, `::`", "The addresses to bind for HTTPS.", option https_interfaces;
    consider_bosh_secure: Boolean = "`false`", "Whether BOSH over plain HTTP counts as encrypted: behind a proxy that ends TLS.", option consider_bosh_secure;
    consider_websocket_secure: Boolean = "`false`", "The same for WebSocket.", option consider_websocket_secure;
    access_control_allow_origins: Origins = "", "Which web pages may use BOSH, WebSocket and HTTP services: origins, or `*`.", option access_control_allow_origins;
    external_addresses: List<Address> = "", "What the world sees: for the command `dns`, and behind NAT for `prosodyctl check dns`.", option external_addresses;
    http_external_url: HttpUrl = "", "The URL under which a proxy serves HTTP; its host becomes `http_host` where none is set.", option http_external_url;
    trusted_proxies: List<Proxy> = "`127.0.0.1`, `::1`", "Proxies whose `X-Forwarded-For` is believed, and that may connect to `PROSODY_PROXY_PROTOCOL_PORTS`. A host name, such as a service's in a Compose file, is resolved at a start and at a reload.", decides [trusted_proxies];
    proxy_protocol_ports: Set<ProxiedPort> = "", "Ports where a proxy announces the client's address by the PROXY protocol, each with the service behind it: `15222:c2s 15223:c2s_direct_tls`. Services are `c2s`, `c2s_direct_tls`, `s2s`, `s2s_direct_tls`, `http`, `https`, `component` and `proxy65`. Only proxies in `PROSODY_TRUSTED_PROXIES` may connect there. See [proxies](proxies.md).", decides [proxy_port_mappings, proxy_trusted_proxies];
    component_ports: Set<Port> = "`5347`", "For external components.", option component_ports;
    component_interfaces: List<Interface> = "every interface once an external component exists", "The addresses to bind for external components.", option component_interfaces;
    proxy65_ports: Set<Port> = "`5000`", "For the file transfer proxy.", option proxy65_ports;
    c2s_rate_limit: Rate = "`10kb/s`", "How much a client may send.", decides [limits];
    s2s_rate_limit: Rate = "`30kb/s`", "How much another server may send.", decides [limits];
    dns_resolvers: List<Resolver> = "the container's", "The DNS servers to ask.", decides [unbound];
    turn_host: TurnHost = "the virtual host", "The TURN server, for audio and video calls; `examples/calls` starts one.", decides [turn_external_host];
    turn_port: Port = "`3478`", "Its port.", option turn_external_port;
    turn_secret: Secret = "", "The secret shared with it; enables `turn_external`.", option turn_external_secret, secret: true;
    turn_tls_port: Port = "", "Its port for TLS, where it has one.", decides [external_services];
    turn_tcp: Boolean = "`false`", "Whether it serves TCP too.", option turn_external_tcp;
    turn_ttl: Seconds = "`86400`", "How many seconds a client's credentials are valid.", option turn_external_ttl;
}

section! {
    /// Databases, storage and retention.
    Storage "Storage"
    default_storage: Name = "`internal`, or `sql` where `PROSODY_DATABASE_URL` is set", "The storage backend. `sqlite` is short for `sql` on the SQLite file `prosody.sqlite` in the data directory.", decides [default_storage], aliases ["PROSODY_STORAGE"];
    database_url: DatabaseUrl = "", "`postgresql://user:password@host:5432/prosody`, `mysql://…`, `sqlite:///absolute/path`; `?host=/path` is a socket.", decides [sql], secret: true;
    db_driver: DbDriver = "`PostgreSQL`", "The database's kind.", decides [sql];
    db_host: Text = "`postgresql`, or `mysql` for MySQL", "The database's host. A path is a socket.", decides [sql];
    db_port: Port = "the driver's own", "The database's port.", decides [sql];
    db_name: Text = "`prosody`", "The database's name. With SQLite3, a file in the data directory.", decides [sql];
    db_username: Text = "`prosody`", "The user to log in with.", decides [sql];
    db_password: Secret = "", "The password to log in with.", decides [sql], secret: true;
    db_wait: Wait = "`60s`", "How long a start waits for the database. `0` does not wait, and does not look whether it is there.";
    archive_expires_after: ArchiveDuration = "`1w`", "How long messages are kept, in rooms too. With `PROSODY_ARCHIVE_EXPIRY_DAYS`: an error; over `PROSODY_RETENTION_DAYS` it wins.", decides [archive_expires_after, muc_log_expires_after];
    muc_log_expires_after: ArchiveDuration = "", "How long rooms keep messages.", decides [muc_log_expires_after];
    default_archive_policy: ArchivePolicy = "`true`", "Whose messages are archived by default: everyone's, nobody's, or contacts' (`roster`).", option default_archive_policy;
    retention_days: Days = "", "How long archives and shared files are kept; enables `mam`.", decides [archive_expires_after, muc_log_expires_after, http_file_share_expires_after];
    archive_expiry_days: Days = "", "Overrides `PROSODY_RETENTION_DAYS` for archives; enables `mam`.", decides [archive_expires_after, muc_log_expires_after];
    upload_expiry_days: Days = "", "Overrides `PROSODY_RETENTION_DAYS` for shared files.", decides [http_file_share_expires_after];
    upload_limit_mb: Megabytes = "`10`", "The largest file that may be shared, in MiB.", decides [http_file_share_size_limit];
    upload_storage_gb: Gigabytes = "no limit", "How much all shared files may take, in GiB.", option http_file_share_global_quota;
    upload_daily_quota_mb: Megabytes = "ten times the limit of one file", "How much one user may upload in a day, in MiB.", option http_file_share_daily_quota;
}

section! {
    /// Logs and statistics.
    Observability "Observability"
    log_level: LogLevel = "`info`", "The lowest level that Prosody logs to the console.", decides [log], aliases ["PROSODY_LOGLEVEL"];
    log_format: LogFormat = "`text`", "The format of Prosody's log and the entrypoint's: `text` is Prosody's console layout, `json` one object per line, for Loki and others. See [logs](logs.md).", decides [log], aliases ["PROSODY_ENTRYPOINT_LOG_FORMAT"];
    log_timestamps: Boolean = "`false`", "Begin each message in text, Prosody's and the entrypoint's, with the time (RFC 3339, UTC). JSON has it in any case.", decides [log];
    statistics: Name = "", "The statistics provider.", option statistics;
    statistics_interval: Interval = "", "Seconds between two collections, or `manual`.", option statistics_interval;
    openmetrics: Boolean = "`false`", "Serve `/metrics`: enables `http_openmetrics` with `statistics = \"internal\"` and the interval `manual`. `examples/monitoring` starts Prometheus beside the server.", decides [statistics, statistics_interval];
    openmetrics_allow_ips: List<Address> = "`::1`, `127.0.0.1`", "Who may read the metrics.", option openmetrics_allow_ips;
    openmetrics_allow_cidr: Cidr = "", "A network that may read the metrics.", option openmetrics_allow_cidr;
}

section! {
    /// Custom options and files, for everything without a setting.
    Anything "Anything else"
    options: CustomOptions = "", "Any global Prosody option: `{\"max_resources\": 5}`. `null` leaves an option out. An option that a setting decides too is an error.";
    extra_config: Glob = "`conf.d/*.cfg.lua` below the configuration directory", "Lua fragments included very last, in name order: what they say wins. `vhost.d/` and `cmpt.d/` beside it are included after our virtual hosts and after our components. Files that end in `.cfg.lua.j2` are templates.";
}

section! {
    /// Settings of the entrypoint itself.
    Entrypoint "The entrypoint itself"
    config_dir: Path = "`/etc/prosody`", "Your input. It is only read.", aliases ["PROSODY_CONFIGDIR"];
    templates_dir: Path = "`templates` below the configuration directory", "A file here replaces the built-in template of the same name.";
    runtime_dir: Path = "`/run/prosody`; where that cannot be written, `/dev/shm/prosody-UID`", "What is rendered, a new generation at every start; a tmpfs is fine.", decides [pidfile, admin_socket];
    data_dir: Path = "`/var/lib/prosody`", "Prosody's data.", decides [data_path];
    user: UserName = "the data directory's owner where that is not root, else `prosody`; without root, the user that it already is", "The user that Prosody runs as.";
    uid: Id = "", "The same by number.";
    gid: Id = "", "The group by number.";
    config_reload: Boolean = "`false`", "Reload when a custom file, a template, a custom module or the file of a `_FILE` variable changes, without SIGHUP.";
    share_module_code: ModuleSharing = "`auto`", "Whether the code of modules is compiled once for all hosts, which makes a server with many hosts start sooner and take less memory: with `auto` from 50 virtual hosts on.", option share_module_code;
    shards: ShardCount = "", "How many servers share the virtual hosts over one PostgreSQL. Each virtual host, with the components below it, is served by one of them. It is only the first value of a number in the database: `prosody-entrypoint shards --set N`. See [scaling](scaling.md).", decides [entrypoint_shards];
    shard: ShardNumber = "", "Which of them this server is: a number from 0, or a host name that ends in one, as that of a StatefulSet's pod.";
    shard_slot: ShardSlot = "", "The same, counted from 1, as Swarm's `{{.Task.Slot}}`.";
    entrypoint_log: LogLevel = "`info`", "The lowest level that the entrypoint logs, on standard error.";
    entrypoint_strict: Boolean = "`false`", "Warnings about settings become errors.";
}

/// All sections, in the order of the reference.
pub const SECTIONS: &[Section] = &[
    Hosts::SECTION,
    Modules::SECTION,
    Features::SECTION,
    Authentication::SECTION,
    Tls::SECTION,
    Network::SECTION,
    Storage::SECTION,
    Observability::SECTION,
    Anything::SECTION,
    Entrypoint::SECTION,
];

/// The prefix of the settings for the backend of one store: `PROSODY_STORAGE_ARCHIVE=sql`.
pub const STORE_PREFIX: &str = "PROSODY_STORAGE_";

pub fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// The setting of a field. `None` for [`Field::account`].
pub fn setting(field: Field) -> Option<&'static Setting> {
    settings().find(|setting| setting.field == field)
}
