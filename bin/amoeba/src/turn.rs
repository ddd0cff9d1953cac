//! Whether a job of this host should run here at once, or somebody be asked where.

use std::any::Any;

use amoeba_cli::{Slot, Turn};
use amoeba_linux::slots::{self, Slots};

use crate::config::Config;
use crate::inside;
use crate::state::State;

/// Where the slots are.
const SLOTS: &str = "run/slots";

/// See [`amoeba_cli::System::turn`]. In doubt it is here: a job that runs here needs nobody.
pub(crate) fn turn() -> Turn {
    // A process of the system was placed already.
    if inside::find().is_some() {
        return Turn::Here(None);
    }
    let Ok(state) = State::find() else { return Turn::Here(None) };
    let slots = Slots::new(&state.path(SLOTS));
    let slot = match slots.take_processor() {
        Ok(Some(slot)) if !is_crowded(&slots) => return Turn::Here(Some(Box::new(slot))),
        Ok(slot) => slot,
        Err(_) => return Turn::Here(None),
    };
    // Only who needs another host looks whether there is one: of what is done so often, that would be the larger part.
    if !state.socket().exists() || Config::read(&state).map_or(true, |config| config.is_alone()) {
        return Turn::Here(None);
    }
    ask(&slots, slot)
}

/// Whether so much runs here that a processor without a job of ours is not free all the same.
fn is_crowded(slots: &Slots) -> bool {
    slots::is_loaded(load_max(1)) && slots::is_loaded(load_max(slots.processors()))
}

/// The load from which on so many processors are crowded.
fn load_max(processors: usize) -> f64 {
    processors as f64 * 1.5 + 1.0
}

fn ask(slots: &Slots, slot: Option<slots::Slot>) -> Turn {
    let busy = slots.taken().map_or(0, |taken| u32::try_from(taken).unwrap_or(u32::MAX));
    // Held while the run server is asked: of many that ask at the same time each counts those before it.
    let slot = slot.or_else(|| slots.take_excess().ok().flatten());
    Turn::Ask { busy, slot: slot.map(|slot| Box::new(slot) as Box<dyn Any + Send> as Slot) }
}
