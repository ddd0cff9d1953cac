//! Committed files to read from: what is small comes with one reply; what is large is, on the server's own host, the
//! memory in which the server has it, and elsewhere is read in pieces.
//!
//! A [`Held`] keeps large files for the next time. Whoever opens one again asks the server all the same, with the
//! cheapest request there is, so that rights, STD_DESTROY and STD_RESTRICT mean what they mean without it; that the
//! bytes are still the right ones need not be asked, since a capability names the same bytes for good.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use amoeba_cap::Capability;
use amoeba_wire::Status;
use amoeba_world::{Error, Memory};

use crate::bullet_stream::{PIECE_SIZE, StreamError};
use crate::{Client, bullet};

/// Files that a [`Held`] keeps at most; past it the one that was unused for longest goes.
pub const HELD_FILES_MAX: usize = 16;
/// Bytes that a [`Held`] keeps at most: they are memory of the files' servers.
pub const HELD_SIZE_MAX: u64 = 32 << 20;

/// A committed file, open to read. It keeps what it has, whatever becomes of the file meanwhile.
#[derive(Clone)]
pub struct OpenFile {
    file: Capability,
    contents: Contents,
}

#[derive(Clone)]
enum Contents {
    Own(std::sync::Arc<Vec<u8>>),
    Borrowed(Memory),
    /// To be read in pieces.
    Elsewhere {
        size: u64,
    },
}

/// Opens a committed file.
///
/// # Rights
/// READ on `file`.
///
/// # Errors
/// Those of [`bullet::read`].
pub fn open<'t>(t: impl Into<Client<'t>>, file: &Capability) -> Result<OpenFile, Error> {
    let client = t.into();
    Ok(OpenFile { file: *file, contents: fetch(client, file)? })
}

/// Whether the file's server is known to be on another host: then there is no use in asking for its memory.
fn is_elsewhere(client: Client<'_>, file: &Capability) -> bool {
    client.transactions().passage(file.port) == Some("flow")
}

fn fetch(client: Client<'_>, file: &Capability) -> Result<Contents, Error> {
    let whole = match bullet::read_whole(client, file, !is_elsewhere(client, file)) {
        Err(Error::Refused(Status::STD_COMBAD)) => {
            // A server that does not know this request is asked as the original's is.
            return Ok(Contents::Elsewhere { size: bullet::size(client, file)? });
        }
        result => result?,
    };
    if whole.ticket != 0
        && let Ok(memory) = client.transactions().borrow_memory(whole.ticket)
    {
        let fits = memory.bytes().len() as u64 == whole.size;
        return if fits { Ok(Contents::Borrowed(memory)) } else { Err(Error::BadReply) };
    }
    match whole.data.len() as u64 {
        size if size == whole.size => Ok(Contents::Own(std::sync::Arc::new(whole.data))),
        0 => Ok(Contents::Elsewhere { size: whole.size }),
        _ => Err(Error::BadReply),
    }
}

impl OpenFile {
    /// The file's capability.
    pub fn capability(&self) -> &Capability {
        &self.file
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        match &self.contents {
            Contents::Elsewhere { size } => *size,
            _ => self.bytes().map_or(0, |bytes| bytes.len() as u64),
        }
    }

