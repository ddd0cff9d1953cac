//! The server side: listening, giving requests to threads in getreq, replies, and the end of a server.

use amoeba_cap::{GetPort, PutPort};
use amoeba_rpc::ClientKey;
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::{Caller, Error, Message};

use crate::ports::Listening;
use crate::transact::{ClientSlot, SERVER_DIED};
use crate::{
    Event, GETREQS_MAX, GetreqId, Kernel, PORTS_PER_PROCESS_MAX, ProcessId, QUEUE_MAX, QUEUED_SIZE_MAX,
};
use crate::{RequestId, Slot};

/// Who waits for the reply to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A thread of this host.
    Local { process: ProcessId, slot: Slot, locate_deadline: Instant, reply_size_max: usize },
    /// A thread elsewhere, which addressed this process: it answers for it, whoever of this host executes.
    Remote { server: ProcessId, client: ClientKey, tid: u32 },
}

/// A request that waits for a thread, or is being executed.
#[derive(Debug)]
pub(crate) struct Request {
    origin: Origin,
    port: PutPort,
    caller: Caller,
    /// Present until it is delivered.
    message: Option<Message>,
    /// The process that executes it.
    server: Option<ProcessId>,
}

impl Kernel {
    /// The process listens on a get-port from now on. `request_size_max` bounds the data of its requests.
    pub fn listen(
        &mut self,
        now: Instant,
        process: ProcessId,
        port: &GetPort,
        request_size_max: usize,
    ) -> Result<PutPort, Status> {
        if port.is_null() {
            return Err(Status::RPC_BADPORT);
        }
        let put_port = self.secret.put_port(port);
        let server = self.processes.get_mut(&process).ok_or(Status::RPC_TRYAGAIN)?;
        if server.ports.len() >= PORTS_PER_PROCESS_MAX {
            return Err(Status::RPC_TRYAGAIN);
        }
        server.ports.insert(put_port);
        self.widen(process, request_size_max);
        let port = self.ports.entry(put_port).or_default();
        let listening = port.listening.entry(process).or_insert_with(|| Listening {
            request_size_max,
            getreqs: Default::default(),
            queue: Default::default(),
            local_next: false,
            request_next: false,
            introductions: 0,
        });
        listening.request_size_max = request_size_max;
        self.release_untaken(now, put_port);
        self.port_found(now, put_port);
        self.pump(now);
        Ok(put_port)
    }

    /// The process no longer listens; its calls of getreq on that port are forgotten, what it executes goes on.
    pub fn unlisten(&mut self, now: Instant, process: ProcessId, port: PutPort) {
        self.stop_listening(now, process, port);
        self.pump(now);
    }

    /// A thread of the process waits for a request on a port it listens on: one [`Event::Request`] will name `getreq`.
    ///
    /// # Errors
    /// RPC_BADPORT when the process does not listen on the port, RPC_TRYAGAIN when too many of its threads wait.
    pub fn getreq(&mut self, process: ProcessId, port: PutPort, getreq: GetreqId) -> Result<(), Status> {
        let server = self.processes.get_mut(&process).ok_or(Status::RPC_BADPORT)?;
        let entry = self.ports.get_mut(&port).ok_or(Status::RPC_BADPORT)?;
        let listening = entry.listening.get_mut(&process).ok_or(Status::RPC_BADPORT)?;
        let size_max = listening.request_size_max;
        let size = |request: &RequestId| self.requests.get(request).map_or(0, Request::size);
        let local = entry.queue.iter().position(|request| size(request) <= size_max);
        // In turn, so that clients of neither side can keep those of the other waiting for ever.
        let is_local = local.is_some() && (listening.local_next || listening.queue.is_empty());
        let request = match local.filter(|_| is_local) {
            Some(index) => entry.queue.remove(index),
            None => listening.queue.pop_front(),
        };
        let request = request.or_else(|| entry.take_over(|request| size(request) <= size_max));
        let listening = entry.listening.get_mut(&process).expect("it was found above");
        if let Some(request) = request {
            listening.local_next = !is_local;
            self.deliver(request, process, getreq);
            return Ok(());
        }
        if server.getreqs.len() >= GETREQS_MAX || server.getreqs.contains_key(&getreq) {
            return Err(Status::RPC_TRYAGAIN);
        }
        listening.getreqs.push_back(getreq);
        server.getreqs.insert(getreq, port);
        Ok(())
    }

