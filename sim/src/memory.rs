//! Memory files in a simulated host: bytes that its processes share.

use std::sync::Arc;

use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::{Error, Memory, SharedFile};

use crate::core::{Core, State};
use crate::host::ProcessId;

/// Tickets that a process may have; past it the oldest is void.
const TICKETS_PER_PROCESS_MAX: usize = 16;

/// A memory file of a living process.
pub(crate) fn make(
    core: &Arc<Core>,
    process: ProcessId,
    size: usize,
    fill: &mut dyn FnMut(&mut [u8]),
) -> Option<Memory> {
    core.state().processes.get(&process)?;
    let mut bytes = vec![0; size];
    fill(&mut bytes);
    let core = Arc::downgrade(core);
    Some(SharedFile::own(bytes, move |to, bytes| {
        let core = core.upgrade().ok_or(Error::NotSent(Status::RPC_NOTFOUND))?;
        core.state().lend(process, to, bytes).ok_or(Error::NotSent(Status::RPC_NOTFOUND))
    }))
}

/// What was lent to a process.
pub(crate) fn borrow(core: &Core, process: ProcessId, ticket: u64) -> Result<Memory, Error> {
    let mut state = core.state();
    let lent = state.processes.get_mut(&process).and_then(|process| process.lent.0.remove(&ticket));
    lent.map(SharedFile::borrowed).ok_or(Error::NotSent(Status::STD_NOTFOUND))
}

impl State {
    /// Notes that bytes are lent to a process of the same host; its ticket.
    fn lend(&mut self, owner: ProcessId, to: Address, bytes: Arc<Vec<u8>>) -> Option<u64> {
        let host = self.processes.get(&owner)?.host;
        let ids: Vec<ProcessId> =
            self.processes.iter().filter(|(_, process)| process.host == host).map(|(id, _)| *id).collect();
        let borrower = ids.into_iter().find(|&id| {
            self.drive_for(id, |kernel, _, attached| kernel.address(attached)).flatten() == Some(to)
        })?;
        let (lent, last) = &mut self.processes.get_mut(&borrower)?.lent;
        *last += 1;
        if lent.len() >= TICKETS_PER_PROCESS_MAX {
            lent.pop_first();
        }
        lent.insert(*last, bytes);
        Some(*last)
    }
}
