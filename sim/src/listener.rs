//! A port that a simulated process listens on: requests come from its kernel and over channels.

use std::sync::Arc;

use amoeba_cap::PutPort;
use amoeba_kernel::{GetreqId, RequestId};
use amoeba_world::{Incoming, Listen, ListenError, Listener, Message, PutReply, ReplyTo};

use crate::channel::{ChannelReply, Looked};
use crate::core::{Core, State};
use crate::host::{Arrived, Pending, PendingState, ProcessId};
use crate::scheduler::ThreadId;

/// The listener of a process that its kernel has let listen.
pub(crate) fn open(
    core: &Arc<Core>,
    process: ProcessId,
    put_port: PutPort,
    request_size_max: usize,
) -> Listener {
    if let Some(process) = core.state().processes.get_mut(&process) {
        process.listening.insert(put_port, request_size_max);
    }
    Arc::new(SimListener { core: core.clone(), process, put_port })
}

struct SimListener {
    core: Arc<Core>,
    process: ProcessId,
    put_port: PutPort,
}

/// What a look at everything gave.
enum Found {
    Request(Incoming),
    Progress,
    Nothing,
    /// The kernel must be asked again.
    Over,
}

impl SimListener {
    /// Tells the kernel that the calling thread waits.
    fn ask(&self, state: &mut State) -> Result<GetreqId, ListenError> {
        let thread = state.table.current.expect("only threads of the simulated world serve");
        let process = state.processes.get_mut(&self.process).ok_or(ListenError)?;
        process.getreq_count += 1;
        let getreq = GetreqId(process.getreq_count);
        process.getreqs.insert(getreq, (self.put_port, Pending::new(thread)));
        let port = self.put_port;
        let asked = state.drive_for(self.process, |kernel, _, id| kernel.getreq(id, port, getreq));
        if !matches!(asked, Some(Ok(()))) {
            if let Some(process) = state.processes.get_mut(&self.process) {
                process.getreqs.remove(&getreq);
            }
            return Err(ListenError);
        }
        Ok(getreq)
    }

    /// Looks at what the kernel gave, then at the channels.
    fn look(&self, state: &mut State, getreq: GetreqId) -> Result<Found, ListenError> {
        let process = state.processes.get_mut(&self.process).ok_or(ListenError)?;
        let (port, pending) = process.getreqs.remove(&getreq).ok_or(ListenError)?;
        match pending.state {
            PendingState::Ready(arrived) => return Ok(Found::Request(self.incoming(arrived))),
            PendingState::Over => return Ok(Found::Over),
            PendingState::Cancelled => return Err(ListenError),
            PendingState::Waiting => {}
        }
        process.getreqs.insert(getreq, (port, pending));
        match state.look(self.process, port) {
            Looked::Request(channel, caller, request) => {
                state.drive_for(self.process, |kernel, _, id| kernel.cancel_getreq(id, getreq));
                if let Some(process) = state.processes.get_mut(&self.process) {
                    process.getreqs.remove(&getreq);
                }
                let reply = ReplyTo::new(Box::new(ChannelReply::new(self.core.clone(), channel)));
                Ok(Found::Request(Incoming { caller, request, reply }))
            }
            Looked::Progress => Ok(Found::Progress),
            Looked::Nothing => Ok(Found::Nothing),
        }
    }

    fn incoming(&self, arrived: Arrived) -> Incoming {
        let put = SimReply { core: self.core.clone(), process: self.process, request: arrived.request };
        Incoming { caller: arrived.caller, request: arrived.message, reply: ReplyTo::new(Box::new(put)) }
    }
}

impl Listen for SimListener {
    fn put_port(&self) -> PutPort {
        self.put_port
    }

    fn getreq(&self) -> Result<Incoming, ListenError> {
        if !self.core.check_alive() {
            return Err(ListenError);
        }
        let mut getreq = self.ask(&mut self.core.state())?;
        loop {
            let until = {
                let mut state = self.core.state();
                match self.look(&mut state, getreq)? {
                    Found::Request(incoming) => {
                        // Whoever looks has told clients that somebody is awake; now it is somebody else.
                        state.wake_one(self.process, self.put_port);
                        return Ok(incoming);
                    }
                    Found::Over => {
                        getreq = self.ask(&mut state)?;
                        Some(state.now)
                    }
                    Found::Progress => Some(state.now),
                    Found::Nothing => None,
                }
            };
            self.core.park(until);
            if !self.core.check_alive() {
                return Err(ListenError);
            }
        }
    }

    fn close(&self) {
        let mut state = self.core.state();
        let port = self.put_port;
        state.drive_for(self.process, |kernel, now, id| kernel.unlisten(now, id, port));
        state.close_channels(self.process, port);
        let Some(process) = state.processes.get_mut(&self.process) else {
            return;
        };
        process.listening.remove(&port);
        // A request that was delivered already is served; whoever waits in vain returns.
        let waiting = process.getreqs.values_mut().filter(|(other, pending)| {
            *other == port && matches!(pending.state, PendingState::Waiting | PendingState::Over)
        });
        let threads: Vec<ThreadId> = waiting
            .map(|(_, pending)| {
                pending.state = PendingState::Cancelled;
                pending.thread
            })
            .collect();
        threads.into_iter().for_each(|thread| state.table.unpark(thread));
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.close();
    }
}

/// The duty to answer a request that came from the kernel.
struct SimReply {
    core: Arc<Core>,
    process: ProcessId,
    request: RequestId,
}

impl PutReply for SimReply {
    fn putrep(self: Box<Self>, reply: Message) {
        let request = self.request;
        self.core.state().drive_for(self.process, |kernel, now, id| kernel.putrep(now, id, request, reply));
    }

    fn fail(self: Box<Self>) {
        let request = self.request;
        self.core.state().drive_for(self.process, |kernel, now, id| kernel.fail(now, id, request));
    }
}
