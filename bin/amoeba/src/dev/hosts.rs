//! Throw-away hosts: their state directories, their networks, and starting them.

use std::ffi::OsString;
use std::fmt;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use amoeba_linux::family;
use amoeba_linux::netns::{Faults, HostNamespaces, Network};
use amoeba_name::{NameError, Names};
use amoeba_stubs::standard;
use amoeba_world::TransOptions;
use anyhow::{Context, Result, bail};

use crate::boot::{self, NAMESPACES};
use crate::hosts::{Member, Members};
use crate::state::State;
use crate::{setup, system};

/// What hosts are called; those past the list get a number behind the name.
const NAMES: [&str; 24] = [
    "anvil", "bolt", "chisel", "drill", "easel", "forge", "gimlet", "hammer", "iron", "jig", "knife",
    "lathe", "mallet", "nail", "oilstone", "pliers", "quoin", "rasp", "saw", "tongs", "upright", "vise",
    "wrench", "yoke",
];
/// The port of the hosts that have a network of their own.
const PORT: u16 = 5321;
/// How long all hosts may take to be there.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one search for the directory server takes while the hosts are being connected.
const LOCATE_TIMEOUT: Duration = Duration::from_millis(200);
/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Where programs are searched when the environment does not say.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where hosts are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// In network namespaces of their own where that is possible, else on the loopback interface.
    Namespaces,
    /// On the machine's loopback interface, each with an address of its own.
    Loopback,
    /// In network namespaces that are joined by a wire with faults.
    Wire(Faults),
}

impl Place {
    /// What [`Place`]'s text stands for.
    pub(super) fn parse(text: &str) -> Option<Place> {
        match text.split_once(':') {
            None if text == "namespaces" => Some(Place::Namespaces),
            None if text == "loopback" => Some(Place::Loopback),
            Some(("wire", faults)) => faults.parse().ok().map(Place::Wire),
            _ => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Namespaces => f.write_str("namespaces"),
            Place::Loopback => f.write_str("loopback"),
            Place::Wire(faults) => write!(f, "wire:{faults}"),
        }
    }
}

struct Host {
    name: String,
    state: State,
}

/// Some hosts that are one system.
pub(super) struct Hosts {
    /// Holds this program under both its names.
    programs: PathBuf,
    hosts: Vec<Host>,
    /// The pipe that takes orders for the wire between the hosts, if there is one.
    control: Option<PathBuf>,
    /// The namespaces live at least as long as this.
    _network: Option<Network>,
}

impl Hosts {
    /// Makes hosts in the new directory `directory`.
    ///
    /// # Errors
    /// The directory is there already, or there is no room for a system.
    pub(super) fn make(directory: &Path, count: usize, place: &Place) -> Result<Hosts> {
        let made = DirBuilder::new().mode(0o700).create(directory);
        made.with_context(|| format!("cannot make {}", directory.display()))?;
        let names: Vec<String> = (0..count).map(name).collect();
        let control = matches!(place, Place::Wire(_)).then(|| directory.join("wire"));
        let network = match (place, &control) {
            (_, Some(control)) => Some(Network::on_wire(&names, control)?),
            (Place::Loopback, None) => None,
            (_, None) => network(&names),
        };
        let addresses = match network {
            Some(_) => (0..count).map(|host| SocketAddr::from((Network::address(host), PORT))).collect(),
            None => loopback_addresses(count)?,
        };
        let mut hosts: Vec<Host> = Vec::new();
        for (number, name) in names.into_iter().enumerate() {
            let state = State::at(directory.join(&name));
            let namespaces = network.as_ref().map(|network| &network.hosts()[number]);
            lay_out(&state, hosts.first().map(|first| &first.state), namespaces)?;
            state.write("host.name", name.as_bytes())?;
            state.write("config.toml", config(addresses[number], number).as_bytes())?;
            setup::ensure(&state)?;
            hosts.push(Host { name, state });
        }
        introduce(&hosts)?;
        Ok(Hosts { programs: programs(directory)?, hosts, control, _network: network })
    }

