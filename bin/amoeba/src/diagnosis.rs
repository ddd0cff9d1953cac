//! Looking for faults on this host: its state directory, privileges, limits, interfaces; and what passes its kernel.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use amoeba_cli::{Check, Diagnosis, Trace, TraceBatch, TraceOptions};
use amoeba_linux::client::{self, Client};
use amoeba_linux::facts::{self, Interface};
use amoeba_linux::host;
use amoeba_linux::socket::TraceFilter;
use amoeba_stubs::system::{Network, PeerState};
use anyhow::{Context, Result};

use crate::boot::NAMESPACES;
use crate::inside;
use crate::state::State;

/// Less free space than this keeps files from being written.
const SPACE_MIN: u64 = 64 << 20;
/// Less free space than this will not last.
const SPACE_LOW: u64 = 1 << 30;
/// Less memory than this is little for a host that others run programs on.
const MEMORY_LOW: u64 = 256 << 20;
/// Fewer descriptors than this are few for a kernel daemon: each thread that waits has one, each channel a few.
const DESCRIPTORS_LOW: u64 = 8192;
/// Bytes that the headers of IPv6, UDP, the seal and the packet's number take at most.
const OVERHEAD_MAX: usize = 160;
/// Files of the state directory that hold secrets.
const SECRETS: [&str; 6] = ["system.secret", "host.seed", "host.key", "root.cap", "confined.cap", "host.cap"];

/// The faults of this host.
pub(crate) struct Doctor;

impl Diagnosis for Doctor {
    fn checks(&self, network: Option<&Network>) -> Vec<Check> {
        let state = State::find();
        let mut checks = Vec::new();
        if let (Some(network), Ok(state)) = (network, &state) {
            checks.extend(network_checks(state, network));
        }
        match &state {
            Ok(state) if inside::find().is_none() => checks.extend(state_checks(state)),
            Ok(_) => {}
            Err(error) => {
                let fix = "set HOME or AMOEBA_STATE";
                checks.push(Check::wrong("state", format!("{error:#}"), fix));
            }
        }
        checks.extend(machine_checks());
        checks
    }

    fn trace(&self, options: &TraceOptions) -> Result<Box<dyn Trace>> {
        if let Some(inside) = inside::find() {
            return Err(inside.refuse("trace"));
        }
        let state = State::find()?;
        let secret = state.system_secret()?;
        let TraceOptions { pid, port, data, all } = *options;
        let filter = TraceFilter { pid, port, data, all };
        let trace =
            Client::new(&state.socket()).trace(&secret, filter).context("the kernel lets nobody look on")?;
        Ok(Box::new(Looking(trace)))
    }
}

struct Looking(client::Trace);

impl Trace for Looking {
    fn next(&mut self, patience: Duration) -> Result<TraceBatch> {
        let passed = self.0.next(patience).context("the kernel is gone")?;
        Ok(TraceBatch { dropped: passed.dropped, records: passed.records })
    }
}

/// The state directory: who may look into it, and whether there is room.
fn state_checks(state: &State) -> Vec<Check> {
    let dir = state.dir().display();
    if !state.dir().exists() {
        let fix = "`amoeba up` makes it";
        return vec![Check::note("state", format!("there is no {dir} yet"), fix)];
    }
    let mut checks = Vec::new();
    if state.open_to_others() != 0 {
        let finding = format!("others may look into {dir}, which has secrets");
        checks.push(Check::wrong("state", finding, format!("`chmod 700 {dir}`")));
    }
    for name in SECRETS {
        let path = state.path(name);
        let mode = fs::metadata(&path).map_or(0, |file| file.permissions().mode());
        if mode & 0o077 != 0 {
            let finding = format!("others may read {}", path.display());
            checks.push(Check::wrong("state", finding, format!("`chmod 600 {}`", path.display())));
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok("state", format!("{dir} is closed to others")));
    }
    checks.push(match facts::space(state.dir()) {
        Ok((free, _)) if free < SPACE_MIN => {
            Check::wrong("disk", no_room(state, free), "make room, or move the state directory")
        }
        Ok((free, _)) if free < SPACE_LOW => {
            Check::warning("disk", format!("{} MiB are free at {dir}", free >> 20), "make room")
        }
        Ok((free, total)) => Check::ok("disk", format!("{} of {} GiB are free", free >> 30, total >> 30)),
        Err(error) => Check::warning("disk", format!("free space cannot be told: {error}"), ""),
    });
    checks
}

