//! `amoeba viewer`: shows the guests of this host their callers' files. The process server starts it with the first guest
//! that wants them.
//!
//! What is only read is one mount for all guests of a caller who see the same trees: what the kernel has learnt of it stays
//! from one guest to the next. A tree that may be written is a mount that one guest has at a time; when that has ended, and
//! all is well, the mount waits for the caller's next guest who writes to that tree. Guests may see the directory graph
//! instead ([`graph`]).

mod graph;

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use amoeba_linux::fuse::{Mount, MountOptions};
use amoeba_linux::guest::{Desk, Visit};
use amoeba_process::{Mine, View};
use amoeba_view::away::{Owner, Store, Visible, begin};
use amoeba_world::World;
use anyhow::{Context, Result, bail};

use crate::state::State;
use graph::Graphs;

/// The most mounts that several guests share.
const SHARED_MAX: usize = 64;
/// The most mounts of trees to be written that wait for a guest.
const WAITING_MAX: usize = 16;
/// How long a mount is kept that nobody uses.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// The most guests at once.
const GUESTS_MAX: usize = 1024;
/// The most trees of one guest that may be written.
const WRITABLE_MAX: usize = 8;
/// Bytes of fetched files that are kept.
const STORE_SIZE_MAX: u64 = 4 << 30;
/// Operations under way at once: in a shared mount, and in one of a guest's own.
const SHARED_THREADS: usize = 8;
const OWN_THREADS: usize = 4;
/// How long an unmounted mount may be used by those who still have it.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(1);

/// The program.
pub(crate) fn main(state: &State) -> Result<()> {
    // Before there are threads.
    let desk = Desk::open(&state.path("guests")).context("no file tree can be mounted here")?;
    end_with_input()?;
    let store = Store::open(&state.path("views"), STORE_SIZE_MAX).context("the store of fetched files")?;
    let (user, group) = amoeba_tree::account();
    let is_alone = !desk.has_privilege();
    let world = amoeba_linux::connect(&state.socket());
    let viewer = Arc::new(Viewer {
        desk,
        graphs: Graphs::new(&world, state, (user, group))?,
        world,
        store: Arc::new(store),
        owner: Owner { user, group, is_alone },
        shared: Mutex::default(),
        waiting: Mutex::default(),
        numbers: AtomicU64::new(0),
    });
    let tidying = viewer.clone();
    std::thread::Builder::new().name("idle mounts".into()).spawn(move || {
        loop {
            std::thread::sleep(LOOK_INTERVAL);
            tidying.tidy();
            tidying.graphs.tidy();
        }
    })?;
    let guests = Arc::new(());
    loop {
        let mut visit = viewer.desk.accept()?;
        if Arc::strong_count(&guests) > GUESTS_MAX {
            // It hears it, or has gone.
            let _ = visit.refuse("too many guests see their callers' files");
            continue;
        }
        let (serving, counted) = (viewer.clone(), guests.clone());
        std::thread::Builder::new().name("view".into()).spawn(move || {
            serving.serve(visit);
            drop(counted);
        })?;
    }
}

/// The process server holds the other end of the standard input.
fn end_with_input() -> Result<()> {
    std::thread::Builder::new().name("process server".into()).spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    })?;
    Ok(())
}

struct Viewer {
    desk: Desk,
    graphs: Graphs,
    world: World,
    store: Arc<Store>,
    owner: Owner,
    shared: Mutex<BTreeMap<[u8; 32], Shared>>,
    /// The one that has waited longest first.
    waiting: Mutex<VecDeque<Waiting>>,
    /// Makes the names of mounts.
    numbers: AtomicU64,
}

/// A mount that several guests see.
#[derive(Clone)]
struct Shared {
    mounted: Arc<Mounted>,
    used: Instant,
}

/// The mounts that a guest has seen, of which all is well: its warden has them, and may bring another guest.
struct Seen {
    mine: Mine,
    shared: Arc<Mounted>,
    own: Vec<Arc<Mounted>>,
    /// [`Visible::absences`] of what is shared, when the guest began: its tree keeps for ever which names it has not found.
    absences: u64,
}

impl Seen {
    /// Whether its trees that may be written might be given to another guest.
    fn is_sound(&self) -> bool {
        self.own.iter().all(|mounted| mounted.files.is_sound())
    }