    /// The whole file, if it is in memory of this host; to be read where it lies.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.contents {
            Contents::Own(bytes) => Some(bytes),
            Contents::Borrowed(memory) => Some(memory.bytes()),
            Contents::Elsewhere { .. } => None,
        }
    }

    /// Fills `buffer` from `offset` on; how many bytes there were: fewer than wanted only at the end of the file.
    ///
    /// # Errors
    /// STD_ARGBAD for an offset behind the end; of a file that is not in memory here, those of [`bullet::read`].
    pub fn read_at<'t>(
        &self,
        t: impl Into<Client<'t>>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        let left = self.size().checked_sub(offset).ok_or(Error::NotSent(Status::STD_ARGBAD))?;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..wanted];
        match self.bytes() {
            Some(bytes) => {
                let start = offset as usize; // at most the size of something in memory
                buffer.copy_from_slice(&bytes[start..start + wanted]);
            }
            None => self.read_pieces(t.into(), offset, buffer)?,
        }
        Ok(wanted)
    }

    fn read_pieces(&self, client: Client<'_>, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        for (index, part) in buffer.chunks_mut(PIECE_SIZE).enumerate() {
            let at = offset + (index * PIECE_SIZE) as u64;
            let piece = bullet::read(client, &self.file, at, part.len() as u32)?;
            if piece.len() != part.len() {
                return Err(Error::BadReply);
            }
            part.copy_from_slice(&piece);
        }
        Ok(())
    }

    /// Writes everything from `offset` on to `to`.
    ///
    /// # Errors
    /// [`StreamError::Local`]: writing. [`StreamError::Server`]: as [`OpenFile::read_at`]. Then `to` has the beginning.
    pub fn write_to<'t>(
        &self,
        t: impl Into<Client<'t>>,
        offset: u64,
        to: &mut dyn Write,
    ) -> Result<(), StreamError> {
        let left = self.size().checked_sub(offset).ok_or(Error::NotSent(Status::STD_ARGBAD))?;
        if let Some(bytes) = self.bytes() {
            to.write_all(&bytes[offset as usize..])?;
            return Ok(());
        }
        let client = t.into();
        let mut piece = vec![0; left.min(PIECE_SIZE as u64) as usize];
        let mut at = offset;
        while at < self.size() {
            let read = self.read_at(client, at, &mut piece)?;
            to.write_all(&piece[..read])?;
            at += read as u64;
        }
        Ok(())
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.contents {
            Contents::Own(_) => "own",
            Contents::Borrowed(_) => "borrowed",
            Contents::Elsewhere { .. } => "elsewhere",
        };
        write!(f, "OpenFile({:?}, {} bytes, {how})", self.file, self.size())
    }
}

/// Large files of servers of this host that are kept for the next time they are opened: at most [`HELD_FILES_MAX`] of at most
/// [`HELD_SIZE_MAX`] bytes together.
#[derive(Default)]
pub struct Held {
    /// The least recently used first.
    files: Mutex<VecDeque<OpenFile>>,
}

impl Held {
    /// Opens a committed file, as it is held or anew.
    ///
    /// # Rights
    /// READ on `file`, each time.
    ///
    /// # Errors
    /// Those of [`bullet::read`].
    pub fn open<'t>(&self, t: impl Into<Client<'t>>, file: &Capability) -> Result<OpenFile, Error> {
        let client = t.into();
        let Some(held) = self.take(file) else {
            let opened = open(client, file)?;
            self.keep(&opened);
            return Ok(opened);
        };
        match bullet::size(client, file) {
            Ok(size) if size == held.size() => {
                self.keep(&held);
                Ok(held)
            }
            Ok(_) => Err(Error::BadReply),
            Err(error) => Err(error),
        }
    }

    /// Gives everything back to its servers.
    pub fn clear(&self) {
        self.files().clear();
    }

    fn files(&self) -> std::sync::MutexGuard<'_, VecDeque<OpenFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, file: &Capability) -> Option<OpenFile> {
        let mut files = self.files();
        let index = files.iter().rposition(|held| held.file == *file)?;
        files.remove(index)
    }

    fn keep(&self, file: &OpenFile) {
        if !matches!(file.contents, Contents::Borrowed(_)) || file.size() > HELD_SIZE_MAX {
            return;
        }
        let mut files = self.files();
        files.retain(|held| held.file != file.file); // another thread may have opened it too
        let mut size: u64 = files.iter().map(OpenFile::size).sum();
        let mut gone = Vec::new();
        while size + file.size() > HELD_SIZE_MAX || files.len() >= HELD_FILES_MAX {
            let oldest =
                files.pop_front().expect("one that fits alone makes room at the latest as the only one");
            size -= oldest.size();
            gone.push(oldest);
        }
        files.push_back(file.clone());
        drop(files);
        drop(gone); // to unmap megabytes takes time
    }
}