/// What everybody should hear of the disk that the state directory is on: that it is full.
pub(crate) fn full_disk(state: &State) -> Option<String> {
    let (free, _) = facts::space(state.dir()).ok()?;
    (free < SPACE_MIN).then(|| no_room(state, free))
}

fn no_room(state: &State, free: u64) -> String {
    format!("{} MiB are free at {}: nothing can be written", free >> 20, state.dir().display())
}

/// The machine and what it allows.
fn machine_checks() -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(match host::is_root() {
        true => {
            Check::ok("privileges", "root: guests have namespaces of their own, links may be raw Ethernets")
        }
        false => Check::note(
            "privileges",
            "not root: no raw Ethernet, no limits for guests, no mount for all users",
            "none is needed to run programs; a system that root starts has the rest",
        ),
    });
    match facts::user_namespaces_refused() {
        Some(why) if !host::is_root() => checks.push(Check::warning(
            "user namespaces",
            format!(
                "{why} forbids them: guests see the processes of others, and are followed by their parents"
            ),
            format!("as root: `sysctl -w` the other value for {why}"),
        )),
        _ => checks.push(Check::ok("user namespaces", "allowed")),
    }
    checks.push(match &facts::control_groups()[..] {
        [] => Check::note("control groups", "there are none: guests cannot be limited", "mount cgroup2"),
        found => Check::ok("control groups", found.join(" and ")),
    });
    if let Some((free, total)) = facts::memory() {
        let finding = format!("{} of {} MiB can be had", free >> 20, total >> 20);
        checks.push(match free < MEMORY_LOW {
            true => Check::warning("memory", finding, "end something, or let this host run less"),
            false => Check::ok("memory", finding),
        });
    }
    match facts::descriptors_max() {
        Some(max) if max < DESCRIPTORS_LOW => checks.push(Check::warning(
            "descriptors",
            format!("a daemon may have {max}: few processes can have channels"),
            format!("raise the hard limit (`ulimit -Hn`) to {DESCRIPTORS_LOW} or more"),
        )),
        max => {
            let max = max.map_or("as many as it likes".to_owned(), |max| max.to_string());
            checks.push(Check::ok("descriptors", format!("a daemon may have {max}")));
        }
    }
    if facts::lingers() == Some(false) {
        checks.push(Check::note(
            "systemd",
            "what this user started ends when he logs out",
            "`loginctl enable-linger` lets it run on",
        ));
    }
    checks
}

/// Interfaces and packet sizes of the links, as far as they can be seen from here.
fn network_checks(state: &State, network: &Network) -> Vec<Check> {
    if state.has(NAMESPACES) {
        return vec![Check::ok("interfaces", "the kernel is in a network namespace of its own")];
    }
    let interfaces = match facts::interfaces() {
        Ok(interfaces) => interfaces,
        Err(error) => return vec![Check::warning("interfaces", format!("cannot be listed: {error}"), "")],
    };
    let mut checks = Vec::new();
    for link in network.links.iter().filter(|link| link.kind == b"udp") {
        let Ok(address) = String::from_utf8_lossy(&link.address).parse::<SocketAddr>() else { continue };
        checks.push(interface_check(address, &interfaces));
    }
    checks.extend(network.peers.iter().filter_map(|peer| packet_size_check(peer, &interfaces)));
    checks
}

