//! Endpoints of datagrams of a simulated process.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort};
use amoeba_kernel::Opened;
use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::{Datagram, Datagrams, Destination, Endpoint, Error, ListenError};

use crate::core::Core;
use crate::host::ProcessId;

/// Sends a datagram of a process, from one of its endpoints or from itself.
pub(crate) fn send(
    core: &Core,
    process: ProcessId,
    from: Option<Address>,
    to: Destination,
    data: &[u8],
) -> Result<(), Error> {
    if !core.check_alive() {
        return Err(Error::NotSent(Status::RPC_ABORTED));
    }
    let send =
        core.state().drive_for(process, |kernel, now, id| kernel.send_datagram(now, id, from, to, data));
    send.unwrap_or(Err(Status::RPC_NOTFOUND)).map_err(Error::NotSent)
}

/// Opens an endpoint of a process.
pub(crate) fn open(core: &Arc<Core>, process: ProcessId, port: Option<&GetPort>) -> Result<Endpoint, Error> {
    if !core.check_alive() {
        return Err(Error::NotSent(Status::RPC_ABORTED));
    }
    let opened = core.state().drive_for(process, |kernel, _, id| kernel.open_endpoint(id, port));
    let opened = opened.unwrap_or(Err(Status::RPC_NOTFOUND)).map_err(Error::NotSent)?;
    Ok(Arc::new(SimEndpoint { core: core.clone(), process, opened }))
}

struct SimEndpoint {
    core: Arc<Core>,
    process: ProcessId,
    opened: Opened,
}

impl SimEndpoint {
    /// What is there; if nothing is, the calling thread will be woken when something is.
    fn take(&self) -> Result<Option<Datagram>, ListenError> {
        let mut state = self.core.state();
        let thread = state.table.current.expect("only threads of the simulated world receive");
        let endpoint = self.opened.id;
        let taken = state.drive_for(self.process, |kernel, _, id| kernel.receive(id, endpoint));
        let taken = taken.and_then(Result::ok).ok_or(ListenError)?;
        if taken.is_none()
            && let Some(process) = state.processes.get_mut(&self.process)
        {
            let waiting = process.endpoints.entry(endpoint).or_default();
            if !waiting.contains(&thread) {
                waiting.push(thread);
            }
        }
        Ok(taken)
    }
}

impl Datagrams for SimEndpoint {
    fn address(&self) -> Address {
        self.opened.address
    }

    fn put_port(&self) -> Option<PutPort> {
        self.opened.put_port
    }

    fn send(&self, to: Destination, data: Vec<u8>) -> Result<(), Error> {
        send(&self.core, self.process, Some(self.opened.address), to, &data)
    }

    fn receive(&self, timeout: Option<Duration>) -> Result<Option<Datagram>, ListenError> {
        if !self.core.check_alive() {
            return Err(ListenError);
        }
        let deadline = timeout.map(|timeout| self.core.state().now + timeout);
        loop {
            if let Some(datagram) = self.take()? {
                return Ok(Some(datagram));
            }
            if deadline.is_some_and(|deadline| deadline <= self.core.state().now) {
                return Ok(None);
            }
            self.core.park(deadline);
        }
    }

    fn close(&self) {
        let endpoint = self.opened.id;
        let mut state = self.core.state();
        state.drive_for(self.process, |kernel, _, id| kernel.close_endpoint(id, endpoint));
        let process = state.processes.get_mut(&self.process);
        let waiting = process.and_then(|process| process.endpoints.remove(&endpoint));
        waiting.into_iter().flatten().for_each(|thread| state.table.unpark(thread));
    }
}

impl Drop for SimEndpoint {
    fn drop(&mut self) {
        self.close();
    }
}