    /// Starts all hosts and returns when each of them runs, reaches the directory graph and has its name in it;
    /// false when `stopped` said so before.
    ///
    /// # Errors
    /// A host does not start; the error holds the end of its log.
    pub(super) fn start(&self, stopped: impl Fn() -> bool) -> Result<bool> {
        let mut supervisors = Vec::new();
        for host in &self.hosts {
            let mut supervisor = system::supervisor(&host.state)?;
            supervisor.env("AMOEBA_SUPERVISOR", std::process::id().to_string());
            supervisors.push(supervisor.spawn().context("cannot start a supervisor")?.id());
        }
        let deadline = Instant::now() + READY_TIMEOUT;
        for host in &self.hosts {
            while !host.is_ready()? {
                if stopped() {
                    return Ok(false);
                }
                let ended = family::ended_child()?.filter(|ended| supervisors.contains(&ended.pid));
                if ended.is_some() || Instant::now() > deadline {
                    bail!(self.failure(ended.and_then(|ended| {
                        supervisors.iter().position(|supervisor| *supervisor == ended.pid)
                    })));
                }
                std::thread::sleep(LOOK_INTERVAL);
            }
        }
        Ok(true)
    }

    /// Lets the faults of the wire begin.
    pub(super) fn begin_faults(&self, place: &Place) -> Result<()> {
        let (Some(control), Place::Wire(faults)) = (&self.control, place) else { return Ok(()) };
        let order = format!("faults {faults}\n");
        let pipe = OpenOptions::new().write(true).open(control);
        pipe.and_then(|mut pipe| pipe.write_all(order.as_bytes())).context("the wire takes no orders")
    }

    /// The pipe that takes orders for the wire.
    pub(super) fn control(&self) -> Option<&Path> {
        self.control.as_deref()
    }

    /// What is said when a host does not start: a certain one, or one that is not ready.
    fn failure(&self, number: Option<usize>) -> String {
        let late = || self.hosts.iter().position(|host| !host.is_ready().unwrap_or(false));
        let host = &self.hosts[number.or_else(late).unwrap_or(0)];
        let log = system::tail(&host.state.path("log/boot.log"));
        format!("host {} does not start; the end of its log:\n{log}", host.name)
    }

    /// The state directory of the first host, which has the servers.
    pub(super) fn first(&self) -> &Path {
        self.hosts[0].state.dir()
    }

    /// All hosts for programs: `NAME=DIRECTORY`, with colons between them.
    pub(super) fn list(&self) -> String {
        let entry = |host: &Host| format!("{}={}", host.name, host.state.dir().display());
        self.hosts.iter().map(entry).collect::<Vec<_>>().join(":")
    }

    /// Where programs are searched: `amoeba` is this program, wherever it was called from.
    pub(super) fn search_path(&self) -> Result<OsString> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH_DEFAULT));
        let directories = std::iter::once(self.programs.clone()).chain(std::env::split_paths(&path));
        std::env::join_paths(directories).context("PATH")
    }

    /// What a person sees before the prompt.
    pub(super) fn greeting(&self) -> String {
        let names: Vec<&str> = self.hosts.iter().map(|host| host.name.as_str()).collect();
        let where_ = "you are on the first; the state directories of all are in AMOEBA_DEV_HOSTS";
        format!("hosts: {} ({where_}). All of it is gone when this shell ends.", names.join(" "))
    }
}

impl Host {
    /// Whether it runs, reaches the directory graph, and is known by its name there.
    fn is_ready(&self) -> Result<bool> {
        if boot::running(&self.state)?.is_none_or(|report| !report.ready) {
            return Ok(false);
        }
        let world = amoeba_linux::connect(&self.state.socket());
        let root = self.state.capability("root.cap")?;
        let options = TransOptions { locate_timeout: LOCATE_TIMEOUT, ..TransOptions::default() };
        let client = amoeba_stubs::Client::new(&*world.transactions, &options);
        if standard::info(client, &root, 0).is_err() {
            return Ok(false);
        }
        let path = format!("/profile/hosts/{}", self.name);
        let known: Result<_, NameError> = Names::new(&world, root).resolve(path.as_bytes());
        Ok(known.is_ok())
    }
}

