//! Channels between the processes of a simulated host: the real ends, over memory that both hold, with steps of both in
//! any order.
//!
//! All of them are in one table behind the lock of the run, but each side touches only its own end, and wakes the other
//! only when its end says so: a bell that is not rung is a thread that never wakes, and the run says that it hangs.
//! [`client`] and [`server`] are the two sides.

mod client;
mod hostile;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use amoeba_cap::{GetPort, PORT_SIZE, PutPort};
use amoeba_channel::memory::Plain;
use amoeba_channel::{ClientEnd, ServerEnd, Service};
use amoeba_kernel::{self as kernel, Introduction};
use amoeba_world::Caller;

pub(crate) use client::trans;
pub(crate) use server::{ChannelReply, Looked};

use crate::core::State;
use crate::host::{HostId, PendingState, ProcessId};
use crate::random::Prng;
use crate::scheduler::ThreadId;

/// The most channels that a process has as client; past it transactions go through the kernel.
const CHANNELS_PER_CLIENT_MAX: usize = 8;
/// Rings are between these powers of two, drawn from the seed: small enough that messages go round them.
const RING_BITS: (u64, u64) = (10, 17);

/// Never used again in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelId(u64);

/// What a channel of a client is for: requests to a port, signed in one way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    port: PutPort,
    signature: Option<[u8; PORT_SIZE]>,
}

impl Key {
    fn new(port: PutPort, signature: Option<&GetPort>) -> Key {
        Key { port, signature: signature.map(GetPort::to_bytes) }
    }
}

/// Why a channel takes no more requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The server is dead, or found its client hostile.
    Gone,
    /// The server no longer listens; what it executes goes on.
    Closed,
}

struct Channel {
    key: Key,
    host: HostId,
    client: ProcessId,
    server: ProcessId,
    /// The server's name at its kernel.
    attached: kernel::ProcessId,
    caller: Caller,
    /// What the client writes.
    requests: Arc<Plain>,
    /// What the server writes.
    replies: Arc<Plain>,
    client_end: ClientEnd<Arc<Plain>, Arc<Plain>>,
    server_end: ServerEnd<Arc<Plain>, Arc<Plain>>,
    /// The client's thread whose transaction it carries.
    thread: Option<ThreadId>,
    /// A thread of the server executes its request, or sends the reply: others leave it alone.
    executing: bool,
    /// The thread that waits for room for its reply.
    replier: Option<ThreadId>,
    ended: Option<Ended>,
}

/// The channels of a run.
pub(crate) struct Channels {
    open: BTreeMap<ChannelId, Channel>,
    last: u64,
    /// Requests that were taken from channels.
    pub(crate) taken: u64,
    /// Processes that scribble.
    hostile: BTreeSet<ProcessId>,
    random: Prng,
}

impl Channels {
    pub(crate) fn new(seed: u64) -> Channels {
        Channels {
            open: BTreeMap::new(),
            last: 0,
            taken: 0,
            hostile: BTreeSet::new(),
            random: Prng::new(seed, "channels", 0),
        }
    }

    /// The channels of a process as server, from any of them on.
    fn of_server(&mut self, server: ProcessId, port: PutPort) -> Vec<ChannelId> {
        let served = |channel: &Channel| channel.server == server && channel.key.port == port;
        let mut ids: Vec<ChannelId> =
            self.open.iter().filter(|(_, channel)| served(channel)).map(|(id, _)| *id).collect();
        if ids.len() > 1 {
            let first = self.random.below(ids.len() as u64) as usize;
            ids.rotate_left(first);
        }
        ids
    }

    fn ids(&self, which: impl Fn(&Channel) -> bool) -> Vec<ChannelId> {
        self.open.iter().filter(|(_, channel)| which(channel)).map(|(id, _)| *id).collect()
    }

    fn ring(&mut self) -> Arc<Plain> {
        Plain::new(1 << self.random.between(RING_BITS.0, RING_BITS.1))
    }
}

impl State {
    /// Asks the kernel for a process to talk to, and makes a channel for the calling thread. `None`: there is no such
    /// process, or it has no thread that waits.
    fn introduce(
        &mut self,
        client: ProcessId,
        key: Key,
        signature: Option<&GetPort>,
        thread: ThreadId,
    ) -> Option<ChannelId> {
        let host = self.processes.get(&client)?.host;
        let port = key.port;
        let introduction =
            self.drive_for(client, |kernel, _, id| kernel.introduce(id, port, signature))?.ok()?;
        let channel = self.connect(host, client, key, &introduction, thread);
        if channel.is_none() {
            self.drive(host, |kernel, _| kernel.part(introduction.server, port));
        }
        channel
    }

