//! Introductions: a channel for two processes of this host, made once and then none of the daemon's business, except that
//! it ends with either of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort};
use amoeba_kernel::{GetreqId, Introduction, ProcessId};
use amoeba_threads::Instant;
use amoeba_wire::Status;

use super::super::table::{Member, Token};
use super::Switch;
use crate::channel::bell::{Bell, Keeper};
use crate::channel::region;
use crate::socket::{Bad, ToProcess};

/// The most channels of all processes, unless the daemon has fewer descriptors for them. Past it processes keep to the
/// daemon's path.
pub const CHANNELS_MAX: usize = 4096;
/// The most channels of one process as client. Past it it hears RPC_TRYAGAIN.
pub const CHANNELS_PER_CLIENT_MAX: usize = 256;
/// Descriptors that the daemon holds for a channel.
pub(crate) const DESCRIPTORS_PER_CHANNEL: usize = 2;
/// How long a server may take to accept an introduction.
pub const ACCEPT_TIME: Duration = Duration::from_millis(100);
/// Introductions that wait to be accepted, at most.
const PENDING_MAX: usize = 64;
/// How long an introduction waits for a server all of whose threads are busy; past it its client keeps to the daemon's path
/// and asks again later.
const THREAD_TIME: Duration = Duration::from_millis(20);
/// Introductions that wait so, at most.
const WANTING_MAX: usize = 256;

/// Two processes that share memory.
struct Channel {
    client: ProcessId,
    server: ProcessId,
    port: PutPort,
    to_client: Keeper,
    to_server: Keeper,
}

/// An introduction that the server has not accepted yet.
struct Pending {
    channel: Channel,
    client: Token,
    server: Token,
    /// The client's part of the bells.
    ear: OwnedFd,
    rope: OwnedFd,
}

/// An introduction for which no thread of a server waits yet.
struct Wanting {
    until: Instant,
    token: Token,
    member: Member,
    port: PutPort,
    signature: Option<GetPort>,
    region: OwnedFd,
}

/// All channels.
#[derive(Default)]
pub(super) struct Channels {
    max: usize,
    last: u64,
    /// The oldest first.
    wanting: VecDeque<Wanting>,
    pending: BTreeMap<u64, Pending>,
    /// When introductions are given up, the oldest first; those that were accepted are still among them.
    until: VecDeque<(Instant, u64)>,
    open: BTreeMap<u64, Channel>,
    /// The channels of each process, as client and as server.
    by_client: BTreeSet<(ProcessId, u64)>,
    by_server: BTreeSet<(ProcessId, u64)>,
    accepted: u64,
    refused: u64,
    revoked: u64,
}

fn of(index: &BTreeSet<(ProcessId, u64)>, process: ProcessId) -> impl Iterator<Item = u64> {
    index.range((process, 0)..=(process, u64::MAX)).map(|&(_, id)| id)
}

impl Channels {
    pub(super) fn new(max: usize) -> Channels {
        Channels { max, ..Channels::default() }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let wanting = self.wanting.front().map(|wanting| wanting.until);
        self.until.front().map(|&(at, _)| at).into_iter().chain(wanting).min()
    }

    fn insert(&mut self, id: u64, channel: &Channel) {
        self.by_client.insert((channel.client, id));
        self.by_server.insert((channel.server, id));
    }

    fn remove(&mut self, id: u64) -> Option<Channel> {
        let channel = match self.pending.remove(&id) {
            Some(pending) => pending.channel,
            None => self.open.remove(&id)?,
        };
        self.by_client.remove(&(channel.client, id));
        self.by_server.remove(&(channel.server, id));
        Some(channel)
    }

    fn is_full(&self, client: ProcessId) -> bool {
        self.pending.len() >= PENDING_MAX
            || self.by_client.len() >= self.max
            || of(&self.by_client, client).count() >= CHANNELS_PER_CLIENT_MAX
    }

    /// Counters and tables, a line each.
    pub(super) fn status(&self) -> String {
        let rows = [
            ("channels", self.open.len() as u64),
            ("channels accepted", self.accepted),
            ("channels refused", self.refused),
            ("channels revoked", self.revoked),
        ];
        rows.iter().map(|(name, value)| format!("{name:24} {value}\n")).collect()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.wanting.is_empty()
            && self.pending.is_empty()
            && self.open.is_empty()
            && self.by_client.is_empty()
    }
}

