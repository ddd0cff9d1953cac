//! Where a host asks for what it does not know: at the runs of the caller that are under way.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use amoeba_cap::Capability;
use amoeba_stubs::{Client, view};
use amoeba_volume::Error;
use amoeba_wire::Status;
use amoeba_world::{TransOptions, World};

/// How long an operation waits for a caller that does not answer before it fails; and for how long after that others fail
/// at once, so that a process which needs many files of a caller that is gone ends soon.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long one transaction may take while the caller's host lives.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a caller is searched for at once.
const LOCATE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after a failure the next attempt is made.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Capabilities of one caller for the same trees, any of which will do.
pub(crate) struct Source {
    world: World,
    options: TransOptions,
    runs: Mutex<Runs>,
    came: Condvar,
}

#[derive(Default)]
struct Runs {
    /// The latest last.
    known: Vec<Capability>,
    /// When nobody had answered for [`PATIENCE`].
    lost: Option<Instant>,
}

impl Source {
    pub(crate) fn new(world: &World) -> Source {
        let options = TransOptions {
            locate_timeout: LOCATE_TIMEOUT,
            deadline: Some(DEADLINE),
            ..TransOptions::default()
        };
        Source { world: world.clone(), options, runs: Mutex::default(), came: Condvar::new() }
    }

    /// A number that nobody else has chosen.
    pub(crate) fn random(&self) -> u32 {
        u32::from_le_bytes(amoeba_world::random(&*self.world.entropy))
    }

    pub(crate) fn add(&self, run: Capability) {
        let mut runs = self.runs();
        runs.known.push(run);
        runs.lost = None;
        drop(runs);
        self.came.notify_all();
    }

    pub(crate) fn remove(&self, run: &Capability) {
        self.runs().known.retain(|known| known != run);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs().known.is_empty()
    }

    /// Does an idempotent operation at any run, the latest first; waits up to [`PATIENCE`] for one that answers.
    pub(crate) fn ask<T>(
        &self,
        operation: impl Fn(Client<'_>, &Capability) -> Result<T, amoeba_world::Error>,
    ) -> Result<T, Failure> {
        let begun = Instant::now();
        let lost = self.runs().lost;
        if lost.is_some_and(|lost| begun < lost + PATIENCE) {
            return Err(Failure(view::BROKEN));
        }
        // Whoever did not answer then has one more chance now and then, but is not waited for again.
        let deadline = if lost.is_some() { begun } else { begun + PATIENCE };
        loop {
            let runs = self.runs().known.clone();
            for run in runs.iter().rev() {
                match operation(Client::new(&*self.world.transactions, &self.options), run) {
                    Ok(value) => {
                        self.runs().lost = None;
                        return Ok(value);
                    }
                    // Its run is over.
                    Err(amoeba_world::Error::Refused(Status::STD_CAPBAD)) => self.remove(run),
                    Err(amoeba_world::Error::Refused(status)) => return Err(Failure(status)),
                    Err(amoeba_world::Error::BadReply) => return Err(Failure(view::BROKEN)),
                    Err(_) => {}
                }
            }
            let now = Instant::now();
            if now >= deadline {
                self.runs().lost = Some(now);
                return Err(Failure(view::BROKEN));
            }
            let runs = self.runs();
            drop(self.came.wait_timeout(runs, RETRY_INTERVAL.min(deadline - now)));
        }
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the caller has answered instead, or that it has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) Status);

impl From<Failure> for Error {
    fn from(Failure(status): Failure) -> Error {
        match status {
            Status::STD_NOTFOUND => Error::NotFound,
            Status::STD_EXISTS => Error::Exists,
            Status::STD_DENIED => Error::AccessDenied,
            Status::STD_NOSPACE => Error::NoSpace,
            Status::STD_ARGBAD => Error::Invalid,
            view::NOTDIR => Error::NotDirectory,
            view::ISDIR => Error::IsDirectory,
            view::NOTEMPTY => Error::NotEmpty,
            view::READONLY => Error::ReadOnly,
            view::TOOLARGE => Error::TooLarge,
            view::CROSSDEVICE => Error::CrossDevice,
            view::CHANGED => Error::Stale,
            _ => Error::Io,
        }
    }
}
