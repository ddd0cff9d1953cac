//! The caller's ends of a guest's streams, and its program in a Bullet server: objects reached by transactions.

use std::fs::File;

use amoeba_cap::Capability;
use amoeba_process::ServedInput;
use amoeba_stream::StreamServer;
use amoeba_stubs::bullet_stream::{self, StreamError};
use amoeba_stubs::stream;
use amoeba_wire::Status;
use amoeba_world::{Error, World};

use super::program::{Refusal, unreadable};
use super::pump::{Closed, PIECE_SIZE_MAX, Sink, Source};

/// How often a caller that cannot be reached is looked for, for as long as a locate takes, before its streams close.
const ATTEMPTS_MAX: usize = 3;
/// Threads that serve a guest's own input: one writer has one request at a time, and may repeat it.
const SERVED_THREADS: usize = 2;
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

/// Input that is served here: another process writes it, as the left side of a pipe does.
pub(super) struct ServedSource {
    sink: amoeba_stream::Sink,
}

impl ServedSource {
    /// Listens from now on.
    pub(super) fn serve(world: &World, input: &ServedInput) -> Result<ServedSource, Error> {
        let listener = world.transactions.listen(&input.get_port(), amoeba_stream::REQUEST_SIZE_MAX)?;
        let (server, sink) = StreamServer::with_one_sink(world, listener.put_port(), input.secret());
        amoeba_stream::start(world, listener, server, SERVED_THREADS)
            .map_err(|_| Error::NotSent(Status::RPC_TRYAGAIN))?;
        Ok(ServedSource { sink })
    }

    /// Another hold on the stream, with which it can be closed while it is being read.
    pub(super) fn sink(&self) -> amoeba_stream::Sink {
        self.sink.clone()
    }
}

impl Source for ServedSource {
    fn read(&mut self, _position: u64) -> Result<(Vec<u8>, bool), Closed> {
        Ok(match self.sink.take() {
            Some(piece) => (piece, false),
            None => (Vec::new(), true),
        })
    }

    fn close(&mut self, _position: u64) {
        // Whoever still writes hears of a broken pipe.
        self.sink.refuse();
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

/// Copies a program out of its Bullet server: on this host out of the memory in which the server has it.
pub(super) fn fetch(world: &World, file: &Capability, to: &mut File) -> Result<(), Refusal> {
    match bullet_stream::read_file(world, file, to) {
        Ok(_) => Ok(()),
        Err(StreamError::Server(error)) => Err(unreadable(error)),
        Err(error) => Err(unreadable(error)),
    }
}
