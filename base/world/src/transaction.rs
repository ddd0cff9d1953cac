//! Transactions as a program sees them: blocking, at most once, and saying which.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{Capability, GetPort, PutPort};
use amoeba_wire::packet::Address;
use amoeba_wire::{Header, Malformed, Status};

use crate::{Destination, Endpoint, Memory};

/// How long a transaction searches for a server before it says RPC_NOTFOUND, unless told otherwise.
pub const LOCATE_TIMEOUT_DEFAULT: Duration = Duration::from_millis(5200);

/// A request or a reply: header and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The 32 bytes every message begins with.
    pub header: Header,
    /// At most [`amoeba_wire::DATA_SIZE_MAX`] bytes.
    pub data: Vec<u8>,
}

impl Message {
    /// A reply that carries a status and nothing else.
    pub fn status(status: Status) -> Message {
        Message { header: Header::reply(status), data: Vec::new() }
    }
}

/// Bytes that a reply and others may hold at once, such as part of a cached file.
#[derive(Clone)]
pub struct Shared {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Shared {
    /// Part of `bytes`, which must not change as long as anybody holds it.
    ///
    /// # Panics
    /// When the range is not within the bytes.
    pub fn new(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Shared {
        let size = (*bytes).as_ref().len();
        assert!(range.start <= range.end && range.end <= size, "{range:?} is not within {size} bytes");
        Shared { bytes, range }
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} bytes)", self.len())
    }
}

/// A transaction whose client has posted a buffer for the data of the reply. See [`Transactions::trans_posted`].
#[derive(Debug)]
pub struct Posted<'b> {
    /// The request; afterwards what it was.
    pub request: Message,
    /// Where the reply's data goes. After an error it may hold part of a reply.
    pub buffer: &'b mut [u8],
    /// Set by [`Transactions::trans_posted`]: the reply's header, and how many bytes of the buffer are the reply's data.
    pub result: Option<Result<(Header, usize), Error>>,
}

impl<'b> Posted<'b> {
    /// A transaction that has not begun.
    pub fn new(request: Message, buffer: &'b mut [u8]) -> Posted<'b> {
        Posted { request, buffer, result: None }
    }

    /// Does this transaction by [`Transactions::trans_keeping`]: for worlds, and for ways, that cannot do better.
    pub fn one_by_one(&mut self, transactions: &(impl Transactions + ?Sized), options: &TransOptions) {
        let reply_size_max = options.reply_size_max.min(self.buffer.len());
        let options = TransOptions { reply_size_max, ..options.clone() };
        let result = transactions.trans_keeping(&mut self.request, &options);
        self.result = Some(result.map(|reply| self.put(reply)));
    }

    /// Whether its server was searched for in vain.
    pub fn found_nobody(&self) -> bool {
        self.result == Some(Err(Error::NotSent(Status::RPC_NOTFOUND)))
    }

    /// Copies the data of a reply, which fits, into the buffer.
    fn put(&mut self, reply: Message) -> (Header, usize) {
        match self.buffer.get_mut(..reply.data.len()) {
            Some(buffer) => {
                buffer.copy_from_slice(&reply.data);
                (reply.header, reply.data.len())
            }
            None => (Header::reply(Status::STD_OVERFLOW), 0),
        }
    }
}

/// How one transaction is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransOptions {
    /// How long to search for a server.
    pub locate_timeout: Duration,
    /// How long the transaction may take in all, counted from the call of `trans`; `None` for as long as its server
    /// lives. When it has passed, the client hears [`Error::MaybeExecuted`] (RPC_FAILURE) if the request may have been
    /// given to a server, else [`Error::NotSent`] (RPC_NOTFOUND, or RPC_TRYAGAIN if there is a server).
    pub deadline: Option<Duration>,
    /// The largest reply data the client takes; in place of a larger reply it gets the status STD_OVERFLOW alone.
    pub reply_size_max: usize,
    /// The get-port to sign with: the server sees its put-port, proven by the kernels.
    pub signature: Option<GetPort>,
}

impl Default for TransOptions {
    fn default() -> TransOptions {
        TransOptions {
            locate_timeout: LOCATE_TIMEOUT_DEFAULT,
            deadline: None,
            reply_size_max: amoeba_wire::DATA_SIZE_MAX,
            signature: None,
        }
    }
}

