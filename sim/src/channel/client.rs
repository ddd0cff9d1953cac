//! The client's side: which channel a transaction takes, and how it goes.

use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_channel::{End, Fate, Step};
use amoeba_threads::Instant;
use amoeba_wire::{Command, DATA_SIZE_MAX, Status};
use amoeba_world::{Error, Message, TransOptions};

use super::{CHANNELS_PER_CLIENT_MAX, ChannelId, Ended, Key};
use crate::core::{Core, State};
use crate::host::{PendingState, ProcessId};

/// How long a request may wait untaken, and nothing of it be read, before it goes through the kernel, where any process that listens may take it.
const PATIENCE: Duration = Duration::from_millis(50);

const FAILURE: Error = Error::MaybeExecuted(Status::RPC_FAILURE);

/// A transaction over a channel, if this process has or gets one for it: from the second to a port on.
///
/// # Errors
/// The request, certainly not executed, which is to go through the kernel.
pub(crate) fn trans(
    core: &Core,
    process: ProcessId,
    request: Message,
    options: &TransOptions,
) -> Result<Result<Message, Error>, Message> {
    let (mut going, now) = {
        let mut state = core.state();
        let now = state.now;
        let Some(channel) = state.take_channel(process, &request, options) else { return Err(request) };
        let Some(open) = state.channels.open.get_mut(&channel) else { return Err(request) };
        let begun = open.client_end.begin(request, options.reply_size_max);
        begun.expect("a channel that is given back is idle, and so is a new one");
        state.ring_server(channel);
        let deadline = options.deadline.map(|time| now + time);
        (Going { channel, withdrawn: false, deadline, patient_until: now + PATIENCE }, now)
    };
    loop {
        let until = match going.go_on(&mut core.state()) {
            Next::Done(result) => return Ok(result),
            Next::Elsewhere(request) => return Err(request),
            Next::Yield => Some(now), // in the past: others may run in between
            Next::Sleep(until) => until,
            Next::Dead => {
                core.check_alive();
                return Ok(Err(FAILURE)); // a destructor in a dead process gets no answer
            }
        };
        core.park(until);
        if let Some(channel) = core.state().channels.open.get_mut(&going.channel) {
            channel.client_end.after_sleep();
        }
    }
}

/// A transaction under way.
struct Going {
    channel: ChannelId,
    /// It was taken back too late, and now its end is awaited.
    withdrawn: bool,
    deadline: Option<Instant>,
    patient_until: Instant,
}

enum Next {
    Done(Result<Message, Error>),
    Elsewhere(Message),
    Yield,
    Sleep(Option<Instant>),
    Dead,
}

impl Going {
    fn go_on(&mut self, state: &mut State) -> Next {
        let id = self.channel;
        let now = state.now;
        let Some(channel) = state.channels.open.get_mut(&id) else { return Next::Dead };
        let end = &mut channel.client_end;
        if channel.ended == Some(Ended::Gone) {
            let next = match end.peer_gone() {
                End::Reply(reply) => Next::Done(Ok(reply)),
                End::MaybeTaken => Next::Done(Err(FAILURE)),
                End::NotTaken => elsewhere(end.take_request()),
            };
            state.remove_channel(id);
            return next;
        }
        match end.step() {
            Step::Reply(reply) => state.give_channel(id, Next::Done(Ok(reply))),
            Step::Failed => state.give_channel(id, Next::Done(Err(FAILURE))),
            Step::Idle => {
                let next = elsewhere(end.take_request());
                state.give_channel(id, next)
            }
            Step::Progress => {
                self.patient_until = now + PATIENCE;
                state.ring_server(id);
                Next::Yield
            }
            Step::Waiting => self.wait(state, now),
            Step::Broken(_) | Step::Over => {
                state.remove_channel(id);
                Next::Done(Err(FAILURE))
            }
        }
    }