fn interface_check(listen: SocketAddr, interfaces: &[Interface]) -> Check {
    let subject = "interfaces";
    if listen.ip().is_unspecified() {
        let up = interfaces.iter().filter(|interface| interface.up && !interface.address.is_loopback());
        let mut names: Vec<&str> = up.map(|interface| interface.name.as_str()).collect();
        names.dedup();
        return match &names[..] {
            [] => Check::wrong(
                subject,
                "no interface but the loopback one is up",
                "connect this host to a network",
            ),
            [name] => Check::ok(subject, format!("{name} is up")),
            [names @ .., last] => Check::ok(subject, format!("{} and {last} are up", names.join(", "))),
        };
    }
    match interfaces.iter().find(|interface| same(interface.address, listen.ip())) {
        Some(Interface { name, up: true, .. }) => Check::ok(subject, format!("{} is on {name}", listen.ip())),
        Some(Interface { name, .. }) => {
            let fix = format!("`ip link set {name} up`");
            Check::wrong(subject, format!("{name}, which has {}, is down", listen.ip()), fix)
        }
        // All of 127.0.0.0/8 belongs to the loopback interface.
        None if listen.ip().is_loopback() => Check::ok(subject, "the loopback interface"),
        None => Check::wrong(
            subject,
            format!("no interface has the address {} that the link listens on", listen.ip()),
            "write the present address, or [::], into config.toml and start the system anew",
        ),
    }
}

/// Packets that are much smaller than the interface takes.
fn packet_size_check(peer: &PeerState, interfaces: &[Interface]) -> Option<Check> {
    let address: SocketAddr = String::from_utf8_lossy(&peer.address).parse().ok()?;
    let source = facts::source_towards(address).ok().filter(|_| peer.up)?;
    let interface = interfaces.iter().find(|interface| same(interface.address, source))?;
    let mtu = interface.mtu.filter(|_| !source.is_loopback())?;
    let size = usize::try_from(peer.packet_size).ok()?;
    (size + OVERHEAD_MAX < mtu).then(|| {
        Check::note(
            "packets",
            format!("packets to {address} have {size} bytes, but {} takes {mtu}", interface.name),
            "something on the way takes less, or drops the messages that say so: look at the MTU of each hop",
        )
    })
}

fn same(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use amoeba_cli::Health;

    fn interface(name: &str, address: &str, up: bool) -> Interface {
        Interface { name: name.into(), address: address.parse().unwrap(), up, mtu: Some(1500) }
    }

    #[test]
    fn a_link_needs_an_interface_that_is_up() {
        let interfaces = [
            interface("lo", "127.0.0.1", true),
            interface("eth0", "10.0.0.1", true),
            interface("eth1", "10.1.0.1", false),
        ];
        let health = |listen: &str| interface_check(listen.parse().unwrap(), &interfaces).health;
        assert_eq!(health("10.0.0.1:5321"), Health::Ok);
        assert_eq!(health("[::]:5321"), Health::Ok);
        assert_eq!(health("127.0.0.9:5321"), Health::Ok);
        assert_eq!(health("10.1.0.1:5321"), Health::Wrong);
        assert_eq!(health("10.9.0.1:5321"), Health::Wrong);
        let everywhere = |interfaces: &[Interface]| interface_check("[::]:5321".parse().unwrap(), interfaces);
        assert_eq!(everywhere(&interfaces[..1]).health, Health::Wrong);
        assert_eq!(everywhere(&interfaces).finding, "eth0 is up");
        let more = ["eth0", "eth2", "wlan0"].map(|name| interface(name, "10.2.0.1", true));
        assert_eq!(everywhere(&more).finding, "eth0, eth2 and wlan0 are up");
    }

    #[test]
    fn secrets_that_others_may_read_are_wrong() {
        let dir = std::env::temp_dir().join(format!("amoeba-doctor-{}", std::process::id()));
        let state = State::at(dir.clone());
        assert_eq!(state_checks(&state)[0].health, Health::Note);
        state.create().unwrap();
        state.write("root.cap", b"x").unwrap();
        assert_eq!(state_checks(&state)[0].health, Health::Ok);
        fs::set_permissions(state.path("root.cap"), fs::Permissions::from_mode(0o644)).unwrap();
        let found = state_checks(&state);
        assert_eq!(found[0].health, Health::Wrong);
        assert!(found[0].fix.as_ref().is_some_and(|fix| fix.starts_with("`chmod 600 ")), "{found:?}");
        fs::remove_dir_all(dir).unwrap();
    }
}
