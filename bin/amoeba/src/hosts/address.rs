//! Where a host listens for others, and where these reach it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};

use amoeba_cli::Hint;
use amoeba_linux::link::admission::ADDRESSES_MAX;
use anyhow::{Context, Result, anyhow};

use crate::config::{LINK_PORT, resolve};

/// Ports that are tried, from [`LINK_PORT`] on: several systems may be on one machine.
const PORTS: u16 = 64;

/// Where a host is to listen. As long as this is kept, nobody else who looks for a port on this machine gets the same,
/// though nothing listens there yet: the claim is a name that the operating system gives once in a network namespace, and
/// takes back when its process ends.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    _claim: Option<UnixDatagram>,
}

impl Listening {
    /// Claims an address under a name; `None` when somebody else has.
    fn claim(address: SocketAddr, name: impl std::fmt::Display) -> Option<Listening> {
        let name = UnixAddress::from_abstract_name(format!("amoeba-listen-{name}"));
        match name.and_then(|name| UnixDatagram::bind_addr(&name)) {
            Ok(claim) => Some(Listening { address, _claim: Some(claim) }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => None,
            Err(_) => Some(Listening { address, _claim: None }), // then two at the same moment are on their own
        }
    }
}

/// Where to listen when nobody has said it: everywhere, with IPv6 where there is any, or on the loopback network alone; the
/// first port from [`LINK_PORT`] on that is free.
///
/// # Errors
/// None of them is.
pub(crate) fn choose_listen(loopback: bool) -> Result<Listening> {
    let ips = match loopback {
        true => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        false => vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
    };
    let mut candidates = ips
        .into_iter()
        .flat_map(|ip| (LINK_PORT..LINK_PORT + PORTS).map(move |port| SocketAddr::new(ip, port)));
    let last = LINK_PORT + PORTS - 1;
    candidates
        .find_map(|address| {
            Listening::claim(address, address.port()).filter(|listening| is_free(listening.address))
        })
        .with_context(|| format!("no UDP port from {LINK_PORT} to {last} is free; choose one with --listen"))
}

/// Where to listen as somebody has written it, once it is sure that this host can.
///
/// # Errors
/// It is no address, or not one of this host, or taken; with the next step.
pub(crate) fn wanted_listen(text: &str) -> Result<Listening> {
    let written =
        "--listen takes ADDRESS:PORT, such as 192.0.2.7:5321, or [::]:5321 for all addresses of this host";
    let listen = resolve(text).context(Hint(written.to_owned()))?;
    let claimed = Listening::claim(listen, listen).ok_or_else(|| ErrorKind::AddrInUse.into());
    let bound = claimed.and_then(|claimed| UdpSocket::bind(listen).map(|_| claimed));
    bound.map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => {
                "another program has this port (`ss -ulpn` names it): choose another one with --listen"
            }
            ErrorKind::AddrNotAvailable => {
                "it is no address of this host (`ip address` lists those): name one of them"
            }
            ErrorKind::PermissionDenied => "ports below 1024 are root's: choose a larger one",
            _ => written,
        };
        anyhow!(error).context(format!("cannot listen on {listen}")).context(Hint(hint.to_owned()))
    })
}

/// Whether nobody listens there, by IPv4 either.
fn is_free(address: SocketAddr) -> bool {
    let also = (address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        .then(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, address.port())));
    // The first socket must be gone again, for the second may stand for both.
    also.is_none_or(|bound| bound.map(drop).is_ok()) && UdpSocket::bind(address).is_ok()
}

/// By which addresses others reach a host that listens there: those of its interfaces when it listens everywhere, and that
/// of the loopback network when it has no other.
pub(crate) fn reachable(listen: SocketAddr) -> Vec<SocketAddr> {
    if !listen.ip().is_unspecified() {
        return vec![listen];
    }
    let ips = amoeba_linux::host::addresses().unwrap_or_else(|error| {
        tracing::warn!("the addresses of this host are not known: {error}");
        Vec::new()
    });
    of_interfaces(&ips, listen)
}

fn of_interfaces(ips: &[IpAddr], listen: SocketAddr) -> Vec<SocketAddr> {
    let of_family = ips.iter().filter(|ip| ip.is_ipv4() || listen.is_ipv6());
    let mut addresses: Vec<SocketAddr> = of_family.map(|ip| SocketAddr::new(*ip, listen.port())).collect();
    if addresses.is_empty() {
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())));
    }
    // A machine may have many addresses of version 6: one of each version is always told.
    if addresses.len() > ADDRESSES_MAX
        && let Some(six) = addresses.iter().position(SocketAddr::is_ipv6)
    {
        addresses.swap(six, (ADDRESSES_MAX - 1).min(six));
    }
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_reached_by_its_interfaces_and_else_by_itself() {
        let everywhere: SocketAddr = "[::]:5321".parse().unwrap();
        let four: Vec<IpAddr> = (1..20).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let six: IpAddr = "2001:db8::1".parse().unwrap();
        let all = of_interfaces(&[&four[..], &[six]].concat(), everywhere);
        assert_eq!(all.len(), ADDRESSES_MAX);
        assert!(all.contains(&SocketAddr::new(six, 5321)) && all[0] == SocketAddr::new(four[0], 5321));
        assert_eq!(of_interfaces(&[six], "0.0.0.0:7".parse().unwrap()), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(of_interfaces(&[], everywhere), ["127.0.0.1:5321".parse().unwrap()]);
        let one = "192.0.2.1:7".parse().unwrap();
        assert_eq!(reachable(one), [one]);
    }

    #[test]
    fn a_port_that_is_taken_is_not_chosen() {
        let taken = choose_listen(true).unwrap().address;
        let _socket = UdpSocket::bind(taken);
        let other = choose_listen(true).unwrap();
        assert!(other.address.ip().is_loopback() && other.address != taken);
        let mut all: Vec<_> = (0..8).map(|_| choose_listen(true).unwrap()).chain([other]).collect();
        all.sort_by_key(|listening| listening.address);
        assert!(
            all.windows(2).all(|two| two[0].address != two[1].address),
            "nobody listens there yet: {all:?}"
        );
        let wanted = [2, 3].map(|host| format!("127.0.0.{host}:{}", all[0].address.port()));
        let kept = wanted.each_ref().map(|wanted| wanted_listen(wanted).unwrap());
        let claimed = wanted_listen(&wanted[0]).unwrap_err();
        assert!(format!("{claimed:#}").contains("cannot listen on"), "{claimed:#}");
        drop(kept);
        wanted_listen(&wanted[0]).unwrap();
    }

    #[test]
    fn what_this_host_cannot_listen_on_is_told_with_the_next_step() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = socket.local_addr().unwrap();
        for (text, expected) in [
            (taken.to_string().as_str(), "another program has this port"),
            ("192.0.2.99:5321", "no address of this host"),
            ("127.0.0.1:99999", "ADDRESS:PORT"),
        ] {
            let error = wanted_listen(text).unwrap_err();
            let hint = &error.downcast_ref::<Hint>().expect("there is a next step").0;
            assert!(hint.contains(expected), "{error:#}");
        }
        drop(socket);
        assert_eq!(wanted_listen(&taken.to_string()).unwrap().address, taken);
    }
}
