//! Stun: whoever stands still talks to nobody directly.

use std::collections::BTreeSet;

use amoeba_kernel::ProcessId;
use amoeba_threads::Instant;

use super::Switch;

impl Switch {
    /// These processes of the host stand still. Their channels and flows end, as they do at a death: whoever waits at the other
    /// end hears so, and what was not taken goes another way. From now on each is knocked for before it is given a request,
    /// which it cannot answer until it runs on: so what others can do they do, and the rest waits here.
    pub(super) fn stunned(&mut self, now: Instant, pids: &[u32]) {
        let pids: BTreeSet<u32> = pids.iter().copied().collect();
        let stunned = |pid: i32| u32::try_from(pid).is_ok_and(|pid| pids.contains(&pid));
        let of_them = self.processes.iter().filter(|(_, process)| stunned(process.pid));
        for process in of_them.map(|(id, _)| *id).collect::<Vec<ProcessId>>() {
            self.is_introduced(process);
            self.revoke(process);
            self.revoke_flows(now, process);
        }
    }
}
