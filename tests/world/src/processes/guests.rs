//! Guests that do nothing but live for a while.

use std::sync::Arc;
use std::time::Duration;

use amoeba_process::{Events, Exit, Guest, GuestError, Guests, HostLoad, Spec, WindowSize, status};
use amoeba_sim::Place;
use amoeba_threads::{Condition, Mutex};

use super::{GUEST_MAX, Log};

const SIGNAL_KILL: u8 = 9;

/// The guests of one life of a server.
pub(super) struct SimGuests {
    place: Place,
    log: Log,
}

impl SimGuests {
    pub(super) fn new(place: &Place, log: &Log) -> SimGuests {
        SimGuests { place: place.clone(), log: log.clone() }
    }
}

/// What a guest is told to be, in its arguments.
pub(super) struct Life {
    pub(super) number: u64,
    /// Whether it ends by a signal alone.
    pub(super) endless: bool,
}

impl Life {
    pub(super) fn to_arguments(&self) -> Vec<Vec<u8>> {
        let how = if self.endless { "endless" } else { "short" };
        [how.to_owned(), self.number.to_string()].map(String::into_bytes).to_vec()
    }

    fn from_arguments(arguments: &[Vec<u8>]) -> Life {
        let number = String::from_utf8_lossy(&arguments[1]).parse().expect("clients number their processes");
        Life { number, endless: arguments[0] == b"endless" }
    }
}

/// The exit code of a guest that ends by itself.
fn code(number: u64) -> u8 {
    (number % 120) as u8
}

struct SimGuest {
    signal: Mutex<Option<u8>>,
    came: Condition,
}

impl SimGuest {
    /// Its whole life, on a thread of its own. `lot` decides about it.
    fn live(&self, place: &Place, log: &Log, life: &Life, lot: u64, events: &dyn Events) {
        place.world.threads.sleep(Duration::from_micros(lot % 40_000)); // its program is fetched
        if lot >> 20 & 15 == 0 {
            return events.exited(Exit::not_started(status::NOPROG, 127, "no such program".into()));
        }
        log.start(life.number, place);
        events.started();
        let share = (lot >> 32) as f64 / (1u64 << 32) as f64;
        // Most are short, some take as long as a guest may.
        let time = GUEST_MAX.mul_f64(share.powi(4));
        let end = place.world.threads.now() + time;
        let mut signal = self.signal.lock();
        while signal.is_none() && (life.endless || place.world.threads.now() < end) {
            signal = self.came.wait_until(signal, (!life.endless).then_some(end)).0;
        }
        let (code, signal) = signal.map_or((code(life.number), 0), |signal| (128 + signal, signal));
        log.end(life.number, code, signal);
        events.exited(Exit { code, signal, ..Exit::default() });
    }
}

impl Guest for SimGuest {
    fn pid(&self) -> u32 {
        1
    }

    fn times(&self) -> (Duration, Duration) {
        Default::default()
    }

    fn signal(&self, number: u8) -> Result<(), GuestError> {
        if number == SIGNAL_KILL {
            self.signal.lock().get_or_insert(number);
            self.came.notify_all();
        }
        Ok(())
    }

    fn freeze(&self) -> Result<(), GuestError> {
        Ok(())
    }

    fn thaw(&self) -> Result<(), GuestError> {
        Ok(())
    }

    fn resize(&self, _: WindowSize) -> Result<(), GuestError> {
        Ok(())
    }
}

impl Guests for SimGuests {
    fn architecture(&self) -> &str {
        "sim"
    }

    fn has_option(&self, _: &[u8]) -> bool {
        false
    }

    fn load(&self) -> HostLoad {
        HostLoad::default()
    }

    fn start(&self, spec: Spec, events: Arc<dyn Events>) -> Result<Arc<dyn Guest>, GuestError> {
        let world = &self.place.world;
        let lot = u64::from_le_bytes(amoeba_world::random(&*world.entropy));
        if lot >> 24 & 15 == 0 {
            return Err(GuestError::NoRoom("as the seed wants it".into()));
        }
        let guest = Arc::new(SimGuest {
            signal: Mutex::new(&world.threads, None),
            came: Condition::new(&world.threads),
        });
        let life = Life::from_arguments(&spec.descriptor.arguments);
        let (living, place, log) = (guest.clone(), self.place.clone(), self.log.clone());
        let body = move || living.live(&place, &log, &life, lot, &*events);
        world.threads.spawn("guest", body).map_err(|error| GuestError::NoRoom(error.to_string()))?;
        Ok(guest)
    }

    fn read_log(&self, _: u16, _: u64, _: u32) -> (Vec<u8>, bool) {
        (Vec::new(), true)
    }

    fn forget(&self, _: u16) {}
}
