//! Directories that are made before somebody wants them: each costs its server a flush, which `mkdir` need not wait for.
//!
//! None are made until the first `mkdir`, and more the faster they are taken. Those that nobody wanted are deleted when the
//! mount ends; a killed one leaves them without a name, to ageing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use amoeba_cap::Capability;
use amoeba_stubs::directory;
use amoeba_threads::{Condition, Mutex, Threads};

use crate::Shared;

/// Directories that are kept ready at first and at most.
const WANTED_MIN: usize = 4;
const WANTED_MAX: usize = 128;
/// Threads that make them: their server makes several with one flush.
pub(crate) const MAKERS: usize = 4;

/// The names of a directory's columns.
pub(crate) type Columns = Arc<Vec<Vec<u8>>>;

/// See the module.
pub(crate) struct Spares {
    pool: Mutex<Pool>,
    wanted: Condition,
}

#[derive(Default)]
struct Pool {
    /// A directory of the service, and the columns, that they are made for.
    like: Option<(Capability, Columns)>,
    ready: Vec<Capability>,
    making: usize,
    wanted: usize,
}

impl Pool {
    fn fits(&self, parent: &Capability, columns: &Columns) -> bool {
        self.like.as_ref().is_some_and(|(like, of)| like.port == parent.port && of == columns)
    }
}

impl Spares {
    pub(crate) fn new(threads: &Threads) -> Spares {
        Spares { pool: Mutex::new(threads, Pool::default()), wanted: Condition::new(threads) }
    }

    /// Wakes the makers, that they may end.
    pub(crate) fn stop(&self) {
        // Locked: else one that has just looked would wait all the same.
        drop(self.pool.lock());
        self.wanted.notify_all();
    }
}

impl Shared {
    /// An empty directory of the service of `parent` with these columns, if one is ready.
    pub(crate) fn spare(&self, parent: &Capability, columns: &Columns) -> Option<Capability> {
        let mut pool = self.spares.pool.lock();
        let others = if pool.fits(parent, columns) {
            Vec::new()
        } else {
            pool.like = Some((*parent, Arc::clone(columns)));
            std::mem::take(&mut pool.ready)
        };
        let spare = pool.ready.pop();
        // None was ready in time: more of them are to be.
        pool.wanted = match spare {
            None => (pool.wanted * 2).clamp(WANTED_MIN, WANTED_MAX),
            Some(_) => pool.wanted,
        };
        drop(pool);
        self.spares.wanted.notify_all();
        self.discard_spares(others);
        spare
    }

    fn discard_spares(&self, spares: Vec<Capability>) {
        for spare in spares {
            // Where it fails, ageing takes what no name leads to.
            let _ = directory::discard(self.client(), &spare);
        }
    }
}

/// Makes spare directories until the mount ends.
pub(crate) fn run(shared: &Arc<Shared>) {
    loop {
        let mut pool = shared.spares.pool.lock();
        let (like, columns) = loop {
            if shared.stopping.load(Ordering::Relaxed) {
                let left = std::mem::take(&mut pool.ready);
                drop(pool);
                return shared.discard_spares(left);
            }
            match &pool.like {
                Some(like) if pool.ready.len() + pool.making < pool.wanted => break like.clone(),
                _ => pool = shared.spares.wanted.wait(pool),
            }
        };
        pool.making += 1;
        drop(pool);
        let made = directory::create(shared.client(), &like, &columns);
        let mut pool = shared.spares.pool.lock();
        pool.making -= 1;
        match made {
            Ok(made) if pool.fits(&like, &columns) => pool.ready.push(made),
            Ok(made) => {
                drop(pool);
                shared.discard_spares(vec![made]);
            }
            // Whoever makes a directory hears why; none are made ahead until then.
            Err(_) => pool.wanted = 0,
        }
    }
}
