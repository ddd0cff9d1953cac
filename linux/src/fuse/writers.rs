//! Who may still write a file of a mount, as the kernel knows it: fanotify tells when a file was closed that could be written, and
//! a lease for readers is given only while nobody else can write.
//!
//! Both need the rights of an administrator over the mount's file system. An event comes with a descriptor of the file, whose opening
//! is no message, and which is kept until all is done with the node. Descriptors are closed by one thread alone: that may write
//! pages, and so wait for operations.
//!
//! The kernel tells that a file is closed a moment before it counts a writer less.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amoeba_volume::{Closed, FileSystem, Node, Writers};
use nix::libc;
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};

/// How the kernel writes down a node of FUSE: two halves of its number, and its generation.
const HANDLE_KIND: i32 = 0x81;
const HANDLE_WORDS: usize = 3;
/// How long it is waited for more that is closed.
const GATHER_TIME: Duration = Duration::from_micros(200);

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    /// A bounded queue, which says when it was too short.
    group: Fanotify,
    directory: PathBuf,
    /// The number of the file system.
    device: (u32, u32),
    /// Files that are asked about: as many as have been closed and may still be written.
    held: Mutex<BTreeMap<Node, Held>>,
    /// Descriptors to close.
    finished: Mutex<Vec<Held>>,
    wake: OwnedFd,
    /// Whether what is finished will be closed without being told.
    looks: AtomicBool,
    ends: AtomicBool,
}

/// A descriptor of a file that is asked about.
#[derive(Debug)]
enum Held {
    Told(FanotifyEvent),
    Found(OwnedFd),
}

impl Held {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Held::Told(event) => event.fd(),
            Held::Found(descriptor) => Some(descriptor.as_fd()),
        }
    }
}

/// `struct file_handle`, with as many bytes as a node of FUSE has.
#[repr(C)]
struct RawHandle {
    size: u32,
    kind: i32,
    words: [u32; HANDLE_WORDS],
}

impl Watch {
    /// Watches the file system that is mounted at `directory`, which must answer already.
    ///
    /// # Errors
    /// This process may not, or this kernel cannot.
    pub(super) fn new(directory: &Path) -> io::Result<Watch> {
        let how = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        let files = EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC | EventFFlags::O_LARGEFILE;
        let group = Fanotify::init(how, files)?;
        let mark = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        let place = rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        group.mark(mark, MaskFlags::FAN_CLOSE_WRITE, rustix::fs::CWD, Some(directory))?;
        Ok(Watch {
            group,
            directory: directory.to_owned(),
            device: device(&place)?,
            held: Mutex::default(),
            finished: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            looks: AtomicBool::new(false),
            ends: AtomicBool::new(false),
        })
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Node, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finished(&self) -> MutexGuard<'_, Vec<Held>> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, node: Node, file: Held) {
        if let Some(before) = self.held().insert(node, file) {
            self.finished().push(before);
        }
    }

