//! A file tree of its own for a guest: its caller's instead of its host's. `docs/views.md` has the picture.
//!
//! The warden asks the host's viewer for mounts of the caller's files ([`desk`]). A thread of the warden with mounts of its own
//! puts them together with what is the host's, makes that its root, and starts the guest there. The warden itself stays where
//! it is, and as it was. A guest that has ended leaves its tree to the next that wants the same ([`ahead`]), if it has
//! written nothing privately ([`layer`]); otherwise the thread ends, and with it everything that was mounted. [`keeper`]
//! starts the viewer; [`apart`]: its mounts are its own. [`graph`]: the directory graph in the caller's stead.

mod ahead;
mod apart;
mod desk;
mod graph;
pub(super) mod keeper;
mod layer;

use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use amoeba_process::status::NOVIEW;
use amoeba_process::{Exit, ProcessDescriptor, Tree, View};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount,
};

use super::confine::{Confinement, Nest};
use super::program::{CODE_NOT_EXECUTABLE, CODE_OUR_FAULT, Refusal};
pub(super) use ahead::Ahead;
use ahead::{Like, Place};
pub use desk::{Desk, Visit};
use desk::{Granted, Trees};
use layer::Layer;

/// Directories of the host's in every tree: what the warden has there is fit for guests.
const HOSTS: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Empty directories that the guest alone writes to, and what they are for.
const PRIVATE: [(&str, u32); 3] = [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/run", 0o755)];
/// Names in the root of a mount of the graph that must be there, for what is not the graph's to be mounted on.
pub const GRAPH_PLACES: &[&str] = &["dev", "proc", "run", "sys", "tmp"];
/// Where the new tree is put together: a directory that every host has.
const WORKSHOP: &str = "/tmp";

/// The file tree that a guest has.
pub(in crate::guest) struct Root {
    trees: Trees,
    /// Lives in it.
    nest: Nest,
    /// Where in it the kernel's socket is, unless that is where it is elsewhere.
    socket: Option<&'static [u8]>,
    /// What is left to the next guest that wants the same.
    legacy: Option<Legacy>,
}

/// What of a guest's file tree may be the next guest's.
struct Legacy {
    like: Like,
    layer: Layer,
    /// Mounts for another tree, in case that the guest leaves something in this one.
    more: Vec<OwnedFd>,
    /// Whether that is expected, and the other one, which is begun then.
    leaves: bool,
    other: Option<Place>,
}

/// Makes the file tree that a descriptor asks for, or takes the one that was made ready for it; `None` where that is the
/// host's own.
///
/// The viewer listens among the logs; `socket` is the kernel's.
///
/// # Errors
/// This host cannot give it such a tree.
pub(super) fn make(
    descriptor: &ProcessDescriptor,
    bytes: &[u8],
    socket: &Path,
    is_apart: bool,
    confinement: &Confinement,
    ahead: &mut Option<Ahead>,
) -> Result<Option<Root>, Refusal> {
    if descriptor.view.is_host() {
        return Ok(None);
    }
    if !is_apart {
        return Err(refused("this host has no mount name spaces; `--view host` shows its own files"));
    }
    if descriptor.scratch.is_some() {
        return Err(refused("files that go along have no place there; say `--view host`"));
    }
    let failed = |error: io::Error| refused(&error.to_string());
    let like = Like::of(descriptor);
    let waiting = like.as_ref().and_then(|like| ahead.take()?.ask(like, bytes));
    if let Some(waiting) = waiting
        && let Some(root) = take(waiting, socket, confinement)
    {
        return Ok(Some(root));
    }
    let viewer = confinement.way_to(desk::SOCKET.as_bytes());
    let mut trees = Trees::of(Path::new(OsStr::from_bytes(&viewer))).map_err(failed)?;
    trees.ask(0, bytes).map_err(failed)?;
    let Granted { mounts, more } = trees.answer().map_err(failed)?;
    let work = Path::new(OsStr::from_bytes(&descriptor.working_directory));
    let network = descriptor.network;
    let (nest, layer) = match &descriptor.view {
        View::Mine(mine) => {
            let build = || build(&mine.trees, mounts, socket, work);
            confinement.enclose(network, build).map(|(nest, layer)| (nest, Some(layer)))
        }
        _ => {
            let build = || graph::build(mounts, socket);
            confinement.enclose(network, build).map(|(nest, ())| (nest, None))
        }
    }
    .map_err(failed)?;
    let legacy =
        like.zip(layer).map(|(like, layer)| Legacy { like, layer, more, leaves: false, other: None });
    Ok(Some(Root { trees, nest, socket: Some(graph::SOCKET.as_bytes()), legacy }))
}

/// The file tree that waits, once the viewer, which has been asked, says that it is right; or another of its kind, of the mounts
/// that come now. `None` if the viewer says no, or has gone: that may be because it does not know its warden any more.
fn take(waiting: Ahead, socket: &Path, confinement: &Confinement) -> Option<Root> {
    let Ahead { like, mut trees, place, more, leaves } = waiting;
    let granted = trees.answer().ok()?;
    let (place, more) = match granted.mounts.is_empty() {
        true if more.is_empty() => (place, granted.more),
        true => (place, more),
        false => (like.begin(granted.mounts, socket, confinement)?, granted.more),
    };
    let (nest, layer) = place.ready()?;
    let legacy = Legacy { like, layer, more, leaves, other: None };
    Some(Root { trees, nest, socket: Some(graph::SOCKET.as_bytes()), legacy: Some(legacy) })
}

fn refused(why: &str) -> Refusal {
    Refusal::new(NOVIEW, CODE_NOT_EXECUTABLE, format!("its file tree cannot be shown here: {why}"))
}

impl Root {
    /// Does something where the guest's files are, with the guest's rights. What it starts ends with the tree.
    ///
    /// # Errors
    /// The thread that would do it has died.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.nest.run(work).ok_or_else(|| io::Error::other("who was to start it has died"))
    }

    /// Where the kernel's socket is in it, which is at `elsewhere` on the host.
    pub(super) fn socket<'a>(&self, elsewhere: &'a [u8]) -> &'a [u8] {
        self.socket.unwrap_or(elsewhere)
    }

    /// Its threads, those included that [`Root::look_ahead`] will start.
    pub(super) fn threads(&self) -> u32 {
        1 + u32::from(self.legacy.as_ref().is_some_and(|legacy| legacy.leaves))
    }

    /// The guest runs: if something is expected to be left in its tree, another one is begun.
    pub(super) fn look_ahead(&mut self, socket: &Path, confinement: &Confinement) {
        if let Some(legacy) = self.legacy.as_mut().filter(|legacy| legacy.leaves) {
            legacy.begin_other(socket, confinement);
        }
    }

    /// The guest has ended: waits until what it has written is the caller's, and says in its exit if something is not. Gives
    /// what waits for the next.
    pub(super) fn finish(
        mut self,
        exit: &mut Exit,
        socket: &Path,
        confinement: &Confinement,
    ) -> Option<Ahead> {
        let legacy = self.legacy;
        let is_untouched = || legacy.as_ref().is_some_and(|legacy| legacy.layer.is_untouched());
        let (is_untouched, lost) = self.trees.finish(is_untouched);
        let lost = match lost {
            Ok(0) => return legacy?.leave(self.trees, self.nest, is_untouched, socket, confinement),
            Ok(lost) => format!("{lost} changes of its files did not become its caller's"),
            Err(_) => "nobody knows whether what it has written is its caller's".into(),
        };
        if exit.reason.is_empty() {
            exit.reason = lost;
        }
        // Whoever started it, a build for one, must not take it for done.
        if exit.code == 0 {
            exit.code = CODE_OUR_FAULT;
        }
        None
    }
}

