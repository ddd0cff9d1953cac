//! The server's side: threads in getreq look at its channels, and replies go out.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_channel::{Receiving, Sending};
use amoeba_world::{Caller, Message, PutReply};

use super::{Channel, ChannelId, Ended};
use crate::core::{Core, State};
use crate::host::ProcessId;

/// How long a thread waits for a client that does not read its reply. Then threads in getreq send the rest, as it reads.
const REPLY_PATIENCE: Duration = Duration::from_millis(5);
/// How long it waits when nobody is in getreq any more, who could.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// What looking at the channels of a port gave.
pub(crate) enum Looked {
    /// A request, which the calling thread is to execute.
    Request(ChannelId, Caller, Message),
    /// Something was done, and there may be more to do.
    Progress,
    /// There is nothing to do: every channel has been told that nobody looks.
    Nothing,
}

impl State {
    /// A thread in getreq looks at the channels of its port.
    pub(crate) fn look(&mut self, server: ProcessId, port: PutPort) -> Looked {
        let ids = self.channels.of_server(server, port);
        let mut progress = false;
        for &id in &ids {
            let Some(channel) = self.channels.open.get_mut(&id) else { continue };
            if channel.executing || channel.ended.is_some() {
                continue;
            }
            channel.server_end.after_sleep();
            let received = channel.server_end.receive();
            if let Receiving::Request(message) = received {
                channel.executing = true;
                self.channels.taken += 1;
                let caller = channel.caller;
                self.ring_client(id);
                return Looked::Request(id, caller, message);
            }
            progress |= received == Receiving::Progress;
            match received {
                Receiving::Over(_) => self.end_channel(id, Ended::Gone),
                Receiving::Busy => progress |= self.send_rest(id),
                _ => {}
            }
            self.ring_client(id);
        }
        if progress {
            return Looked::Progress;
        }
        for id in ids {
            let channel = self.channels.open.get_mut(&id);
            if let Some(channel) = channel.filter(|channel| !channel.executing && channel.ended.is_none()) {
                progress |= !channel.server_end.before_sleep();
            }
        }
        if progress { Looked::Progress } else { Looked::Nothing }
    }

    /// Sends more of a reply whose thread has gone; whether anything was done.
    fn send_rest(&mut self, id: ChannelId) -> bool {
        let Some(channel) = self.channels.open.get_mut(&id) else { return false };
        match channel.server_end.step() {
            Sending::Done | Sending::Progress => true,
            Sending::Waiting => false,
            Sending::Over(_) => {
                self.end_channel(id, Ended::Gone);
                true
            }
        }
    }
}

/// The duty to answer a request that came over a channel.
pub(crate) struct ChannelReply {
    core: Arc<Core>,
    channel: ChannelId,
}

impl ChannelReply {
    pub(crate) fn new(core: Arc<Core>, channel: ChannelId) -> ChannelReply {
        ChannelReply { core, channel }
    }

    /// Begins the reply with `begin`, and sends as much of it as the client reads without delay.
    fn send(&self, begin: impl FnOnce(&mut Channel) -> Sending) {
        let mut begin = Some(begin);
        let mut waiting_since = None;
        loop {
            let until = {
                let mut state = self.core.state();
                let now = state.now;
                let Some(channel) = state.channels.open.get_mut(&self.channel) else { return };
                channel.server_end.after_sleep();
                let sending = match begin.take() {
                    Some(begin) => begin(channel),
                    None => channel.server_end.step(),
                };
                channel.replier = None;
                let last = channel.ended.is_some();
                let patience = if last { LAST_PATIENCE } else { REPLY_PATIENCE };
                state.ring_client(self.channel);
                match sending {
                    Sending::Progress => {
                        waiting_since = None;
                        now
                    }
                    Sending::Waiting if now < *waiting_since.get_or_insert(now) + patience => {
                        let until = waiting_since.unwrap_or(now) + patience;
                        let thread = state.table.current;
                        let Some(channel) = state.channels.open.get_mut(&self.channel) else { return };
                        channel.replier = thread;
                        if channel.server_end.before_sleep() { until } else { now }
                    }
                    Sending::Over(_) => return state.end_channel(self.channel, Ended::Gone),
                    Sending::Done | Sending::Waiting => {
                        let Some(channel) = state.channels.open.get_mut(&self.channel) else { return };
                        channel.executing = false;
                        return state.arm(self.channel);
                    }
                }
            };
            self.core.park(Some(until));
        }
    }
}

impl PutReply for ChannelReply {
    fn putrep(self: Box<Self>, reply: Message) {
        self.send(|channel| channel.server_end.reply(reply));
    }

    fn fail(self: Box<Self>) {
        self.send(|channel| channel.server_end.fail());
    }
}
