//! The loop: several threads in getreq on one port.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amoeba_threads::{JoinHandle, SpawnError};
use amoeba_wire::{Command, Status};
use amoeba_world::{Incoming, Listener, World};

use crate::guard::{Guard, GuardReport};
use crate::standard::{Standard, standard};
use crate::{Failure, Objects, Request};

/// A server as the loop sees it: one class over its objects, or several ([`Both`]). Implemented by generated code.
pub trait Service: Send + Sync {
    /// Its objects.
    fn objects(&self) -> &dyn Objects;
    /// What the class says of a standard operation; `None` when it does not offer it.
    fn standard(&self, command: Command) -> Option<Standard>;
    /// Carries out an operation of the class, or gives back a request it does not know.
    fn dispatch(&self, request: Request) -> Option<Request>;
}

/// A server of two classes on one port: what the first does not know goes to the second. Both are over the same
/// objects; standard operations are as the first declares them.
pub struct Both<A, B>(pub A, pub B);

impl<A: Service, B: Service> Service for Both<A, B> {
    fn objects(&self) -> &dyn Objects {
        self.0.objects()
    }

    fn standard(&self, command: Command) -> Option<Standard> {
        self.0.standard(command)
    }

    fn dispatch(&self, request: Request) -> Option<Request> {
        self.0.dispatch(request).and_then(|request| self.1.dispatch(request))
    }
}

/// What a server has done so far.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    requests: AtomicU64,
    unknown: AtomicU64,
    panics: AtomicU64,
}

impl Statistics {
    /// Appends its lines to a status.
    pub(crate) fn report(&self, guard: &GuardReport, lines: &mut String) {
        if !lines.is_empty() && !lines.ends_with('\n') {
            lines.push('\n');
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        write!(
            lines,
            "requests {}, unknown commands {}, panics {}\nbad capabilities {}, turned away {}, callers remembered {}",
            read(&self.requests),
            read(&self.unknown),
            read(&self.panics),
            guard.bad_capabilities,
            guard.turned_away,
            guard.callers,
        )
        .expect("writing to a String does not fail");
        if let Some(worst) = guard.worst {
            write!(lines, ", worst {} with {}", worst.process, worst.failures)
                .expect("writing to a String does not fail");
        }
        lines.push('\n');
    }
}

/// Serves requests on `threads` threads (at least one) until the listener is closed.
///
/// # Errors
/// The world has no room for the threads; the listener is closed then.
pub fn serve<S: Service + 'static>(
    world: &World,
    listener: Listener,
    service: Arc<S>,
    threads: usize,
) -> Result<(), SpawnError> {
    start(world, listener, service, threads).map(Running::join)
}

/// As [`serve`], but returns at once.
///
/// # Errors
/// As [`serve`].
pub fn start<S: Service + 'static>(
    world: &World,
    listener: Listener,
    service: Arc<S>,
    threads: usize,
) -> Result<Running, SpawnError> {
    let threads = threads.max(1);
    let guard = Arc::new(Guard::new(world.threads.clone(), threads));
    let statistics = Arc::new(Statistics::default());
    let mut running = Running { listener: listener.clone(), threads: Vec::with_capacity(threads) };
    for _ in 0..threads {
        let server = Server {
            listener: listener.clone(),
            service: service.clone(),
            guard: guard.clone(),
            statistics: statistics.clone(),
        };
        match world.threads.spawn("server", move || server.run()) {
            Ok(thread) => running.threads.push(thread),
            Err(error) => {
                running.stop();
                return Err(error);
            }
        }
    }
    Ok(running)
}

/// A server at work. Dropping it lets the server run on.
pub struct Running {
    listener: Listener,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits until the listener is closed and every thread has answered its last request.
    pub fn join(self) {
        for thread in self.threads {
            thread.join();
        }
    }

    /// Closes the listener and waits for the threads.
    pub fn stop(self) {
        self.listener.close();
        self.join();
    }
}

/// What one thread needs.
struct Server<S> {
    listener: Listener,
    service: Arc<S>,
    guard: Arc<Guard>,
    statistics: Arc<Statistics>,
}

impl<S: Service> Server<S> {
    fn run(&self) {
        while let Ok(incoming) = self.listener.getreq() {
            self.statistics.requests.fetch_add(1, Ordering::Relaxed);
            let handled = catch_unwind(AssertUnwindSafe(|| self.handle(incoming)));
            if let Err(payload) = handled {
                // What panics with a message is a fault of the operation, which took the reply with it. Anything
                // else is a world that ends this thread.
                if !payload.is::<&str>() && !payload.is::<String>() {
                    resume_unwind(payload);
                }
                self.statistics.panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn handle(&self, incoming: Incoming) {
        let request = Request::new(incoming, &self.guard);
        let Some(request) = self.service.dispatch(request) else { return };
        let offered = self.service.standard(request.command());
        request.answer(|call, header, data| match offered {
            Some(offered) => standard(self.service.objects(), &self.statistics, offered, call, header, data),
            None => {
                self.statistics.unknown.fetch_add(1, Ordering::Relaxed);
                Err(Failure::from(Status::STD_COMBAD))
            }
        });
    }
}
