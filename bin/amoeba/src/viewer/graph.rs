//! The directory graph as guests' file tree: one mount for all guests that see the same directory with the same rights.
//!
//! A mount is one scratch for all who have a file open on it, as `amoeba mount` is. What a guest has written is committed
//! before its end is told; the mount stays for the next guest until nobody has used it for a while.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use amoeba_cap::Capability;
use amoeba_cli::HostAccounts;
use amoeba_linux::fuse::{Mount, MountOptions};
use amoeba_linux::guest::{Desk, GRAPH_PLACES, Visit};
use amoeba_mount::{GraphFileSystem, Options, Unfinished};
use amoeba_name::Names;
use amoeba_stubs::standard;
use amoeba_volume::Places;
use amoeba_world::World;
use anyhow::{Context, Result, bail};

use crate::state::State;

/// The most mounts at once.
const GRAPHS_MAX: usize = 16;
/// How long one is kept that nobody uses.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// Operations under way at once, in one mount.
const THREADS: usize = 8;
/// How often the servers are asked what others have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a guest waits at its start for what others have changed to be seen.
const LOOK_WAIT: Duration = Duration::from_secs(5);
/// How long the servers may take to take what a guest has written, or what is left at a mount's end.
const COMMIT_WAIT: Duration = Duration::from_secs(60);
/// How long the kernel may take to say what a guest that has ended had open.
const RELEASE_WAIT: Duration = Duration::from_secs(5);
const RELEASE_INTERVAL: Duration = Duration::from_micros(100);
/// How long an unmounted mount may be used by those who still have it.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that a server says of an object; the first tells what it is.
const INFO_SIZE: u16 = 16;

/// The mounts of this host.
pub(super) struct Graphs {
    world: World,
    /// What is not committed yet, by mounts.
    folder: PathBuf,
    /// Where the server of new files is found.
    system: Capability,
    owner: (u32, u32),
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// By the capability of their root.
    graphs: BTreeMap<[u8; 16], Shared>,
    /// Whether what an earlier viewer has left was committed.
    is_redone: bool,
}

struct Shared {
    graph: Arc<Graph>,
    used: Instant,
}

impl Shared {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.graph) == 1
    }
}

/// A mount of the graph.
struct Graph {
    files: Arc<Places<GraphFileSystem>>,
    place: PathBuf,
    folder: PathBuf,
    mount: Mutex<Mount>,
}

impl Graphs {
    /// None yet. `owner` is the user, and its group, that guests run as.
    pub(super) fn new(world: &World, state: &State, owner: (u32, u32)) -> Result<Graphs> {
        Ok(Graphs {
            world: world.clone(),
            folder: state.path("graphs"),
            system: state.capability("root.cap")?,
            owner,
            held: Mutex::default(),
        })
    }

    /// Serves one guest, which is to see the directory `root`, to its end.
    pub(super) fn serve(&self, desk: &Desk, mut visit: Visit, root: &Capability) {
        // If the warden does not hear it, it has gone, and its guest never was.
        let graph = match self.graph(desk, root) {
            Ok(graph) => graph,
            Err(error) => return drop(visit.refuse(&format!("{error:#}"))),
        };
        graph.files.files().look(LOOK_WAIT);
        let refused = graph.files.files().refused();
        if let Err(error) = visit.grant(std::slice::from_ref(&graph.place)) {
            return drop(visit.refuse(&error.to_string()));
        }
        if visit.wait() {
            let left = graph.settle().map_or_else(|Unfinished(left)| left as u64, |()| 0);
            let _ = visit.tell(left + (graph.files.files().refused() - refused));
        }
        // From here on it is idle, if nobody else has it.
        drop(graph);
    }

    /// The mount for who sees the directory `root`.
    fn graph(&self, desk: &Desk, root: &Capability) -> Result<Arc<Graph>> {
        let mut held = self.held();
        let name = root.to_bytes();
        if let Some(shared) = held.graphs.get_mut(&name) {
            shared.used = Instant::now();
            return Ok(shared.graph.clone());
        }
        let graph = Arc::new(self.mount(desk, root, &mut held)?);
        held.graphs.insert(name, Shared { graph: graph.clone(), used: Instant::now() });
        Ok(graph)
    }

