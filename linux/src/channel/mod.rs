//! What two processes of one host share: memory that each maps, and bells.
//!
//! The protocol over it is `amoeba_channel`, which makes no system call; here are the regions, the bells and the way an
//! end waits: it looks, giving its processor away between two looks, for [`LOOK_TIME`], and then sleeps on its bell.

pub(crate) mod bell;
pub(crate) mod region;

use std::time::Duration;

/// How long an end looks before it sleeps: about what waking costs.
pub(crate) const LOOK_TIME: Duration = Duration::from_micros(20);

/// Lets another thread run, if one wants to.
pub(crate) fn give_way() {
    rustix::thread::sched_yield();
}
