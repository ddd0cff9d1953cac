//! The thread of a warden that starts its guests: it is confined as they are to be, and so is whatever it starts, from its birth.
//! What that takes is done once, before the guests come, and not at the start of each.

use std::io;
use std::sync::mpsc;
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

/// See the module. The thread ends when this is dropped, and with it the guest it has started.
#[derive(Debug)]
pub(in crate::guest) struct Nest {
    give: mpsc::SyncSender<Work>,
}

impl Nest {
    /// Starts the thread, which first does what confines it.
    ///
    /// # Errors
    /// There is no room for a thread.
    pub(super) fn make(confine: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Nest> {
        let (give, given) = mpsc::sync_channel::<Work>(1);
        thread::Builder::new().name("nest".into()).spawn(move || {
            if let Err(error) = confine() {
                // Nothing is given to a thread that has ended, so no guest runs unconfined.
                return tracing::error!("guests cannot be confined: {error}");
            }
            while let Ok(work) = given.recv() {
                work();
            }
        })?;
        Ok(Nest { give })
    }

    /// What `work` gives, done by the thread; `None` when that could not be confined.
    pub(in crate::guest) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Option<T> {
        let (tell, told) = mpsc::sync_channel(1);
        let work: Box<dyn FnOnce() + Send + '_> = Box::new(move || drop(tell.send(work())));
        // SAFETY: only the lifetime is forgotten. What `work` borrows lives until this function returns, and it returns
        // when `tell` is gone: after `work` has been done, or was dropped undone by a thread that has ended.
        let work = unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Work>(work) };
        let given = self.give.send(work);
        drop(given);
        let done = told.recv().ok();
        // `tell` may have been used and not be gone yet, but nothing it borrows is touched by its end.
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_may_borrow_and_is_done_elsewhere() {
        let nest = Nest::make(|| Ok(())).unwrap();
        let here = thread::current().id();
        let words = ["a", "b"].map(str::to_owned);
        for word in &words {
            let (got, there) = nest.run(|| (word.len(), thread::current().id())).unwrap();
            assert_eq!(got, 1);
            assert_ne!(there, here);
        }
    }

    #[test]
    fn nothing_is_done_by_a_thread_that_is_not_confined() {
        let nest = Nest::make(|| Err(io::ErrorKind::PermissionDenied.into())).unwrap();
        assert_eq!(nest.run(|| unreachable!("nobody does it")).map(|(): ()| ()), None);
    }
}
