//! What a warden and the viewer of its host say to each other, over a Unix socket among the logs.
//!
//! ```text
//! warden → viewer   u8 sets, u32 size, process descriptor    sets of mounts, and trees made of one, that it has of what came before
//! viewer → warden   u8 0, u32 0                    with one descriptor for the root's mount, and one for each writable tree
//!                or u8 1, u32 size, text           why there is no such file tree
//!                or u8 2, u32 0                    as 0, and with as many again, for another tree for guests that want the same
//!                or u8 3, u32 0                    what came before is right; with as many, if the warden has but one set
//! warden → viewer   u8                             the guest has ended
//! viewer → warden   u64                            changes that did not become the caller's
//! ```
//!
//! Numbers are little-endian. After an answer of 2 or 3 the warden may bring its next guest over the same socket, if that wants the same.
//! A set that came is a tree for one guest after the other, as long as none of them leaves anything in it.
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
/// Sets of mounts that a warden has at most: one for a tree, one for another if a guest leaves something in that.
const SETS_MAX: u8 = 2;
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
pub struct Visit {
    socket: UnixStream,
    /// What its warden has of what came for guests before.
    sets: u8,
}

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
        Ok(Visit { socket, sets: 0 })
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
        self.socket.set_read_timeout(Some(patience))?;
        let mut head = [0; 5];
        self.socket.read_exact(&mut head)?;
        let [sets, size @ ..] = head;
        self.sets = sets;
        let size = u32::from_le_bytes(size) as usize;
        if size > DESCRIPTOR_SIZE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; size];
        self.socket.read_exact(&mut bytes)?;
        self.socket.set_read_timeout(None)?;
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

    /// Gives the guest what came before, and once more the same if its warden has no other.
    ///
    /// # Errors
    /// The system's.
    pub fn grant_next(&self, directories: &[PathBuf]) -> io::Result<()> {
        let missing = if self.sets < SETS_MAX { directories } else { &[] };
        self.answer(GRANTED_BEFORE, missing.iter())
    }

    fn answer<'a>(&self, how: u8, directories: impl Iterator<Item = &'a PathBuf>) -> io::Result<()> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let trees = directories
            .map(|directory| Ok(open_tree(rustix::fs::CWD, directory, flags)?))
            .collect::<io::Result<Vec<OwnedFd>>>()?;
        let trees: Vec<BorrowedFd<'_>> = trees.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); ANCILLARY_SIZE];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !trees.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&trees)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let head = [how, 0, 0, 0, 0];
        sendmsg(&self.socket, &[IoSlice::new(&head)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Says why the guest gets no file tree.
    ///
    /// # Errors
    /// Nobody hears it.
    pub fn refuse(&mut self, reason: &str) -> io::Result<()> {
        let reason = &reason.as_bytes()[..reason.len().min(REASON_SIZE_MAX)];
        let size = u32::try_from(reason.len()).expect("a reason is short").to_le_bytes();
        self.socket.write_all(&[&[REFUSED], &size[..], reason].concat())
    }

    /// Waits for the end of the guest: whether somebody waits for what became of its changes.
    pub fn wait(&mut self) -> bool {
        self.socket.read_exact(&mut [0]).is_ok()
    }

    /// Says how many changes of the guest did not become the caller's.
    ///
    /// # Errors
    /// Nobody hears it.
    pub fn tell(&mut self, lost: u64) -> io::Result<()> {
        self.socket.write_all(&lost.to_le_bytes())
    }
}

/// The warden's end.
pub(super) struct Trees {
    socket: UnixStream,
}

/// What the viewer has given.
pub(super) struct Granted {
    /// Mounts of the root and of each tree that may be written; none where those that came before are right.
    pub(super) mounts: Vec<OwnedFd>,
    /// The same for another tree, if one may be made.
    pub(super) more: Vec<OwnedFd>,
}

impl Trees {
    /// Goes to the viewer at `socket`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn of(socket: &Path) -> io::Result<Trees> {
        Ok(Trees { socket: UnixStream::connect(socket)? })
    }

    /// Asks for the trees of a descriptor: if it is not the first, one that wants the same as the last. Of what came then there are
    /// so many `sets`.
    ///
    /// # Errors
    /// The viewer has gone.
    pub(super) fn ask(&mut self, sets: u8, descriptor: &[u8]) -> io::Result<()> {
        let size = u32::try_from(descriptor.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.socket.write_all(&[&[sets], &size.to_le_bytes()[..], descriptor].concat())
    }

    /// What the viewer answers.
    ///
    /// # Errors
    /// It does not know any more what came before; or it says no.
    pub(super) fn answer(&mut self) -> io::Result<Granted> {
        let mut head = [0; 5];
        let mut mounts = receive(&self.socket, &mut head)?;
        let more = match head[0] {
            GRANTED => Vec::new(),
            GRANTED_TWICE => mounts.split_off(mounts.len() / 2),
            GRANTED_BEFORE => std::mem::take(&mut mounts),
            _ => return Err(self.reason(head)),
        };
        Ok(Granted { mounts, more })
    }

    fn reason(&mut self, head: [u8; 5]) -> io::Error {
        let size = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut reason = vec![0; size.min(REASON_SIZE_MAX)];
        match self.socket.read_exact(&mut reason) {
            Ok(()) => io::Error::other(String::from_utf8_lossy(&reason).into_owned()),
            Err(error) => error,
        }
    }

    /// The guest has ended: does something, `meanwhile`, until its changes are the caller's, and gives how many did not become so.
    ///
    /// # Errors
    /// Nobody knows.
    pub(super) fn finish<T>(&mut self, meanwhile: impl FnOnce() -> T) -> (T, io::Result<u64>) {
        let told = self.socket.write_all(&[1]);
        let done = meanwhile();
        let mut lost = [0; 8];
        let read = told.and_then(|()| self.socket.read_exact(&mut lost));
        (done, read.map(|()| u64::from_le_bytes(lost)))
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
