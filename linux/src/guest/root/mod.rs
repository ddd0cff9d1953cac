//! A file tree of its own for a guest: its caller's instead of its host's. `docs/views.md` has the picture.
//!
//! The warden asks the host's viewer for mounts of the caller's files ([`desk`]). A thread of the warden with mounts of its own
//! puts them together with what is the host's, makes that its root, and starts the guest there; when the guest has ended,
//! so does the thread, and with the two everything that was mounted. The warden itself stays where it is, and as it
//! was. While a guest runs, [`ahead`] makes the same ready for the next. [`keeper`] starts the viewer; [`apart`]: its mounts
//! are its own. [`graph`]: the directory graph in the caller's stead.

mod ahead;
mod apart;
mod desk;
mod graph;
pub(super) mod keeper;

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
use super::program::{CODE_NOT_EXECUTABLE, Refusal};
pub(super) use ahead::Ahead;
use ahead::Like;
pub use desk::{Desk, Visit};
use desk::{Granted, Trees};

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
    /// The next guest's, if that wants the same: what it is made of, and what lives in it.
    like: Option<Like>,
    more: Vec<OwnedFd>,
    next: Option<Nest>,
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
    let taken = like.as_ref().and_then(|like| ahead.take()?.take(like, bytes));
    let (granted, ready) = match taken {
        Some((granted, nest)) => (granted, Some(nest)),
        None => {
            let viewer = confinement.way_to(desk::SOCKET.as_bytes());
            (Trees::ask(Path::new(OsStr::from_bytes(&viewer)), bytes).map_err(failed)?, None)
        }
    };
    let Granted { trees, mounts, ahead: more } = granted;
    let work = Path::new(OsStr::from_bytes(&descriptor.working_directory));
    let nest = match ready.filter(|_| mounts.is_empty()) {
        Some(nest) => nest,
        None => {
            let furnish = || match &descriptor.view {
                View::Mine(mine) => build(&mine.trees, mounts, socket, work),
                _ => graph::build(mounts, socket),
            };
            confinement.enclose(descriptor.network, furnish).map_err(failed)?
        }
    };
    // A caller's tree may have the directory of the kernel's own place, and hide it.
    let socket = Some(graph::SOCKET.as_bytes());
    Ok(Some(Root { trees, nest, socket, like, more, next: None }))
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

    /// The guest runs: begins to make ready what the next finds, if that wants the same.
    pub(super) fn look_ahead(&mut self, socket: &Path, confinement: &Confinement) {
        let more = std::mem::take(&mut self.more);
        let like = self.like.as_ref().filter(|_| !more.is_empty());
        self.next = like.and_then(|like| like.begin(more, socket, confinement));
    }

    /// The guest has ended: waits until what it has written is the caller's, and says in its exit if something is not. Gives
    /// what was made ready for the next.
    pub(super) fn finish(mut self, exit: &mut Exit) -> Option<Ahead> {
        let lost = match self.trees.finish() {
            Ok(0) => {
                let (like, next) = (self.like?, self.next?);
                return Some(Ahead::new(like, self.trees, next));
            }
            Ok(lost) => format!("{lost} changes of its files did not become its caller's"),
            Err(_) => "nobody knows whether what it has written is its caller's".into(),
        };
        if exit.reason.is_empty() {
            exit.reason = lost;
        }
        None
    }
}

/// Puts the tree together and makes it the root of this thread, whose mounts are its own.
fn build(trees: &[Tree], mounts: Vec<OwnedFd>, socket: &Path, work: &Path) -> io::Result<()> {
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
    become_root(&root)
}

fn layers(workshop: &Path) -> CString {
    let part = |name: &str| workshop.join(name).display().to_string();
    // What a layer notes of another is elsewhere kept in attributes that only the host's root may set.
    let notes = if apart::is_in_user_name_space() { ",userxattr" } else { "" };
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
