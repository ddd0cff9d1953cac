//! Committed files to read from: what is small comes with one reply; what is large is, on the server's own host, the
//! memory in which the server has it, and elsewhere is read in pieces.
//!
//! A process keeps such memory for some seconds ([`amoeba_world::Kept`]). Whoever opens a file again asks the server all the same,
//! with the cheapest request there is, so that rights, STD_DESTROY and STD_RESTRICT mean what they mean without it; that the
//! bytes are still the right ones need not be asked, since a capability names the same bytes for good.

use std::io::Write;

use amoeba_cap::Capability;
use amoeba_wire::{Header, Status, Writer};
use amoeba_world::{Error, Memory, Message, Posted};

use crate::bullet_stream::{PIECE_SIZE, StreamError};
use crate::rt::header_size;
use crate::{Client, bullet};

/// Pieces of one call of [`OpenFile::read_at`] that are posted at once.
const PIECES_POSTED_MAX: usize = 64;
/// Pieces that are read before any of them is written to where a file goes: more than are under way at once, so that the way is
/// seldom empty.
const PIECES_AHEAD: usize = 8;

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
    if let Some(memory) = client.transactions().kept_memory(file) {
        return again(client, file, memory).inspect_err(|_| client.transactions().forget_memory(file));
    }
    let contents = fetch(client, file)?;
    if let Contents::Borrowed(memory) = &contents {
        client.transactions().keep_memory(file, memory);
    }
    Ok(OpenFile { file: *file, contents })
}

/// Opens a file whose memory is here.
fn again(client: Client<'_>, file: &Capability, memory: Memory) -> Result<OpenFile, Error> {
    match bullet::size(client, file)? == memory.bytes().len() as u64 {
        true => Ok(OpenFile { file: *file, contents: Contents::Borrowed(memory) }),
        false => Err(Error::BadReply),
    }
}

/// Whether the file's server is known to be on another host: then there is no use in asking for its memory.
fn is_elsewhere(client: Client<'_>, file: &Capability) -> bool {
    client.transactions().passage(file.port) == Some("flow")
}

fn fetch(client: Client<'_>, file: &Capability) -> Result<Contents, Error> {
    if is_elsewhere(client, file)
        && let Some(contents) = fetch_elsewhere(client, file)?
    {
        return Ok(contents);
    }
    fetch_here(client, file)
}

/// From another host, where nothing can be lent: a file of at most a piece comes with one transaction. `None`: the server does
/// not know the request.
fn fetch_elsewhere(client: Client<'_>, file: &Capability) -> Result<Option<Contents>, Error> {
    match bullet::read_small(client, file, PIECE_SIZE as u32) {
        Ok(data) if data.len() <= PIECE_SIZE => Ok(Some(Contents::Own(std::sync::Arc::new(data)))),
        Ok(_) => Err(Error::BadReply),
        Err(Error::Refused(Status::STD_OVERFLOW)) => {
            Ok(Some(Contents::Elsewhere { size: bullet::size(client, file)? }))
        }
        Err(Error::Refused(Status::STD_COMBAD)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn fetch_here(client: Client<'_>, file: &Capability) -> Result<Contents, Error> {
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

    /// Gives `give` up to `size` bytes from `offset` on where they are: in memory, or in the reply that brought them. Fewer only at
    /// the end of the file; of a file that is not in memory here at most [`PIECE_SIZE`].
    ///
    /// # Errors
    /// As [`OpenFile::read_at`].
    pub fn read_where_it_is<'t>(
        &self,
        t: impl Into<Client<'t>>,
        offset: u64,
        size: usize,
        give: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        let left = self.size().checked_sub(offset).ok_or(Error::NotSent(Status::STD_ARGBAD))?;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(size);
        if let Some(bytes) = self.bytes() {
            let start = offset as usize; // at most the size of something in memory
            give(&bytes[start..start + wanted]);
            return Ok(());
        }
        let wanted = wanted.min(PIECE_SIZE);
        let piece = bullet::read(t, &self.file, offset, wanted as u32)?;
        if piece.len() != wanted {
            return Err(Error::BadReply);
        }
        give(&piece);
        Ok(())
    }

    /// Fills `buffer`, which does not go past the end, with transactions of a piece each, several under way at a time.
    fn read_pieces(&self, client: Client<'_>, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let mut at = offset;
        for batch in buffer.chunks_mut(PIECES_POSTED_MAX * PIECE_SIZE) {
            self.read_posted(client, at, batch).1?;
            at += batch.len() as u64;
        }
        Ok(())
    }

    /// As [`OpenFile::read_pieces`], all at once; also how many bytes are right from the beginning on, whatever went wrong then.
    fn read_posted(&self, client: Client<'_>, offset: u64, buffer: &mut [u8]) -> (usize, Result<(), Error>) {
        let mut posts = Vec::with_capacity(buffer.len().div_ceil(PIECE_SIZE));
        let mut at = offset;
        for part in buffer.chunks_mut(PIECE_SIZE) {
            let size = part.len();
            posts.push(Posted::new(read_request(&self.file, at, size as u32), part));
            at += size as u64;
        }
        client.trans_posted(&mut posts);
        let mut read = 0;
        for post in &mut posts {
            match client.posted_result(post) {
                Ok(size) if size == post.buffer.len() => read += size,
                Ok(_) => return (read, Err(Error::BadReply)),
                Err(error) => return (read, Err(error)),
            }
        }
        (read, Ok(()))
    }

    /// Writes what follows `at` to `to` and moves `at` behind all that was written, also after an error.
    pub(crate) fn write_on(
        &self,
        client: Client<'_>,
        at: &mut u64,
        to: &mut dyn Write,
    ) -> Result<(), StreamError> {
        if let Some(bytes) = self.bytes() {
            to.write_all(&bytes[*at as usize..])?;
            *at = self.size();
            return Ok(());
        }
        let left = (self.size() - *at).min((PIECES_AHEAD * PIECE_SIZE) as u64);
        let mut buffer = vec![0; left as usize];
        while *at < self.size() {
            let size = (self.size() - *at).min(buffer.len() as u64) as usize;
            let (read, result) = self.read_posted(client, *at, &mut buffer[..size]);
            to.write_all(&buffer[..read])?;
            *at += read as u64;
            result?;
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
        if offset > self.size() {
            return Err(Error::NotSent(Status::STD_ARGBAD).into());
        }
        let mut at = offset;
        self.write_on(t.into(), &mut at, to)
    }
}

/// The request that [`bullet::read`] sends.
fn read_request(file: &Capability, offset: u64, size: u32) -> Message {
    let mut data = Writer::new();
    data.put_u64(offset);
    data.put_u32(size);
    let data = data.finish();
    let header = Header { size: header_size(&data), ..Header::request(file, bullet::CMD_READ) };
    Message { header, data }
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
