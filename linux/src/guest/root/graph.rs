//! The directory graph as the file tree of a guest, with what every program needs of its host.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

use super::{HOSTS, WORKSHOP, attach, become_root, below, clone_of};

/// What the mount of the graph has room for, whatever the graph has: see [`GRAPH_PLACES`](super::GRAPH_PLACES).
const PRIVATE: [(&str, &std::ffi::CStr); 2] = [("/tmp", c"mode=1777"), ("/run", c"mode=0755")];
/// Where the guest finds the kernel's socket: a path that no name of the graph is in the way of.
pub(super) const SOCKET: &str = "/run/amoeba";

/// Makes the graph the root of this thread, whose mounts are its own; `socket` is the kernel's.
pub(super) fn build(mounts: Vec<OwnedFd>, socket: &Path) -> io::Result<()> {
    let graph = mounts.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    // Taken before the old tree is covered.
    let hosts = HOSTS.iter().map(Path::new).filter(|path| path.is_dir());
    let hosts = hosts.map(|path| Ok((path, clone_of(path, true)?))).collect::<io::Result<Vec<_>>>()?;
    let socket = clone_of(socket, false)?;

    let root = Path::new(WORKSHOP);
    attach(&graph, root)?;
    for (path, mode) in PRIVATE {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", below(root, Path::new(path)), "tmpfs", flags, Some(mode))?;
    }
    for (path, tree) in &hosts {
        attach(tree, &below(root, path))?;
    }
    let place = below(root, Path::new(SOCKET));
    File::create(&place)?;
    attach(&socket, &place)?;
    become_root(root)
}
