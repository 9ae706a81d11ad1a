//! Reads the report of Prosody's own `check dns`.
//!
//! Prosody ends with 1 where an SRV record is missing or an address is not the server's, but with 0 where a name has no
//! address at all. So the lines of its report count too.

use std::collections::HashSet;

use super::records::Zone;

/// What is missing or wrong, without Prosody's advice and each once.
pub fn wrong_records(report: &str, zone: Option<&Zone>) -> Vec<String> {
    let (mut wrong, mut seen) = (Vec::new(), HashSet::new());
    for line in report.lines().map(str::trim).filter(|line| is_wrong(line, zone)) {
        let end = [", but ", ". "].iter().filter_map(|end| line.find(end)).min();
        let what = end.and_then(|end| line.get(..end)).unwrap_or(line);
        if seen.insert(what) {
            wrong.push(what.to_owned());
        }
    }
    wrong
}

/// Whether a line is about a record that is missing or wrong (`util/prosodyctl/check.lua`). A family without an address of
/// this server counts only if it should have one, or if there is no address at all.
fn is_wrong(line: &str, zone: Option<&Zone>) -> bool {
    if line.starts_with("No _xmpp") || line.contains(" record points to unknown address ") {
        return true;
    }
    let is_without: [bool; 2] = if line.contains(" does not seem to resolve to this server (") {
        ["IPv4", "IPv6"].map(|family| line.contains(family))
    } else if let Some((_, rest)) = line.split_once(" has no ") {
        let kinds = rest.split(" record.").next().unwrap_or_default();
        ["A", "AAAA"].map(|kind| kinds.split('/').any(|other| other == kind))
    } else {
        return false;
    };
    let (has, uses) = zone.map_or(([false; 2], [true; 2]), |zone| (zone.has_addresses, zone.uses));
    let mut families = is_without.into_iter().zip(has.into_iter().zip(uses));
    if has.contains(&true) {
        return families.any(|(is_without, (has, _))| is_without && has);
    }
    is_without.contains(&true) && families.all(|(is_without, (_, uses))| is_without || !uses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(has_addresses: [bool; 2], uses: [bool; 2]) -> Zone {
        Zone { has_addresses, uses, ..Zone::default() }
    }

    #[test]
    fn lines_about_missing_and_wrong_records_are_found() {
        let report = "Checking DNS for host a.example...\n    \
            No _xmpps-client SRV record found for a.example, but it looks like you need one.\n    \
            SRV target a.example contains unknown client port: 15222\n    \
            HTTP service a.example has no A/AAAA record. Create one or change 'http_host' to the correct host.\n    \
            a.example A record points to unknown address 192.0.2.9\n    \
            a.example A record points to unknown address 192.0.2.9\n    \
            a.example A record points to internal address, external connections might fail\n    \
            Target 'localhost' cannot be accessed from other servers\n\n";
        assert_eq!(
            wrong_records(report, None),
            [
                "No _xmpps-client SRV record found for a.example",
                "HTTP service a.example has no A/AAAA record",
                "a.example A record points to unknown address 192.0.2.9",
            ]
        );
    }

    #[test]
    fn a_family_is_missing_if_it_should_be_there_or_there_is_none() {
        let (no, both) = ([false, false], [true, true]);
        for (has, uses, expected) in [
            // Without IPv4, without IPv6, without both.
            ([true, false], both, [true, false, true]),
            ([false, true], both, [false, true, true]),
            (both, both, [true, true, true]),
            (no, both, [false, false, true]),
            (no, [true, false], [true, false, true]),
            (no, [false, true], [false, true, true]),
        ] {
            let zone = zone(has, uses);
            for (families, kinds, expected) in [
                ("IPv4", "A", expected[0]),
                ("IPv6", "AAAA", expected[1]),
                ("IPv4/IPv6", "A/AAAA", expected[2]),
            ] {
                for line in [
                    format!("Host a.example does not seem to resolve to this server ({families})"),
                    format!(
                        "HTTP service a.example has no {kinds} record. Create one or change 'http_host' to …"
                    ),
                    format!("File transfer proxy a.example has no {kinds} record. Create one or set …"),
                ] {
                    assert_eq!(is_wrong(&line, Some(&zone)), expected, "{has:?} {uses:?} {line}");
                }
            }
        }
    }
}
