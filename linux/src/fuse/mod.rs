//! File systems of ours in the tree of files of this host, by FUSE.
//!
//! [`Mount::new`] serves any [`FileSystem`] at a directory: as root by mount(2), as anybody else by the program
//! `fusermount3`, which Linux distributions install set-user-id, and in a user namespace of one's own as root again.
//!
//! - [`place`]: mount and unmount, and what lies at a path.
//! - `serve`: the requests of the kernel as operations of a file system; `convert`: their values; `crew`: which threads do them.
//! - `writers`: who has files open, where opens are no messages; `probe`: whether they need be.
//! - [`connection`]: the end of a mount whose process was killed, and does not get away from it by itself.
//!
//! What each feature costs and gains is measured in `docs/mount.md`.

pub mod connection;
mod convert;
mod crew;
pub mod place;
mod probe;
mod serve;
mod writers;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::Duration;

use amoeba_volume::FileSystem;
use thiserror::Error;

use place::Place;
use probe::Probe;

/// How a file system is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// What `mount` shows as its source.
    pub name: String,
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Whether other users than the one who mounts may look in; then without root `/etc/fuse.conf` must say `user_allow_other`.
    pub others: bool,
    /// Operations that can be under way at once.
    pub threads: usize,
    /// Whether backing files are handed to the kernel: root only, else they are read through the file system.
    pub backing: bool,
    /// Whether the kernel gathers writes in its pages, and owns size and times of files meanwhile.
    pub write_back: bool,
    /// Whether opens and closes are no messages, where the file system can do without them ([`FileSystem::without_opens`]) and the
    /// host can tell who writes: as root, or where nothing can be written.
    pub without_opens: bool,
}

impl MountOptions {
    /// A writable mount for this user.
    pub fn new(name: &str) -> MountOptions {
        let (read_only, others, backing, write_back) = (false, false, true, false);
        let (threads, without_opens) = (4, false);
        MountOptions { name: name.to_owned(), read_only, others, threads, backing, write_back, without_opens }
    }
}

/// Why there is no mount.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountError {
    /// The place cannot be mounted on.
    #[error("cannot mount on {}", place.display())]
    Place {
        /// Where.
        place: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Who is not root needs the program `fusermount3`.
    #[error("fusermount3: {said}")]
    Helper {
        /// What it said, or why it did not start.
        said: String,
    },
    /// The kernel and we do not understand each other.
    #[error("FUSE session")]
    Session(#[source] io::Error),
}

/// A file system at its place. Unmounted when dropped; when this process is killed, its users get `ENOTCONN` until somebody
/// unmounts it (see [`place::clear_dead`]).
#[derive(Debug)]
pub struct Mount {
    place: Place,
    ended: Receiver<io::Result<()>>,
    /// Whether this process has descriptors of files of the mount now and then.
    is_watched: bool,
}

/// Everything the session's thread does but tell how it ended.
type Session = fuser::BackgroundSession;

impl Mount {
    /// Mounts `files` at `directory`. A dead mount of ours that lies there is cleared away first.
    ///
    /// # Errors
    /// The place is no directory or not this user's; there is no `/dev/fuse` or no `fusermount3`.
    pub fn new(
        files: Arc<dyn FileSystem>,
        directory: &Path,
        options: &MountOptions,
    ) -> Result<Mount, MountError> {
        let at = |source| MountError::Place { place: directory.to_owned(), source };
        place::clear_dead(directory).map_err(at)?;
        let (place, device) = place::mount(directory, options)?;
        let probe = Arc::new(if options.without_opens { Probe::default() } else { Probe::over() });
        let session = serve::session(device, Arc::clone(&files), options, Arc::clone(&probe));
        let session: Session = session.map_err(MountError::Session).inspect_err(|_| drop(place.detach()))?;
        let watch = probe.decide(&*files, place.directory(), options);
        let watching = watch.clone();
        let is_watched = watch.is_some();
        let (tell, ended) = sync_channel(1);
        let wait = move || {
            let how = session.join();
            watching.inspect(|watch| watch.end());
            // Nobody may be left to hear it.
            drop(tell.send(how));
        };
        let waiting = thread("mount", wait);
        let looking = watch.map_or(Ok(()), |watch| thread("writers", move || watch.run(&*files)));
        waiting.and(looking).map_err(MountError::Session).inspect_err(|_| drop(place.detach()))?;
        place.read_ahead(serve::REQUEST_SIZE_MAX);
        Ok(Mount { place, ended, is_watched })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        self.place.directory()
    }

    /// The number of its file system, as `major:minor`.
    pub fn device(&self) -> &str {
        self.place.device()
    }

    /// Has a process started, which must call [`connection::stand_guard`], that ends the connection when this one is killed; where
    /// it cannot end it by itself, as it may be unable to when opens are no messages. Once for a mount.
    ///
    /// # Errors
    /// It cannot be started; this process has not the rights to end connections.
    pub fn guard(&self, guard: Command) -> io::Result<()> {
        if self.is_watched { connection::guard(self.place.device(), guard) } else { Ok(()) }
    }

    /// Takes it out of the tree at once, also for those who are still at it, whom it goes on serving; who holds this waits
    /// for them until `wait` is over. Whether all were gone by then.
    ///
    /// # Errors
    /// It could not be taken out.
    pub fn unmount(self, wait: Duration) -> io::Result<bool> {
        self.place.detach()?;
        match self.ended.recv_timeout(wait) {
            Ok(how) => how.map(|()| true),
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("a thread of the mount has panicked"))
            }
        }
    }

    /// Whether nobody uses it any more, nor can.
    pub fn is_gone(&self) -> bool {
        !matches!(self.ended.try_recv(), Err(TryRecvError::Empty))
    }

    /// Waits up to `wait` for somebody else to unmount it; whether that happened. It may be used still, by who had a file open,
    /// and by processes in mount namespaces of their own, which have copies of every mount.
    ///
    /// # Errors
    /// The session broke.
    pub fn ended(&self, wait: Duration) -> io::Result<bool> {
        match self.ended.recv_timeout(wait) {
            Ok(how) => how.map(|()| true),
            Err(RecvTimeoutError::Timeout) => Ok(!self.place.is_mounted()?),
            Err(RecvTimeoutError::Disconnected) => Ok(true),
        }
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(body).map(drop)
}

impl Drop for Mount {
    fn drop(&mut self) {
        // It may be unmounted already; if it cannot be, its users see ENOTCONN when this process ends.
        drop(self.place.detach());
    }
}
