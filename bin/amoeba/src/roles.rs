//! The daemons: each a process of this binary that the supervisor starts, with the state directory in `AMOEBA_STATE`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use amoeba_cap::{Capability, ObjectNumber, PutPort, Rights};
use amoeba_directory::{DirectoryServer, Store};
use amoeba_host::{
    About, Column, HostDirectory, HostSeed, Kernel, PERMANENT, Processes, Random, Row, System, Tod,
};
use amoeba_linux::client::Client;
use amoeba_linux::guest::{GuestConfig, LinuxGuests, Part};
use amoeba_linux::kernel::{Config as KernelConfig, Daemon};
use amoeba_linux::link::admission::{Desk, DeskConfig};
use amoeba_linux::link::{EthernetConfig, EthernetLink, UdpConfig, UdpLink};
use amoeba_linux::socket::{Admin, STUNNED_MAX};
use amoeba_linux::{FileDisk, connect};
use amoeba_name::Names;
use amoeba_process::ProcessServer;
use amoeba_stubs::system::{Network, Way};
use amoeba_stubs::{directory, hostdir, process, random, system, tod};
use amoeba_wire::Status;
use amoeba_world::{Instant, Listener, World};
use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::boot::{end_with_supervisor, lock_of};
use crate::config::{Config, Ethernet};
use crate::hosts::sync::REMOVED;
use crate::hosts::{Invites, Members};
use crate::keeping;
use crate::setup;
use crate::state::State;

/// Threads of the small servers of the host, each.
const SMALL_THREADS: usize = 2;
/// Threads of the process server.
const PROCESS_THREADS: usize = 8;
/// Threads of the file server.
const BULLET_THREADS: usize = 16;
/// Threads of the directory server.
const DIRECTORY_THREADS: usize = 16;
/// Threads of the run server.
const POOL_THREADS: usize = 4;
/// The hosts that the run server chooses among.
const POOL: &[u8] = b"/profile/hosts";

/// `amoeba kernel`: the kernel daemon, with the process server and the host's own directory.
pub(crate) fn kernel(state: &State) -> Result<()> {
    end_with_supervisor()?;
    amoeba_linux::memory::keep_for_messages();
    let socket = state.socket();
    let mut config = KernelConfig::new(state.system_secret()?, amoeba_linux::entropy());
    know_hosts(state, &mut config)?;
    let mut daemon = Daemon::bind(&socket, config).context("cannot become this host's kernel")?;
    let stopper = daemon.stopper();
    on_termination(move || stopper.stop())?;
    let seed = state.host_seed()?;
    let guests = GuestConfig::new(&socket, &state.path("guests"));
    // Nothing else of the state is anybody's business who is given a socket.
    let shown = ["host.name", "config.toml"].map(|name| state.path(name)).into();
    let life = Some(lock_of(state, "shepherds"));
    let guests = GuestConfig { hidden: vec![state.dir().to_owned()], shown, life, ..guests };
    let guests = LinuxGuests::new(guests, amoeba_linux::threads())?;
    let guests = guests.parting(parting(state, &socket)?);
    let world = connect(&socket);
    let statistics = Client::new(&socket);
    let name = state.host_name()?;
    let failed = daemon.stopper();
    std::thread::Builder::new().name("host servers".to_owned()).spawn(move || {
        if let Err(error) = serve_host(&world, &seed, Arc::new(guests), statistics, name) {
            tracing::error!("the host's servers do not start: {error:#}");
            failed.stop();
        }
    })?;
    daemon.run().context("the kernel failed")
}

/// What tells the kernel which processes were stunned, so that nobody waits for them over a channel or a flow.
fn parting(state: &State, socket: &Path) -> Result<Part> {
    let (secret, kernel) = (state.system_secret()?, Client::new(socket));
    Ok(Arc::new(move |processes: &[u32]| {
        for some in processes.chunks(STUNNED_MAX) {
            if let Err(error) = kernel.administer(&secret, &Admin::Stunned(some.to_vec())) {
                tracing::warn!("the kernel was not told of a stunned process: {error}");
            }
        }
    }))
}

/// Who the other hosts are, the link to them, and the desk where more are taken in.
fn know_hosts(state: &State, config: &mut KernelConfig) -> Result<()> {
    let (identity, secret) = (state.identity()?, state.system_secret()?);
    let root = state.capability("root.cap")?.to_text();
    let mut desk = Desk::new(DeskConfig {
        identity: identity.clone(),
        name: state.host_name()?,
        secret: secret.clone(),
        root,
        entropy: amoeba_linux::entropy(),
    });
    desk.set_invites(world_now(), &Invites::read(state)?.for_kernel());
    config.desk = Some(desk);
    // A host that was removed knows nobody.
    let removed = state.has(REMOVED);
    config.members = if removed { Vec::new() } else { Members::read(state)?.rows() };
    let open = move |listen: SocketAddr| {
        let (identity, secret) = (identity.clone(), secret.clone());
        UdpLink::bind(UdpConfig { listen, identity, secret, entropy: amoeba_linux::entropy() })
    };
    let configured = Config::read(state)?;
    if let Some(link) = configured.link {
        let link = open(link.listen).context("[link]")?;
        config.listening = Some(link.local_address());
        config.links.push(Box::new(link));
    }
    // Nobody on an Ethernet can tell who was removed; so it is this host that leaves.
    for Ethernet { interface, trusted, mtu } in configured.ethernet.into_iter().filter(|_| !removed) {
        let link = EthernetLink::open(EthernetConfig { interface, trusted, mtu }).context("[[ethernet]]")?;
        config.links.push(Box::new(link));
    }
    config.open_link = Some(Box::new(move |listen| {
        let link = open(listen)?;
        let listening = link.local_address();
        Ok((Box::new(link), listening))
    }));
    Ok(())
}

