//! Which threads of a mount wait for the kernel's requests: one, as long as that is enough.
//!
//! Threads that all wait are woken in turn, so that each request of a program that makes one after the other meets another
//! thread, with nothing in its caches. Here a thread that has answered waits for the next request only if no other does, and
//! first *looks* for it: a request that finds nobody asleep wakes nobody. The others are *spare*, and come
//!
//! - when requests were waiting already at the end of [`BUSY`] operations, one after the other;
//! - when an operation says that it waits for something, and nobody else is there ([`Crew::waits`]);
//! - when nobody has waited for requests for a [`TICK`]: an operation takes long without having said so;
//! - when nothing was asked for [`IDLE_TIME`]: then all threads wait in the kernel, as they did at first, and nothing ticks.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::look::{Look, Next};

/// Operations at whose ends another request was waiting, after which one more thread is called.
const BUSY: u32 = 4;
/// How often one of the spare threads looks whether somebody waits for requests.
const TICK: Duration = Duration::from_millis(1);
/// How long spare threads stay away where nothing is asked.
const IDLE_TIME: Duration = Duration::from_millis(50);

thread_local! {
    /// Whether this thread is doing an operation.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// See the module.
#[derive(Debug)]
pub(super) struct Crew {
    /// The connection, to look for requests.
    device: OwnedFd,
    /// Threads that wait for requests, or are about to.
    waiting: AtomicUsize,
    /// Operations that were begun.
    begun: AtomicU64,
    look: Mutex<Look>,
    /// Operations, one after the other, at whose end there was another request.
    busy: AtomicUsize,
    spare: Mutex<Spare>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct Spare {
    count: usize,
    /// Of those, how many are to come and have not yet.
    calls: usize,
    /// Whether one of them looks after the others.
    watched: bool,
}

/// An operation under way: to be dropped when its request is answered.
#[derive(Debug)]
pub(super) struct Turn<'c>(&'c Crew);

impl Crew {
    /// `threads` wait for requests on the connection of `device`.
    pub(super) fn new(device: OwnedFd, threads: usize) -> Crew {
        Crew {
            device,
            waiting: AtomicUsize::new(threads),
            begun: AtomicU64::new(0),
            look: Mutex::default(),
            busy: AtomicUsize::new(0),
            spare: Mutex::default(),
            called: Condvar::new(),
        }
    }

    /// This thread has a request.
    pub(super) fn begin(&self) -> Turn<'_> {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::Relaxed);
        AT_WORK.set(true);
        Turn(self)
    }

    /// The operation of this thread is about to wait for something, if it is doing one.
    pub(super) fn waits(&self) {
        if AT_WORK.get() && self.waiting.load(Ordering::SeqCst) == 0 {
            self.call();
        }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has one more thread wait for requests, if there is one.
    fn call(&self) {
        let mut spare = self.spare();
        if spare.calls == 0 && spare.count > 0 {
            spare.calls = 1;
            drop(spare);
            self.called.notify_one();
        }
    }

    /// The operation of this thread is over: returns when the thread is to wait for the next.
    fn end(&self) {
        AT_WORK.set(false);
        if self.waiting.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.look_for_more();
        } else {
            self.stay_away();
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Looks for a request, for about as long as it would take to be woken by one.
    fn look_for_more(&self) {
        if self.has_request() {
            if self.busy.fetch_add(1, Ordering::Relaxed) + 1 >= BUSY as usize {
                self.busy.store(0, Ordering::Relaxed);
                self.call();
            }
            return;
        }
        self.busy.store(0, Ordering::Relaxed);
        // Whoever else is here has come because nobody was: it may sleep.
        let Ok(mut look) = self.look.try_lock() else { return };
        // It slept, if it did, until the last request came.
        look.slept();
        loop {
            if let Next::Sleep(_) = look.again() {
                return;
            }
            if self.has_request() {
                return look.found();
            }
        }
    }

    fn has_request(&self) -> bool {
        let mut device = [PollFd::new(&self.device, PollFlags::IN)];
        // A connection that is gone is also to be looked at.
        poll(&mut device, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
    }

    /// Is spare until it is needed.
    fn stay_away(&self) {
        let mut spare = self.spare();
        spare.count += 1;
        let mut watches = false;
        let (mut begun, mut since) = (self.begun.load(Ordering::Relaxed), Instant::now());
        loop {
            if spare.calls > 0 {
                spare.calls -= 1;
                break;
            }
            if !spare.watched {
                (spare.watched, watches) = (true, true);
            }
            let tick = if watches { TICK } else { IDLE_TIME };
            spare = self.called.wait_timeout(spare, tick).unwrap_or_else(PoisonError::into_inner).0;
            let now = self.begun.load(Ordering::Relaxed);
            if now != begun {
                (begun, since) = (now, Instant::now());
            } else if since.elapsed() >= IDLE_TIME
                || (watches && since.elapsed() >= TICK && self.waiting.load(Ordering::SeqCst) == 0)
            {
                break;
            }
        }
        spare.count -= 1;
        spare.calls = spare.calls.min(spare.count);
        if watches {
            spare.watched = false;
            drop(spare);
            self.called.notify_one();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{self, JoinHandle, ThreadId};

    use super::*;

    /// No test comes near it unless it fails.
    const LONG: Duration = Duration::from_secs(30);
    const THREADS: usize = 4;

    /// A crew that serves the bytes of a pipe: `q` is answered at once, `s` says that it waits, and `l` only does; both until told.
    struct Scene {
        requests: OwnedFd,
        answers: Receiver<(u8, ThreadId)>,
        threads: Vec<JoinHandle<()>>,
        go_on: Vec<Sender<()>>,
    }

    fn scene() -> Scene {
        let (device, requests) = rustix::pipe::pipe().unwrap();
        let crew = Arc::new(Crew::new(device.try_clone().unwrap(), THREADS));
        let device = Arc::new(device);
        let (told, answers) = channel();
        let (mut threads, mut go_on) = (Vec::new(), Vec::new());
        for _ in 0..THREADS {
            let (crew, device, told, (tell, wait)) =
                (Arc::clone(&crew), Arc::clone(&device), told.clone(), channel());
            go_on.push(tell);
            threads.push(thread::spawn(move || {
                let mut byte = [0];
                while rustix::io::read(&device, &mut byte).unwrap() > 0 {
                    let _turn = crew.begin();
                    if byte == *b"s" {
                        crew.waits();
                    }
                    told.send((byte[0], thread::current().id())).unwrap();
                    if byte != *b"q" {
                        wait.recv().unwrap();
                    }
                }
            }));
        }
        Scene { requests, answers, threads, go_on }
    }

    impl Scene {
        fn ask(&self, what: u8) {
            assert_eq!(rustix::io::write(&self.requests, &[what]).unwrap(), 1);
        }

        /// Who serves a request.
        fn served(&self, what: u8) -> ThreadId {
            self.ask(what);
            let (answer, thread) = self.answers.recv_timeout(LONG).expect("somebody serves it");
            assert_eq!(answer, what);
            thread
        }

        /// All threads end when the connection does.
        fn end(self) {
            for tell in &self.go_on {
                // Those that are not told in an operation are told in vain.
                let _ = tell.send(());
            }
            drop(self.requests);
            self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    }

    #[test]
    fn one_thread_serves_who_asks_for_one_thing_after_the_other() {
        let scene = scene();
        // So many that each thread has had one, however they are woken at first.
        let mut last = scene.served(b'q');
        let mut changes = 0;
        for _ in 0..2000 {
            let now = scene.served(b'q');
            changes += usize::from(now != last);
            last = now;
        }
        assert!(changes < 1000, "{changes} of 2000 requests met another thread");
        scene.end();
    }

    #[test]
    fn others_are_served_while_operations_wait_whether_they_say_so_or_not() {
        for kind in [b's', b'l'] {
            let scene = scene();
            for _ in 0..100 {
                scene.served(b'q');
            }
            for _ in 0..THREADS - 1 {
                scene.served(kind);
                for _ in 0..100 {
                    scene.served(b'q');
                }
            }
            scene.end();
        }
    }

    #[test]
    fn all_that_is_asked_at_once_is_served() {
        let scene = scene();
        for _ in 0..100 {
            (0..50).for_each(|_| scene.ask(b'q'));
            for _ in 0..50 {
                scene.answers.recv_timeout(LONG).expect("all are served");
            }
        }
        scene.end();
    }
}