impl Switch {
    /// INTRODUCE: asks a process that listens on the port to accept this one.
    pub(super) fn introduce(
        &mut self,
        now: Instant,
        token: Token,
        member: Member,
        port: PutPort,
        signature: Option<&GetPort>,
        region: OwnedFd,
    ) -> Result<(), Bad> {
        let Some(connection) = self.table.get(token) else { return Ok(()) };
        if connection.is_waiting() {
            return Err(Bad::OutOfTurn);
        }
        region::check(&region).ok_or(Bad::Descriptors)?;
        if self.is_traced() {
            self.refuse(token, Status::RPC_TRYAGAIN); // whoever looks on is to see everything
            return Ok(());
        }
        if self.channels.is_full(member.process) {
            self.channels.refused += 1;
            tracing::debug!(pid = connection.pid, "no more channels");
            self.refuse(token, Status::RPC_TRYAGAIN);
            return Ok(());
        }
        match self.kernel.introduce(member.process, port, signature) {
            Ok(introduction) => self.offer(now, token, introduction, port, region),
            Err(Status::RPC_NOTFOUND) if self.ask_flow(now, token, member, port, signature) => {}
            Err(Status::RPC_TRYAGAIN) if self.channels.wanting.len() < WANTING_MAX => {
                let (until, signature) = (now + THREAD_TIME, signature.cloned());
                if let Some(connection) = self.table.get_mut(token) {
                    connection.introducing = true;
                }
                let wanting = Wanting { until, token, member, port, signature, region };
                self.channels.wanting.push_back(wanting);
            }
            Err(status) => self.refuse(token, status),
        }
        Ok(())
    }

    /// A thread has come for a request on this port: whether it is introduced to somebody who wants to be.
    pub(super) fn introduce_wanting(
        &mut self,
        now: Instant,
        server: Token,
        process: ProcessId,
        port: PutPort,
    ) -> bool {
        if self.is_traced() {
            return false;
        }
        let Some(index) = self.channels.wanting.iter().position(|wanting| wanting.port == port) else {
            return false;
        };
        let (getreq, wanting) = (GetreqId(server.to_u64()), &self.channels.wanting[index]);
        let (client, signature) = (wanting.member.process, wanting.signature.as_ref());
        let Some(introduction) = self.kernel.introduce_to(process, getreq, client, port, signature) else {
            return false;
        };
        if let Some(Wanting { token, region, .. }) = self.channels.wanting.remove(index) {
            self.offer(now, token, introduction, port, region);
        }
        true
    }

    /// Offers a server the introduction.
    fn offer(
        &mut self,
        now: Instant,
        token: Token,
        introduction: Introduction,
        port: PutPort,
        region: OwnedFd,
    ) {
        let server = Token::from_u64(introduction.getreq.0);
        if let Some(connection) = self.table.get_mut(server) {
            connection.getreq = None;
        }
        let client = self.table.get(token).and_then(|connection| connection.member);
        let client = client.expect("whoever asks or waits to be introduced is connected").process;
        match bells() {
            Ok((client_bell, server_bell)) => {
                self.channels.last += 1;
                let id = self.channels.last;
                let to_server = vec![region, server_bell.ear, client_bell.rope];
                let channel = Channel {
                    client,
                    server: introduction.server,
                    port,
                    to_client: client_bell.keeper,
                    to_server: server_bell.keeper,
                };
                self.channels.insert(id, &channel);
                let (ear, rope) = (client_bell.ear, server_bell.rope);
                self.channels.pending.insert(id, Pending { channel, client: token, server, ear, rope });
                self.channels.until.push_back((now + ACCEPT_TIME, id));
                if let Some(connection) = self.table.get_mut(token) {
                    connection.introducing = true;
                }
                let caller = introduction.caller;
                self.send_with(server, ToProcess::Introduced { channel: id, caller }, to_server);
            }
            Err(error) => {
                tracing::warn!("cannot make a channel: {error}");
                self.kernel.part(introduction.server, port);
                self.refuse(server, Status::RPC_TRYAGAIN); // its thread asks for a request again
                self.refuse_introduction(token);
            }
        }
    }