    fn mount(&self, desk: &Desk, root: &Capability, held: &mut Held) -> Result<Graph> {
        let said = standard::info(&self.world, root, INFO_SIZE).context("the directory it is to see")?;
        if !matches!(said.text.first(), Some(b'/' | b'%')) {
            bail!("what it is to see is no directory");
        }
        let names = Names::new(&self.world, self.system);
        let file_server = names.resolve(amoeba_cli::FILE_SERVER).context("the server of new files")?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        if !held.is_redone {
            self.redo(&file_server)?;
            held.is_redone = true;
        }
        held.make_room()?;
        let name = blake3::hash(&root.to_bytes()).to_hex();
        let folder = self.folder.join(&name[..16]);
        let options = Options {
            root: *root,
            file_server,
            folder: folder.clone(),
            accounts: Arc::new(HostAccounts::read(self.owner)),
            show_capabilities: false,
            look_interval: LOOK_INTERVAL,
        };
        let (files, redone) = GraphFileSystem::new(&self.world, options)?;
        redone.iter().for_each(|line| tracing::warn!("{line}"));
        let files = Arc::new(Places::new(files, GRAPH_PLACES, self.owner));
        let place = desk.place(&format!("graph-{}", &name[..16]))?;
        let mut options = MountOptions::new("amoeba");
        (options.others, options.threads) = (desk.has_privilege() && self.owner.0 == 0, THREADS);
        let mount = Mount::new(files.clone(), &place, &options)?;
        Ok(Graph { files, place, folder, mount: Mutex::new(mount) })
    }

    /// Commits what guests had synced when an earlier viewer was killed.
    fn redo(&self, file_server: &Capability) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let folder = entry?.path();
            for line in amoeba_mount::redo(&self.world, &folder, file_server)? {
                tracing::warn!("{line}");
            }
            amoeba_mount::clear(&folder)?;
        }
        Ok(())
    }

    /// Gives up mounts that nobody has used for a while.
    pub(super) fn tidy(&self) {
        let mut held = self.held();
        held.graphs.values_mut().filter(|shared| !shared.is_idle()).for_each(|shared| {
            shared.used = Instant::now();
        });
        let old: Vec<_> = held
            .graphs
            .iter()
            .filter(|(_, shared)| shared.used.elapsed() >= IDLE_TIME)
            .map(|(name, _)| *name)
            .collect();
        old.iter().for_each(|name| held.give_up(name));
    }

    /// Who makes or ends a mount holds this meanwhile: there are never two of one folder.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Gives up the idle mount that was used longest ago, if there are many.
    fn make_room(&mut self) -> Result<()> {
        if self.graphs.len() < GRAPHS_MAX {
            return Ok(());
        }
        let idle = self.graphs.iter().filter(|(_, shared)| shared.is_idle());
        let oldest = idle.min_by_key(|(_, shared)| shared.used).map(|(name, _)| *name);
        self.give_up(&oldest.context("this host shows too many directories")?);
        Ok(())
    }

    fn give_up(&mut self, name: &[u8; 16]) {
        let graph = self.graphs.remove(name).and_then(|shared| Arc::into_inner(shared.graph));
        graph.expect("it is idle, and who would use it waits").end();
    }
}

impl Graph {
    /// A guest has ended: waits until what it has written is at the servers.
    fn settle(&self) -> Result<(), Unfinished> {
        if let Err(error) = self.await_releases() {
            tracing::warn!("what guests had open may be committed late: {error:#}");
        }
        self.files.files().settle(COMMIT_WAIT)
    }

    /// The kernel says in order, but behind everybody's back, what is open no more: when it says so of something that is
    /// opened and closed now, it has said so of everything that the guest had open.
    fn await_releases(&self) -> Result<()> {
        let deadline = Instant::now() + RELEASE_WAIT;
        // Twice, for whoever has just heard of a release may not have begun with it.
        for _ in 0..2 {
            let before = self.files.places_closed();
            drop(File::open(self.place.join(GRAPH_PLACES[0]))?);
            while self.files.places_closed() == before || self.files.is_releasing() {
                if Instant::now() > deadline {
                    bail!("the kernel does not say that they are closed");
                }
                std::thread::sleep(RELEASE_INTERVAL);
            }
        }
        Ok(())
    }

    /// Ends the mount, which nobody uses any more.
    fn end(self) {
        let mount = self.mount.into_inner().unwrap_or_else(PoisonError::into_inner);
        let _ = mount.unmount(UNMOUNT_TIMEOUT);
        let _ = fs::remove_dir(&self.place);
        match self.files.files().end(COMMIT_WAIT) {
            Ok(()) => drop(amoeba_mount::clear(&self.folder)),
            Err(Unfinished(left)) => tracing::error!("{left} changes of guests' files were not committed"),
        }
    }
}
