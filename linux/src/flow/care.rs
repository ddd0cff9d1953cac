//! Who attends to the flows of a listener while every thread of its server is busy: somebody must tell clients that
//! their requests are being executed, and send those elsewhere that nobody takes.
//!
//! ```text
//!  rests ──the last thread has left the desk──▶ listens ──a datagram──▶ pauses ──▶ attends
//!    ▲                                            ▲        or a request waits        │
//!    └─────────── a thread is at the desk ────────┴──────── nobody is ◀──────────────┘
//! ```
//! Where a thread of the server waits for requests, or nothing comes, this thread sleeps.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::served::Flows;

/// How long a request waits for a thread of the server before it is refused, so that its client gives it to the kernels,
/// which find a process that has time.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);
/// How long the threads of a server have time to come back before somebody attends in their place.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// How many threads of a server wait for requests, and who wants to know.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    threads: AtomicUsize,
    /// Somebody waits for the last thread to leave.
    is_watched: AtomicBool,
    is_over: Mutex<bool>,
    changed: Condvar,
}

impl Presence {
    /// A thread comes to wait for requests.
    pub(crate) fn come(&self) {
        self.threads.fetch_add(1, Ordering::SeqCst);
    }

    /// It leaves.
    pub(crate) fn leave(&self) {
        // The count goes down before the look; who watches looks at the count after saying so. One sees the other.
        if self.threads.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_watched.load(Ordering::SeqCst) {
            self.tell(false);
        }
    }

    /// There will be no more requests.
    pub(super) fn end(&self) {
        self.tell(true);
    }

    fn tell(&self, over: bool) {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) |= over;
        self.changed.notify_all();
    }

    /// Waits until no thread is there; false when it is over.
    fn wait_for_absence(&self) -> bool {
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_watched.store(true, Ordering::SeqCst);
        while self.is_attended() && !*is_over {
            is_over = self.changed.wait(is_over).unwrap_or_else(PoisonError::into_inner);
        }
        self.is_watched.store(false, Ordering::SeqCst);
        !*is_over
    }

    fn is_attended(&self) -> bool {
        self.threads.load(Ordering::SeqCst) > 0
    }
}

/// What the thread does until the listener is closed.
pub(super) fn care(flows: &Arc<Flows>, presence: &Presence) {
    while presence.wait_for_absence() {
        flows.wait();
        std::thread::sleep(PAUSE);
        if !presence.is_attended() {
            flows.attend_for_others();
        }
    }
}