/// The clock that the kernel lives by.
fn world_now() -> Instant {
    amoeba_linux::threads().now()
}

/// Starts the servers of the host; they run until the process ends.
fn serve_host(
    world: &World,
    seed: &HostSeed,
    guests: Arc<LinuxGuests>,
    kernel: Client,
    name: String,
) -> Result<()> {
    let listen = |name: &str, size_max: usize| -> Result<Listener> {
        world
            .transactions
            .listen(&seed.keys(name).get_port, size_max)
            .with_context(|| format!("server {name}"))
    };
    let secret = |name: &str| seed.keys(name).secret;
    let whole = |name: &str, listener: &Listener| {
        seed.keys(name).capability(listener.put_port(), ObjectNumber::SUPER)
    };

    let proc = listen("proc", process::REQUEST_SIZE_MAX)?;
    let server = ProcessServer::new(world.clone(), proc.put_port(), secret("proc"), PERMANENT, guests);
    let clock = listen("tod", tod::REQUEST_SIZE_MAX)?;
    let entropy = listen("random", random::REQUEST_SIZE_MAX)?;
    let sys = listen("sys", system::REQUEST_SIZE_MAX)?;
    let host = listen("host", hostdir::REQUEST_SIZE_MAX)?;
    let rows = [
        ("proc", Row { owner: server.super_capability(), group: server.confined_capability() }),
        ("random", Row::of(whole("random", &entropy))),
        ("sys", Row::of(whole("sys", &sys))),
        ("tod", Row::of(whole("tod", &clock))),
    ];
    let processes = Arc::new(Running(server.clone()));
    let directory = HostDirectory::new(seed.keys("host"), host.put_port(), rows, processes);
    let about = About { version: env!("CARGO_PKG_VERSION").to_owned(), host: name };

    process::start(world, proc, server, PROCESS_THREADS)?;
    tod::start(world, clock, Tod::server(secret("tod"), world.clock.clone()), SMALL_THREADS)?;
    random::start(world, entropy, Random::server(secret("random"), world.entropy.clone()), SMALL_THREADS)?;
    let server = System::server(secret("sys"), about, world.threads.clone(), OurKernel(kernel));
    system::start(world, sys, server, SMALL_THREADS)?;
    hostdir::start(world, host, Arc::new(directory), SMALL_THREADS)?;
    Ok(())
}

/// The kernel of this host, as its own server asks it.
struct OurKernel(Client);

impl Kernel for OurKernel {
    fn statistics(&self) -> Result<String, Status> {
        self.0.kernel_status().map_err(|error| error.status())
    }

    fn network(&self) -> Result<Network, Status> {
        self.0.network().map_err(|error| error.status())
    }

    fn way(&self, port: PutPort) -> Result<Way, Status> {
        self.0.way(port).map_err(|error| error.status())
    }
}

/// The process server's processes, as the host's directory shows them.
struct Running(Arc<ProcessServer>);

impl Processes for Running {
    fn processes(&self, column: Column) -> Vec<(u32, Capability)> {
        let rights = match column {
            Column::Owner => Rights::ALL,
            Column::Group => amoeba_process::CONFINED,
        };
        self.0.running(rights).into_iter().map(|(number, process)| (number.into(), process)).collect()
    }
}

/// `amoeba bullet`: the file server.
pub(crate) fn bullet(state: &State) -> Result<()> {
    end_with_supervisor()?;
    amoeba_linux::memory::keep_for_messages();
    let config = Config::read(state)?;
    let disk = FileDisk::open(&state.path("bullet.img")).context("cannot open the file server's image")?;
    let settings = amoeba_bullet::Settings { cache_size: config.bullet.cache, ..Default::default() };
    let world = connect(&state.socket());
    let server = amoeba_bullet::start(&world, Arc::new(disk), settings, BULLET_THREADS)?;
    let listener = server.listener();
    on_termination(move || listener.close())?;
    server.join().context("what was committed without safety may be lost")
}

/// `amoeba directory`: the directory server.
pub(crate) fn directory(state: &State) -> Result<()> {
    end_with_supervisor()?;
    amoeba_linux::memory::keep_for_messages();
    let config = Config::read(state)?;
    let open =
        |name: &str| FileDisk::open(&state.path(name)).context("cannot open the directory server's files");
    let (tables, log) = (open("directory/tables")?, open("directory/log")?);
    let options = amoeba_directory::Options { cache_size: config.directory.cache, ..Default::default() };
    let world = connect(&state.socket());
    let store = Arc::new(Store::open(&world, Arc::new(tables), Arc::new(log), options)?);
    keeping::keep_directory_capability(state, &store)?;
    let get_port = store.identity().get_port.clone();
    let listener = world.transactions.listen(&get_port, directory::REQUEST_SIZE_MAX)?;
    let server = Arc::new(DirectoryServer::new(store, DIRECTORY_THREADS));
    directory::start(&world, listener, server, DIRECTORY_THREADS)?.join();
    Ok(())
}

/// `amoeba pool`: the run server.
pub(crate) fn pool(state: &State) -> Result<()> {
    end_with_supervisor()?;
    amoeba_linux::memory::keep_for_messages();
    let world = connect(&state.socket());
    let names = Names::new(&world, state.capability("root.cap")?);
    let (keys, options) = (setup::run_server_keys(state)?, amoeba_pool::Options::default());
    let server = amoeba_pool::start(&world, keys, &names, POOL, options, POOL_THREADS)?;
    let listener = server.listener();
    on_termination(move || listener.close())?;
    server.join();
    Ok(())
}

/// Does `stop` at the first SIGTERM or SIGINT.
fn on_termination(stop: impl FnOnce() + Send + 'static) -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            stop();
        }
    });
    Ok(())
}
