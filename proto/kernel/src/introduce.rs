//! Introductions: which process of this host a client talks to directly from now on, and as whom.

use amoeba_cap::{GetPort, PutPort};
use amoeba_wire::Status;
use amoeba_world::Caller;

use crate::{GetreqId, Kernel, ProcessId};

/// A process of this host, and a client that is to have a channel or a flow to it. Ends with [`Kernel::part`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The process that listens.
    pub server: ProcessId,
    /// Its call of getreq, which is thereby over.
    pub getreq: GetreqId,
    /// Who the client is, for every request of the channel.
    pub caller: Caller,
}

impl Kernel {
    /// Chooses a process that listens on `port` and has a thread that waits: the one with the fewest introductions, in
    /// turn among equals. Only a process that showed this kernel the get-port listens.
    ///
    /// # Errors
    /// RPC_BADPORT for the null port, RPC_NOTFOUND when no process of this host listens, RPC_TRYAGAIN when none of
    /// their threads waits now.
    pub fn introduce(
        &mut self,
        client: ProcessId,
        port: PutPort,
        signature: Option<&GetPort>,
    ) -> Result<Introduction, Status> {
        let caller = self.caller(client, signature).ok_or(Status::RPC_TRYAGAIN)?;
        self.introduce_as(port, caller)
    }

    /// As [`Kernel::introduce`], for a client of another host, of which its kernel has said who it is.
    ///
    /// # Errors
    /// Those of [`Kernel::introduce`].
    pub fn introduce_as(&mut self, port: PutPort, caller: Caller) -> Result<Introduction, Status> {
        if port.is_null() {
            return Err(Status::RPC_BADPORT);
        }
        let entry = self.ports.get_mut(&port).ok_or(Status::RPC_NOTFOUND)?;
        let (server, getreq) = entry.least_introduced().ok_or(Status::RPC_TRYAGAIN)?;
        if let Some(state) = self.processes.get_mut(&server) {
            state.getreqs.remove(&getreq);
        }
        self.counters.introductions += 1;
        Ok(Introduction { server, getreq, caller })
    }

    /// Introduces a client to a thread that has just come for a request; `None` where the process does not listen, or it is
    /// the turn of a request that waits. Where there is always one, introductions and requests take turns: a server that
    /// has much to do is the one that should not be talked to through its kernel.
    pub fn introduce_to(
        &mut self,
        server: ProcessId,
        getreq: GetreqId,
        client: ProcessId,
        port: PutPort,
        signature: Option<&GetPort>,
    ) -> Option<Introduction> {
        let caller = self.caller(client, signature)?;
        let entry = self.ports.get_mut(&port)?;
        let none_waits = entry.queue.is_empty();
        let listening = entry.listening.get_mut(&server)?;
        let none_waits = none_waits && listening.queue.is_empty();
        if std::mem::take(&mut listening.request_next) && !none_waits {
            return None;
        }
        listening.request_next = true;
        listening.introductions += 1;
        self.counters.introductions += 1;
        Some(Introduction { server, getreq, caller })
    }

    /// Who a process is to those that it talks to, if it signs with this get-port.
    pub fn caller(&self, client: ProcessId, signature: Option<&GetPort>) -> Option<Caller> {
        let process = self.address(client)?;
        let signature = signature.map(|port| self.secret.put_port(port)).filter(|port| !port.is_null());
        Some(Caller { process, signature })
    }

    /// The channel of an introduction is over, or did not come about.
    pub fn part(&mut self, server: ProcessId, port: PutPort) {
        let entry = self.ports.get_mut(&port);
        if let Some(listening) = entry.and_then(|entry| entry.listening.get_mut(&server)) {
            listening.introductions = listening.introductions.saturating_sub(1);
        }
    }
}