/// A directory with this program in it.
fn programs(directory: &Path) -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let programs = directory.join("bin");
    std::fs::create_dir(&programs)?;
    for name in ["amoeba", "am"] {
        symlink(&program, programs.join(name))?;
    }
    Ok(programs)
}

fn name(number: usize) -> String {
    let name = NAMES[number % NAMES.len()];
    match number / NAMES.len() {
        0 => name.to_owned(),
        round => format!("{name}{}", round + 1),
    }
}

/// Namespaces if the machine has them and we may; else a word to the person why not.
fn network(names: &[String]) -> Option<Network> {
    if !amoeba_linux::host::is_root() {
        return None; // nothing else is to be expected
    }
    let network = Network::new(names);
    if let Err(error) = &network {
        eprintln!("amoeba: {error}; the hosts are on the loopback interface");
    }
    network.ok()
}

/// An address of the loopback interface for each host, with a port that was free a moment ago.
fn loopback_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let bind = |number: usize| {
        let last = u8::try_from(number + 1).context("too many hosts")?;
        let address = Ipv4Addr::new(127, 0, 0, last);
        UdpSocket::bind((address, 0)).with_context(|| format!("no port is free on {address}"))
    };
    let sockets = (0..count).map(bind).collect::<Result<Vec<_>>>()?;
    Ok(sockets.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?)
}

/// The part of a state directory that makes a host one of this system, and puts it into its namespaces.
fn lay_out(state: &State, first: Option<&State>, namespaces: Option<&HostNamespaces>) -> Result<()> {
    state.create()?;
    if let Some(first) = first {
        for name in ["system.secret", "root.cap"] {
            state.write(name, &std::fs::read(first.path(name))?)?;
        }
    }
    if let Some(namespaces) = namespaces {
        DirBuilder::new().mode(0o700).create(state.path(NAMESPACES))?;
        for (kind, namespace) in [("net", namespaces.network()), ("uts", namespaces.name())] {
            symlink(open_here(namespace), state.path(NAMESPACES).join(kind))?;
        }
    }
    Ok(())
}

/// Where others find a descriptor of this process, for as long as it lives.
fn open_here(descriptor: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd()).into()
}

/// The configuration of a host: the first has the servers, the second a file server of its own.
fn config(listen: SocketAddr, number: usize) -> String {
    let services = match number {
        0 => r#""bullet", "directory", "pool""#,
        // Files may have a copy on a second host, and the run server is there twice.
        1 => r#""bullet", "pool""#,
        _ => "",
    };
    format!("services = [{services}]\n\n[link]\nlisten = \"{listen}\"\n")
}

/// Tells every host who the hosts are. Whoever makes all of them need not invite one after the other: the first writes
/// what it is told into /system/hosts when it makes that directory.
fn introduce(hosts: &[Host]) -> Result<()> {
    let members = hosts.iter().map(|host| Member::of_this_host(&host.state)).collect::<Result<Vec<_>>>()?;
    let members = Members::new(members);
    hosts.iter().try_for_each(|host| members.write(&host.state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Service};
    use std::collections::BTreeSet;

    #[test]
    fn no_two_hosts_have_one_name() {
        let names: BTreeSet<String> = (0..60).map(name).collect();
        assert_eq!(names.len(), 60);
        assert!(names.contains("anvil") && names.contains("anvil2"));
    }

    #[test]
    fn the_first_host_has_the_servers() {
        let addresses = loopback_addresses(3).unwrap();
        for number in 0..3 {
            let config: Config = toml::from_str(&config(addresses[number], number)).unwrap();
            let servers = [
                &[Service::Bullet, Service::Directory, Service::Pool][..],
                &[Service::Bullet, Service::Pool],
                &[],
            ];
            assert_eq!(config.services, servers[number]);
            assert_eq!(config.link.unwrap().listen, addresses[number]);
        }
    }
}
