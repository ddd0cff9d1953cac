//! A world of one process, for tests: operating-system threads, transactions from hand to hand, no disk.
//!
//! It loses nothing and delays nothing; what a lossy network does to a server is the simulator's business.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort, SystemSecret};
use amoeba_threads::{Condition, Instant, Scheduler, SpawnError, Threads, Unpark};
use amoeba_wire::packet::Address;
use amoeba_wire::{DATA_SIZE_MAX, Status};
use amoeba_world::{
    Caller, Clock, Entropy, Error, Incoming, Listen, ListenError, Listener, Memory, Message, PutReply,
    ReplyTo, SharedFile, TransOptions, Transactions, World,
};

/// Requests that may wait at one port; past that a client hears RPC_TRYAGAIN.
const QUEUE_MAX: usize = 256;

/// A new world with nothing in it, as the process with address 1 sees it.
pub fn world() -> World {
    two_processes().0
}

/// Two processes of a new world, with addresses 1 and 2.
pub fn two_processes() -> (World, World) {
    let threads = Threads::new(Arc::new(OsThreads { start: std::time::Instant::now() }));
    let network =
        Arc::new(Network { threads: threads.clone(), ports: Mutex::default(), lent: Mutex::default() });
    let process = |number: u8| World {
        clock: Arc::new(OsThreads { start: std::time::Instant::now() }),
        entropy: Arc::new(Counter(AtomicU64::new(u64::from(number) << 32))),
        transactions: Arc::new(Process {
            network: network.clone(),
            address: Address([number, 0, 0, 0, 0, 0, 0, 0]),
        }),
        threads: threads.clone(),
    };
    (process(1), process(2))
}

struct OsThreads {
    start: std::time::Instant,
}

struct OsThread(std::thread::Thread);

impl Unpark for OsThread {
    fn unpark(&self) {
        self.0.unpark();
    }
}

impl Scheduler for OsThreads {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<(), SpawnError> {
        std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop).map_err(|_| SpawnError)
    }

    fn current(&self) -> Arc<dyn Unpark> {
        Arc::new(OsThread(std::thread::current()))
    }

    fn park(&self, deadline: Option<Instant>) {
        match deadline {
            None => std::thread::park(),
            Some(deadline) => std::thread::park_timeout(deadline.since(self.now())),
        }
    }

    fn now(&self) -> Instant {
        Instant::from_epoch(Duration::from_secs(1) + self.start.elapsed())
    }
}

impl Clock for OsThreads {
    fn unix_time(&self) -> Duration {
        Duration::from_secs(1_000_000_000) + self.start.elapsed()
    }
}

/// Bytes that differ each time, and are the same in every run.
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let value = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// What all processes of a world share.
struct Network {
    threads: Threads,
    ports: Mutex<BTreeMap<PutPort, Vec<Arc<Port>>>>,
    lent: Mutex<Lent>,
}

/// One listener.
struct Port {
    put_port: PutPort,
    request_size_max: usize,
    queue: amoeba_threads::Mutex<Queue>,
    arrived: Condition,
}

#[derive(Default)]
struct Queue {
    closed: bool,
    requests: VecDeque<(Incoming, Arc<Answer>)>,
}

/// What is lent and not borrowed yet.
#[derive(Default)]
struct Lent {
    files: BTreeMap<(Address, u64), Arc<Vec<u8>>>,
    last: u64,
}

struct Process {
    network: Arc<Network>,
    address: Address,
}

fn system_secret() -> SystemSecret {
    SystemSecret::from_bytes([0x5A; 32])
}

impl Transactions for Process {
    fn trans(&self, request: Message, options: &TransOptions) -> Result<Message, Error> {
        if request.header.port.is_null() {
            return Err(Error::NotSent(Status::RPC_BADPORT));
        }
        if request.header.status().is_error() {
            return Err(Error::NotSent(Status::RPC_COMBAD));
        }
        if request.data.len() > DATA_SIZE_MAX {
            return Err(Error::NotSent(Status::RPC_BADADDRESS));
        }
        let threads = &self.network.threads;
        let answer = Arc::new(Answer {
            state: amoeba_threads::Mutex::new(threads, AnswerState::Queued),
            arrived: Condition::new(threads),
        });
        let signature = options.signature.as_ref().map(|port| system_secret().put_port(port));
        let incoming = Incoming {
            caller: Caller { process: self.address, signature },
            request,
            reply: ReplyTo::new(Box::new(ToAnswer(answer.clone()))),
        };
        let deadline = options.deadline.map(|time| threads.now() + time);
        self.deliver(incoming, &answer)?;
        let reply = answer.wait(deadline)?;
        if reply.data.len() > options.reply_size_max {
            return Ok(Message::status(Status::STD_OVERFLOW));
        }
        Ok(reply)
    }