    /// That thread no longer waits. If its request was delivered already, this does nothing.
    pub fn cancel_getreq(&mut self, process: ProcessId, getreq: GetreqId) {
        let port = self.processes.get_mut(&process).and_then(|process| process.getreqs.remove(&getreq));
        let entry = port.and_then(|port| self.ports.get_mut(&port));
        if let Some(listening) = entry.and_then(|entry| entry.listening.get_mut(&process)) {
            listening.getreqs.retain(|other| *other != getreq);
        }
    }

    /// Answers a request. Unknown ids (a client that has died, an answer given twice) are ignored. A status in the
    /// range of the transaction layer, which only kernels may use, becomes RPC_REMOTERPC.
    pub fn putrep(&mut self, now: Instant, process: ProcessId, request: RequestId, mut reply: Message) {
        let Some(origin) = self.executed(process, request) else { return };
        if reply.header.status().is_rpc() {
            reply = Message::status(Status::RPC_REMOTERPC);
        }
        match origin {
            Origin::Local { process, slot, reply_size_max, .. } => {
                let fits = reply.data.len() <= reply_size_max;
                self.answer(process, slot, request, Ok(if fits { reply } else { too_large() }));
            }
            Origin::Remote { server, client, tid } => {
                let Some(state) = self.processes.get_mut(&server) else { return };
                if reply.data.len() > amoeba_wire::DATA_SIZE_MAX {
                    reply = Message::status(Status::STD_OVERFLOW);
                }
                let answer = state.clients.reply(now, client, tid, reply);
                self.rearm_clients(server);
                if let Some((to, packet)) = answer {
                    self.bound_replies(now, server, client, packet.len());
                    self.send(now, server, to, packet);
                }
            }
        }
        self.pump(now);
    }

    /// Gives a request up: its client hears RPC_FAILURE.
    pub fn fail(&mut self, now: Instant, process: ProcessId, request: RequestId) {
        if let Some(origin) = self.executed(process, request) {
            self.fail_origin(now, request, origin);
            self.pump(now);
        }
    }

    /// A request that was to be delivered to a process was certainly not: it goes to another that listens, or waits. Whatever
    /// its client no longer waits for is forgotten.
    pub fn take_back(&mut self, now: Instant, process: ProcessId, id: RequestId, message: Message) {
        let Some(request) = self.requests.get_mut(&id).filter(|request| request.server == Some(process))
        else {
            return;
        };
        (request.server, request.message) = (None, Some(message));
        let (origin, port, size) = (request.origin, request.port, request.size());
        self.queued_size += size;
        if let Some(server) = self.processes.get_mut(&process) {
            server.executing.remove(&id);
        }
        match origin {
            Origin::Local { process: client, slot, .. } => {
                let slots = self.processes.get(&client).map(|client| &client.slots);
                let slot = slots.and_then(|slots| slots.get(&slot));
                if !matches!(slot, Some(ClientSlot::Local(waiting)) if *waiting == id) {
                    return self.forget_request(id);
                }
                let entry = self.ports.entry(port).or_default();
                match entry.ready(size) {
                    Some((process, getreq)) => self.deliver(id, process, getreq),
                    None => {
                        entry.queue.push_front(id);
                        self.release_untaken(now, port);
                    }
                }
            }
            Origin::Remote { server, client, tid } => {
                let entry = self.ports.entry(port).or_default();
                match entry.ready_at(server, size) {
                    Some((process, getreq)) => self.deliver(id, process, getreq),
                    None => match entry.listening.get_mut(&server) {
                        Some(listening) => listening.queue.push_front(id),
                        None => {
                            self.forget_request(id);
                            self.refuse(now, server, client, tid);
                            self.release_untaken(now, port);
                        }
                    },
                }
            }
        }
        self.pump(now);
    }

