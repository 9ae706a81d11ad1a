//! The TCP sockets on which the programs of a container listen.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::directory;

/// The state of a listening socket (proc(5), `/proc/net/tcp`).
const LISTEN: &str = "0A";

/// The addresses on which processes listen, with the loopback address for all addresses. Only processes count whose
/// descriptors this user may read, or all if there is none.
pub fn addresses() -> Vec<SocketAddr> {
    let known = sockets_of_processes();
    let mut addresses: Vec<SocketAddr> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().filter_map(|line| listener(line, &known)).collect::<Vec<_>>())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The address in a line of `/proc/net/tcp`, if the socket listens and is one of `known`.
fn listener(line: &str, known: &BTreeSet<String>) -> Option<SocketAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    if *state != LISTEN || !(known.is_empty() || known.contains(*inode)) {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, in the byte order of the machine.
    let word = |number: usize| u32::from_str_radix(address.get(number * 8..number * 8 + 8)?, 16).ok();
    let address = match address.len() {
        8 => IpAddr::from(word(0)?.to_ne_bytes()),
        _ => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].map(u32::to_ne_bytes);
            IpAddr::from(<[u8; 16]>::try_from(words.concat()).ok()?)
        }
    };
    let address = match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    Some(SocketAddr::new(address, port))
}

/// The inodes of all sockets of the processes whose descriptors this user may read (proc(5), `/proc/PID/fd`).
fn sockets_of_processes() -> BTreeSet<String> {
    let paths = |directory: &Path| {
        let names = directory::list(directory).unwrap_or_default().into_iter();
        names.map(|name| directory.join(name)).collect::<Vec<PathBuf>>()
    };
    let descriptors = paths(Path::new("/proc")).into_iter().flat_map(|process| paths(&process.join("fd")));
    let links = descriptors.filter_map(|descriptor| fs::read_link(descriptor).ok());
    links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn listening_sockets_are_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = TcpListener::bind(address) else { continue };
            let expected = socket.local_addr().unwrap();
            assert!(addresses().contains(&expected), "{expected}");
            drop(socket);
            assert!(!addresses().contains(&expected), "{expected}");
        }
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = everywhere.local_addr().unwrap().port();
        assert!(addresses().contains(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
    }
}