    /// The client must do without a channel, for now.
    fn refuse_introduction(&mut self, token: Token) {
        self.channels.refused += 1;
        if let Some(connection) = self.table.get_mut(token) {
            connection.introducing = false;
            self.refuse(token, Status::RPC_TRYAGAIN);
        }
    }

    /// ACCEPT: passes the server's side on to the client.
    pub(super) fn accept(&mut self, token: Token, id: u64, region: OwnedFd) -> Result<(), Bad> {
        region::check(&region).ok_or(Bad::Descriptors)?;
        if self.channels.pending.get(&id).is_none_or(|pending| pending.server != token) {
            return Ok(()); // too late: the client has been told, and the server will find nobody at the other end
        }
        let Some(Pending { channel, client, ear, rope, .. }) = self.channels.pending.remove(&id) else {
            return Ok(());
        };
        self.is_introduced(channel.server);
        self.channels.open.insert(id, channel);
        self.channels.accepted += 1;
        if let Some(connection) = self.table.get_mut(client) {
            connection.introducing = false;
        }
        self.send_with(client, ToProcess::Channel { channel: id }, vec![region, ear, rope]);
        Ok(())
    }

    /// DECLINE.
    pub(super) fn decline(&mut self, token: Token, id: u64) {
        if self.channels.pending.get(&id).is_some_and(|pending| pending.server == token) {
            self.give_up(id);
        }
    }

    /// CLOSE: a process has done with one of its channels.
    pub(super) fn close_channel(&mut self, token: Token, member: Member, id: u64) {
        let process = member.process;
        let is_mine = |channel: &Channel| channel.client == process || channel.server == process;
        if self.channels.open.get(&id).is_some_and(is_mine) {
            self.end_channel(id);
        }
        self.send(token, ToProcess::Done);
    }

    /// Introductions that were not accepted in time are given up.
    pub(super) fn introductions_timeout(&mut self, now: Instant) {
        while self.channels.wanting.front().is_some_and(|wanting| wanting.until <= now)
            && let Some(wanting) = self.channels.wanting.pop_front()
        {
            self.refuse_introduction(wanting.token);
        }
        while let Some(&(at, id)) = self.channels.until.front()
            && at <= now
        {
            self.channels.until.pop_front();
            if self.channels.pending.contains_key(&id) {
                tracing::debug!("a server did not accept an introduction in time");
                self.give_up(id);
            }
        }
    }

    /// The introductions that a connection takes part in end with it.
    pub(super) fn introductions_disconnected(&mut self, token: Token) {
        self.channels.wanting.retain(|wanting| wanting.token != token);
        let with = |(id, pending): (&u64, &Pending)| {
            (pending.client == token || pending.server == token).then_some(*id)
        };
        let ids: Vec<u64> = self.channels.pending.iter().filter_map(with).collect();
        for id in ids {
            self.give_up(id);
        }
    }

    /// Ends all channels of a process at once: whoever waits at the other end is told. For its death, and for its stun.
    pub(super) fn revoke(&mut self, process: ProcessId) {
        let channels = &self.channels;
        let ids: BTreeSet<u64> =
            of(&channels.by_client, process).chain(of(&channels.by_server, process)).collect();
        for id in ids {
            if self.channels.pending.contains_key(&id) {
                self.give_up(id);
            } else {
                self.channels.revoked += 1;
                self.end_channel(id);
            }
        }
    }

    fn end_channel(&mut self, id: u64) {
        let Some(channel) = self.channels.remove(id) else { return };
        channel.to_client.revoke();
        channel.to_server.revoke();
        self.kernel.part(channel.server, channel.port);
    }

    /// An introduction comes to nothing: the client hears that it must do without.
    fn give_up(&mut self, id: u64) {
        let Some(client) = self.channels.pending.get(&id).map(|pending| pending.client) else { return };
        self.end_channel(id);
        self.refuse_introduction(client);
    }
}

/// The bell of the client and that of the server.
fn bells() -> io::Result<(Bell, Bell)> {
    Ok((Bell::new()?, Bell::new()?))
}
