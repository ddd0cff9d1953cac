//! Where the scenarios run: a mount, and a folder of a local file system beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use amoeba_linux::fuse::{Mount, MountOptions};
use amoeba_volume::MemoryFileSystem;

use crate::shell::Script;
use crate::system::System;
use crate::tree::{Depth, Tree};

/// Bytes that the file system in memory may hold.
const SIZE_MAX: u64 = 1 << 30;
/// How long the end of a mount is waited for.
const LONG: Duration = Duration::from_secs(30);

/// One mount, for one scenario.
pub(crate) struct Place {
    folder: PathBuf,
    /// Which list of failures of the POSIX suite holds here: a heading of `docs/conformance.md`.
    pub(crate) kind: &'static str,
    /// Whether it is mounted for other users, too.
    others: bool,
    served: Option<Served>,
}

enum Served {
    Memory(Mount),
    /// And the process that serves it.
    Graph(System, i32),
}

impl Place {
    /// The file system in memory. `None`, and said so, where nothing can be mounted.
    pub(crate) fn memory() -> Option<Place> {
        let folder = folder()?;
        let served = Some(in_memory(&folder.join("mount"), false));
        Some(Place { folder, kind: "memory", others: false, served })
    }

    /// The directory graph of a system of its own, by `amoeba mount`.
    pub(crate) fn graph() -> Option<Place> {
        let folder = folder()?;
        let system = System::up(&folder);
        let pid = system.mount(&folder.join("mount"), false);
        Some(Place { folder, kind: "graph", others: false, served: Some(Served::Graph(system, pid)) })
    }

    /// Mounts it anew for other users, too, while it is empty: then the kernel checks who may do what.
    #[track_caller]
    pub(crate) fn open_to_others(&mut self) {
        self.others = true;
        match self.served.take() {
            Some(Served::Memory(mount)) => {
                assert!(unmounted(mount, &self.mounted()), "somebody is at it");
                self.served = Some(in_memory(&self.mounted(), true));
            }
            graph => {
                self.served = graph;
                self.umount();
                self.mount();
            }
        }
    }

    /// The directory that is mounted.
    pub(crate) fn mounted(&self) -> PathBuf {
        self.folder.join("mount")
    }

    /// A folder of the local file system.
    pub(crate) fn local(&self) -> PathBuf {
        self.folder.join("local")
    }

    /// A new folder on the mount and its twin on the local file system.
    pub(crate) fn twins(&self, name: &str) -> [PathBuf; 2] {
        [self.mounted(), self.local()].map(|folder| {
            let made = folder.join(name);
            fs::create_dir(&made).expect("a new name");
            made
        })
    }

    /// What outlives a mount is the same on the next one.
    pub(crate) fn survives_a_new_mount(&mut self) {
        if let Some(Served::Memory(_)) = self.served {
            return;
        }
        let before = Tree::read(&self.mounted(), Depth::Kept);
        self.umount();
        self.mount();
        Tree::read(&self.mounted(), Depth::Kept).must_be(&before);
    }

    /// The system that the graph is of.
    pub(crate) fn system(&self) -> &System {
        match &self.served {
            Some(Served::Graph(system, _)) => system,
            _ => panic!("the file system in memory is of no system"),
        }
    }

    /// The process that serves the mount.
    pub(crate) fn server(&self) -> i32 {
        match &self.served {
            Some(Served::Graph(_, pid)) => *pid,
            _ => panic!("the file system in memory is served here"),
        }
    }

    /// Mounts the graph again.
    #[track_caller]
    pub(crate) fn mount(&mut self) {
        let new = self.system().mount(&self.mounted(), self.others);
        if let Some(Served::Graph(_, pid)) = &mut self.served {
            *pid = new;
        }
    }

    /// Unmounts the graph.
    #[track_caller]
    pub(crate) fn umount(&self) {
        self.system().umount(&self.mounted());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let unmounted = match self.served.take().expect("it is served until here") {
            Served::Memory(mount) => unmounted(mount, &self.mounted()),
            Served::Graph(system, _) => {
                let line = system.line(&format!("umount {}", self.mounted().display()));
                Script::start(&self.local(), &line).finish().success()
            }
        };
        if !std::thread::panicking() {
            assert!(unmounted, "somebody is still at it");
            fs::remove_dir_all(&self.folder).expect("nothing is mounted there");
        }
    }
}

/// An empty file system in memory.
fn in_memory(directory: &Path, others: bool) -> Served {
    let files = Arc::new(MemoryFileSystem::new(amoeba_linux::clock(), SIZE_MAX));
    let options = MountOptions { others, ..MountOptions::new("programs") };
    Served::Memory(Mount::new(files, directory, &options).expect("root can mount"))
}

/// Unmounts what is served here: whether nobody is at it any more who was meant to be.
fn unmounted(mount: Mount, directory: &Path) -> bool {
    let is_copied = is_copied(directory);
    let wait = if is_copied { Duration::ZERO } else { LONG };
    mount.unmount(wait).is_ok_and(|has_ended| has_ended || is_copied)
}

/// Whether processes with mount name spaces of their own, such as those of a system that was started meanwhile, have a copy of this
/// mount: it ends with the last of them.
fn is_copied(mounted: &Path) -> bool {
    let mark = format!(" {} ", mounted.display());
    let own = fs::read_link("/proc/self/ns/mnt").expect("every process is in one");
    fs::read_dir("/proc").into_iter().flatten().flatten().any(|process| {
        let is_elsewhere = fs::read_link(process.path().join("ns/mnt")).is_ok_and(|theirs| theirs != own);
        is_elsewhere
            && fs::read_to_string(process.path().join("mountinfo")).is_ok_and(|mounts| mounts.contains(&mark))
    })
}

/// Short, so that the path of a socket below it fits its 108 bytes; open, so that other users pass through on their way.
/// Only the lack of FUSE on this host is a reason to skip.
pub(crate) fn folder() -> Option<PathBuf> {
    if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: nothing can be mounted here: no /dev/fuse, or not root");
        return None;
    }
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("amoeba-p{}-{number}", std::process::id()));
    for part in ["mount", "local"] {
        fs::create_dir_all(folder.join(part)).expect("the temporary folder is ours");
    }
    Some(folder)
}