/// Why an operation on an object did not give its result, by whether the request ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request was certainly not executed.
    #[error("not executed: {0}")]
    NotSent(Status),
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Status),
    /// The request may have been executed once, or never; nobody knows.
    #[error("may have been executed: {0}")]
    MaybeExecuted(Status),
    /// The request was executed, but its reply is not what the class declares.
    #[error("the server's reply is malformed")]
    BadReply,
}

impl Error {
    /// The status on the wire that this error stands for.
    pub fn status(&self) -> Status {
        match *self {
            Error::NotSent(status) | Error::Refused(status) | Error::MaybeExecuted(status) => status,
            Error::BadReply => Status::STD_SYSERR,
        }
    }

    /// Whether the request certainly had no effect, so that it can be tried elsewhere.
    pub fn not_executed(&self) -> bool {
        matches!(self, Error::NotSent(_))
    }
}

impl From<Malformed> for Error {
    fn from(_: Malformed) -> Error {
        Error::BadReply
    }
}

/// The transactions of one process.
pub trait Transactions: Send + Sync {
    /// Sends `request` to a server of `request.header.port` and waits for its reply. The reply's status may be an
    /// error of the server; stubs turn that into [`Error::Refused`]. Where request or reply are larger than their
    /// receiver takes, the reply is the status STD_OVERFLOW without data, wherever the server is.
    ///
    /// # Errors
    /// [`Error::NotSent`]: null port (RPC_BADPORT), an error code as command (RPC_COMBAD), data over the bound
    /// (RPC_BADADDRESS), no server found (RPC_NOTFOUND), no resources (RPC_TRYAGAIN).
    /// [`Error::MaybeExecuted`]: the server or the way to it failed, or the deadline has passed (RPC_FAILURE).
    fn trans(&self, request: Message, options: &TransOptions) -> Result<Message, Error>;

    /// As [`Transactions::trans`], for who may want to send the request again: afterwards `request` is what it was.
    fn trans_keeping(&self, request: &mut Message, options: &TransOptions) -> Result<Message, Error> {
        self.trans(request.clone(), options)
    }

    /// Does these transactions, several at a time where the way to their servers allows it and in any order, and sets the
    /// result of each. The data of each reply goes into the buffer posted for it, and nowhere else; a reply that is
    /// larger becomes the status STD_OVERFLOW without data. For who reads much: the parts of a long transfer are under
    /// way together, and no memory is made for them.
    ///
    /// The options hold for each transaction; a deadline is counted from the call. A port is searched for once: when
    /// nobody is there, what has not been sent to it yet ends with the same RPC_NOTFOUND.
    fn trans_posted(&self, posts: &mut [Posted<'_>], options: &TransOptions) {
        let mut nobody = None;
        for post in posts {
            let port = post.request.header.port;
            if nobody == Some(port) {
                post.result = Some(Err(Error::NotSent(Status::RPC_NOTFOUND)));
                continue;
            }
            post.one_by_one(self, options);
            nobody = post.found_nobody().then_some(port).or(nobody);
        }
    }

    /// Listens on a get-port; requests of more than `request_size_max` bytes are answered STD_OVERFLOW in
    /// its stead.
    ///
    /// # Errors
    /// RPC_BADPORT for the null port, RPC_TRYAGAIN when the kernel has no room or cannot be reached.
    fn listen(&self, port: &GetPort, request_size_max: usize) -> Result<Listener, Error>;

    /// The put-port of a get-port, as the kernel's F-box computes it.
    fn put_port(&self, port: &GetPort) -> Result<PutPort, Error>;

    /// Sends a datagram: no reply, no guarantee. It is lost when nobody is there, when the network or its receiver's
    /// queue loses it, and when the one search for its port finds nobody.
    ///
    /// # Errors
    /// [`Error::NotSent`]: null port or address (RPC_BADPORT), over [`crate::DATAGRAM_SIZE_MAX`] bytes
    /// (RPC_BADADDRESS), no kernel (RPC_NOTFOUND), a world without datagrams (STD_COMBAD).
    fn send(&self, to: Destination, data: Vec<u8>) -> Result<(), Error> {
        let _ = (to, data);
        Err(Error::NotSent(Status::STD_COMBAD))
    }

    /// Opens an endpoint of datagrams, behind a port or with its address alone. Only who has the get-port receives
    /// what is sent to its put-port.
    ///
    /// # Errors
    /// [`Error::NotSent`]: null port (RPC_BADPORT), no room (RPC_TRYAGAIN), no kernel (RPC_NOTFOUND), a world without
    /// datagrams (STD_COMBAD).
    fn datagrams(&self, port: Option<&GetPort>) -> Result<Endpoint, Error> {
        let _ = port;
        Err(Error::NotSent(Status::STD_COMBAD))
    }

    /// A memory file of `size` bytes, not 0, that `fill` is given to fill; `None` where the world has none, or no room.
    fn memory(&self, size: usize, fill: &mut dyn FnMut(&mut [u8])) -> Option<Memory> {
        let _ = (size, fill);
        None
    }

    /// The memory file that a process of this host has lent to this one under `ticket`.
    ///
    /// # Errors
    /// [`Error::NotSent`]: no such ticket, or not for this process (STD_NOTFOUND); no kernel (RPC_NOTFOUND); a world without memory
    /// files (STD_COMBAD). [`Error::BadReply`]: it is none, or can still change.
    fn borrow_memory(&self, ticket: u64) -> Result<Memory, Error> {
        let _ = ticket;
        Err(Error::NotSent(Status::STD_COMBAD))
    }

    /// Memory that was borrowed with this capability lately and is kept for the next time, in a world that keeps any
    /// ([`crate::Kept`]). Whoever takes it asks the server all the same whether he may still have it.
    fn kept_memory(&self, file: &Capability) -> Option<Memory> {
        let _ = file;
        None
    }

    /// Keeps memory that was borrowed, for the next time, where the world keeps any.
    fn keep_memory(&self, file: &Capability, memory: &Memory) {
        let _ = (file, memory);
    }

    /// Keeps no longer what was borrowed with this capability.
    fn forget_memory(&self, file: &Capability) {
        let _ = file;
    }

    /// By what transactions of this process with a port pass the kernel by, if they do: `channel`, `flow`. For people.
    fn passage(&self, port: PutPort) -> Option<&'static str> {
        let _ = port;
        None
    }
}

