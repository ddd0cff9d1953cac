//! Output that waits for its turn: in memory as long as there is not much of it, then in a temporary file that has no name
//! any more.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amoeba_cap::GetPort;
use amoeba_stream::{Sink, StreamServer};
use amoeba_world::World;

/// Bytes of one output that are kept in memory.
const OUTPUT_MEMORY_MAX: usize = 1 << 20;
/// Bytes of all outputs together that are kept in memory.
const MEMORY_MAX: usize = 64 << 20;
/// Pieces smaller than this are joined.
const PIECE_SIZE: usize = 64 << 10;

/// Serves outputs of processes on a port that nobody knows but who gets their capabilities.
pub(crate) fn streams(world: &World, threads: usize) -> anyhow::Result<Arc<StreamServer>> {
    let port = GetPort::from_bytes(amoeba_world::random(&*world.entropy));
    let listener = world.transactions.listen(&port, amoeba_stream::REQUEST_SIZE_MAX)?;
    let server = StreamServer::new(world, listener.put_port());
    amoeba_stream::start(world, listener, server.clone(), threads)?;
    Ok(server)
}

/// Keeps what a process writes until it has ended.
pub(crate) fn keep(sink: &Sink, spool: &mut Spool) -> io::Result<()> {
    while let Some(piece) = sink.take() {
        if let Err(error) = spool.push(piece) {
            sink.refuse();
            return Err(error);
        }
    }
    Ok(())
}

/// Where all outputs of one command are kept.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    memory: usize,
    file: Option<File>,
    /// Where the next bytes go in the file.
    end: u64,
    /// Bytes of the file that are still wanted.
    wanted: u64,
}

enum Piece {
    Memory(Vec<u8>),
    File { offset: u64, size: usize },
}

/// One output: written in pieces, read once.
pub(crate) struct Spool {
    store: Store,
    pieces: Vec<Piece>,
    memory: usize,
}

impl Store {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An output without bytes.
    pub(crate) fn spool(&self) -> Spool {
        Spool { store: self.clone(), pieces: Vec::new(), memory: 0 }
    }
}

impl Kept {
    /// Whether there is room in memory, which is then taken.
    fn takes(&mut self, size: usize) -> bool {
        let has_room = self.memory + size <= MEMORY_MAX;
        if has_room {
            self.memory += size;
        }
        has_room
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<Piece> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(unnamed(&std::env::temp_dir())?),
        };
        file.write_all_at(bytes, self.end)?;
        let piece = Piece::File { offset: self.end, size: bytes.len() };
        self.end += bytes.len() as u64;
        self.wanted += bytes.len() as u64;
        Ok(piece)
    }

    /// So many bytes are no longer wanted; an empty file gives its room back.
    fn forget(&mut self, size: usize) {
        self.wanted -= size as u64;
        if self.wanted == 0 {
            self.end = 0;
            if let Some(file) = &self.file {
                // If it stays long, it is only room on the disk until we end.
                let _ = file.set_len(0);
            }
        }
    }
}

/// A file that nobody else can find.
fn unnamed(directory: &Path) -> io::Result<File> {
    let mut number = 0;
    loop {
        let path = directory.join(format!(".amoeba-spool-{}-{number}", std::process::id()));
        match File::options().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
            Err(error) => return Err(error),
        }
    }
}

impl Spool {
    /// Keeps more bytes.
    pub(crate) fn push(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let mut kept = self.store.kept();
        if self.memory + bytes.len() > OUTPUT_MEMORY_MAX || !kept.takes(bytes.len()) {
            let piece = kept.write(&bytes)?;
            drop(kept);
            self.pieces.push(piece);
            return Ok(());
        }
        drop(kept);
        self.memory += bytes.len();
        match self.pieces.last_mut() {
            Some(Piece::Memory(last)) if last.len() + bytes.len() <= PIECE_SIZE => last.extend(bytes),
            _ => self.pieces.push(Piece::Memory(bytes)),
        }
        Ok(())
    }

    /// Whether nothing was kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Hands everything over to `to`, in order.
    pub(crate) fn write_to(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut buffer = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Memory(bytes) => to.write_all(bytes)?,
                Piece::File { offset, size } => {
                    buffer.resize(*size, 0);
                    {
                        let kept = self.store.kept();
                        let file = kept.file.as_ref().expect("a piece of the file has made the file");
                        file.read_exact_at(&mut buffer, *offset)?;
                    }
                    to.write_all(&buffer)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let mut kept = self.store.kept();
        kept.memory -= self.memory;
        for piece in &self.pieces {
            if let Piece::File { size, .. } = piece {
                kept.forget(*size);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_also_when_it_is_much() {
        let store = Store::default();
        let bytes: Vec<u8> =
            (0..5_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let mut spools = Vec::new();
        for _ in 0..3 {
            let mut spool = store.spool();
            for piece in bytes.chunks(77_777) {
                spool.push(piece.to_vec()).expect("the temporary folder has room");
            }
            spools.push(spool);
        }
        assert!(store.kept().memory <= 3 * OUTPUT_MEMORY_MAX && store.kept().wanted > 11_000_000);
        for spool in spools {
            let mut read = Vec::new();
            spool.write_to(&mut read).expect("a vector takes every byte");
            assert!(read == bytes);
        }
        let kept = store.kept();
        assert_eq!((kept.memory, kept.wanted, kept.end), (0, 0, 0));
        assert_eq!(kept.file.as_ref().map(|file| file.metadata().expect("it is open").len()), Some(0));
    }

    #[test]
    fn many_small_outputs_together_have_a_bound() {
        let store = Store::default();
        let spools: Vec<Spool> = (0..100)
            .map(|_| {
                let mut spool = store.spool();
                spool.push(vec![7; OUTPUT_MEMORY_MAX]).expect("the temporary folder has room");
                spool
            })
            .collect();
        assert_eq!(store.kept().memory, MEMORY_MAX);
        drop(spools);
        assert_eq!(store.kept().memory, 0);
    }
}
