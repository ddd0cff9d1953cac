//! The caller's ends of a guest's streams, and its program in a Bullet server: objects reached by transactions.

use std::fs::File;
use std::io::Write;

use amoeba_cap::Capability;
use amoeba_stubs::{bullet, stream};
use amoeba_world::{Error, World};

use super::program::{Refusal, unreadable};
use super::pump::{Closed, PIECE_SIZE_MAX, Sink, Source};

/// How often a caller that cannot be reached is looked for, for as long as a locate takes, before its streams close.
const ATTEMPTS_MAX: usize = 3;
/// Bytes of a program that one transaction brings.
const FETCH_SIZE: usize = 1 << 20;
const _: () = assert!(PIECE_SIZE_MAX <= stream::PIECE_SIZE_MAX);

/// A stream object that takes output.
pub(super) struct RemoteSink {
    world: World,
    object: Capability,
}

impl RemoteSink {
    /// `None` when there is no object.
    pub(super) fn open(world: &World, object: Option<Capability>) -> Option<RemoteSink> {
        let object = object.filter(|object| !object.is_null())?;
        Some(RemoteSink { world: world.clone(), object })
    }
}

impl Sink for RemoteSink {
    fn write(&mut self, position: u64, bytes: &[u8]) -> Result<(), Closed> {
        patiently(|| stream::write(&self.world, &self.object, position, bytes))
    }

    fn close(&mut self, position: u64) {
        let _ = stream::close(&self.world, &self.object, position);
    }
}

/// A stream object that gives input.
pub(super) struct RemoteSource {
    world: World,
    object: Capability,
}

impl RemoteSource {
    /// `None` when there is no object.
    pub(super) fn open(world: &World, object: Option<Capability>) -> Option<RemoteSource> {
        let object = object.filter(|object| !object.is_null())?;
        Some(RemoteSource { world: world.clone(), object })
    }
}

impl Source for RemoteSource {
    fn read(&mut self, position: u64) -> Result<(Vec<u8>, bool), Closed> {
        let size = u32::try_from(PIECE_SIZE_MAX).expect("a piece is small");
        let reply = patiently(|| stream::read(&self.world, &self.object, position, size))?;
        Ok((reply.data, reply.end))
    }

    fn close(&mut self, position: u64) {
        let _ = stream::close(&self.world, &self.object, position);
    }
}

/// Positions make every request harmless when it is repeated, so a caller that cannot be reached for a moment loses
/// nothing. One that answers with an error takes no more.
fn patiently<T>(mut request: impl FnMut() -> Result<T, Error>) -> Result<T, Closed> {
    for _ in 1..ATTEMPTS_MAX {
        match request() {
            Err(Error::NotSent(_) | Error::MaybeExecuted(_)) => {}
            result => return result.map_err(|_| Closed),
        }
    }
    request().map_err(|_| Closed)
}

/// Copies a program out of its Bullet server.
pub(super) fn fetch(world: &World, file: &Capability, to: &mut File) -> Result<(), Refusal> {
    let size = u32::try_from(FETCH_SIZE).expect("a piece is small");
    let mut offset = 0;
    loop {
        let piece = bullet::read(world, file, offset, size).map_err(unreadable)?;
        to.write_all(&piece).map_err(unreadable)?;
        offset += piece.len() as u64;
        if piece.len() < FETCH_SIZE {
            return Ok(());
        }
    }
}
