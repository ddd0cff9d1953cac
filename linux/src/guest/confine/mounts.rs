//! What of the host's file tree a guest does not see, or may not write, although its user could: covers and read-only mounts
//! in the warden's mount name space.
//!
//! - The daemon's state, and in it the logs and scratch directories of other guests: covered, but for the kernel's socket.
//! - Sockets by which whoever reaches them has others start processes outside: covered.
//! - `/dev`: one of its own, with the devices that every program needs and those that compute.
//! - `/sys` and the parts of `/proc` that are the whole host's: read-only.
//!
//! What the warden itself needs of the state it reaches through a descriptor ([`Passage`]).

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::libc;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, move_mount, open_tree,
    unmount,
};

/// The name under which a guest finds its own scratch directory, beside the logs.
const SCRATCH: &str = "scratch";
/// A cover holds a few directories and no bytes.
const COVER: &CStr = c"mode=0711,size=64k,nr_inodes=64";

/// Sockets of the host's administrator: who may talk to them needs no way out. Directories are covered whole.
const OTHERS_SOCKETS: [&str; 14] = [
    "/run/dbus",
    "/run/user",
    "/run/systemd/private",
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/libvirt",
    "/run/snapd.socket",
    "/run/lxd.socket",
    "/run/incus",
    "/run/screen",
    "/run/tmux",
];

/// Devices that every program may use.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Devices that compute, by the beginning of their names.
const COMPUTING: [&str; 4] = ["dri", "kfd", "nvidia", "kvm"];

/// Parts of `/proc` that are written to change the host, and whose owner is root.
const HOSTS_PROC: [&str; 6] = ["sys", "sysrq-trigger", "irq", "bus", "fs", "mtrr"];

/// The warden's way to what is covered, as it sees it.
#[derive(Debug)]
pub(super) struct Passage {
    logs: OwnedFd,
    /// Where a guest sees its scratch directory.
    shown: PathBuf,
}

/// Covers and guards everything, in a mount name space of the caller's whose `/proc` is its own.
///
/// `hidden` are directories of ours, `logs` the one with the logs, and `shown` what stays to be seen of them: the kernel's
/// socket and files that may be read.
///
/// # Errors
/// Something that is there cannot be covered; then nothing is promised, and nothing must run.
pub(super) fn settle(hidden: &[PathBuf], logs: &Path, shown: &[PathBuf]) -> io::Result<Passage> {
    let passage = Passage {
        logs: open(logs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?,
        shown: logs.join(SCRATCH),
    };
    // Taken before anything is covered or loses its devices.
    let devices = Devices::take()?;
    let shown = shown.iter().filter(|path| path.exists()).map(|path| Kept::take(path));
    let shown = shown.collect::<io::Result<Vec<Kept>>>()?;
    set_attributes(CWD, c"/", libc::MOUNT_ATTR_NODEV)?;
    for directory in hidden.iter().filter(|directory| directory.is_dir()) {
        cover(directory, &shown, &passage.shown)?;
    }
    if !hidden.iter().any(|directory| logs.starts_with(directory)) {
        cover(logs, &shown, &passage.shown)?;
    }
    for path in OTHERS_SOCKETS.map(Path::new) {
        hide(path)?;
    }
    devices.place()?;
    guard_system()?;
    Ok(passage)
}

/// `/sys` and the host's parts of `/proc` cannot be written any more.
fn guard_system() -> io::Result<()> {
    if Path::new("/sys").is_dir() {
        set_attributes(CWD, c"/sys", libc::MOUNT_ATTR_RDONLY)?;
    }
    for name in HOSTS_PROC {
        let path = Path::new("/proc").join(name);
        if path.exists() {
            mount_bind(&path, &path)?;
            let opened = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            set_attributes(opened.as_fd(), c"", libc::MOUNT_ATTR_RDONLY)?;
        }
    }
    Ok(())
}

/// Something that stays to be seen in a directory that is covered.
struct Kept {
    path: PathBuf,
    tree: OwnedFd,
}

impl Kept {
    fn take(path: &Path) -> io::Result<Kept> {
        Ok(Kept { path: path.to_owned(), tree: clone_of(path)? })
    }

    /// Puts it back where it was, for reading only: through such a mount a socket can be connected to all the same.
    fn place(&self) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::File::create(&self.path)?;
        set_own_attributes(self.tree.as_fd(), libc::MOUNT_ATTR_RDONLY)?;
        put_tree(self.tree.as_fd(), &self.path)
    }
}

/// A mount of what is at `path`, and of nothing mounted below, attached to nothing yet.
fn clone_of(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(CWD, path, flags)?)
}

