//! Long transfers: a file that a server has in memory, fetched by a client into a buffer of its own.
//!
//! The client posts its buffer, so that no memory is made for a reply, and asks for the file in parts, of which several are
//! under way; or for all of it at once, in one reply. The server answers with parts of what it holds, as a file server does
//! with its cache. Each word of the file is different, and all of them are looked at. Or the file is one of several, which
//! are fetched in turn, so that they come from memory and not from the processor's cache.

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
    /// 0: all of it is one reply, which is a message of its own.
    part: usize,
    /// Bytes of all files together: the server's file, of which they are sections.
    all: usize,
    next: usize,
    buffer: Vec<u8>,
}

impl Transfer {
    /// One of `count` files of `size` bytes, in parts of `part` bytes.
    pub(crate) fn new(size: usize, part: usize, count: usize) -> Transfer {
        Transfer { size, part, all: size * count, next: 0, buffer: vec![1; (part * PARTS).min(size)] }
    }

    /// Fetches one file.
    pub(crate) fn run(&mut self, world: &World, port: PutPort) -> Result<()> {
        let begin = self.next;
        self.next = (begin + self.size) % self.all;
        if self.part == 0 { self.run_whole(world, port, begin) } else { self.run_parts(world, port, begin) }
    }

    fn run_whole(&self, world: &World, port: PutPort, begin: usize) -> Result<()> {
        let request = request(port, [begin, self.size, self.all]);
        let reply = world.transactions.trans(request, &TransOptions::default())?;
        ensure!(reply.header.status() == Status::STD_OK, "the server says {}", reply.header.status());
        ensure!(reply.data.len() == self.size, "{} bytes came back, not {}", reply.data.len(), self.size);
        ensure!(is_right(&reply.data, begin), "what came back is not the file");
        Ok(())
    }

    /// A part of the buffer is used again as soon as it was looked at.
    fn run_parts(&mut self, world: &World, port: PutPort, mut begin: usize) -> Result<()> {
        let end = begin + self.size;
        while begin < end {
            let step = self.buffer.len().min(end - begin);
            let parts = self.buffer[..step].chunks_mut(self.part).enumerate();
            let mut posts: Vec<Posted<'_>> = parts
                .map(|(index, buffer)| {
                    let numbers = [begin + index * self.part, buffer.len(), self.all];
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

/// Whether these are the bytes of the file from `begin` on: each word holds its place. By their sum, which is different for each
/// beginning and runs as fast as memory.
fn is_right(bytes: &[u8], begin: usize) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    let (first, count) = (begin as u64 / 8, words.len() as u64);
    sum == count * first + count * count.saturating_sub(1) / 2
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_part_is_not_right() {
        let file = File::default();
        let request = |numbers: [u64; 3]| numbers.map(u64::to_le_bytes).concat();
        let part = file.part(&request([1 << 20, 4096, 2 << 20])).expect("it is within the file");
        let part: &[u8] = &part;
        assert!(is_right(part, 1 << 20) && !is_right(part, 0) && !is_right(&part[8..], 1 << 20));
        assert!(file.part(&request([1 << 20, 4096, 1 << 20])).is_none());
    }
}
