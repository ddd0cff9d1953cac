//! Updates that wait until they are at the servers, in the order in which they were made.

use std::sync::Arc;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_name::{Attributes, Content, Masks};
use amoeba_stubs::bullet_stream::PIECE_SIZE;
use amoeba_stubs::{Client, bullet, standard};
use amoeba_threads::{Mutex, Threads};
use amoeba_volume::Node;
use amoeba_world::Error as Refusal;

use crate::scratch::Scratch;

/// Changes of rows that belong together.
pub(crate) struct Update {
    /// Each has a larger one than the one before.
    pub(crate) number: u64,
    pub(crate) changes: Vec<Change>,
    /// Directories that have lost their name here, and are to be deleted if nobody has put anything into them.
    pub(crate) removed: Vec<Capability>,
    /// Bytes that must be sent for it.
    pub(crate) bytes: u64,
}

/// What is to become of a row.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) directory: Node,
    pub(crate) name: Vec<u8>,
    /// `None`: it is to go.
    pub(crate) to: Option<Target>,
}

/// What a row is to say.
#[derive(Clone)]
pub(crate) struct Target {
    /// Of which node.
    pub(crate) node: Node,
    pub(crate) object: Object,
    pub(crate) attributes: Attributes,
    pub(crate) masks: Masks,
    pub(crate) kind: Capability,
    /// It may replace nothing that another has made.
    pub(crate) exclusive: bool,
}

/// What a row is to stand for.
#[derive(Clone)]
pub(crate) enum Object {
    /// This.
    Set(CapabilitySet),
    /// A file that must be made first.
    Version(Arc<Version>),
}

impl Change {
    /// Bytes that must be sent before it can be made.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match &self.to.as_ref()?.object {
            Object::Version(version) if !version.is_made() => Some(version.scratch.size()),
            _ => None,
        }
    }
}

/// Contents as they were at one moment: the scratch is not written again before they are a file.
pub(crate) struct Version {
    pub(crate) scratch: Arc<Scratch>,
    made: Mutex<Option<Made>>,
}

/// A file that was made of a version, in its server's memory at least.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) file: Capability,
    pub(crate) content: Content,
    /// It is known to be on its server's disk.
    pub(crate) is_safe: bool,
}

impl Version {
    pub(crate) fn new(threads: &Threads, scratch: Arc<Scratch>) -> Arc<Version> {
        Arc::new(Version { scratch, made: Mutex::new(threads, None) })
    }

    /// Whether the scratch may be written.
    pub(crate) fn is_made(&self) -> bool {
        self.made.try_lock().is_some_and(|made| made.is_some())
    }

    /// The file, if it was made.
    pub(crate) fn made(&self) -> Option<Made> {
        self.made.lock().clone()
    }

    /// The file, unless it is not made yet or is being made.
    pub(crate) fn made_by_now(&self) -> Option<Made> {
        self.made.try_lock().and_then(|made| made.clone())
    }

    /// The file; makes it if nobody has. It is committed, and may not be on its server's disk yet.
    pub(crate) fn make(&self, client: Client<'_>, server: &Capability) -> Result<Made, Refusal> {
        let mut made = self.made.lock();
        if let Some(made) = &*made {
            return Ok(made.clone());
        }
        let new = send(client, server, &self.scratch)?;
        *made = Some(new.clone());
        Ok(new)
    }

    /// Whether the file was made and is on its server's disk.
    pub(crate) fn is_safe(&self) -> bool {
        self.made.lock().as_ref().is_some_and(|made| made.is_safe)
    }

    /// This is the file: it was made together with others. What somebody else has made meanwhile stays.
    pub(crate) fn was_made(&self, file: Made) {
        self.made.lock().get_or_insert(file);
    }

    /// Its server has lost the file before it was on the disk, and the scratch was not written since.
    pub(crate) fn unmake(&self, lost: &Capability) {
        let mut made = self.made.lock();
        if made.as_ref().is_some_and(|made| made.file == *lost) {
            *made = None;
        }
    }
}

/// Makes a committed file of a scratch, in pieces.
pub(crate) fn send(client: Client<'_>, server: &Capability, scratch: &Scratch) -> Result<Made, Refusal> {
    let mut hasher = blake3::Hasher::new();
    let size = scratch.size();
    let mut file: Option<Capability> = None;
    let mut offset = 0;
    loop {
        let count = (size - offset).min(PIECE_SIZE as u64) as usize;
        let mut piece = vec![0; count];
        match scratch.read(offset, &mut piece) {
            Ok(read) if read == count => {}
            // The host has lost what it was given.
            _ => {
                forget(client, file.as_ref());
                return Err(Refusal::BadReply);
            }
        }
        hasher.update(&piece);
        let flags = if offset + count as u64 == size { bullet::COMMIT } else { 0 };
        let sent = match &file {
            None => bullet::create(client, server, flags, piece),
            Some(file) => bullet::modify(client, file, flags, offset, piece),
        };
        let made = sent.inspect_err(|_| {
            forget(client, file.as_ref());
        })?;
        offset += count as u64;
        if offset == size {
            let content =
                Content { port: made.port, object: made.object(), size, hash: *hasher.finalize().as_bytes() };
            return Ok(Made { file: made, content, is_safe: false });
        }
        file = Some(made);
    }
}

/// Nothing came of a file that was begun.
fn forget(client: Client<'_>, file: Option<&Capability>) {
    if let Some(file) = file {
        // Where this fails too, the server forgets the uncommitted file by itself.
        let _ = standard::destroy(client, file);
    }
}
