//! The records as a zone file (RFC 1035, section 5) and as JSON.

use serde_json::{Map, Value, json};

use super::records::{HostMeta, Record, TTL, Zone};

/// A zone file: records with full names, so that they can be pasted into any zone, and comments.
pub fn text(zone: &Zone) -> String {
    let mut text = String::new();
    zone.notes.iter().for_each(|note| comment(&mut text, note));
    for group in &zone.groups {
        text.push('\n');
        comment(&mut text, &group.name);
        for Record { name, kind, data } in &group.records {
            text += &format!("{name} {TTL} IN {kind} {data}\n");
        }
        for name in &group.without_addresses {
            comment(&mut text, &format!("{name}. needs A and AAAA records"));
        }
        for meta in &group.host_meta {
            for (name, content) in [("host-meta", xml(meta)), ("host-meta.json", as_json(meta).to_string())] {
                let header = "with the header `Access-Control-Allow-Origin: *` (XEP-0156)";
                let place = format!("https://{}/.well-known/{name}, {header}:", meta.host);
                comment(&mut text, &format!("\n{place}\n{content}"));
            }
        }
    }
    // File names can contain control characters.
    text.replace(|letter: char| letter.is_control() && letter != '\n', "?")
}

/// Adds lines that a name server ignores.
fn comment(text: &mut String, lines: &str) {
    for line in lines.lines() {
        *text += format!("; {line}").trim_end();
        text.push('\n');
    }
}

/// The same as one object.
pub fn object(zone: &Zone) -> Map<String, Value> {
    let records = zone.groups.iter().flat_map(|group| &group.records);
    let records = records
        .map(|Record { name, kind, data }| json!({"name": name, "ttl": TTL, "type": kind, "data": data}));
    let host_meta = zone.groups.iter().flat_map(|group| &group.host_meta);
    let host_meta = host_meta
        .map(|meta| json!({"host": meta.host, "host-meta": xml(meta), "host-meta.json": as_json(meta)}));
    let without = zone.groups.iter().flat_map(|group| &group.without_addresses);
    let members = [
        ("records", records.collect::<Value>()),
        ("without_addresses", without.map(|name| format!("{name}.")).collect()),
        ("host_meta", host_meta.collect()),
        ("notes", zone.notes.iter().map(String::as_str).collect()),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn xml(meta: &HostMeta) -> String {
    let mut text =
        "<?xml version='1.0' encoding='utf-8'?>\n<XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>\n"
            .to_owned();
    for (relation, url) in &meta.links {
        let url = url.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;");
        text += &format!("  <Link rel='{relation}' href='{url}'/>\n");
    }
    text + "</XRD>\n"
}

fn as_json(meta: &HostMeta) -> Value {
    let links = meta.links.iter().map(|(relation, url)| json!({"rel": relation, "href": url}));
    json!({"links": links.collect::<Value>()})
}

#[cfg(test)]
mod tests {
    use super::super::records::Group;
    use super::*;

    #[test]
    fn everything_but_records_is_a_comment_and_values_are_quoted() {
        let url = "https://a.example/it's?<&\n".to_owned();
        let links = vec![("xbosh", url.clone())];
        let zone = Zone {
            notes: vec!["one\ntwo\r\x1b[2J".to_owned()],
            groups: vec![Group {
                name: "jörg.example".to_owned(),
                records: vec![Record {
                    name: "a.example.".to_owned(),
                    kind: "A",
                    data: "192.0.2.1".to_owned(),
                }],
                without_addresses: vec!["b.example".to_owned()],
                host_meta: vec![HostMeta { host: "a.example".to_owned(), links }],
            }],
            ..Zone::default()
        };
        let text = text(&zone);
        let mut lines = text.lines();
        assert_eq!(lines.by_ref().take(4).collect::<Vec<_>>(), ["; one", "; two??[2J", "", "; jörg.example"]);
        assert_eq!(lines.next(), Some("a.example. 3600 IN A 192.0.2.1"));
        assert!(lines.all(|line| line.starts_with(';')), "{text}");
        assert!(text.contains("href='https://a.example/it&apos;s?&lt;&amp;"), "{text}");
        let object = object(&zone);
        assert_eq!(object["host_meta"][0]["host-meta.json"]["links"][0]["href"], url);
        assert_eq!(object["without_addresses"][0], "b.example.");
        assert_eq!(
            object["records"][0],
            json!({"name": "a.example.", "ttl": 3600, "type": "A", "data": "192.0.2.1"})
        );
    }
}
