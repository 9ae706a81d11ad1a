//! Tests that need Docker and the images of `make image`: the image as users run it, real clients,
//! and real Prosody reading what we render.
//!
//! They are ignored by default (`make check`); `make test` runs them, and `make test-all` with every combination of what
//! is combined (`TEST_ALL`).
//! Where the engine or an image is missing they fail and say so. Each container, network and
//! volume has a name of its own that begins with `pe-test-`, and is removed when its test ends.
#![allow(clippy::string_slice, clippy::unwrap_used)]

mod accounts;
mod advice;
mod backup;
mod backup_faults;
mod backup_storm;
mod bad_input;
mod browser;
mod certificates;
mod collection;
mod commands;
mod damage;
mod database;
mod dns;
mod docker;
mod engine;
mod examples;
mod faults;
mod features;
mod hostile;
mod image;
mod live;
mod live_changes;
mod live_modules;
mod lock;
mod logs;
mod matrix;
mod minimal;
mod modules;
mod mounts;
mod moving;
mod oracle;
mod orchestrators;
mod privileges;
mod probes;
mod proxies;
mod random;
mod reload;
mod router;
mod run;
mod secrets;
mod security;
mod shards;
mod sources;
mod stop;
mod take_over;
mod terminal;
mod testssl;
mod tini;
mod tls;
mod upgrade;
mod validate;
mod walk;
mod watch;
mod wire;