    fn wait(&mut self, state: &mut State, now: Instant) -> Next {
        let id = self.channel;
        let Some(channel) = state.channels.open.get_mut(&id) else { return Next::Dead };
        let late = self.deadline.is_some_and(|deadline| deadline <= now);
        let impatient = !self.withdrawn && (channel.ended.is_some() || self.patient_until <= now);
        if late || impatient {
            match channel.client_end.withdraw() {
                Fate::MaybeTaken if late => {
                    state.remove_channel(id); // the reply will go nowhere
                    return Next::Done(Err(FAILURE));
                }
                Fate::MaybeTaken => self.withdrawn = true,
                Fate::NotTaken if late => {
                    return state.give_channel(id, Next::Done(Err(Error::NotSent(Status::RPC_TRYAGAIN))));
                }
                Fate::NotTaken => {
                    if channel.ended.is_none() {
                        let (client, server, port) = (channel.client, channel.server, channel.key.port);
                        state.check_awake(client, server, port);
                    }
                    let Some(channel) = state.channels.open.get_mut(&id) else { return Next::Dead };
                    let next = elsewhere(channel.client_end.take_request());
                    state.remove_channel(id); // the next introduction may find a process with more time
                    return next;
                }
            }
        }
        if !channel.client_end.before_sleep() {
            channel.client_end.after_sleep();
            return Next::Yield;
        }
        let patience = (!self.withdrawn).then_some(self.patient_until);
        Next::Sleep([self.deadline, patience].into_iter().flatten().min())
    }
}

fn elsewhere(request: Option<Message>) -> Next {
    Next::Elsewhere(request.expect("what was withdrawn comes back"))
}

impl State {
    /// A channel for the calling thread, which has it until [`State::give_channel`].
    fn take_channel(
        &mut self,
        client: ProcessId,
        request: &Message,
        options: &TransOptions,
    ) -> Option<ChannelId> {
        let thread = self.table.current?;
        let Command(command) = request.header.command();
        let port = request.header.port;
        if port.is_null() || (command as i16) < 0 || request.data.len() > DATA_SIZE_MAX {
            return None; // the kernel says what is wrong with it
        }
        let key = Key::new(port, options.signature.as_ref());
        if self.processes.get_mut(&client)?.asked.insert(key) {
            return None;
        }
        let mine = self.channels.ids(|channel| channel.client == client);
        let open = &mut self.channels.open;
        let idle = mine
            .iter()
            .copied()
            .find(|id| open.get(id).is_some_and(|channel| channel.key == key && channel.thread.is_none()));
        if let Some(id) = idle {
            open.get_mut(&id).expect("found just now").thread = Some(thread);
            return Some(id);
        }
        if mine.len() >= CHANNELS_PER_CLIENT_MAX {
            // An idle one for something else makes room for the next.
            let unused = mine.into_iter().find(|id| open.get(id).is_some_and(|other| other.thread.is_none()));
            self.remove_channel(unused?);
        }
        self.introduce(client, key, options.signature.as_ref(), thread)
    }

    /// A client has lost its patience: then no thread of its server may be asleep, or a bell was not rung.
    fn check_awake(&mut self, client: ProcessId, server: ProcessId, port: PutPort) {
        let hostile = &self.channels.hostile;
        if hostile.contains(&client) || hostile.contains(&server) {
            return;
        }
        let Some(process) = self.processes.get(&server) else { return };
        let asleep = process.getreqs.values().any(|(other, pending)| {
            *other == port
                && matches!(pending.state, PendingState::Waiting)
                && self.table.is_parked(pending.thread)
        });
        if asleep {
            let name = self.process_name(server);
            self.failures.push(format!("a request waited for {PATIENCE:?} while a thread of {name} slept"));
        }
    }

    /// The transaction over a channel has ended.
    fn give_channel(&mut self, id: ChannelId, next: Next) -> Next {
        self.ring_server(id);
        if let Some(channel) = self.channels.open.get_mut(&id) {
            channel.thread = None;
            if channel.ended.is_some() {
                self.remove_channel(id);
            }
        }
        next
    }
}
