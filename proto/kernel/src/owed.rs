//! Acknowledgements of replies that are not sent as packets of their own.
//!
//! The next request of a client thread to the same process says that the reply before it has arrived: whoever goes on to
//! another transaction has ended the one before. So the ACK of a small reply waits for that request for a moment, and a
//! client that asks again and again costs two packets a transaction where the original's cost three. It is sent at once
//! to kernels that have not said that they know reports: an original's server thread waits for it. What this delays is
//! when a server may forget a reply, nothing else: should client or ACK be lost, the server asks as ever.

use std::time::Duration;

use amoeba_rpc::{REPLY_TIMEOUT, emit};
use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, RpcHeader};

use crate::{Kernel, ProcessId, Slot, Timer};

/// How long an ACK waits, well below the time after which its server asks for it.
pub(crate) const OWED_TIME: Duration = Duration::from_millis(50);
const _: () = assert!(OWED_TIME.as_millis() * 2 < REPLY_TIMEOUT.as_millis());

/// An ACK that waits; at most one for a client thread.
pub(crate) struct Owed {
    server: Address,
    ack: RpcHeader,
    due: Instant,
}

impl Kernel {
    /// A reply of `server` has arrived. Only that of a small reply may wait: the server keeps the reply for as long.
    pub(crate) fn acknowledge(
        &mut self,
        now: Instant,
        process: ProcessId,
        slot: Slot,
        server: Address,
        ack: RpcHeader,
        small: bool,
    ) {
        self.pay(now, process, slot, None);
        if !small || !self.reporting.contains(&server) {
            return self.send(now, process, server, emit(&ack, None));
        }
        let due = now + OWED_TIME;
        self.owed.insert((process, slot), Owed { server, ack, due });
        self.set_timer(None, Some(due), Timer::Owed(process, slot));
    }

    /// The ACK that a client thread owes is sent, unless a request to the same server says the same.
    pub(crate) fn pay(&mut self, now: Instant, process: ProcessId, slot: Slot, next: Option<Address>) {
        let Some(Owed { server, ack, due }) = self.owed.remove(&(process, slot)) else { return };
        self.set_timer(Some(due), None, Timer::Owed(process, slot));
        if next != Some(server) {
            self.send(now, process, server, emit(&ack, None));
        }
    }

    /// A process ends: nothing that it owes waits any longer.
    pub(crate) fn pay_all(&mut self, now: Instant, process: ProcessId) {
        let all = (process, Slot(0))..=(process, Slot(u16::MAX));
        while let Some((&(_, slot), _)) = self.owed.range(all.clone()).next() {
            self.pay(now, process, slot, None);
        }
    }

    /// These processes are gone, and wait for nothing; `servers` is sorted.
    pub(crate) fn forget_owed(&mut self, servers: &[Address]) {
        let is_gone = |owed: &Owed| servers.binary_search(&owed.server).is_ok();
        for ((process, slot), owed) in self.owed.extract_if(.., |_, owed| is_gone(owed)).collect::<Vec<_>>() {
            self.set_timer(Some(owed.due), None, Timer::Owed(process, slot));
        }
    }
}
