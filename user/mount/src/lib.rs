//! The directory graph as a file system: [`GraphFileSystem`].
//!
//! It is what `amoeba mount` serves. It is no cache of its own for contents (the kernel has one) and knows nothing of FUSE;
//! transactions, threads and time come from the world, and of the host it uses a folder for what is being written.
//!
//! - [`tree`]: nodes and names, as the servers have them and as they are shown here; no transaction.
//! - [`find`]: rows of directories become nodes; [`classes`]: what they stand for. [`names`]: names are made, moved and taken away.
//! - [`spares`]: directories that are made ahead.
//! - [`contents`]: files are read and written, in a [`scratch`] while somebody has them open for writing.
//! - [`queue`]: what is to be done at the servers; [`batches`]: what of it is done together; [`commit`]: doing it; [`files`] are made first.
//! - [`closed`]: files are closed, where opens are no operations; [`reading`]: and read.
//! - [`journal`]: what was [`synced`] survives a kill. [`watch`]: what others change is seen here.
//! - [`settle`]: everything done so far is at the servers, and the mount goes on.
//!
//! Locks: what was closed, the gate of a file, then that of its version, then the tree; no transaction is done with the tree locked.
//! `docs/mount.md` says what programs may rely on.
#![forbid(unsafe_code)]

mod batches;
mod classes;
mod closed;
mod commit;
mod contents;
mod file_system;
mod files;
mod find;
mod journal;
mod names;
mod queue;
mod reading;
mod rows;
mod scratch;
mod settle;
mod spares;
mod synced;
mod tree;
mod watch;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError};
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_name::{Account, Time};
use amoeba_stubs::Client;
use amoeba_threads::{Condition, JoinHandle, Mutex};
use amoeba_volume::{Error, Node, Notifier};
use amoeba_world::{TransOptions, World};

use classes::Classes;
use journal::Journal;
use rows::Class;
use scratch::Scratches;
use spares::Spares;
use tree::Tree;

pub use settle::{clear, redo};

/// Updates that may wait until they are at the servers; who makes one more waits too.
pub const QUEUE_MAX: usize = 8192;
/// Bytes of files that may wait so.
pub const QUEUE_BYTES_MAX: u64 = 1 << 30;
/// How long somebody waits for the servers while nothing at all gets done, before he hears of it (`EIO`).
pub const STALL_MAX: Duration = Duration::from_secs(30);
/// How long a transaction may take.
const TRANSACTION_MAX: Duration = Duration::from_secs(30);
/// How long a server is searched for.
const LOCATE_MAX: Duration = Duration::from_secs(3);

/// Who has accounts on this host.
pub trait Accounts: Send + Sync {
    /// User and group who mount.
    fn own(&self) -> (u32, u32);
    /// The name of a user; empty for none.
    fn user_name(&self, number: u32) -> Vec<u8>;
    /// The name of a group; empty for none.
    fn group_name(&self, number: u32) -> Vec<u8>;
    /// The number of a user here.
    fn user_number(&self, account: &Account) -> u32;
    /// The number of a group here.
    fn group_number(&self, account: &Account) -> u32;
}

/// What is mounted, and how.
pub struct Options {
    /// The directory that becomes the root.
    pub root: Capability,
    /// The server on which new files are made.
    pub file_server: Capability,
    /// A folder of this mount alone, for what is being written; what a killed one has left there is committed first.
    pub folder: PathBuf,
    /// Who owns files.
    pub accounts: Arc<dyn Accounts>,
    /// Whether `user.amoeba.capability` shows the capability of a file: a secret.
    pub show_capabilities: bool,
    /// How often the servers are asked what others have changed.
    pub look_interval: Duration,
}

/// The directory graph, to be mounted. Dropped without [`end`](GraphFileSystem::end), what was not committed yet is left to the
/// next one that is made with the same folder, as far as it was synced.
pub struct GraphFileSystem {
    shared: Arc<Shared>,
    threads: StdMutex<Vec<JoinHandle<()>>>,
}

