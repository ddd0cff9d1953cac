//! What a warden and the viewer of its host say to each other, over a Unix socket among the logs.
//!
//! ```text
//! warden → viewer   u32 size, process descriptor
//! viewer → warden   u8 0, u32 0                    with one descriptor for the root's mount, and one for each writable tree
//!                or u8 1, u32 size, text           why there is no such file tree
//!                or u8 2, u32 0                    as 0, and with as many again, for the next guest that wants the same
//!                or u8 3, u32 0                    what came for this guest is right for it; with as many for the next
//! warden → viewer   u8                             the guest has ended
//! viewer → warden   u64                            changes that did not become the caller's
//! ```
//!
//! Numbers are little-endian. After an answer of 2 or 3 the warden may bring its next guest over the same socket, if that wants the same.
//! Whoever closes the socket ends the guest's part in the trees.

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
/// Mounts of two guests: the root and every tree that may be written.
const MOUNTS_MAX: usize = 2 * (VIEW_TREES_MAX + 1);
const ANCILLARY_SIZE: usize = rustix::cmsg_space!(ScmRights(MOUNTS_MAX));
/// First bytes of answers.
const GRANTED: u8 = 0;
const REFUSED: u8 = 1;
const GRANTED_TWICE: u8 = 2;
const GRANTED_BEFORE: u8 = 3;
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
        self.next_wanted(WANT_TIMEOUT)
    }

    /// What the next guest is to see, for whom something was granted ahead: whoever says it wants the same.
    ///
    /// # Errors
    /// Nobody has come within `patience`, or will.
    pub fn next_wanted(&mut self, patience: Duration) -> io::Result<View> {
        self.0.set_read_timeout(Some(patience))?;
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
        self.answer(GRANTED, directories.iter())
    }

    /// The same, and the same again for the next guest.
    ///
    /// # Errors
    /// The system's.
    pub fn grant_twice(&self, directories: &[PathBuf]) -> io::Result<()> {
        self.answer(GRANTED_TWICE, directories.iter().chain(directories))
    }

    /// Gives the guest what was granted ahead for it, and the same to the next.
    ///
    /// # Errors
    /// The system's.
    pub fn grant_next(&self, directories: &[PathBuf]) -> io::Result<()> {
        self.answer(GRANTED_BEFORE, directories.iter())
    }

    fn answer<'a>(&self, how: u8, directories: impl Iterator<Item = &'a PathBuf>) -> io::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let trees = directories
            .map(|directory| Ok(open_tree(rustix::fs::CWD, directory, flags)?))
            .collect::<io::Result<Vec<OwnedFd>>>()?;
        let trees: Vec<BorrowedFd<'_>> = trees.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); ANCILLARY_SIZE];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&trees)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let head = [how, 0, 0, 0, 0];
        sendmsg(&self.0, &[IoSlice::new(&head)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Says why the guest gets no file tree.
    ///
    /// # Errors
    /// Nobody hears it.
    pub fn refuse(&mut self, reason: &str) -> io::Result<()> {
        let reason = &reason.as_bytes()[..reason.len().min(REASON_SIZE_MAX)];
        let size = u32::try_from(reason.len()).expect("a reason is short").to_le_bytes();
        self.0.write_all(&[&[REFUSED], &size[..], reason].concat())
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

/// What the viewer has given.
pub(super) struct Granted {
    pub(super) trees: Trees,
    /// Mounts of the root and of each tree that may be written; none where those that were granted ahead are right.
    pub(super) mounts: Vec<OwnedFd>,
    /// The same for the next guest that wants the same, if it may come.
    pub(super) ahead: Vec<OwnedFd>,
}

impl Trees {
    /// Asks the viewer at `socket` for the trees of a descriptor.
    ///
    /// # Errors
    /// There is no viewer, or it says no.
    pub(super) fn ask(socket: &Path, descriptor: &[u8]) -> io::Result<Granted> {
        Trees { socket: UnixStream::connect(socket)? }.ask_again(descriptor)
    }

    /// Asks for those of one more descriptor, which wants the same as the last.
    ///
    /// # Errors
    /// The viewer does not know any more what that was; or it says no.
    pub(super) fn ask_again(mut self, descriptor: &[u8]) -> io::Result<Granted> {
        let size = u32::try_from(descriptor.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.socket.write_all(&[&size.to_le_bytes(), descriptor].concat())?;
        let mut head = [0; 5];
        let mut mounts = receive(&self.socket, &mut head)?;
        let ahead = match head[0] {
            GRANTED => Vec::new(),
            GRANTED_TWICE => mounts.split_off(mounts.len() / 2),
            GRANTED_BEFORE => std::mem::take(&mut mounts),
            _ => return Err(self.reason(head)),
        };
        Ok(Granted { trees: self, mounts, ahead })
    }

    fn reason(&mut self, head: [u8; 5]) -> io::Error {
        let size = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut reason = vec![0; size.min(REASON_SIZE_MAX)];
        match self.socket.read_exact(&mut reason) {
            Ok(()) => io::Error::other(String::from_utf8_lossy(&reason).into_owned()),
            Err(error) => error,
        }
    }

    /// The guest has ended: waits until its changes are the caller's, and says how many did not become so.
    ///
    /// # Errors
    /// Nobody knows.
    pub(super) fn finish(&mut self) -> io::Result<u64> {
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
