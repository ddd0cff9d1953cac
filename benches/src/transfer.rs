//! Long transfers: a file that a server has in memory, fetched by a client into a buffer of its own.
//!
//! The client posts its buffer, so that no memory is made for a reply, and asks for the file in parts, of which several are
//! under way; or for all of it at once, in one reply. The server answers with parts of what it holds, as a file server does
//! with its cache. Each word of the file is different, and all of them are looked at.

use std::sync::{Arc, Mutex, PoisonError};

use amoeba_cap::PutPort;
use amoeba_wire::{Command, Header, Status};
use amoeba_world::{Message, Posted, Shared, TransOptions, World};
use anyhow::{Result, ensure};

/// Asks for part of a file: where it begins, how many bytes, and the size of the file, as numbers of eight bytes.
pub(crate) const COMMAND_PART: Command = Command(9002);
/// No file is larger.
const FILE_SIZE_MAX: u64 = 1 << 30;
/// Parts that the buffer of a client has room for.
const PARTS: usize = 8;

/// What a client fetches.
pub(crate) struct Transfer {
    size: usize,
    part: usize,
    buffer: Vec<u8>,
}

impl Transfer {
    /// A file of `size` bytes, in parts of `part` bytes.
    pub(crate) fn new(size: usize, part: usize) -> Transfer {
        Transfer { size, part, buffer: vec![1; (part * PARTS).min(size)] }
    }

    /// Fetches it once. A part of the buffer is used again as soon as it was looked at.
    pub(crate) fn run(&mut self, world: &World, port: PutPort) -> Result<()> {
        let mut begin = 0;
        while begin < self.size {
            let step = self.buffer.len().min(self.size - begin);
            let parts = self.buffer[..step].chunks_mut(self.part).enumerate();
            let mut posts: Vec<Posted<'_>> = parts
                .map(|(index, buffer)| {
                    let numbers = [begin + index * self.part, buffer.len(), self.size];
                    Posted::new(request(port, numbers), buffer)
                })
                .collect();
            world.transactions.trans_posted(&mut posts, &TransOptions::default());
            for post in &posts {
                let result = post.result.expect("every transaction was done");
                let (header, size) = result?;
                ensure!(header.status() == Status::STD_OK, "the server says {}", header.status());
                ensure!(size == post.buffer.len(), "{size} bytes came back, not {}", post.buffer.len());
            }
            ensure!(is_right(&self.buffer[..step], begin), "what came back is not the file");
            begin += step;
        }
        Ok(())
    }
}

fn request(port: PutPort, numbers: [usize; 3]) -> Message {
    let header = Header { port, command: COMMAND_PART.0, ..Header::NULL };
    Message { header, data: numbers.map(|number| (number as u64).to_le_bytes()).concat() }
}

/// Whether these are the bytes of the file from `begin` on: each word holds its place.
fn is_right(bytes: &[u8], begin: usize) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    let first = begin as u64 / 8;
    words.chunks(512).enumerate().all(|(block, words)| {
        let first = first + block as u64 * 512;
        let wrong =
            words.iter().enumerate().map(|(index, word)| u64::from_le_bytes(*word) ^ (first + index as u64));
        wrong.fold(0, |wrong, word| wrong | word) == 0
    })
}

/// The file of a server, as large as was ever asked for.
#[derive(Default)]
pub(crate) struct File(Mutex<Arc<Vec<u8>>>);

impl File {
    /// The part that a request asks for.
    pub(crate) fn part(&self, request: &[u8]) -> Option<Shared> {
        let (numbers, _) = request.as_chunks::<8>();
        let [begin, size, file_size] = <[[u8; 8]; 3]>::try_from(numbers).ok()?.map(u64::from_le_bytes);
        let end = begin.checked_add(size).filter(|end| *end <= file_size && file_size <= FILE_SIZE_MAX)?;
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if (bytes.len() as u64) < file_size {
            *bytes = Arc::new((0..file_size.div_ceil(8)).flat_map(u64::to_le_bytes).collect());
        }
        let (begin, end) = (begin as usize, end as usize);
        Some(Shared::new(bytes.clone(), begin..end))
    }
}
