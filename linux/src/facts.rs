//! What this machine is and allows, for people who look for a fault. Only looks.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An address of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// One of its addresses.
    pub address: IpAddr,
    /// Whether it is up.
    pub up: bool,
    /// Bytes of its largest packet, if it tells.
    pub mtu: Option<usize>,
}

/// The addresses of all network interfaces.
///
/// # Errors
/// The system's own.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let found = getifaddrs().map_err(io::Error::from)?.filter_map(|entry| {
        let address = entry.address.as_ref()?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        let address = v4.or_else(v6)?;
        let up = entry.flags.contains(InterfaceFlags::IFF_UP);
        let mtu = number(&format!("/sys/class/net/{}/mtu", entry.interface_name));
        let mtu = mtu.and_then(|mtu| usize::try_from(mtu).ok());
        Some(Interface { name: entry.interface_name, address, up, mtu })
    });
    Ok(found.collect())
}

/// The address that this host would send from to reach `address`; nothing is sent.
pub fn source_towards(address: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip())
}

/// Bytes that a user may still put where `path` is, and bytes there in all.
///
/// # Errors
/// The system's own.
pub fn space(path: &Path) -> io::Result<(u64, u64)> {
    let found = rustix::fs::statvfs(path)?;
    Ok((found.f_bavail.saturating_mul(found.f_frsize), found.f_blocks.saturating_mul(found.f_frsize)))
}

/// How many descriptors a process may be allowed.
pub fn descriptors_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum
}

/// Bytes of memory that can be had, and bytes in all.
pub fn memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.trim_start_matches(':').split_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some((value("MemAvailable")?, value("MemTotal")?))
}

/// Why a user without privileges gets no user namespace; `None` when nothing is in the way.
pub fn user_namespaces_refused() -> Option<String> {
    let refused =
        |path: &str, when: u64| number(path).filter(|found| *found == when).map(|_| path.to_owned());
    refused("/proc/sys/user/max_user_namespaces", 0)
        .or_else(|| refused("/proc/sys/kernel/unprivileged_userns_clone", 0))
        .or_else(|| refused("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1))
}

/// The control groups of this machine: `v2`, `v1`, both, or none.
pub fn control_groups() -> Vec<&'static str> {
    let unified = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];
    let v2 = unified.iter().any(|path| Path::new(path).exists());
    let v1 = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // A hierarchy of version 1 has its controllers between the colons.
    let v1 = v1.lines().any(|line| line.split(':').nth(1).is_some_and(|controllers| !controllers.is_empty()));
    [v2.then_some("v2"), v1.then_some("v1")].into_iter().flatten().collect()
}

/// Whether the services of this user go on when nobody is logged in; `None` where systemd does not decide it.
pub fn lingers() -> Option<bool> {
    if crate::host::is_root() || !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let user = std::env::var_os("USER")?;
    Some(Path::new("/var/lib/systemd/linger").join(user).exists())
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback_interface_memory_and_space() {
        let loopback = interfaces().unwrap().into_iter().find(|interface| interface.address.is_loopback());
        assert!(loopback.is_some_and(|interface| interface.mtu.is_some_and(|mtu| mtu >= 1280)));
        assert_eq!(source_towards("127.0.0.1:9".parse().unwrap()).unwrap(), IpAddr::from([127, 0, 0, 1]));
        let (free, total) = space(Path::new("/")).unwrap();
        assert!(free <= total && total > 0);
        let (available, total) = memory().unwrap();
        assert!(available <= total);
    }
}
