//! Which shard serves which host. The script in the server computes the same (`live/shards.lua`).

use crate::digest;

/// The buckets of virtual hosts.
const BUCKETS: u32 = 1024;

fn number_of(text: &str) -> u32 {
    (digest::of(text.as_bytes()) >> 32) as u32
}

/// The shard of a virtual host, by its name in Prosody's configuration, among `count` of them. Rendezvous hashing of its
/// bucket: with one shard more, only hosts move that the new one gets.
pub fn owner(virtual_host: &str, count: u32) -> u32 {
    let bucket = number_of(virtual_host) % BUCKETS;
    let weight = |shard: &u32| (number_of(&format!("{bucket} {shard}")), u32::MAX - shard);
    (0..count).max_by_key(weight).unwrap_or(0)
}

/// The virtual host that a host is, or is below; else the host itself.
pub fn unit(host: &str, is_virtual: impl Fn(&str) -> bool) -> &str {
    let mut name = host;
    loop {
        if is_virtual(name) {
            return name;
        }
        match name.split_once('.') {
            Some((_, above)) => name = above,
            None => return host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(count: u32) -> Vec<u32> {
        (0..10_000).map(|number| owner(&format!("d{number}.example"), count)).collect()
    }

    #[test]
    fn hosts_have_the_same_shard_forever() {
        let of =
            |count| (1..=12).map(|number| owner(&format!("d{number}.example"), count)).collect::<Vec<_>>();
        assert_eq!(of(3), [2, 1, 1, 0, 1, 2, 1, 2, 2, 2, 1, 2]);
        assert_eq!(owner("chat.example", 1), 0);
    }

    #[test]
    fn every_shard_has_its_part() {
        let owners = owners(4);
        for shard in 0..4 {
            let count = owners.iter().filter(|owner| **owner == shard).count();
            assert!((1_900..3_100).contains(&count), "{shard}: {count}");
        }
    }

    #[test]
    fn a_new_shard_takes_its_part_and_moves_nothing_else() {
        let moved: Vec<(u32, u32)> =
            owners(4).into_iter().zip(owners(5)).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| *after == 4), "{moved:?}");
        assert!((1_500..2_500).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn components_go_with_the_virtual_host_above() {
        let is_virtual = |name: &str| ["a.example", "b.a.example"].contains(&name);
        let units = ["a.example", "rooms.a.example", "x.rooms.b.a.example", "rooms.example", "example"];
        let expected = ["a.example", "a.example", "b.a.example", "rooms.example", "example"];
        assert_eq!(units.map(|name| unit(name, is_virtual)), expected);
    }
}
