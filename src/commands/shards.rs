//! Shows which shard serves which host, and changes how many there are.

use std::collections::BTreeMap;

use serde_json::json;

use super::render::print;
use crate::cli::{Shards as Options, ShardsFormat};
use crate::configure::{PlanRequest, environment, make_plan, read_settings, refuse};
use crate::database::{self, LoginContext};
use crate::exit_status::{ExitStatus, Failure};
use crate::facts::Places;
use crate::intent::hosts::{Host, PIN};
use crate::layout::{CURRENT, MAIN_FILE};
use crate::lua::{Secrets, Value};
use crate::settings::catalogue::Field;
use crate::settings::types::{DbDriver, ascii};
use crate::shards::{owner, unit};

/// A host and its place.
struct Place<'a> {
    host: &'a str,
    shard: u32,
    is_pinned: bool,
}

/// Shows the hosts with their shards. With `--set`, changes the number of shards first.
/// Errors: 69 if the database does not answer; 78 if the settings have no shards, or are wrong.
pub fn run(options: &Options) -> Result<ExitStatus, Failure> {
    let (settings, mut report) = read_settings();
    let Some(first) = settings.entrypoint.shards else {
        refuse(&settings, report)?;
        return Err(ExitStatus::CONFIGURATION.failure(advice!(
            "this server has no shards: set PROSODY_SHARDS, and PROSODY_SHARD or PROSODY_SHARD_SLOT"
        )));
    };
    // Which of the shards this would be does not matter.
    let shards = settings.variable(Field::shards);
    report.retain(|variable| variable != shards);
    let places = Places::find(&settings);
    let main_file = places.runtime_dir.join(CURRENT).join(MAIN_FILE);
    let request = PlanRequest { secrets: Secrets::Hidden, ..PlanRequest::default() };
    let (facts, plan, _) = make_plan(&settings, places, report, &request, None)?;
    let variables = environment::without_settings(&settings, &facts.custom_files.environment());
    let environment = environment::complete(variables, &main_file, &facts.data_dir);
    let context = LoginContext { prosody: &facts.prosody, user: &facts.identity, environment: &environment };
    let database = plan.databases.iter().find(|database| database.driver == DbDriver::PostgreSql);
    let Some(database) = database else {
        return Err(ExitStatus::CONFIGURATION.failure("there is no PostgreSQL"));
    };

    let hosts = &plan.hosts;
    let pin_of = |host: &Host| match host.options.get(PIN)? {
        Value::Integer(shard) => u32::try_from(*shard).ok(),
        _ => None,
    };
    let pins: BTreeMap<&str, Option<u32>> =
        hosts.virtual_hosts.iter().map(|host| (&*host.name, pin_of(host))).collect();
    let place = |host: &Host, count: u32| {
        let unit = unit(&host.name, |name| pins.contains_key(name));
        let pin = pins.get(unit).copied().flatten();
        (pin.unwrap_or_else(|| owner(unit, count)), pin.is_some())
    };
    let all = || hosts.virtual_hosts.iter().chain(&hosts.components);

    let before = database::shards(database, None, &context)?;
    let count = match options.set {
        None => before.unwrap_or(first.0),
        Some(count) => {
            database::shards(database, Some(count), &context)?;
            let before = before.unwrap_or(first.0);
            let moved = all().filter(|host| place(host, before) != place(host, count)).count();
            tracing::info!(
                "The number of shards is {count} now, after {before}: {moved} of {} hosts move",
                all().count()
            );
            count
        }
    };
    if before.is_none() && options.set.is_none() {
        tracing::info!(
            "No shard has started yet with this database: the number of shards is that of PROSODY_SHARDS"
        );
    }
    let places: Vec<Place> = all()
        .map(|host| {
            let (shard, is_pinned) = place(host, count);
            Place { host: &host.name, shard, is_pinned }
        })
        .collect();
    match (options.format, options.set) {
        (ShardsFormat::Table, Some(_)) => Ok(()),
        (ShardsFormat::Table, None) => print(&table(&places, count)),
        (ShardsFormat::HaproxyMap, _) => print(&map(&places)),
        (ShardsFormat::Json, _) => {
            let host = |it: &Place| json!({ "host": it.host, "shard": it.shard, "pinned": it.is_pinned });
            let hosts: Vec<_> = places.iter().map(host).collect();
            print(&format!("{:#}\n", json!({ "count": count, "hosts": hosts })))
        }
    }?;
    Ok(ExitStatus::SUCCESS)
}

fn table(places: &[Place], count: u32) -> String {
    let width = places.iter().map(|it| it.host.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for it in places {
        let remark = match it.is_pinned {
            true if it.shard >= count => "  pinned, and there is no such shard",
            true => "  pinned",
            false => "",
        };
        text += &format!("{:width$}  {}{remark}\n", it.host, it.shard);
    }
    for shard in 0..count {
        text += &format!("shard {shard}: {} hosts\n", places.iter().filter(|it| it.shard == shard).count());
    }
    text
}

/// The lines of a map for HAProxy. A name in Unicode has a second line, because TLS has names in ASCII.
fn map(places: &[Place]) -> String {
    let mut text = String::new();
    for it in places {
        let ascii = ascii(it.host).filter(|ascii| ascii != it.host);
        for name in [Some(it.host.to_owned()), ascii].into_iter().flatten() {
            text += &format!("{name} shard-{}\n", it.shard);
        }
    }
    text
}
