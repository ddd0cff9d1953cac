//! Files of any size, to and from what Rust reads and writes: in pieces, the commit with the last one.

use std::io::{self, Read, Write};

use std::time::Duration;

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_wire::Status;
use amoeba_world::{Error, TransOptions, Transactions};

use crate::{Client, bullet, bullet_file, standard};

/// Bytes that travel in one transaction: large enough to hide its cost, small enough to be shared.
pub const PIECE_SIZE: usize = 1 << 20;

/// How long the server of one copy of several is searched for.
const COPY_LOCATE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a file was not transferred.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// A transaction with the file's server failed.
    #[error("the file's server: {0}")]
    Server(#[from] Error),
    /// The local end failed.
    #[error(transparent)]
    Local(#[from] io::Error),
    /// What should be copies of one file has different sizes.
    #[error("its copies differ in size")]
    CopiesDiffer,
}

/// Makes a file of everything `from` gives, and commits it with `flags` ([`bullet::COMMIT`], [`bullet::SAFETY`]).
/// Without `COMMIT` it stays uncommitted. After an error nothing is left of it.
///
/// # Rights
/// CREATE on `server`: a Bullet server, or a committed file, with which the new one is compared at its commit.
///
/// # Errors
/// [`StreamError::Local`]: reading `from`. [`StreamError::Server`]: those of [`bullet::create`].
pub fn write_file<'t>(
    t: impl Into<Client<'t>>,
    server: &Capability,
    flags: u16,
    from: &mut dyn Read,
) -> Result<Capability, StreamError> {
    let client = t.into();
    let mut made = None;
    let written = write_pieces(client, server, flags, from, &mut made);
    if let (Err(_), Some(file)) = (&written, made) {
        // If this fails too, the server forgets the uncommitted file by itself.
        let _ = standard::destroy(client, &file);
    }
    written
}

fn write_pieces(
    client: Client<'_>,
    server: &Capability,
    flags: u16,
    from: &mut dyn Read,
    made: &mut Option<Capability>,
) -> Result<Capability, StreamError> {
    let mut offset = 0;
    let mut piece = read_piece(from)?;
    loop {
        // One piece ahead: only who has seen the end knows which piece is the last.
        let next = if piece.len() == PIECE_SIZE { read_piece(from)? } else { Vec::new() };
        let is_last = next.is_empty();
        let size = piece.len() as u64;
        // That the commit will wait for the disk is said from the beginning, so that the server may begin with it.
        let piece_flags = if is_last { flags } else { flags & bullet::SAFETY };
        let file = match made {
            None => bullet::create(client, server, piece_flags, piece)?,
            Some(file) => bullet::modify(client, file, piece_flags, offset, piece)?,
        };
        if is_last {
            return Ok(file);
        }
        *made = Some(file);
        offset += size;
        piece = next;
    }
}

/// A full piece, or what is left.
fn read_piece(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE_SIZE); // to grow into it would be to copy it several times
    from.take(PIECE_SIZE as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// Writes a committed file to `to`, and gives its size. After an error `to` holds its beginning.
///
/// # Rights
/// READ on `file`.
///
/// # Errors
/// [`StreamError::Local`]: writing to `to`. [`StreamError::Server`]: those of [`bullet::read`].
pub fn read_file<'t>(
    t: impl Into<Client<'t>>,
    file: &Capability,
    to: &mut dyn Write,
) -> Result<u64, StreamError> {
    let client = t.into();
    let file = bullet_file::open(client, file)?;
    file.write_to(client, 0, to)?;
    Ok(file.size())
}

/// Writes a committed file to `to` from whichever of its copies can be read, and gives its size. When a server fails in
/// the middle, reading goes on from another copy at the byte that was reached; files do not change, so that is the
/// same file. A copy that could not be read is tried again as long as the others bring the file on. After an error `to`
/// holds its beginning.
///
/// # Rights
/// READ on the copies.
///
/// # Errors
/// [`StreamError::Local`]: writing to `to`. [`StreamError::CopiesDiffer`]: the copies that can be read are not copies of
/// one file. [`StreamError::Server`]: no copy can be read, with those of [`bullet::read`]; one that was not reached counts
/// more than one that refused.
pub fn read_set(
    transactions: &dyn Transactions,
    copies: &CapabilitySet,
    to: &mut dyn Write,
) -> Result<u64, StreamError> {
    let mut members = copies.current();
    if let (Some(file), None) = (members.next(), members.next()) {
        return read_file(transactions, file, to);
    }
    let options = TransOptions { locate_timeout: COPY_LOCATE_TIMEOUT, ..TransOptions::default() };
    let mut reading = Reading { client: Client::new(transactions, &options), size: None, offset: 0 };
    loop {
        let begin = reading.offset;
        let mut failure = StreamError::Server(Error::NotSent(Status::RPC_NOTFOUND));
        for (index, copy) in copies.current().enumerate() {
            match reading.go_on(copy, to) {
                Ok(()) => return Ok(reading.offset),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) if index == 0 || !is_unreachable(&failure) => failure = error,
                Err(_) => {}
            }
        }
        if reading.offset == begin {
            return Err(failure);
        }
    }
}

/// How far the copies of a file have been read.
struct Reading<'t> {
    client: Client<'t>,
    /// What the first copy that was read says.
    size: Option<u64>,
    offset: u64,
}

impl Reading<'_> {
    /// Reads one copy from where the last one failed to its end.
    fn go_on(&mut self, copy: &Capability, to: &mut dyn Write) -> Result<(), StreamError> {
        let file = bullet_file::open(self.client, copy)?;
        let size = file.size();
        // A copy that never gave a byte says nothing about the others.
        if self.offset > 0 && self.size.is_some_and(|known| known != size) {
            return Err(StreamError::CopiesDiffer);
        }
        self.size = Some(size);
        file.write_on(self.client, &mut self.offset, to)
    }
}

/// Whether no other copy would do.
fn is_final(error: &StreamError) -> bool {
    match error {
        StreamError::Local(_) => true,
        StreamError::Server(Error::Refused(status)) => {
            matches!(*status, Status::STD_DENIED | Status::STD_COMBAD | Status::STD_ARGBAD)
        }
        StreamError::Server(_) | StreamError::CopiesDiffer => false,
    }
}

fn is_unreachable(error: &StreamError) -> bool {
    matches!(error, StreamError::Server(Error::NotSent(_) | Error::MaybeExecuted(_)))
}

/// The bytes of a committed file of at most `size_max` bytes.
///
/// # Rights
/// READ on `file`.
///
/// # Errors
/// STD_OVERFLOW when it is larger; those of [`bullet::read`].
pub fn read_whole<'t>(
    t: impl Into<Client<'t>>,
    file: &Capability,
    size_max: usize,
) -> Result<Vec<u8>, Error> {
    let client = t.into();
    let file = bullet_file::open(client, file)?;
    let size = usize::try_from(file.size()).ok().filter(|&size| size <= size_max);
    let size = size.ok_or(Error::Refused(Status::STD_OVERFLOW))?;
    if let Some(bytes) = file.bytes() {
        return Ok(bytes.to_vec());
    }
    let mut bytes = vec![0; size];
    file.read_at(client, 0, &mut bytes)?;
    Ok(bytes)
}