    /// Takes in a request for a port of this host.
    pub(crate) fn submit(
        &mut self,
        origin: Origin,
        client: Address,
        message: Message,
    ) -> Result<RequestId, Refused> {
        let port = message.header.port;
        let size = message.data.len();
        let entry = self.ports.get(&port).ok_or(Refused::NotSent(Status::RPC_NOTFOUND))?;
        let queued = match origin {
            Origin::Local { .. } => entry.queue.len(),
            Origin::Remote { server, .. } => {
                entry.listening.get(&server).map_or(0, |server| server.queue.len())
            }
        };
        if !entry.takes(size) {
            return Err(Refused::TooLarge);
        }
        let full = self.queued_size > 0 && self.queued_size + size > QUEUED_SIZE_MAX;
        if queued >= QUEUE_MAX || full {
            return Err(Refused::NotSent(Status::RPC_TRYAGAIN));
        }
        self.last_request += 1;
        let id = RequestId(self.last_request);
        let signature = Some(message.header.signature).filter(|signature| !signature.is_null());
        let caller = Caller { process: client, signature };
        self.queued_size += size;
        self.requests.insert(id, Request { origin, port, caller, message: Some(message), server: None });
        Ok(id)
    }

    /// Gives a request that was taken in to a waiting thread, or queues it.
    pub(crate) fn dispatch(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id) else { return };
        let Some(entry) = self.ports.get_mut(&request.port) else { return };
        match request.origin {
            Origin::Local { .. } => match entry.ready(request.size()) {
                Some((process, getreq)) => self.deliver(id, process, getreq),
                None => entry.queue.push_back(id),
            },
            Origin::Remote { server, .. } => match entry.ready_at(server, request.size()) {
                Some((process, getreq)) => self.deliver(id, process, getreq),
                None => {
                    let listening = entry.listening.get_mut(&server);
                    listening
                        .expect("a request of another host is taken in for who listens")
                        .queue
                        .push_back(id);
                }
            },
        }
    }

    /// Whether a thread of a server has the request, or has had it.
    pub(crate) fn is_delivered(&self, id: RequestId) -> bool {
        self.requests.get(&id).is_none_or(|request| request.server.is_some())
    }

    /// Forgets a request whose client no longer waits: if it is being executed, its reply will go nowhere.
    pub(crate) fn forget_request(&mut self, id: RequestId) {
        if self.is_delivered(id) {
            return;
        }
        let Some(request) = self.requests.remove(&id) else { return };
        self.queued_size -= request.size();
        if let Some(entry) = self.ports.get_mut(&request.port) {
            entry.queue.retain(|other| *other != id);
        }
    }

    /// The process serves nothing any more: what waits for it goes elsewhere, what it executes fails.
    pub(crate) fn stop_serving(&mut self, now: Instant, process: ProcessId) {
        let Some(server) = self.processes.get_mut(&process) else { return };
        let executing = std::mem::take(&mut server.executing);
        for port in std::mem::take(&mut server.ports) {
            self.stop_listening(now, process, port);
        }
        for id in executing {
            if let Some(request) = self.requests.remove(&id) {
                self.fail_origin(now, id, request.origin);
            }
        }
    }

    fn stop_listening(&mut self, now: Instant, process: ProcessId, port: PutPort) {
        let Some(entry) = self.ports.get_mut(&port) else { return };
        let Some(listening) = entry.listening.remove(&process) else { return };
        if let Some(server) = self.processes.get_mut(&process) {
            server.ports.remove(&port);
            server.getreqs.retain(|_, other| *other != port);
        }
        for id in listening.queue {
            let Some(request) = self.requests.remove(&id) else { continue };
            self.queued_size -= request.size();
            if let Origin::Remote { server, client, tid } = request.origin {
                self.refuse(now, server, client, tid);
            }
        }
        self.release_untaken(now, port);
    }

    /// Requests of this host that no process which listens on the port takes (any more) look for another server.
    fn release_untaken(&mut self, now: Instant, port: PutPort) {
        let Some(entry) = self.ports.get_mut(&port) else { return };
        let size = |id: &RequestId| self.requests.get(id).map_or(0, Request::size);
        let queue = std::mem::take(&mut entry.queue);
        let (kept, orphans): (Vec<_>, Vec<_>) = queue.into_iter().partition(|id| entry.takes(size(id)));
        entry.queue = kept.into();
        if entry.listening.is_empty() {
            self.ports.remove(&port);
        }
        for id in orphans {
            let Some(mut request) = self.requests.remove(&id) else { continue };
            self.queued_size -= request.size();
            if let Some(message) = request.message.take() {
                self.locate_afresh(now, request.origin, message);
            }
        }
    }

    /// Tells a client elsewhere that its request was certainly not executed here.
    pub(crate) fn refuse(&mut self, now: Instant, server: ProcessId, client: ClientKey, tid: u32) {
        if let Some(state) = self.processes.get_mut(&server) {
            let (to, packet) = state.clients.refuse(now, client, tid);
            self.send(now, server, to, packet);
            self.rearm_clients(server);
        }
    }

    fn deliver(&mut self, id: RequestId, process: ProcessId, getreq: GetreqId) {
        let request = self.requests.get_mut(&id).expect("queued requests are known");
        let message = request.message.take().expect("a request is delivered once");
        request.server = Some(process);
        let caller = request.caller;
        self.queued_size -= message.data.len();
        if let Some(server) = self.processes.get_mut(&process) {
            server.getreqs.remove(&getreq);
            server.executing.insert(id);
        }
        self.events.push_back(Event::Request { process, getreq, request: id, caller, message });
    }

    /// The process has done with a request that was delivered to it.
    fn executed(&mut self, process: ProcessId, id: RequestId) -> Option<Origin> {
        if self.requests.get(&id)?.server != Some(process) {
            return None;
        }
        if let Some(server) = self.processes.get_mut(&process) {
            server.executing.remove(&id);
        }
        self.requests.remove(&id).map(|request| request.origin)
    }

    fn fail_origin(&mut self, now: Instant, request: RequestId, origin: Origin) {
        match origin {
            Origin::Local { process, slot, .. } => self.answer(process, slot, request, Err(SERVER_DIED)),
            Origin::Remote { server, client, tid } => {
                let Some(state) = self.processes.get_mut(&server) else { return };
                if let Some((to, packet)) = state.clients.fail(now, client, tid) {
                    self.send(now, server, to, packet);
                }
            }
        }
    }

    /// Ends the transaction of a client of this host, if it still waits for this request.
    fn answer(&mut self, process: ProcessId, slot: Slot, request: RequestId, result: Result<Message, Error>) {
        let Some(client) = self.processes.get_mut(&process) else { return };
        if matches!(client.slots.get(&slot), Some(ClientSlot::Local(waiting)) if *waiting == request) {
            client.slots.remove(&slot);
            self.finish(process, slot, result);
        }
    }
}

impl Request {
    fn size(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.data.len())
    }
}

/// Why a request was not taken in.
pub(crate) enum Refused {
    /// For this reason.
    NotSent(Status),
    /// It is larger than any process that listens takes.
    TooLarge,
}

impl Refused {
    /// How the transaction ends.
    pub(crate) fn result(self) -> Result<Message, Error> {
        match self {
            Refused::NotSent(status) => Err(Error::NotSent(status)),
            Refused::TooLarge => Ok(too_large()),
        }
    }
}

/// What a client hears whose request or reply is larger than its receiver takes: the same on one host as from another.
pub(crate) fn too_large() -> Message {
    Message::status(Status::STD_OVERFLOW)
}
