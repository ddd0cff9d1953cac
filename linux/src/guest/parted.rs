//! A guest that talks to nobody directly once it stands still.
//!
//! Its channels and flows lead past the kernel daemon, which cannot see that nobody answers there. So whoever stuns a guest
//! says which processes have stopped, and the kernel ends what they share with others.

use std::sync::Arc;
use std::time::Duration;

use amoeba_process::{Guest, GuestError, WindowSize};

use super::tree;

/// Told which processes of the host have stopped.
pub type Part = Arc<dyn Fn(&[u32]) + Send + Sync>;

struct Parted {
    guest: Arc<dyn Guest>,
    part: Part,
}

/// `guest`, whose processes are told to `part` whenever it has been stunned.
pub(super) fn parted(guest: Arc<dyn Guest>, part: Part) -> Arc<dyn Guest> {
    Arc::new(Parted { guest, part })
}

impl Guest for Parted {
    fn pid(&self) -> u32 {
        self.guest.pid()
    }

    fn times(&self) -> (Duration, Duration) {
        self.guest.times()
    }

    fn signal(&self, number: u8) -> Result<(), GuestError> {
        self.guest.signal(number)
    }

    fn freeze(&self) -> Result<(), GuestError> {
        self.guest.freeze()?;
        (self.part)(&tree::stopped_beside(self.pid()));
        Ok(())
    }

    fn thaw(&self) -> Result<(), GuestError> {
        self.guest.thaw()
    }

    fn resize(&self, window: WindowSize) -> Result<(), GuestError> {
        self.guest.resize(window)
    }
}
