//! The command line of the entrypoint's own commands. Doc comments below are the text of `--help`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The entrypoint of a container that runs the Prosody XMPP server.
///
/// Any other first argument is a program to run: `prosody` (the default), `prosodyctl` or one of its commands, a shell.
/// It runs as Prosody's user, once the configuration is there.
#[derive(Debug, Parser)]
#[command(name = "prosody-entrypoint", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The names of the [`Command`] variants, except `init`, and clap's `help`. Any other first argument is a program.
pub const COMMANDS: &[&str] = &[
    "render", "validate", "settings", "modules", "certificates", "dns", "shards", "backup", "restore",
    "migrate", "export", "repair", "healthcheck", "help",
];

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write Prosody's configuration, or show it, and start nothing
    Render(Render),
    /// Find what a start would refuse or warn about, and what users would miss
    Validate(Validate),
    /// List all settings
    Settings(Settings),
    /// List the server's modules, from where each is and why it is there, or search the community's
    Modules(Modules),
    /// Show the certificate of each host and port, and why it is not another
    Certificates(Certificates),
    /// Show the DNS records that this configuration needs, as a zone file
    Dns(Dns),
    /// Show which shard serves which host, or change the number of shards
    Shards(Shards),
    /// Save the data of all hosts, whatever storage it is in, beside a running server or without one
    Backup(Backup),
    /// Bring a backup into an empty, stopped server, of either version and with any storage
    Restore(Restore),
    /// Copy all data of a stopped server into another storage, and compare the copy
    Migrate(Migrate),
    /// Save what the server keeps for one account, in the format of a backup
    Export(Export),
    /// Repair lists that a crash has cut off, and rows that a database has twice
    Repair,
    /// Succeed when the server answers an XMPP stream for its first host, or is alive or ready
    Healthcheck(Healthcheck),
    /// Run any program under PID 1 alone, with tini's command line: `init -h` lists its options
    #[command(disable_help_flag = true)]
    Init {
        /// tini's options, and the program with its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS -- PROGRAM")]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
pub struct Render {
    /// Show every file, with a placeholder for each secret, and write nothing
    #[arg(long, conflicts_with_all = ["diff", "json"])]
    pub dry_run: bool,
    /// Show what differs from what is in force, and write nothing; ends with 1 where something does
    #[arg(long, conflicts_with = "json")]
    pub diff: bool,
    /// Show the plan as JSON, with a placeholder for each secret, and write nothing
    #[arg(long)]
    pub json: bool,
    /// Write into this directory instead of the runtime directory, or show what would be written there
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Settings {
    /// Show the value of each setting that is in force, and where it came from
    #[arg(long)]
    pub effective: bool,
    /// Show what each feature of PROSODY_FEATURES stands for: modules and options
    #[arg(long, conflicts_with = "effective")]
    pub features: bool,
    /// Show the features as JSON
    #[arg(long, requires = "features")]
    pub json: bool,
    /// How to show them
    #[arg(long, value_enum, default_value_t = Format::Table, conflicts_with_all = ["effective", "features"])]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Modules {
    /// Show them as JSON, with all that is known
    #[arg(long)]
    pub json: bool,
    /// List the community's modules with WORD in their name or summary instead; ends with 1 where there is none
    #[arg(long, value_name = "WORD")]
    pub search: Option<String>,
}

#[derive(Debug, Args)]
pub struct Healthcheck {
    /// Succeed unless the server's process is gone or stopped: also while it starts, and while it hangs
    #[arg(long, conflicts_with = "ready")]
    pub live: bool,
    /// Succeed when it also has all of its hosts; the first time, also all of their modules, and its databases answer
    #[arg(long)]
    pub ready: bool,
    /// Show the result as JSON; unless with --live, also what is not as it is configured
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Certificates {
    /// Show them as JSON, with all that is known
    #[arg(long)]
    pub json: bool,
    /// End with 1 where a host has none, or one that ends within so many days
    #[arg(long, value_name = "DAYS", default_value_t = 14)]
    pub warn_days: u16,
}

#[derive(Debug, Args)]
pub struct Validate {
    /// Show everything as JSON
    #[arg(long)]
    pub json: bool,
    /// Check DNS too; ends with 1 where a record is missing
    #[arg(long)]
    pub dns: bool,
}

#[derive(Debug, Args)]
pub struct Dns {
    /// Show them as JSON
    #[arg(long)]
    pub json: bool,
    /// Compare with what resolves, by Prosody's own `check dns`, and show its report; ends with 1 where something is missing
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct Shards {
    /// Change the number of shards to N, which they take up by themselves
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub set: Option<u32>,
    /// How to show them
    #[arg(long, value_enum, default_value_t = ShardsFormat::Table)]
    pub format: ShardsFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ShardsFormat {
    /// Columns for a terminal
    Table,
    /// A line for each name, `chat.example shard-1`, as HAProxy reads it
    HaproxyMap,
    /// The count, and each host with its shard
    Json,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// The file to write, which only its owner can read; `-` is standard output
    #[arg(default_value = "-")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The file to read; `-` is standard input
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Restore the data of the host OLD as that of NEW; addresses inside the data stay as they are
    #[arg(long, value_name = "OLD=NEW", value_parser = renamed_host)]
    pub host: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct Migrate {
    /// The new storage: `internal` (files), `sqlite`, or the URL of a database, as in PROSODY_DATABASE_URL
    #[arg(long, value_name = "STORAGE", required_unless_present = "to_file")]
    pub to: Option<String>,
    /// A file that contains the new storage, so that its password is in no list of processes
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    pub to_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Export {
    /// The account's address
    #[arg(value_name = "JID")]
    pub account: String,
    /// The file to write, which only its owner can read; `-` is standard output
    #[arg(default_value = "-")]
    pub file: PathBuf,
}

/// The names around `=`.
fn renamed_host(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("expected two hosts, OLD=NEW".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    /// Columns for a terminal
    Table,
    /// The reference, as in the documentation
    Markdown,
    /// A JSON schema of the environment
    JsonSchema,
    /// A file of variables to fill in, for `docker run --env-file`
    Env,
}