    /// Whether this is what `mine` wants, and can be given to it.
    fn is_for(&self, mine: &Mine) -> bool {
        // The kernel tells us of what the last guest has closed when it finds the time.
        let is_as_new = self.own.iter().all(|mounted| mounted.files.is_as_new());
        self.mine.identity == mine.identity && self.mine.trees == mine.trees && is_as_new
    }
}

/// A mount of a tree that may be written, which no guest has.
struct Waiting {
    tree: Name,
    mounted: Arc<Mounted>,
    since: Instant,
}

/// Whose tree that may be written, and which.
type Name = ([u8; 32], Vec<u8>);

/// A file system at its place.
struct Mounted {
    files: Arc<Visible>,
    place: PathBuf,
    mount: Mutex<Option<Mount>>,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.files.retire();
        let mount = self.mount.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mount) = mount {
            let _ = mount.unmount(UNMOUNT_TIMEOUT);
        }
        let _ = std::fs::remove_dir(&self.place);
    }
}

impl Viewer {
    /// Serves a guest to its end, and after it those of the same warden that see the same.
    fn serve(&self, mut visit: Visit) {
        let mut seen: Option<Seen> = None;
        let mut wanted = visit.wanted();
        loop {
            let mine = match wanted {
                Ok(View::Mine(mine)) => mine,
                Ok(View::Graph(root)) if seen.is_none() => {
                    return self.graphs.serve(&self.desk, visit, &root);
                }
                _ => break,
            };
            match self.show(&mut visit, mine, seen.take()) {
                Some(shown) => seen = Some(shown),
                None => return,
            }
            wanted = visit.next_wanted(IDLE_TIME);
        }
        if let Some(Seen { mine, own, .. }) = seen {
            // Unmounting takes a moment, for which nobody waits here.
            drop(self.keep(&mine, own));
        }
    }

    /// Serves one guest to its end, with the mounts that the last one of its warden has `seen` if they are right. Gives what
    /// the next may see, if all is well.
    fn show(&self, visit: &mut Visit, mine: Mine, seen: Option<Seen>) -> Option<Seen> {
        let (seen, is_known) = match self.trees(mine, seen) {
            Ok(seen) => seen,
            Err(error) => {
                let _ = visit.refuse(&format!("{error:#}"));
                return None;
            }
        };
        let Seen { mine, shared, own, .. } = &seen;
        let mounts = std::iter::once(shared).chain(own);
        let places: Vec<PathBuf> = mounts.clone().map(|mounted| mounted.place.clone()).collect();
        let granted = if is_known { visit.grant_next(&places) } else { visit.grant_twice(&places) };
        if let Err(error) = &granted {
            let _ = visit.refuse(&error.to_string());
        }
        // Whoever does not ask has died, and it may take a while until its guest has.
        let is_asked = granted.is_ok() && visit.wait();
        let lost: u64 = own.iter().map(|mounted| mounted.files.finish()).sum();
        for mounted in mounts {
            mounted.files.end(&mine.files);
        }
        (is_asked && visit.tell(lost).is_ok() && seen.is_sound()).then_some(seen)
    }

    /// The mount of all of a caller's files, and those of the trees that may be written; whether a tree that was made for what
    /// was `seen` is right for them.
    fn trees(&self, mine: Mine, seen: Option<Seen>) -> Result<(Seen, bool)> {
        let writable = mine.trees.iter().filter(|tree| tree.writable);
        if writable.clone().count() > WRITABLE_MAX {
            bail!("more than {WRITABLE_MAX} trees to be written");
        }
        let shared = self.shared(&mine)?;
        let (own, known) = match seen {
            Some(seen) if seen.is_for(&mine) && Arc::ptr_eq(&seen.shared, &shared) => {
                (seen.own, Some(seen.absences))
            }
            seen => {
                drop(seen.map(|seen| self.keep(&seen.mine, seen.own)));
                let own = writable.map(|tree| self.own((mine.identity, tree.path.clone())));
                (own.collect::<Result<Vec<_>>>()?, None)
            }
        };
        let all: Vec<&Visible> =
            std::iter::once(&shared).chain(&own).map(|mounted| &*mounted.files).collect();
        begin(&all, mine.files);
        let absences = shared.files.absences();
        Ok((Seen { mine, shared, own, absences }, known == Some(absences)))
    }

