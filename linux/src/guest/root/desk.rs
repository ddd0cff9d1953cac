//! What a warden and the viewer of its host say to each other, over a Unix socket among the logs.
//!
//! ```text
//! warden → viewer   u32 size, process descriptor
//! viewer → warden   u8 0, u32 0                    with one descriptor for the root's mount, and one for each writable tree
//!                or u8 1, u32 size, text           why there is no such file tree
//! warden → viewer   u8                             the guest has ended
//! viewer → warden   u64                            changes that did not become the caller's
//! ```
//!
//! Numbers are little-endian. Whoever closes the socket ends the guest's part in the trees.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use amoeba_process::{DESCRIPTOR_SIZE_MAX, ProcessDescriptor, VIEW_TREES_MAX, View};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::apart;

/// The name of the socket in the logs' directory.
pub(super) const SOCKET: &str = "viewer";
/// Mounts of one guest: the root and every tree that may be written.
const MOUNTS_MAX: usize = VIEW_TREES_MAX + 1;
const ANCILLARY_SIZE: usize = rustix::cmsg_space!(ScmRights(MOUNTS_MAX));
/// The most bytes of a reason.
const REASON_SIZE_MAX: usize = 1024;
/// How long a warden may take to say what it wants.
const WANT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where wardens come for the file trees of their guests. Only the viewer of a host has one.
#[derive(Debug)]
pub struct Desk {
    listener: UnixListener,
    /// Where file systems can be mounted that only this process sees.
    place: PathBuf,
    has_privilege: bool,
}

/// One guest, while it has its file tree.
#[derive(Debug)]
pub struct Visit(UnixStream);

impl Desk {
    /// Opens the desk of the host whose logs are in `logs`. Call it while the process has one thread: from then on what it
    /// mounts is seen by nobody else.
    ///
    /// # Errors
    /// This user can mount nothing on this host, or the socket cannot be made.
    pub fn open(logs: &Path) -> io::Result<Desk> {
        let has_privilege = apart::part()?;
        let place = logs.join("views");
        fs::create_dir_all(&place)?;
        let socket = logs.join(SOCKET);
        let _ = fs::remove_file(&socket);
        Ok(Desk { listener: UnixListener::bind(&socket)?, place, has_privilege })
    }

    /// Whether what is mounted here has owners of the whole host, and may let other users in. Otherwise there is nobody but this
    /// process's user: files of others belong to no one.
    pub fn has_privilege(&self) -> bool {
        self.has_privilege
    }

    /// Waits for a guest.
    ///
    /// # Errors
    /// The system's.
    pub fn accept(&self) -> io::Result<Visit> {
        let (socket, _) = self.listener.accept()?;
        Ok(Visit(socket))
    }

    /// An empty directory to mount on, with this name.
    ///
    /// # Errors
    /// There is no room.
    pub fn place(&self, name: &str) -> io::Result<PathBuf> {
        let place = self.place.join(name);
        fs::create_dir_all(&place)?;
        Ok(place)
    }
}

impl Visit {
    /// What its guest is to see.
    ///
    /// # Errors
    /// Nobody says so in time.
    pub fn wanted(&mut self) -> io::Result<View> {
        self.0.set_read_timeout(Some(WANT_TIMEOUT))?;
        let mut size = [0; 4];
        self.0.read_exact(&mut size)?;
        let size = u32::from_le_bytes(size) as usize;
        if size > DESCRIPTOR_SIZE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; size];
        self.0.read_exact(&mut bytes)?;
        self.0.set_read_timeout(None)?;
        let descriptor = ProcessDescriptor::parse(&bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(descriptor.view)
    }

    /// Gives the guest what lies at these directories: the root, and each tree that may be written, in their order.
    ///
    /// # Errors
    /// The system's.
    pub fn grant(&self, directories: &[PathBuf]) -> io::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let trees = directories
            .iter()
            .map(|directory| Ok(open_tree(rustix::fs::CWD, directory, flags)?))
            .collect::<io::Result<Vec<OwnedFd>>>()?;
        let trees: Vec<BorrowedFd<'_>> = trees.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); ANCILLARY_SIZE];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&trees)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&self.0, &[IoSlice::new(&[0; 5])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Says why the guest gets no file tree.
    ///
    /// # Errors
    /// Nobody hears it.
    pub fn refuse(&mut self, reason: &str) -> io::Result<()> {
        let reason = &reason.as_bytes()[..reason.len().min(REASON_SIZE_MAX)];
        let size = u32::try_from(reason.len()).expect("a reason is short").to_le_bytes();
        self.0.write_all(&[&[1], &size[..], reason].concat())
    }

    /// Waits for the end of the guest: whether somebody waits for what became of its changes.
    pub fn wait(&mut self) -> bool {
        self.0.read_exact(&mut [0]).is_ok()
    }

    /// Says how many changes of the guest did not become the caller's.
    ///
    /// # Errors
    /// Nobody hears it.
    pub fn tell(&mut self, lost: u64) -> io::Result<()> {
        self.0.write_all(&lost.to_le_bytes())
    }
}

/// The warden's end.
pub(super) struct Trees {
    socket: UnixStream,
}

impl Trees {
    /// Asks the viewer at `socket` for the trees of a descriptor: mounts of the root and of each tree that may be written.
    ///
    /// # Errors
    /// There is no viewer, or it says no.
    pub(super) fn ask(socket: &Path, descriptor: &[u8]) -> io::Result<(Trees, Vec<OwnedFd>)> {
        let mut socket = UnixStream::connect(socket)?;
        let size = u32::try_from(descriptor.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        socket.write_all(&size.to_le_bytes())?;
        socket.write_all(descriptor)?;
        let mut head = [0; 5];
        let mounts = receive(&socket, &mut head)?;
        if head[0] == 0 {
            return Ok((Trees { socket }, mounts));
        }
        let size = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut reason = vec![0; size.min(REASON_SIZE_MAX)];
        socket.read_exact(&mut reason)?;
        Err(io::Error::other(String::from_utf8_lossy(&reason).into_owned()))
    }

    /// The guest has ended: waits until its changes are the caller's, and says how many did not become so.
    ///
    /// # Errors
    /// Nobody knows.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.socket.write_all(&[1])?;
        let mut lost = [0; 8];
        self.socket.read_exact(&mut lost)?;
        Ok(u64::from_le_bytes(lost))
    }
}

/// Receives the head of an answer, and the descriptors that come with it.
fn receive(socket: &UnixStream, head: &mut [u8; 5]) -> io::Result<Vec<OwnedFd>> {
    let (mut got, mut descriptors) = (0, Vec::new());
    while got < head.len() {
        let mut space = [MaybeUninit::uninit(); ANCILLARY_SIZE];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let part = &mut [IoSliceMut::new(&mut head[got..])];
        let received = recvmsg(socket, part, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        got += received.bytes;
    }
    Ok(descriptors)
}
