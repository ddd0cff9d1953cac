//! The class `stream`, served by whoever starts a process: its STDIN, STDOUT and STDERR.
//!
//! A [`StreamServer`] makes two kinds of object. Through a [`Source`] the program that serves it brings bytes, which
//! the process reads; through a [`Sink`] it takes bytes that the process writes. Both hold at most [`BUFFER_SIZE_MAX`]
//! bytes and one piece: whoever brings more waits, the process in its transaction, the program in [`Source::push`].
//!
//! Positions make every request harmless when it is repeated: a piece that was written before is ignored, a piece that
//! was read and not yet passed is given again. So a lost reply neither loses nor doubles a byte.
#![forbid(unsafe_code)]

mod sink;
mod source;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amoeba_cap::{Capability, CheckField, ObjectNumber, PutPort, Rights, ServerSecret};
use amoeba_server::{AnyObject, Call, Object, Objects, Pending};
use amoeba_stubs::stream::{self, ReadReply};
use amoeba_wire::Status;
use amoeba_world::World;

pub use amoeba_stubs::stream::{REQUEST_SIZE_MAX, serve, start};
pub use sink::Sink;
pub use source::Source;

/// The most bytes that wait in one stream before who brings them has to wait.
pub const BUFFER_SIZE_MAX: usize = 1 << 20;
/// The most streams of one server.
pub const STREAMS_MAX: usize = 1024;

/// The server has [`STREAMS_MAX`] streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no more streams can be made")]
pub struct TooMany;

/// The process at the other end takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end is closed")]
pub struct Closed;

/// The only object of [`StreamServer::with_one_sink`]. Its port and its secret were made for it alone, so it needs no
/// random of its own.
const ONE_SINK: ObjectNumber = ObjectNumber::new(1).expect("a small number");

/// The capability for writing to a [`StreamServer::with_one_sink`] that is to be served on `port`, perhaps later and
/// elsewhere.
pub fn served_sink(port: PutPort, secret: &ServerSecret) -> Capability {
    secret.capability(port, ONE_SINK, stream::WRITE, CheckField::NULL)
}

/// The streams of one program. Serve it with [`start`] on the port it was made for.
pub struct StreamServer {
    world: World,
    port: PutPort,
    secret: ServerSecret,
    streams: Mutex<BTreeMap<u32, Entry>>,
}

struct Entry {
    random: CheckField,
    stream: Stream,
}

#[derive(Clone)]
enum Stream {
    Source(Source),
    Sink(Sink),
}

impl StreamServer {
    /// A server without streams, whose capabilities name `port`.
    pub fn new(world: &World, port: PutPort) -> Arc<StreamServer> {
        let secret = ServerSecret::from_bytes(amoeba_world::random(&*world.entropy));
        Arc::new(StreamServer { world: world.clone(), port, secret, streams: Mutex::default() })
    }

    /// A server of one stream that somebody writes, and who holds `secret` has made [`served_sink`] for already.
    pub fn with_one_sink(world: &World, port: PutPort, secret: ServerSecret) -> (Arc<StreamServer>, Sink) {
        let sink = Sink::new(&world.threads);
        let entry = Entry { random: CheckField::NULL, stream: Stream::Sink(sink.clone()) };
        let streams = Mutex::new(BTreeMap::from([(ONE_SINK.get(), entry)]));
        (Arc::new(StreamServer { world: world.clone(), port, secret, streams }), sink)
    }

    /// A new stream that a process reads.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn source(&self) -> Result<(Capability, Source), TooMany> {
        let source = Source::new(&self.world.threads);
        Ok((self.add(Stream::Source(source.clone()), stream::READ)?, source))
    }

    /// A new stream that a process writes.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn sink(&self) -> Result<(Capability, Sink), TooMany> {
        let sink = Sink::new(&self.world.threads);
        Ok((self.add(Stream::Sink(sink.clone()), stream::WRITE)?, sink))
    }

    /// Forgets a stream; its capability is dead.
    pub fn remove(&self, capability: &Capability) {
        self.streams().remove(&capability.object().get());
    }

    fn add(&self, stream: Stream, rights: Rights) -> Result<Capability, TooMany> {
        let random = CheckField::from_bytes(amoeba_world::random(&*self.world.entropy));
        let mut streams = self.streams();
        let limit = u32::try_from(STREAMS_MAX).expect("a small number");
        let number = (1..=limit).find(|number| !streams.contains_key(number)).ok_or(TooMany)?;
        streams.insert(number, Entry { random, stream });
        let object = ObjectNumber::new(number).ok_or(TooMany)?;
        Ok(self.secret.capability(self.port, object, rights, random))
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<u32, Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self, object: ObjectNumber) -> Result<Stream, Status> {
        self.streams().get(&object.get()).map(|entry| entry.stream.clone()).ok_or(Status::STD_CAPBAD)
    }
}

impl Objects for StreamServer {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        self.streams().get(&object.get()).map(|entry| entry.random)
    }

    fn info(&self, object: AnyObject) -> Result<String, Status> {
        Ok(match self.stream(object.number())? {
            Stream::Source(_) => "| input of a process".into(),
            Stream::Sink(_) => "| output of a process".into(),
        })
    }

    fn destroy(&self, _call: &Call, object: AnyObject) -> Result<(), Status> {
        let stream = self.stream(object.number())?;
        self.streams().remove(&object.number().get());
        match stream {
            Stream::Source(source) => source.close(),
            Stream::Sink(sink) => sink.refuse(),
        }
        Ok(())
    }
}

impl stream::Serve for StreamServer {
    fn read(
        &self,
        _call: &Call,
        object: Object<{ stream::READ.bits() }>,
        position: u64,
        size: u32,
        pending: Pending<ReadReply>,
    ) {
        match self.stream(object.number()) {
            Ok(Stream::Source(source)) => source.read(position, size, pending),
            Ok(Stream::Sink(_)) => pending.send(Err(Status::STD_COMBAD)),
            Err(status) => pending.send(Err(status)),
        }
    }

    fn write(
        &self,
        _call: &Call,
        object: Object<{ stream::WRITE.bits() }>,
        position: u64,
        data: Vec<u8>,
        pending: Pending<()>,
    ) {
        match self.stream(object.number()) {
            Ok(Stream::Sink(sink)) => sink.write(position, data, pending),
            Ok(Stream::Source(_)) => pending.send(Err(Status::STD_COMBAD)),
            Err(status) => pending.send(Err(status)),
        }
    }

    fn close(&self, _call: &Call, object: Object<0>, position: u64) -> Result<(), Status> {
        match self.stream(object.number())? {
            Stream::Source(source) => {
                source.close();
                Ok(())
            }
            Stream::Sink(sink) => sink.close(position),
        }
    }
}
