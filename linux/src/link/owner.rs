//! Whose socket a datagram came from, when it came from this host.
//!
//! Every user of a host can send to its loopback addresses; only the user whose system it is, and root, may have what a
//! joining host gets.

use std::net::{IpAddr, SocketAddr};

/// Whether the socket at this address of this host belongs to the user of this process or to root.
pub(super) fn is_ours(address: SocketAddr) -> bool {
    let table = match address {
        SocketAddr::V4(_) => "/proc/self/net/udp",
        SocketAddr::V6(_) => "/proc/self/net/udp6",
    };
    let own = rustix::process::geteuid().as_raw();
    match std::fs::read_to_string(table) {
        Ok(table) => is_of(&table, address, &[0, own]),
        Err(error) => {
            tracing::warn!("cannot read {table}: {error}");
            false
        }
    }
}

/// Whether all sockets in the table that could have this address, and at least one, belong to these users.
fn is_of(table: &str, address: SocketAddr, users: &[u32]) -> bool {
    let port = format!("{:04X}", address.port());
    let (exact, anywhere) = (spelled(address.ip()), spelled(any(address.ip())));
    let mut owners = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (ip, local_port) = words.nth(1)?.split_once(':')?;
        let owner: u32 = words.nth(5)?.parse().ok()?;
        (local_port == port && (ip == exact || ip == anywhere)).then_some(owner)
    });
    let is_user = |owner: u32| users.contains(&owner);
    owners.next().is_some_and(is_user) && owners.all(is_user)
}

fn any(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// An address as the table spells it: words of 32 bits in the order of the machine.
fn spelled(ip: IpAddr) -> String {
    let word = |bytes: &[u8]| {
        let bytes: [u8; 4] = bytes.try_into().expect("addresses are whole words");
        format!("{:08X}", u32::from_ne_bytes(bytes))
    };
    match ip {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().chunks(4).map(word).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn our_own_sockets_are_ours() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = UdpSocket::bind(local) else { continue }; // a host without IPv6
            let address = socket.local_addr().unwrap();
            assert!(is_ours(address), "{address}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn one_socket_of_another_user_is_enough_to_say_no() {
        let line = |address: &str, owner: u32| {
            format!(
                "  1: {address} 00000000:0000 07 00000000:00000000 00:00000000 00000000 {owner} 0 1 2 0 0\n"
            )
        };
        let address = "127.0.0.1:8080".parse().unwrap();
        let table = |lines: &[String]| format!("heading\n{}", lines.concat());
        let ours = line("0100007F:1F90", 1000);
        assert!(is_of(&table(std::slice::from_ref(&ours)), address, &[0, 1000]));
        assert!(!is_of(&table(&[ours.clone(), line("00000000:1F90", 1001)]), address, &[0, 1000]));
        assert!(is_of(&table(&[ours.clone(), line("0200007F:1F90", 1001)]), address, &[0, 1000]));
        assert!(is_of(&table(&[ours, line("0100007F:1F91", 1001)]), address, &[0, 1000]));
        assert!(!is_of(&table(&[]), address, &[0, 1000]));
        assert!(!is_of("garbage\n: :\n1: x", address, &[0]));
    }
}