/// What all threads of a mount share.
pub(crate) struct Shared {
    world: World,
    options: Options,
    trans_options: TransOptions,
    tree: Mutex<Tree>,
    /// Notified when something was queued.
    work: Condition,
    /// Notified when somebody waits for what is queued.
    hurry: Condition,
    /// Notified when a batch was handed over, or taken.
    handed: Condition,
    /// Notified when something was brought to the servers.
    progress: Condition,
    scratches: Scratches,
    spares: Spares,
    closing: closed::Closing,
    looks: watch::Looks,
    journal: Journal,
    notifier: OnceLock<Arc<dyn Notifier>>,
    classes: Classes,
    listings: file_system::Listings,
    buffers: reading::Buffers,
    stopping: AtomicBool,
    /// Set when the mount does not wait for servers any more.
    hurried: AtomicBool,
    next_handle: AtomicU64,
    /// Changes of names that the servers have refused.
    refused: AtomicU64,
}

/// Not everything was committed: so many updates are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished(pub usize);

/// A name as people read it.
pub(crate) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

impl GraphFileSystem {
    /// The graph below `options.root`. Commits first what an earlier mount with this folder has synced and not committed: the
    /// lines say what became of it.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn new(world: &World, options: Options) -> io::Result<(GraphFileSystem, Vec<String>)> {
        fs::create_dir_all(&options.folder)?;
        let trans_options = trans_options();
        let client = Client::new(&*world.transactions, &trans_options);
        let (first, redone) = journal::redo(&options.folder, client, &options.file_server)?;
        let journal = Journal::open(&world.threads, &options.folder)?;
        let now = name_time(world);
        let tree = Tree::new(&world.threads, Arc::clone(&options.accounts), options.root, now);
        let classes = [(options.root.port, Class::Directory), (options.file_server.port, Class::File)];
        let shared = Arc::new(Shared {
            tree: Mutex::new(&world.threads, tree),
            work: Condition::new(&world.threads),
            hurry: Condition::new(&world.threads),
            handed: Condition::new(&world.threads),
            progress: Condition::new(&world.threads),
            scratches: Scratches::new(&options.folder, first),
            spares: Spares::new(&world.threads),
            closing: closed::Closing::new(&world.threads),
            looks: watch::Looks::default(),
            journal,
            notifier: OnceLock::new(),
            classes: Classes::new(classes),
            listings: file_system::Listings::default(),
            buffers: reading::Buffers::default(),
            stopping: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            next_handle: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            world: world.clone(),
            trans_options,
            options,
        });
        let mut threads = Vec::new();
        let makers = [("spares", spares::run as fn(&Arc<Shared>)); spares::MAKERS];
        let gather = ("gather", batches::run as fn(&Arc<Shared>));
        let others = [gather, ("commit", commit::run), ("watch", watch::run)];
        for (name, body) in others.into_iter().chain(makers) {
            let shared = Arc::clone(&shared);
            let thread = world.threads.spawn(name, move || body(&shared));
            threads.push(thread.map_err(io::Error::other)?);
        }
        Ok((GraphFileSystem { shared, threads: StdMutex::new(threads) }, redone))
    }

    /// Whether somebody has a file or a directory open.
    pub fn is_used(&self) -> bool {
        self.shared.is_used()
    }

    /// Commits what waits, for at most `wait`, and ends. Nobody may use it any more.
    ///
    /// # Errors
    /// So many updates could not be made: what was synced of them is made by the next mount.
    pub fn end(&self, wait: Duration) -> Result<(), Unfinished> {
        let shared = &self.shared;
        tracing::debug!("the mount ends");
        shared.commit_open_files();
        let deadline = shared.world.threads.now() + wait;
        let mut tree = shared.tree.lock();
        shared.await_all(&mut tree);
        while tree.done < tree.queued && shared.world.threads.now() < deadline {
            tree = shared.progress.wait_until(tree, Some(deadline)).0;
        }
        let left = tree.queue.len() + usize::from(tree.done < tree.queued);
        drop(tree);
        shared.stop();
        if left > 0 {
            return Err(Unfinished(left));
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
        tracing::debug!("the mount has ended");
        Ok(())
    }
}

