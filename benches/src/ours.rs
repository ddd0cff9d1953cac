//! Our side of a benchmark: throw-away hosts for the length of the run.

use std::net::Ipv4Addr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::net::sockopt::socket_peercred;

/// What `amoeba dev` says about its hosts: `NAME=DIRECTORY:NAME=DIRECTORY`.
const HOSTS_VARIABLE: &str = "AMOEBA_DEV_HOSTS";
/// Where a throw-away host has its network namespace, if it has one.
const NETWORK: &str = "namespaces/net";
/// The interface of a throw-away host on its wire.
const ETHERNET: &str = "eth0";

/// Throw-away hosts that are one system, at least two, of `amoeba dev`, which also ends them.
pub(crate) struct System {
    binary: PathBuf,
    /// Names and state directories.
    hosts: Vec<(String, PathBuf)>,
}

/// Runs this program again with these arguments, among so many hosts of the binary that `AMOEBA_BIN` names.
pub(crate) fn among_hosts(hosts: usize, arguments: &[String]) -> Result<ExitCode> {
    let mut command = Command::new(binary()?);
    let status = command
        .args(["dev", &hosts.to_string(), "--"])
        .arg(std::env::current_exe()?)
        .args(arguments)
        .status()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn binary() -> Result<PathBuf> {
    Ok(std::env::var_os("AMOEBA_BIN").context("AMOEBA_BIN names the binary to measure")?.into())
}

/// Takes the calling thread into the network of the host with this state directory, if it has one of its own.
pub(crate) fn enter(directory: &Path) -> Result<()> {
    let namespace = directory.join(NETWORK);
    if namespace.exists() {
        amoeba_linux::netns::enter(&namespace).context("entering the network of a host")?;
    }
    Ok(())
}

impl System {
    /// Whether there are hosts.
    pub(crate) fn is_there() -> bool {
        std::env::var_os(HOSTS_VARIABLE).is_some()
    }

    /// The hosts that are there; the calling thread is on the first from now on.
    pub(crate) fn of_environment() -> Result<System> {
        let list = std::env::var(HOSTS_VARIABLE).context(HOSTS_VARIABLE)?;
        let host = |entry: &str| entry.split_once('=').map(|(name, path)| (name.to_owned(), path.into()));
        let hosts: Vec<(String, PathBuf)> = list.split(':').filter_map(host).collect();
        ensure!(hosts.len() >= 2, "{HOSTS_VARIABLE} names no two hosts");
        let system = System { binary: binary()?, hosts };
        enter(system.directory(0))?;
        Ok(system)
    }

    /// What a host is called.
    pub(crate) fn name(&self, host: usize) -> &str {
        &self.hosts[host].0
    }

    /// The state directory of a host.
    pub(crate) fn directory(&self, host: usize) -> &Path {
        &self.hosts[host].1
    }

    fn has_networks(&self) -> bool {
        self.directory(0).join(NETWORK).exists()
    }

    /// The address of a host.
    pub(crate) fn address(&self, host: usize) -> Ipv4Addr {
        match self.has_networks() {
            true => amoeba_linux::netns::Network::address(host),
            false => Ipv4Addr::new(127, 0, 0, u8::try_from(host + 1).expect("there are a few hosts")),
        }
    }

    /// What lies between the hosts, in a sentence.
    pub(crate) fn place(&self) -> &'static str {
        match self.has_networks() {
            true => "hosts in network namespaces joined by a bridge",
            false => "hosts on the loopback interface",
        }
    }

    /// The binary.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The binary with these arguments, on the first host.
    pub(crate) fn amoeba(&self, arguments: &[&str]) -> Command {
        self.command(0, arguments)
    }

    fn command(&self, host: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        let directory = self.directory(host);
        command.args(arguments).env("AMOEBA_STATE", directory).env("HOME", directory);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// The network namespace of a host, if it has one of its own.
    pub(crate) fn network_of(&self, host: usize) -> Option<PathBuf> {
        let namespace = self.directory(host).join(NETWORK);
        namespace.exists().then_some(namespace)
    }

    /// The kernel daemons of the hosts, in their order.
    pub(crate) fn daemons(&self) -> Vec<u32> {
        let daemon = |host| {
            let stream = UnixStream::connect(self.socket(host).ok()?).ok()?;
            Some(socket_peercred(stream).ok()?.pid.as_raw_pid().cast_unsigned())
        };
        (0..self.hosts.len()).filter_map(daemon).collect()
    }

    /// Takes the UDP link away from both hosts and gives them a trusted Ethernet instead, for good.
    pub(crate) fn go_ethernet(&self) -> Result<()> {
        for host in 0..2 {
            let ended = self.command(host, &["down"]).status()?;
            ensure!(ended.success(), "`amoeba down` ended with {ended}");
            let path = self.directory(host).join("config.toml");
            let old = std::fs::read_to_string(&path)?;
            let kept = old.split("[link]").next().unwrap_or_default();
            let ethernet = format!("\n[[ethernet]]\ninterface = \"{ETHERNET}\"\ntrusted = true\n");
            std::fs::write(&path, format!("{kept}{ethernet}"))?;
        }
        for host in 0..2 {
            let started = self.command(host, &["up"]).status()?;
            ensure!(started.success(), "`amoeba up` ended with {started}");
        }
        Ok(())
    }

    /// The interface of a host on the wire and its address there, as the harness wants them; after
    /// [`System::go_ethernet`].
    pub(crate) fn interface(&self, host: usize) -> Result<String> {
        let status = amoeba_linux::client::Client::new(&self.socket(host)?).kernel_status()?;
        let line = status.lines().find(|line| line.starts_with("link ethernet"));
        let address = line.and_then(|line| line.split_whitespace().nth(3)).context("no Ethernet link")?;
        Ok(format!("{ETHERNET}/{address}"))
    }

    /// The counters of a host's kernel, by name.
    pub(crate) fn counters(&self, host: usize) -> Result<Vec<(String, u64)>> {
        let status = amoeba_linux::client::Client::new(&self.socket(host)?).kernel_status()?;
        let line = |line: &str| {
            let (name, value) = line.rsplit_once(char::is_whitespace)?;
            Some((name.trim().to_owned(), value.parse().ok()?))
        };
        Ok(status.lines().filter_map(line).collect())
    }

    /// The kernel daemon's socket of a host.
    pub(crate) fn socket(&self, host: usize) -> Result<PathBuf> {
        let kernel = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "kernel");
        let found = sockets(self.directory(host));
        let socket = found.iter().find(|path| kernel(path)).or(found.first());
        socket.cloned().context("the kernel daemon has no socket")
    }
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() => found.extend(sockets(&entry.path())),
            _ => {}
        }
    }
    found.sort();
    found
}