    /// A mount of a tree that may be written: one that waits, or else a new one.
    fn own(&self, tree: Name) -> Result<Arc<Mounted>> {
        let mut waiting = self.held_waiting();
        // The kernel tells us of what the last guest has closed when it finds the time.
        let is_it = |waiting: &Waiting| waiting.tree == tree && waiting.mounted.files.is_as_new();
        let found = waiting.iter().rposition(is_it).and_then(|place| waiting.remove(place));
        drop(waiting);
        if let Some(found) = found {
            return Ok(found.mounted);
        }
        let (identity, path) = &tree;
        let files = Visible::to_write(&self.world, &self.store, *identity, self.owner, path);
        let mounted = self.mount(Arc::new(files), false)?;
        let carrying = mounted.files.clone();
        std::thread::Builder::new().name("changes".into()).spawn(move || carrying.carry())?;
        Ok(mounted)
    }

    /// Lets mounts wait for the next guest that writes to these trees; gives back those that are too many.
    fn keep(&self, mine: &Mine, own: Vec<Arc<Mounted>>) -> Vec<Arc<Mounted>> {
        let names = mine.trees.iter().filter(|tree| tree.writable);
        let mut waiting = self.held_waiting();
        let since = Instant::now();
        waiting.extend(names.zip(own).map(|(tree, mounted)| {
            let tree = (mine.identity, tree.path.clone());
            Waiting { tree, mounted, since }
        }));
        let many = waiting.len().saturating_sub(WAITING_MAX);
        waiting.drain(..many).map(|waiting| waiting.mounted).collect()
    }

    /// The mount that is shared by all who know the identity and see the same trees.
    fn shared(&self, mine: &Mine) -> Result<Arc<Mounted>> {
        let mut name = blake3::Hasher::new_keyed(&mine.identity);
        for tree in &mine.trees {
            name.update(&(tree.path.len() as u64).to_le_bytes()).update(&tree.path);
        }
        let name = *name.finalize().as_bytes();
        let known = self.held().get_mut(&name).map(|shared| {
            shared.used = Instant::now();
            shared.mounted.clone()
        });
        let mounted = match known {
            Some(mounted) => mounted,
            None => {
                self.make_room()?;
                let files = Visible::to_read(&self.world, &self.store, mine.identity, self.owner);
                let mounted = self.mount(Arc::new(files), true)?;
                let shared = Shared { mounted, used: Instant::now() };
                // Of two that were made at the same time the first is shared.
                self.held().entry(name).or_insert(shared).mounted.clone()
            }
        };
        Ok(mounted)
    }

    fn mount(&self, files: Arc<Visible>, is_shared: bool) -> Result<Arc<Mounted>> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let place = self.desk.place(&number.to_string())?;
        let mut options = MountOptions::new("amoeba-view");
        options.read_only = is_shared;
        options.others = self.desk.has_privilege() && self.owner.user == 0;
        options.threads = if is_shared { SHARED_THREADS } else { OWN_THREADS };
        options.backing = is_shared;
        let mount = Mount::new(files.clone(), &place, &options)?;
        Ok(Arc::new(Mounted { files, place, mount: Mutex::new(Some(mount)) }))
    }

    /// Gives up the mount that was used longest ago, if there are many.
    fn make_room(&self) -> Result<()> {
        let mut shared = self.held();
        if shared.len() < SHARED_MAX {
            return Ok(());
        }
        let idle = shared.iter().filter(|(_, shared)| shared.mounted.files.is_idle());
        let oldest = idle.min_by_key(|(_, shared)| shared.used).map(|(name, _)| *name);
        let oldest = oldest.context("this host shows the files of too many callers")?;
        let gone = shared.remove(&oldest);
        drop(shared);
        drop(gone);
        Ok(())
    }

    /// Gives up mounts that nobody has used for a while.
    fn tidy(&self) {
        let mut gone = Vec::new();
        self.held().retain(|_, shared| {
            if !shared.mounted.files.is_idle() {
                shared.used = Instant::now();
            }
            let stays = shared.used.elapsed() < IDLE_TIME;
            if !stays {
                gone.push(shared.mounted.clone());
            }
            stays
        });
        let mut waiting = self.held_waiting();
        let old = waiting.iter().take_while(|waiting| waiting.since.elapsed() >= IDLE_TIME).count();
        gone.extend(waiting.drain(..old).map(|waiting| waiting.mounted));
        drop(waiting);
        // Unmounting takes a moment, and nobody waits for it here.
        drop(gone);
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