    fn listen(&self, port: &GetPort, request_size_max: usize) -> Result<Listener, Error> {
        let put_port = self.put_port(port)?;
        if put_port.is_null() {
            return Err(Error::NotSent(Status::RPC_BADPORT));
        }
        let threads = &self.network.threads;
        let port = Arc::new(Port {
            put_port,
            request_size_max,
            queue: amoeba_threads::Mutex::new(threads, Queue::default()),
            arrived: Condition::new(threads),
        });
        let mut ports = self.network.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.entry(put_port).or_default().push(port.clone());
        Ok(port)
    }

    fn memory(&self, size: usize, fill: &mut dyn FnMut(&mut [u8])) -> Option<Memory> {
        let mut bytes = vec![0; size];
        fill(&mut bytes);
        let network = self.network.clone();
        Some(SharedFile::own(bytes, move |to, bytes| {
            if ![1, 2].contains(&to.0[0]) || to.0[1..] != [0; 7] {
                return Err(Error::NotSent(Status::RPC_NOTFOUND));
            }
            let mut lent = network.lent.lock().unwrap_or_else(PoisonError::into_inner);
            lent.last += 1;
            let ticket = lent.last;
            lent.files.insert((to, ticket), bytes);
            Ok(ticket)
        }))
    }

    fn borrow_memory(&self, ticket: u64) -> Result<Memory, Error> {
        let mut lent = self.network.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let file = lent.files.remove(&(self.address, ticket));
        file.map(SharedFile::borrowed).ok_or(Error::NotSent(Status::STD_NOTFOUND))
    }

    fn put_port(&self, port: &GetPort) -> Result<PutPort, Error> {
        Ok(system_secret().put_port(port))
    }
}

impl Process {
    fn deliver(&self, incoming: Incoming, answer: &Arc<Answer>) -> Result<(), Error> {
        let port = incoming.request.header.port;
        let listeners = {
            let ports = self.network.ports.lock().unwrap_or_else(PoisonError::into_inner);
            ports.get(&port).cloned().unwrap_or_default()
        };
        for listener in listeners {
            let mut queue = listener.queue.lock();
            if queue.closed {
                continue;
            }
            if incoming.request.data.len() > listener.request_size_max {
                incoming.reply.send(Message::status(Status::STD_OVERFLOW));
                return Ok(());
            }
            if queue.requests.len() == QUEUE_MAX {
                return Err(Error::NotSent(Status::RPC_TRYAGAIN));
            }
            queue.requests.push_back((incoming, answer.clone()));
            drop(queue);
            listener.arrived.notify_one();
            return Ok(());
        }
        Err(Error::NotSent(Status::RPC_NOTFOUND))
    }
}

impl Listen for Port {
    fn put_port(&self) -> PutPort {
        self.put_port
    }

    fn getreq(&self) -> Result<Incoming, ListenError> {
        let mut queue = self.queue.lock();
        loop {
            while let Some((incoming, answer)) = queue.requests.pop_front() {
                if answer.take() {
                    return Ok(incoming);
                }
            }
            if queue.closed {
                return Err(ListenError);
            }
            queue = self.arrived.wait(queue);
        }
    }

    fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_all();
    }
}

/// The server's end of an [`Answer`].
struct ToAnswer(Arc<Answer>);

/// Where a client waits for its reply.
struct Answer {
    state: amoeba_threads::Mutex<AnswerState>,
    arrived: Condition,
}

enum AnswerState {
    /// No server thread has the request.
    Queued,
    /// A server thread has it.
    Taken,
    Here(Result<Message, Error>),
    /// The client waits no longer.
    Abandoned,
}

impl Answer {
    fn set(&self, result: Result<Message, Error>) {
        *self.state.lock() = AnswerState::Here(result);
        self.arrived.notify_all();
    }

    /// A server thread takes the request; false when nobody waits for its reply.
    fn take(&self) -> bool {
        let mut state = self.state.lock();
        let wanted = matches!(*state, AnswerState::Queued);
        if wanted {
            *state = AnswerState::Taken;
        }
        wanted
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<Message, Error> {
        let mut state = self.state.lock();
        let mut in_time = true;
        loop {
            match &*state {
                AnswerState::Queued | AnswerState::Taken if in_time => {
                    (state, in_time) = self.arrived.wait_until(state, deadline);
                }
                _ => break,
            }
        }
        match std::mem::replace(&mut *state, AnswerState::Abandoned) {
            AnswerState::Here(result) => result,
            AnswerState::Queued => Err(Error::NotSent(Status::RPC_TRYAGAIN)),
            AnswerState::Taken | AnswerState::Abandoned => Err(Error::MaybeExecuted(Status::RPC_FAILURE)),
        }
    }
}

impl PutReply for ToAnswer {
    fn putrep(self: Box<Self>, reply: Message) {
        self.0.set(Ok(reply));
    }

    fn fail(self: Box<Self>) {
        self.0.set(Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    }
}