/// A port that is listened on. Any number of threads may call [`Listen::getreq`] at once.
pub type Listener = Arc<dyn Listen>;

/// No more requests will come: the listener was closed, or the kernel is gone for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no longer listening")]
pub struct ListenError;

/// See [`Listener`].
pub trait Listen: Send + Sync {
    /// The public image of the port.
    fn put_port(&self) -> PutPort;
    /// Waits for a request.
    fn getreq(&self) -> Result<Incoming, ListenError>;
    /// Stops listening: every thread in [`Listen::getreq`] returns, and requests go elsewhere.
    fn close(&self);
}

/// Who sent a request, as the kernels know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The client process.
    pub process: Address,
    /// The put-port of the get-port it signed with, if it signed.
    pub signature: Option<PutPort>,
}

/// A request that arrived.
#[derive(Debug)]
pub struct Incoming {
    /// Who sent it.
    pub caller: Caller,
    /// What it says.
    pub request: Message,
    /// Where the reply goes.
    pub reply: ReplyTo,
}

/// Sends one reply. The world implements it.
pub trait PutReply: Send {
    /// Sends the reply.
    fn putrep(self: Box<Self>, reply: Message);
    /// Sends a reply whose data others hold too.
    fn putrep_shared(self: Box<Self>, header: Header, data: Shared) {
        self.putrep(Message { header, data: data.to_vec() });
    }
    /// Tells the client that no reply will come (it hears RPC_FAILURE).
    fn fail(self: Box<Self>);
}

/// The duty to answer one request. May be handed to another thread; dropped unused (a panicking server) it tells the
/// client that the request may have been executed.
pub struct ReplyTo(Option<Box<dyn PutReply>>);

impl ReplyTo {
    /// A duty that `put` fulfils.
    pub fn new(put: Box<dyn PutReply>) -> ReplyTo {
        ReplyTo(Some(put))
    }

    /// Sends the reply.
    pub fn send(mut self, reply: Message) {
        if let Some(put) = self.0.take() {
            put.putrep(reply);
        }
    }

    /// Sends a reply whose data others hold too, such as part of a cached file: where the way allows it, nothing is
    /// copied before it leaves.
    pub fn send_shared(mut self, header: Header, data: Shared) {
        if let Some(put) = self.0.take() {
            put.putrep_shared(header, data);
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if let Some(put) = self.0.take() {
            put.fail();
        }
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyTo")
    }
}