impl Drop for GraphFileSystem {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// How long servers are waited for.
fn trans_options() -> TransOptions {
    TransOptions { locate_timeout: LOCATE_MAX, deadline: Some(TRANSACTION_MAX), ..TransOptions::default() }
}

fn name_time(world: &World) -> Time {
    let now = world.clock.unix_time();
    Time { seconds: now.as_secs() as i64, nanoseconds: now.subsec_nanos() }
}

impl Shared {
    /// Lets the threads end; servers that do not answer are not waited for.
    fn stop(&self) {
        // Locked: else a thread that has just looked would wait all the same.
        let tree = self.tree.lock();
        self.stopping.store(true, Ordering::Relaxed);
        self.hurried.store(true, Ordering::Relaxed);
        drop(tree);
        self.work.notify_all();
        self.hurry.notify_all();
        self.handed.notify_all();
        self.progress.notify_all();
        self.spares.stop();
    }

    /// Whoever brings updates to the servers need not wait for more of them.
    fn await_all(&self, tree: &mut Tree) {
        tree.awaited = tree.queued;
        self.hurry.notify_all();
    }

    fn client(&self) -> Client<'_> {
        self.say_it_waits();
        Client::new(&*self.world.transactions, &self.trans_options)
    }

    /// Wakes whoever gathers what is queued, if something is.
    fn say_there_is_work(&self, tree: &Tree) {
        if !tree.queue.is_empty() {
            self.work.notify_all();
        }
    }

    /// What is done next may take long: an operation of a program lets others be served meanwhile.
    fn say_it_waits(&self) {
        self.notifier.get().inspect(|notifier| notifier.waits());
    }

    fn file_server(&self) -> Capability {
        self.options.file_server
    }

    fn now(&self) -> Time {
        name_time(&self.world)
    }

    /// Whether servers that do not answer are not waited for.
    fn gives_up(&self) -> bool {
        self.hurried.load(Ordering::Relaxed)
    }

    fn tell_name(&self, directory: Node, name: &[u8]) {
        if let Some(notifier) = self.notifier.get() {
            notifier.name_changed(directory, name);
            notifier.node_changed(directory);
        }
    }

    fn tell_node(&self, node: Node) {
        if let Some(notifier) = self.notifier.get() {
            notifier.node_changed(node);
        }
    }

    /// Waits until there is room for another update.
    ///
    /// # Errors
    /// [`Error::Io`]: nothing was done for [`STALL_MAX`].
    fn make_room(&self) -> Result<(), Error> {
        self.wait_while(|tree| tree.queue.len() >= QUEUE_MAX || tree.queue_bytes >= QUEUE_BYTES_MAX)
    }

    /// Waits until everything that was queued up to `number` is at the servers.
    fn wait_for(&self, number: u64) -> Result<(), Error> {
        let mut tree = self.tree.lock();
        tree.awaited = tree.awaited.max(number);
        drop(tree);
        self.hurry.notify_all();
        self.wait_while(|tree| tree.done < number)
    }

    fn wait_while(&self, what: impl Fn(&Tree) -> bool) -> Result<(), Error> {
        let mut tree = self.tree.lock();
        let mut done = tree.done;
        let mut deadline = self.world.threads.now() + STALL_MAX;
        while what(&tree) {
            self.say_it_waits();
            tree = self.progress.wait_until(tree, Some(deadline)).0;
            if tree.done != done {
                (done, deadline) = (tree.done, self.world.threads.now() + STALL_MAX);
            } else if self.world.threads.now() >= deadline {
                return Err(Error::Io);
            }
        }
        Ok(())
    }
}