fn put_tree(tree: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Puts an empty directory over `directory`, in which is again what of it is to be seen, and the place for a scratch directory
/// if that is there.
fn cover(directory: &Path, shown: &[Kept], scratch: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", directory, "tmpfs", flags, Some(COVER))?;
    for kept in shown.iter().filter(|kept| kept.path.starts_with(directory)) {
        kept.place()?;
    }
    if scratch.starts_with(directory) {
        fs::create_dir_all(scratch)?;
    }
    let opened = open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    set_own_attributes(opened.as_fd(), libc::MOUNT_ATTR_RDONLY)
}

/// Puts nothing over what is at `path`, if anything is.
fn hide(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else { return Ok(()) };
    if meta.is_symlink() {
        return Ok(());
    }
    if meta.is_dir() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
        return Ok(mount("tmpfs", path, "tmpfs", flags, Some(COVER))?);
    }
    Ok(mount_bind("/dev/null", path)?)
}

/// The devices of `/dev` that a guest is to have.
struct Devices(Vec<(PathBuf, bool, OwnedFd)>);

impl Devices {
    fn take() -> io::Result<Devices> {
        let mut names: Vec<PathBuf> = DEVICES.iter().map(PathBuf::from).collect();
        for entry in fs::read_dir("/dev")?.flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| COMPUTING.iter().any(|start| name.starts_with(start))) {
                names.push(name.into());
            }
        }
        let take = |name: PathBuf| {
            let path = Path::new("/dev").join(name);
            let tree = clone_of(&path).ok()?;
            let is_directory = path.is_dir();
            Some((path, is_directory, tree))
        };
        Ok(Devices(names.into_iter().filter_map(take).collect()))
    }

    /// A `/dev` with these, terminals and shared memory of its own.
    fn place(&self) -> io::Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        mount("tmpfs", "/dev", "tmpfs", flags, Some(c"mode=0755,size=64k"))?;
        for (path, is_directory, tree) in &self.0 {
            if *is_directory {
                fs::create_dir(path)?
            } else {
                drop(fs::File::create(path)?)
            }
            put_tree(tree.as_fd(), path)?;
        }
        let links = [
            ("fd", "/proc/self/fd"),
            ("stdin", "fd/0"),
            ("stdout", "fd/1"),
            ("stderr", "fd/2"),
            ("ptmx", "pts/ptmx"),
        ];
        for (name, target) in links {
            symlink(target, Path::new("/dev").join(name))?;
        }
        let own = |name: &str, kind: &str, options: Option<&CStr>| {
            let path = Path::new("/dev").join(name);
            fs::create_dir(&path)?;
            mount(kind, &path, kind, flags, options)
                .or_else(|error| if error == rustix::io::Errno::NODEV { Ok(()) } else { Err(error) })
                .map_err(io::Error::from)
        };
        own("pts", "devpts", Some(c"newinstance,ptmxmode=0666,mode=0620"))?;
        own("shm", "tmpfs", Some(c"mode=1777"))?;
        own("mqueue", "mqueue", None)?;
        let opened = open("/dev", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        set_own_attributes(opened.as_fd(), libc::MOUNT_ATTR_RDONLY)
    }
}

impl Passage {
    /// The path by which the warden reaches what `path`, a path in the logs' directory, named before it was covered.
    pub(super) fn to(&self, path: &Path) -> PathBuf {
        let directory = PathBuf::from(format!("/proc/self/fd/{}", self.logs.as_raw_fd()));
        path.file_name().map_or_else(|| directory.clone(), |name| directory.join(name))
    }

    /// Shows a guest its scratch directory, which the warden reaches at `path`; its path for the guest.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn show(&self, path: &Path) -> io::Result<PathBuf> {
        put_tree(clone_of(path)?.as_fd(), &self.shown)?;
        Ok(self.shown.clone())
    }

    /// Shows it no more. Nobody of the guest is left.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn take_back(&self) -> io::Result<()> {
        Ok(unmount(&self.shown, UnmountFlags::DETACH)?)
    }
}

/// Sets attributes of a mount and of all below it.
fn set_attributes(directory: impl AsFd, path: &CStr, attributes: u64) -> io::Result<()> {
    mount_setattr(directory.as_fd(), path, AtFlags::EMPTY_PATH.bits() | AT_RECURSIVE, attributes)
}

/// Sets attributes of the mount that is open.
fn set_own_attributes(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    mount_setattr(mount, c"", AtFlags::EMPTY_PATH.bits(), attributes)
}

const AT_RECURSIVE: u32 = 0x8000;

fn mount_setattr(directory: BorrowedFd<'_>, path: &CStr, flags: u32, attributes: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path ends with a NUL, and the kernel reads as many bytes of the structure as it is told to.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
