//! What a simulated process has of the world: threads, transactions, a clock, entropy.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort};
use amoeba_kernel::Slot;
use amoeba_threads::{Instant, Scheduler, SpawnError, Threads, Unpark};
use amoeba_wire::Status;
use amoeba_world::{
    Clock, Destination, Endpoint, Error, Listener, Memory, Message, TransOptions, Transactions, World,
};

use crate::core::{Core, State};
use crate::host::{Pending, PendingState, Process, ProcessId};
use crate::random::{Prng, SeededEntropy};
use crate::scheduler::ThreadId;
use crate::{channel, datagram, listener, memory};

/// Client threads of one process that may be in a transaction at once.
const SLOTS_MAX: u16 = 1024;
/// What the wall clocks show when a run begins, roughly: 2026-01-01.
const UNIX_EPOCH_OFFSET: Duration = Duration::from_secs(1_767_225_600);

/// The world of a process.
pub(crate) fn world_of(core: &Arc<Core>, process: ProcessId, skew: Duration) -> World {
    let random = Prng::new(core.seed, "process", process.0);
    World {
        threads: threads_of(core, process),
        clock: Arc::new(SimClock { core: core.clone(), skew }),
        entropy: Arc::new(SeededEntropy::new(random)),
        transactions: Arc::new(SimTransactions { core: core.clone(), process }),
    }
}

/// The threads of a process.
pub(crate) fn threads_of(core: &Arc<Core>, process: ProcessId) -> Threads {
    Threads::new(Arc::new(SimScheduler { core: core.clone(), process }))
}

struct SimScheduler {
    core: Arc<Core>,
    process: ProcessId,
}

struct Waker {
    core: Arc<Core>,
    thread: ThreadId,
}

impl Unpark for Waker {
    fn unpark(&self) {
        self.core.state().table.unpark(self.thread);
    }
}

impl Scheduler for SimScheduler {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<(), SpawnError> {
        if !self.core.check_alive() {
            return Err(SpawnError);
        }
        let added = self.core.state().table.add(self.process, name, body);
        added.map(drop).map_err(|_| SpawnError)
    }

    fn current(&self) -> Arc<dyn Unpark> {
        let thread = self.core.current().expect("only threads of the simulated world can be woken");
        Arc::new(Waker { core: self.core.clone(), thread })
    }

    fn park(&self, deadline: Option<Instant>) {
        self.core.park(deadline);
    }

    fn now(&self) -> Instant {
        self.core.state().now
    }
}

struct SimClock {
    core: Arc<Core>,
    skew: Duration,
}

impl Clock for SimClock {
    fn unix_time(&self) -> Duration {
        UNIX_EPOCH_OFFSET + self.core.state().now.since_epoch() + self.skew
    }
}

struct SimTransactions {
    core: Arc<Core>,
    process: ProcessId,
}

impl State {
    /// Calls the kernel of a living process, as that kernel's process.
    pub(crate) fn drive_for<R>(
        &mut self,
        process: ProcessId,
        call: impl FnOnce(&mut amoeba_kernel::Kernel, Instant, amoeba_kernel::ProcessId) -> R,
    ) -> Option<R> {
        let (host, attached) =
            self.processes.get(&process).map(|process| (process.host, process.attached))?;
        self.drive(host, |kernel, now| call(kernel, now, attached))
    }
}

impl SimTransactions {
    /// Waits until what `find` finds is no longer pending; `None` when it is cancelled or gone.
    fn wait<T>(
        core: &Core,
        process: ProcessId,
        find: impl Fn(&mut Process) -> Option<Pending<T>>,
        put_back: impl Fn(&mut Process, Pending<T>),
    ) -> Option<T> {
        loop {
            if let Some(process) = core.state().processes.get_mut(&process) {
                let pending = find(process)?;
                match pending.state {
                    PendingState::Ready(value) => return Some(value),
                    PendingState::Cancelled | PendingState::Over => return None,
                    PendingState::Waiting => put_back(process, pending),
                }
            } else {
                core.check_alive();
                return None; // a destructor in a dead process gets no answer
            }
            core.park(None);
        }
    }

    /// A transaction that goes through the kernel.
    fn trans_by_kernel(&self, request: Message, options: &TransOptions) -> Result<Message, Error> {
        let slot = {
            let mut state = self.core.state();
            let thread = state.table.current.expect("only threads of the simulated world make transactions");
            let process =
                state.processes.get_mut(&self.process).ok_or(Error::NotSent(Status::RPC_ABORTED))?;
            let slot = Self::free_slot(process).ok_or(Error::NotSent(Status::RPC_TRYAGAIN))?;
            process.transactions.insert(slot, Pending::new(thread));
            state.drive_for(self.process, |kernel, now, id| kernel.trans(now, id, slot, request, options));
            slot
        };
        Self::wait(
            &self.core,
            self.process,
            |process| process.transactions.remove(&slot),
            |process, pending| drop(process.transactions.insert(slot, pending)),
        )
        .unwrap_or(Err(Error::MaybeExecuted(Status::RPC_FAILURE)))
    }

    fn free_slot(process: &Process) -> Option<Slot> {
        (0..SLOTS_MAX).map(Slot).find(|slot| !process.transactions.contains_key(slot))
    }
}

impl Transactions for SimTransactions {
    fn trans(&self, request: Message, options: &TransOptions) -> Result<Message, Error> {
        if !self.core.check_alive() {
            return Err(Error::NotSent(Status::RPC_ABORTED));
        }
        let started = self.core.state().now;
        match channel::trans(&self.core, self.process, request, options) {
            Ok(result) => result,
            Err(request) => {
                let spent = self.core.state().now.since(started);
                let deadline = options.deadline.map(|time| time.saturating_sub(spent));
                self.trans_by_kernel(request, &TransOptions { deadline, ..options.clone() })
            }
        }
    }

    fn listen(&self, port: &GetPort, request_size_max: usize) -> Result<Listener, Error> {
        if !self.core.check_alive() {
            return Err(Error::NotSent(Status::RPC_ABORTED));
        }
        let put_port = self
            .core
            .state()
            .drive_for(self.process, |kernel, now, id| kernel.listen(now, id, port, request_size_max))
            .unwrap_or(Err(Status::RPC_TRYAGAIN))
            .map_err(Error::NotSent)?;
        Ok(listener::open(&self.core, self.process, put_port, request_size_max))
    }

    fn put_port(&self, port: &GetPort) -> Result<PutPort, Error> {
        let put_port = self.core.state().drive_for(self.process, |kernel, _, _| kernel.put_port(port));
        put_port.ok_or(Error::NotSent(Status::RPC_TRYAGAIN))
    }

    fn memory(&self, size: usize, fill: &mut dyn FnMut(&mut [u8])) -> Option<Memory> {
        memory::make(&self.core, self.process, size, fill)
    }

    fn borrow_memory(&self, ticket: u64) -> Result<Memory, Error> {
        memory::borrow(&self.core, self.process, ticket)
    }

    fn send(&self, to: Destination, data: Vec<u8>) -> Result<(), Error> {
        datagram::send(&self.core, self.process, None, to, &data)
    }

    fn datagrams(&self, port: Option<&GetPort>) -> Result<Endpoint, Error> {
        datagram::open(&self.core, self.process, port)
    }
}
