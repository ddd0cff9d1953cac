//! Many seeds over few cores: each run is single-threaded, runs are not.

use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::executor::panic_text;

/// Calls `run` with every seed of `seeds`, on as many operating-system threads as there are cores, and fails with the
/// smallest seed that failed.
///
/// `AMOEBA_SEED=n` runs that seed alone; `AMOEBA_SEEDS=n` runs n seeds from the range's first (for long tests);
/// `AMOEBA_TRACE=1` prints everything that happens.
pub fn for_each_seed(seeds: Range<u64>, run: impl Fn(u64) + Send + Sync) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match (number("AMOEBA_SEED"), number("AMOEBA_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => seeds.start..seeds.start + count,
        (None, None) => seeds,
    };
    let next = AtomicU64::new(seeds.start);
    let failed: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let stop = failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            if seed >= seeds.end || stop {
                return;
            }
            if let Err(text) = run_one(seed, &run) {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                    *failed = Some((seed, text));
                }
            }
        }
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
        (0..cores).for_each(|_| drop(scope.spawn(worker)));
    });
    if let Some((seed, text)) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let test = thread::current().name().unwrap_or("NAME").to_owned();
        panic!("seed {seed} failed; again with: AMOEBA_SEED={seed} cargo test {test}\n{text}");
    }
}

/// A thread of its own for each run: what a failed run leaves behind (a forgotten unwinding stack) stays with it.
fn run_one(seed: u64, run: &(impl Fn(u64) + Send + Sync)) -> Result<(), String> {
    thread::scope(|scope| {
        let body = || panic::catch_unwind(AssertUnwindSafe(|| run(seed)));
        let result = scope.spawn(body).join().expect("panics are caught inside");
        result.map_err(|payload| panic_text(payload.as_ref()))
    })
}
