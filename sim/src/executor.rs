//! Coroutines: one for each simulated thread, all on one operating-system thread. The only stack switching there is.
//!
//! A thread of a crashed process unwinds with the payload [`Killed`], raised where it parks. Code that catches panics
//! may catch it: whatever it does next in this world raises it again. A destructor that must wait for something that
//! died with the process can wait for ever; such a coroutine is forgotten, stack and all.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::scheduler::{Body, ThreadId};

/// The payload with which the threads of a crashed process unwind. Code that catches panics need not know it.
#[derive(Clone, Copy, Debug)]
pub struct Killed;

/// How a coroutine's body ended.
pub(crate) enum Ended {
    Normally,
    Killed,
    Panicked(String),
}

/// Resumed with whether the thread's process is dead.
type Task = Coroutine<bool, (), Ended, DefaultStack>;

thread_local! {
    /// The way back to the scheduler of the coroutine that runs on this operating-system thread.
    static YIELDER: Cell<*const Yielder<bool, ()>> = const { Cell::new(std::ptr::null()) };
}

/// Gives the processor back to the scheduler until the calling coroutine is resumed; whether its process is dead.
pub(crate) fn suspend() -> bool {
    let yielder = YIELDER.get();
    assert!(!yielder.is_null(), "only a thread of the simulated world can park");
    // SAFETY: the pointer was set by the coroutine that runs now, from the reference that its body holds for its whole
    // life; whoever resumes another coroutine sets the pointer anew, here and in `begin`.
    let killed = unsafe { &*yielder }.suspend(());
    YIELDER.set(yielder);
    killed
}

/// Unwinds the calling coroutine because its process is dead; returns only from a destructor, to whom nothing can be
/// raised, after others had a chance to run.
pub(crate) fn die() {
    if std::thread::panicking() {
        suspend();
    } else {
        panic::resume_unwind(Box::new(Killed));
    }
}

/// The coroutines of one run.
pub(crate) struct Executor {
    tasks: BTreeMap<ThreadId, Task>,
    stacks: Vec<DefaultStack>,
    stack_size: usize,
}

impl Executor {
    pub(crate) fn new(stack_size: usize) -> Executor {
        Executor { tasks: BTreeMap::new(), stacks: Vec::new(), stack_size }
    }

    /// Gives a spawned thread its coroutine.
    pub(crate) fn start(&mut self, id: ThreadId, body: Body) {
        let stack = self.stacks.pop().unwrap_or_else(|| {
            DefaultStack::new(self.stack_size).expect("the host of the tests has address space for a stack")
        });
        self.tasks
            .insert(id, Coroutine::with_stack(stack, move |yielder, killed| begin(yielder, body, killed)));
    }

    /// Runs a thread until it parks (`None`) or ends.
    pub(crate) fn resume(&mut self, id: ThreadId, killed: bool) -> Option<Ended> {
        let task = self.tasks.get_mut(&id).expect("a thread that runs has a coroutine");
        let result = task.resume(killed);
        YIELDER.set(std::ptr::null());
        match result {
            CoroutineResult::Yield(()) => None,
            CoroutineResult::Return(ended) => {
                let task = self.tasks.remove(&id).expect("it was just resumed");
                self.stacks.push(task.into_stack());
                Some(ended)
            }
        }
    }

    /// Whether the thread has a coroutine that has not ended.
    pub(crate) fn has(&self, id: ThreadId) -> bool {
        self.tasks.contains_key(&id)
    }

    /// Gives a coroutine up without unwinding it. What its stack holds is leaked.
    pub(crate) fn forget(&mut self, id: ThreadId) {
        std::mem::forget(self.tasks.remove(&id));
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // Only a failed run leaves coroutines; unwinding them could fail again and hide the first failure.
        for (_, task) in std::mem::take(&mut self.tasks) {
            std::mem::forget(task);
        }
    }
}

fn begin(yielder: &Yielder<bool, ()>, body: Body, killed: bool) -> Ended {
    YIELDER.set(yielder);
    // Killed before it ever ran: what its body holds is dropped here, where a destructor may park.
    let body = AssertUnwindSafe(move || if killed { drop(body) } else { body() });
    match panic::catch_unwind(body) {
        Ok(()) => Ended::Normally,
        Err(payload) if payload.is::<Killed>() => Ended::Killed,
        Err(payload) => Ended::Panicked(panic_text(payload.as_ref())),
    }
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without words".to_owned(),
    }
}