impl Legacy {
    fn begin_other(&mut self, socket: &Path, confinement: &Confinement) {
        if self.other.is_none() {
            self.other = self.like.begin(std::mem::take(&mut self.more), socket, confinement);
        }
    }

    /// What waits for the next guest: the last one's tree, or another.
    fn leave(
        mut self,
        trees: Trees,
        nest: Nest,
        is_untouched: bool,
        socket: &Path,
        confinement: &Confinement,
    ) -> Option<Ahead> {
        let place = if is_untouched {
            Place::Ready(nest, self.layer)
        } else {
            self.begin_other(socket, confinement);
            self.other?
        };
        Some(Ahead { like: self.like, trees, place, more: self.more, leaves: !is_untouched })
    }
}

/// Puts the tree together and makes it the root of this thread, whose mounts are its own. Gives what takes private writing.
fn build(trees: &[Tree], mounts: Vec<OwnedFd>, socket: &Path, work: &Path) -> io::Result<Layer> {
    let mut mounts = mounts.into_iter();
    let lower = mounts.next().ok_or(io::ErrorKind::InvalidData)?;
    // Taken before the old tree is covered.
    let hosts = HOSTS.iter().filter(|path| Path::new(path).is_dir());
    let hosts = hosts.map(|path| Ok((Path::new(*path), clone_of(Path::new(path), true)?)));
    let hosts = hosts.collect::<io::Result<Vec<_>>>()?;
    let socket_tree = clone_of(socket, false)?;

    let workshop = Path::new(WORKSHOP);
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", workshop, "tmpfs", flags, Some(c"mode=0755"))?;
    for name in ["below", "above", "work", "root"] {
        fs::create_dir(workshop.join(name))?;
    }
    fs::set_permissions(workshop.join("above"), fs::Permissions::from_mode(0o755))?;
    attach(&lower, &workshop.join("below"))?;
    let root = workshop.join("root");
    let layers = layers(workshop);
    mount("overlay", &root, "overlay", flags, Some(layers.as_c_str()))?;
    for (path, mode) in PRIVATE {
        let path = below(&root, Path::new(path));
        DirBuilder::new().recursive(true).mode(0o755).create(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for (path, tree) in &hosts {
        place(&root, path, tree, true)?;
    }
    let writable = trees.iter().filter(|tree| tree.writable);
    for (tree, mounted) in writable.zip(mounts) {
        place(&root, Path::new(OsStr::from_bytes(&tree.path)), &mounted, true)?;
    }
    place(&root, Path::new(graph::SOCKET), &socket_tree, false)?;
    // A working directory that is not shown is an empty one; one that is none is refused when it is entered.
    let _ = DirBuilder::new().recursive(true).mode(0o755).create(below(&root, work));
    let layer = Layer::at(&workshop.join("above"))?;
    become_root(&root)?;
    Ok(layer)
}

fn layers(workshop: &Path) -> CString {
    let part = |name: &str| workshop.join(name).display().to_string();
    // What a layer notes of another is elsewhere kept in attributes that only the host's root may set.
    let notes = if crate::host::is_in_user_name_space() { ",userxattr" } else { "" };
    let (below, above, work) = (part("below"), part("above"), part("work"));
    let options = format!("lowerdir={below},upperdir={above},workdir={work}{notes}");
    CString::new(options).expect("these paths have no NUL")
}

/// A path of the new tree, as it is named while the old one is there.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A mount of what is at `path`, with all mounts below or without, attached to nothing yet.
fn clone_of(path: &Path, whole: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, whole);
    Ok(open_tree(CWD, path, flags)?)
}

fn attach(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    Ok(move_mount(tree.as_fd(), "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Mounts a tree at its path in the new one, where a place for it is made.
fn place(root: &Path, path: &Path, tree: &OwnedFd, is_directory: bool) -> io::Result<()> {
    let place = below(root, path);
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    if let Err(error) = fs::symlink_metadata(&place) {
        if !missing(&error) {
            return Err(error);
        }
        let directory = if is_directory { Some(place.as_path()) } else { place.parent() };
        DirBuilder::new().recursive(true).mode(0o755).create(directory.unwrap_or(root))?;
        if !is_directory {
            File::create(&place)?;
        }
    }
    attach(tree, &place)
}

/// Makes `root` the root of this thread, and leaves the old tree.
fn become_root(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    // Both names are the new root: the old one comes to lie over it, and is taken away.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}
