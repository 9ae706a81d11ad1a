//! The databases in use.

use std::fmt;

use super::hosts::{Options, ServedHosts};
use crate::layout::SQLITE_FILE;
use crate::lua::{Secret, Value};
use crate::settings::types::{DbDriver, SettingType};

/// A database, from the option `sql` of `mod_storage_sql`.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    pub driver: DbDriver,
    /// The server's name or address, or its socket's path. `None` is the driver's default.
    pub host: Option<String>,
    /// The server's port. `None` is the system's default.
    pub port: Option<u16>,
    /// The database's name. For SQLite, its file.
    pub name: String,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = match self.driver {
            DbDriver::PostgreSql => "PostgreSQL",
            DbDriver::MySql => "MySQL",
            DbDriver::Sqlite3 => return write!(f, "the SQLite database {}", self.name),
        };
        write!(f, "the {kind} database {:?} on {}", self.name, self.server())
    }
}

impl Database {
    /// The server's address in words.
    pub fn server(&self) -> String {
        match &self.host {
            Some(host) if host.starts_with('/') => host.clone(),
            Some(host) if host.contains(':') => format!("[{host}]:{}", self.port()),
            Some(host) => format!("{host}:{}", self.port()),
            None => "the local socket".to_owned(),
        }
    }

    /// A line that describes it, without its password, for [`Database::parse`]. `None` for SQLite, and if a name has a
    /// control character.
    pub fn line(&self) -> Option<String> {
        if self.driver == DbDriver::Sqlite3 {
            return None;
        }
        let [host, user] = [&self.host, &self.username].map(|text| text.as_deref().unwrap_or_default());
        let fields = ["database", self.driver.as_str(), host, &self.port().to_string(), &self.name, user];
        let is_plain = |field: &&str| !field.contains(char::is_control);
        fields.iter().all(is_plain).then(|| fields.join("\t"))
    }

    /// Parses such a line.
    pub fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let ["database", driver, host, port, name, user] = fields[..] else { return None };
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Some(Self {
            driver: DbDriver::parse(driver).ok()?,
            host: given(host),
            port: port.parse().ok(),
            name: name.to_owned(),
            username: given(user),
            password: None,
        })
    }

    /// The port, or the default of the database system.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.driver {
            DbDriver::MySql => 3306,
            DbDriver::PostgreSql | DbDriver::Sqlite3 => 5432,
        })
    }
}

/// The databases of all hosts, each once. As in Prosody, a host's option has precedence over the global one
/// (`core/storagemanager.lua`, `mod_storage_sql`).
pub fn of(options: &Options, hosts: &ServedHosts) -> Vec<Database> {
    let mut databases = Vec::new();
    for host in hosts.all() {
        let option = |name: &str| host.options.get(name).or_else(|| options.get(name));
        let mut is_sql = false;
        for value in ["default_storage", "storage"].iter().filter_map(|name| option(name)) {
            value.each_text(&mut |backend, _| is_sql |= backend == "sql");
        }
        let database = option("sql").filter(|_| is_sql).and_then(database);
        databases.extend(database.filter(|database| !databases.contains(database)));
    }
    databases
}

/// The database in an `sql` table. `None` if the table is too incomplete for Prosody.
fn database(table: &Value) -> Option<Database> {
    let text = |name: &str| match table.get(name)? {
        Value::Integer(number) => Some(number.to_string()),
        item => {
            let mut found = None;
            item.each_text(&mut |text, _| found = Some(text.to_owned()));
            found
        }
    };
    let driver = DbDriver::parse(&text("driver")?).ok()?;
    let name = text("database");
    Some(Database {
        driver,
        name: if driver == DbDriver::Sqlite3 {
            name.unwrap_or_else(|| SQLITE_FILE.to_owned())
        } else {
            name?
        },
        host: text("host"),
        port: text("port").and_then(|port| port.parse().ok()),
        username: text("username"),
        password: text("password").map(Secret::new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_describes_a_server_without_its_password() {
        let database = |driver, host: Option<&str>, name: &str| Database {
            driver,
            host: host.map(str::to_owned),
            port: Some(5433),
            name: name.to_owned(),
            username: Some("the user".to_owned()),
            password: Some(Secret::new("hush".to_owned())),
        };
        for (driver, host, name) in [
            (DbDriver::PostgreSql, Some("db.example"), "prosody"),
            (DbDriver::MySql, None, "a name"),
            (DbDriver::PostgreSql, Some("/run/postgresql"), "c2s 127.0.0.1 5222 x"),
        ] {
            let database = database(driver, host, name);
            let line = database.line().unwrap();
            assert!(!line.contains("hush"), "{line}");
            assert_eq!(Database::parse(&line), Some(Database { password: None, ..database }));
        }
        assert_eq!(database(DbDriver::Sqlite3, None, "file").line(), None);
        assert_eq!(database(DbDriver::MySql, None, "a\nb").line(), None);
        assert_eq!(database(DbDriver::MySql, Some("a\tb"), "c").line(), None);
        for line in ["", "c2s 127.0.0.1 5222 a.example", "database\tOracle\t\t1\ta\tb", "database\tMySQL"] {
            assert_eq!(Database::parse(line), None, "{line:?}");
        }
    }
}