    fn connect(
        &mut self,
        host: HostId,
        client: ProcessId,
        key: Key,
        introduction: &Introduction,
        thread: ThreadId,
    ) -> Option<ChannelId> {
        let server = self.process_at(host, introduction.server)?;
        let process = self.processes.get_mut(&server)?;
        if let Some((_, pending)) = process.getreqs.get_mut(&introduction.getreq) {
            pending.state = PendingState::Over; // its thread asks again
            self.table.unpark(pending.thread);
        }
        let service = Service {
            port: key.port,
            signature: introduction.caller.signature.unwrap_or(PutPort::NULL),
            request_size_max: *process.listening.get(&key.port)?,
        };
        let (requests, replies) = (self.channels.ring(), self.channels.ring());
        let channel = Channel {
            key,
            host,
            client,
            server,
            attached: introduction.server,
            caller: introduction.caller,
            client_end: ClientEnd::new(requests.clone(), replies.clone()),
            server_end: ServerEnd::new(replies.clone(), requests.clone(), service),
            requests,
            replies,
            thread: Some(thread),
            executing: false,
            replier: None,
            ended: None,
        };
        self.channels.last += 1;
        let id = ChannelId(self.channels.last);
        self.channels.open.insert(id, channel);
        self.arm(id);
        Some(id)
    }

    /// A channel is no more: nobody will hear anything over it.
    fn remove_channel(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.open.remove(&id) else { return };
        for thread in [channel.thread, channel.replier].into_iter().flatten() {
            self.table.unpark(thread);
        }
        self.drive(channel.host, |kernel, _| kernel.part(channel.attached, channel.key.port));
    }

    /// The server will take no more from a channel; a client that uses it has to end it.
    fn end_channel(&mut self, id: ChannelId, ended: Ended) {
        let Some(channel) = self.channels.open.get_mut(&id) else { return };
        if channel.ended != Some(Ended::Gone) {
            channel.ended = Some(ended); // a dead process's listeners close too
        }
        match channel.thread {
            Some(thread) => self.table.unpark(thread),
            None => self.remove_channel(id),
        }
    }

    /// A process has died: its peers hear of it at once.
    pub(crate) fn end_channels_of(&mut self, process: ProcessId) {
        for id in self.channels.ids(|channel| channel.client == process) {
            self.remove_channel(id);
        }
        for id in self.channels.ids(|channel| channel.server == process) {
            self.end_channel(id, Ended::Gone);
        }
    }

    /// A process no longer listens on a port.
    pub(crate) fn close_channels(&mut self, server: ProcessId, port: PutPort) {
        for id in self.channels.ids(|channel| channel.server == server && channel.key.port == port) {
            self.end_channel(id, Ended::Closed);
        }
    }

    /// Wakes the client if the server's end says so.
    fn ring_client(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.open.get_mut(&id) else { return };
        if channel.server_end.bell()
            && let Some(thread) = channel.thread
        {
            self.table.unpark(thread);
        }
    }

    /// Wakes a thread of the server if the client's end says so.
    fn ring_server(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.open.get_mut(&id) else { return };
        if !channel.client_end.bell() {
            return;
        }
        match channel.replier {
            Some(thread) => self.table.unpark(thread),
            None => {
                let (server, port) = (channel.server, channel.key.port);
                self.wake_one(server, port);
            }
        }
    }

    /// Wakes one thread that waits for a request on a port: it looks at all channels.
    pub(crate) fn wake_one(&mut self, server: ProcessId, port: PutPort) {
        let Some(process) = self.processes.get(&server) else { return };
        let waits = |pending: &crate::host::Pending<_>| matches!(pending.state, PendingState::Waiting);
        let waiting = process.getreqs.values().find(|(other, pending)| *other == port && waits(pending));
        if let Some((_, pending)) = waiting {
            self.table.unpark(pending.thread);
        }
    }

    /// From now on the client's bell is needed for this channel; what came before it was, is looked at.
    fn arm(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.open.get_mut(&id) else { return };
        if !channel.server_end.before_sleep() {
            let (server, port) = (channel.server, channel.key.port);
            self.wake_one(server, port);
        }
    }
}
