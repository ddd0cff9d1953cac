//! A request on its way through a server, and its reply.

use std::ops::Deref;
use std::sync::Arc;

use amoeba_wire::{Command, Header, Malformed, Status};
use amoeba_world::{Incoming, Message, ReplyTo, Shared};

use crate::Call;
use crate::guard::Guard;

/// Why a request is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure(Status);

impl From<Status> for Failure {
    /// Only errors of servers may be answered: anything else is a fault of this server, STD_SYSERR.
    fn from(status: Status) -> Failure {
        let legal = status.is_error() && !status.is_rpc();
        Failure(if legal { status } else { Status::STD_SYSERR })
    }
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Failure {
        Failure(Status::STD_ARGBAD)
    }
}

impl Failure {
    /// The status on the wire.
    pub fn status(self) -> Status {
        self.0
    }
}

/// The bytes of a reply: the reply's own, or part of what others hold too.
#[derive(Debug)]
pub enum Bulk {
    /// Nobody else has them.
    Own(Vec<u8>),
    /// They may lie in a cache. Where the way allows it, nothing is copied before they leave.
    Shared(Shared),
}

impl From<Vec<u8>> for Bulk {
    fn from(bytes: Vec<u8>) -> Bulk {
        Bulk::Own(bytes)
    }
}

impl Deref for Bulk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bulk::Own(bytes) => bytes,
            Bulk::Shared(bytes) => bytes,
        }
    }
}

/// A request that no operation has taken yet.
pub struct Request {
    call: Call,
    header: Header,
    data: Vec<u8>,
    reply: ReplyTo,
}

impl Request {
    pub(crate) fn new(incoming: Incoming, guard: &Arc<Guard>) -> Request {
        let Incoming { caller, request: Message { header, data }, reply } = incoming;
        let call = Call::new(caller, header.capability(), header.command(), guard.clone());
        Request { call, header, data, reply }
    }

    /// Which operation it asks for.
    pub fn command(&self) -> Command {
        self.call.command()
    }

    /// Answers it with what `operation` gives.
    pub fn answer(self, operation: impl FnOnce(&Call, Header, Vec<u8>) -> Result<Message, Failure>) {
        // The reply is sent only after the operation; a panic inside drops it, and the client hears RPC_FAILURE.
        let result = operation(&self.call, self.header, self.data);
        send(self.reply, result);
    }

    /// As [`Request::answer`], with bytes that others may hold too.
    pub fn answer_bulk(
        self,
        operation: impl FnOnce(&Call, Header, Vec<u8>) -> Result<(Header, Bulk), Failure>,
    ) {
        match operation(&self.call, self.header, self.data) {
            Ok((header, Bulk::Shared(data))) => self.reply.send_shared(header, data),
            Ok((header, Bulk::Own(data))) => self.reply.send(Message { header, data }),
            Err(failure) => send(self.reply, Err(failure)),
        }
    }

    /// Lets `prepare` check and decode, then hands the duty to answer to what it gives.
    pub fn defer<T, O: FnOnce(Pending<T>)>(
        self,
        encode: fn(T) -> Result<Message, Failure>,
        prepare: impl FnOnce(Call, Header, Vec<u8>) -> Result<O, Failure>,
    ) {
        match prepare(self.call, self.header, self.data) {
            Ok(operation) => operation(Pending { reply: self.reply, encode }),
            Err(failure) => send(self.reply, Err(failure)),
        }
    }
}

fn send(reply: ReplyTo, result: Result<Message, Failure>) {
    reply.send(result.unwrap_or_else(|failure| Message::status(failure.status())));
}

/// The duty to answer a request with a `T`, now or later, from any thread. Dropped unused, it tells the client that
/// the request may have been executed.
pub struct Pending<T> {
    reply: ReplyTo,
    encode: fn(T) -> Result<Message, Failure>,
}

impl<T> Pending<T> {
    /// Answers.
    pub fn send(self, result: Result<T, Status>) {
        let result = result.map_err(Failure::from).and_then(self.encode);
        send(self.reply, result);
    }
}

impl<T> std::fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pending")
    }
}