    /// Waits for something to look at, or for `timeout`.
    fn wait(&self, timeout: Option<Duration>) {
        let mut both = [PollFd::new(&self.group, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // Interrupted is looking once too often.
        let _ = poll(&mut both, timeout.as_ref());
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    fn close_finished(&self) {
        let finished = std::mem::take(&mut *self.finished());
        drop(finished);
    }

    /// Lets `files` look whenever there is something to look at, until [`end`](Watch::end).
    pub(super) fn run(&self, files: &dyn FileSystem) {
        while !self.ends.load(Ordering::Acquire) {
            self.looks.store(true, Ordering::SeqCst);
            let next = files.look_at_writers();
            self.looks.store(false, Ordering::SeqCst);
            self.close_finished();
            self.wait(next);
            self.close_finished();
            // Others close something too: one look for all of them.
            std::thread::sleep(GATHER_TIME);
        }
        let held = std::mem::take(&mut *self.held());
        drop(held);
        self.close_finished();
    }

    /// Ends [`run`](Watch::run).
    pub(super) fn end(&self) {
        self.ends.store(true, Ordering::Release);
        self.wake();
    }

    fn open(&self, node: Node) -> io::Result<OwnedFd> {
        let place = rustix::fs::open(
            &self.directory,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // Unmounted, or something else lies above it.
        if device(&place)? != self.device {
            return Err(io::ErrorKind::NotFound.into());
        }
        open_node(place.as_fd(), node)
    }
}

/// The number of the file system of an open file, which is not asked for it.
fn device(file: &OwnedFd) -> io::Result<(u32, u32)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(file, c"", flags, StatxFlags::empty())?;
    Ok((found.stx_dev_major, found.stx_dev_minor))
}

/// The node of an open file; no message.
fn node_of(file: BorrowedFd<'_>) -> Option<Node> {
    let mut handle = RawHandle { size: size_of::<[u32; HANDLE_WORDS]>() as u32, kind: 0, words: [0; _] };
    let mut mount = 0;
    // SAFETY: the handle has room for as many bytes as its first field says, and the kernel writes no more; the name is an
    // empty string with its NUL.
    let done = unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    (done == 0 && handle.kind == HANDLE_KIND).then(|| {
        let [high, low, _] = handle.words;
        Node(u64::from(high) << 32 | u64::from(low))
    })
}

/// Opens a node that the kernel knows, of generation 0, to read.
fn open_node(mount: BorrowedFd<'_>, node: Node) -> io::Result<OwnedFd> {
    let words = [(node.0 >> 32) as u32, node.0 as u32, 0];
    let mut handle = RawHandle { size: size_of::<[u32; HANDLE_WORDS]>() as u32, kind: HANDLE_KIND, words };
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: the handle has as many bytes as its first field says.
    let opened = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Whether somebody else can write an open file. While it is found out, for a microsecond, who wants to write waits.
fn is_written(file: BorrowedFd<'_>) -> bool {
    let ask = |command, argument: libc::c_int| {
        // SAFETY: these commands take a number, and touch no memory of ours.
        unsafe { libc::fcntl(file.as_raw_fd(), command, argument) == 0 }
    };
    // Who waits is announced by a signal, which must be one that a process ignores unless it wants it.
    let given = ask(F_SETSIG, libc::SIGURG) && ask(libc::F_SETLEASE, libc::F_RDLCK);
    if given {
        ask(libc::F_SETLEASE, libc::F_UNLCK);
    }
    !given
}

/// Linux's number, which the crate `libc` lacks.
const F_SETSIG: libc::c_int = 10;

impl Writers for Watch {
    fn closed(&self) -> Closed {
        let mut closed = Closed::default();
        loop {
            let events = match self.group.read_events() {
                Ok(events) => events,
                Err(nix::Error::EAGAIN) => return closed,
                Err(nix::Error::EINTR) => continue,
                // There was one, and no descriptor to tell it with.
                Err(_) => {
                    closed.any = true;
                    return closed;
                }
            };
            for event in events {
                match event.fd().map(node_of) {
                    Some(Some(node)) => {
                        self.hold(node, Held::Told(event));
                        closed.nodes.push(node);
                    }
                    Some(None) => self.finished().push(Held::Told(event)),
                    None => closed.any = true,
                }
            }
        }
    }

    fn is_written(&self, node: Node) -> Option<bool> {
        self.held().get(&node).and_then(Held::descriptor).map(is_written)
    }

    fn look_for(&self, node: Node) {
        // Where it is not found, it stays unknown.
        if let Ok(file) = self.open(node) {
            self.hold(node, Held::Found(file));
        }
    }

    fn done(&self, node: Node) {
        let held = self.held().remove(&node);
        if let Some(file) = held {
            self.finished().push(file);
            if !self.looks.load(Ordering::SeqCst) {
                self.wake();
            }
        }
    }

    fn wake(&self) {
        // It is full of wakes that nobody has seen yet.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// Whether all this works on this kernel, with a file of the mount that nobody else knows: `None` where it does not.
pub(super) fn prove(watch: Watch, file: &Path, node: Node, timeout: Duration) -> Option<Arc<Watch>> {
    let writer = File::options().write(true).open(file).ok()?;
    let reader = File::open(file).ok()?;
    let is_seen = is_written(reader.as_fd());
    drop(writer);
    let start = std::time::Instant::now();
    let mut told = false;
    while start.elapsed() < timeout {
        told |= watch.closed().nodes.contains(&node);
        if told && is_seen && watch.is_written(node) == Some(false) && open_node_is(&watch, node) {
            watch.done(node);
            watch.close_finished();
            return Some(Arc::new(watch));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

fn open_node_is(watch: &Watch, node: Node) -> bool {
    watch.open(node).is_ok_and(|file| node_of(file.as_fd()) == Some(node))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use amoeba_volume::MemoryFileSystem;
    use rustix::mm::{MapFlags, ProtFlags};

    use super::*;
    use crate::fuse::{Mount, MountOptions};

    const LONG: Duration = Duration::from_secs(30);

    /// A mount, what watches it, and where it is; `None`, said loudly, where this host has none.
    fn scene(name: &str) -> Option<(Mount, Watch, PathBuf)> {
        let directory = std::env::temp_dir().join(format!("amoeba-writers-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let files = Arc::new(MemoryFileSystem::new(crate::clock(), 1 << 20));
        let mount = Mount::new(files, &directory, &MountOptions::new("test"));
        let mount = mount.map_err(|error| println!("SKIPPED: nothing can be mounted: {error}")).ok()?;
        let watch = Watch::new(&directory).map_err(|error| println!("SKIPPED: not watched: {error}")).ok()?;
        Some((mount, watch, directory))
    }

    fn end((mount, watch, directory): (Mount, Watch, PathBuf)) {
        drop(watch);
        assert!(mount.unmount(LONG).unwrap());
        fs::remove_dir(directory).unwrap();
    }

    /// Waits until the kernel says that a node was closed, and counts its writers as `is_written`.
    #[track_caller]
    fn until(watch: &Watch, node: Node, is_written: bool) {
        let start = std::time::Instant::now();
        let mut told = false;
        while !told || watch.is_written(node) != Some(is_written) {
            told |= watch.closed().nodes.contains(&node);
            assert!(start.elapsed() < LONG, "waited in vain");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_kernel_says_who_has_closed_what_and_who_can_still_write() {
        let Some(scene) = scene("counts") else { return };
        let (_, watch, directory) = &scene;
        let path = directory.join("file");
        let mut one = File::create(&path).unwrap();
        let node = Node(one.metadata().unwrap().ino());
        one.write_all(b"bytes").unwrap();
        assert_eq!(watch.is_written(node), None);
        let two = File::options().append(true).open(&path).unwrap();
        let three = two.try_clone().unwrap();
        drop(one);
        until(watch, node, true);
        drop(two);
        assert_eq!(watch.is_written(node), Some(true), "a copy of the descriptor is open");
        drop(three);
        until(watch, node, false);
        // Who only reads is not counted, nor told of.
        let reader = File::open(&path).unwrap();
        assert_eq!(watch.is_written(node), Some(false));
        drop(reader);
        assert_eq!(watch.closed(), Closed::default());
        watch.done(node);
        watch.close_finished();
        assert_eq!(watch.is_written(node), None);
        end(scene);
    }

    #[test]
    fn a_mapping_is_a_writer() {
        let Some(scene) = scene("mapping") else { return };
        let (_, watch, directory) = &scene;
        let path = directory.join("file");
        fs::write(&path, [0; 4096]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let node = Node(file.metadata().unwrap().ino());
        until(watch, node, true);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, of a file that is as large.
        let page =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, protection, MapFlags::SHARED, &file, 0) };
        let page = page.unwrap();
        drop(file);
        assert_eq!(watch.closed(), Closed::default());
        assert_eq!(watch.is_written(node), Some(true));
        // SAFETY: the page is mapped to be written, and nobody else has it.
        unsafe { page.cast::<u8>().write(7) };
        // SAFETY: it is not used after this.
        unsafe { rustix::mm::munmap(page, 4096) }.unwrap();
        until(watch, node, false);
        assert_eq!(fs::read(&path).unwrap()[0], 7);
        watch.done(node);
        watch.close_finished();
        end(scene);
    }

    #[test]
    fn a_node_is_looked_for_by_its_number() {
        let Some(scene) = scene("number") else { return };
        let (_, watch, directory) = &scene;
        let file = File::create(directory.join("file")).unwrap();
        let node = Node(file.metadata().unwrap().ino());
        watch.look_for(node);
        assert_eq!(watch.is_written(node), Some(true));
        drop(file);
        until(watch, node, false);
        watch.done(node);
        watch.look_for(Node(12345));
        assert_eq!(watch.is_written(Node(12345)), None);
        watch.look_for(node);
        assert_eq!(watch.is_written(node), Some(false));
        watch.done(node);
        watch.close_finished();
        end(scene);
    }
}
