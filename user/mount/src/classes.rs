//! What objects are: the servers of their ports are asked once each.
//!
//! One that does not answer is not asked again for a moment, and before a directory is listed all servers that are met in it
//! for the first time are asked at once: so a listing waits for one that is gone, and not for each of its rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amoeba_cap::{Capability, PutPort};
use amoeba_threads::Instant;
use amoeba_volume::{Error, Node};

use crate::Shared;
use crate::rows::{self, Class};
use crate::tree::Local;

/// Ports whose class is remembered; past it they are asked again.
const CLASSES_MAX: usize = 4096;
/// How long a server that did not answer is not asked again.
const SILENCE: Duration = Duration::from_secs(3);
/// Servers that are asked at once.
const ASKED_MAX: usize = 16;

/// Objects of a port, except its server, are of one class; an object 0 is its server.
type Key = (PutPort, bool);

fn key_of(object: &Capability) -> Key {
    (object.port, object.object().get() == 0)
}

/// What is known of ports.
pub(crate) struct Classes(Mutex<State>);

struct State {
    /// At most [`CLASSES_MAX`].
    known: HashMap<Key, Class>,
    /// When a server did not answer. At most [`CLASSES_MAX`].
    silent: HashMap<PutPort, Instant>,
}

impl Classes {
    pub(crate) fn new(known: impl IntoIterator<Item = (PutPort, Class)>) -> Classes {
        let known = known.into_iter().map(|(port, class)| ((port, false), class)).collect();
        Classes(Mutex::new(State { known, silent: HashMap::new() }))
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known of an object: its class, or that its server does not answer now.
    fn get(&self, object: &Capability, now: Instant) -> Option<Result<Class, Error>> {
        self.with(|state| {
            let class = state.known.get(&key_of(object)).cloned();
            let is_silent = state.silent.get(&object.port).is_some_and(|since| now.since(*since) < SILENCE);
            class.map(Ok).or_else(|| is_silent.then_some(Err(Error::Io)))
        })
    }

    fn note(&self, object: &Capability, class: Option<&Class>, now: Instant) {
        self.with(|state| match class {
            // Each object says something else of itself.
            Some(Class::Other(_)) => {}
            Some(class) if state.known.len() < CLASSES_MAX => {
                state.known.insert(key_of(object), class.clone());
            }
            Some(_) => {}
            None => {
                if state.silent.len() >= CLASSES_MAX {
                    state.silent.retain(|_, since| now.since(*since) < SILENCE);
                }
                if state.silent.len() < CLASSES_MAX {
                    state.silent.insert(object.port, now);
                }
            }
        });
    }
}

impl Shared {
    /// What an object is.
    ///
    /// # Errors
    /// [`Error::Io`]: its server does not answer, or did not a moment ago.
    pub(crate) fn class(&self, object: &Capability) -> Result<Class, Error> {
        if let Some(known) = self.classes.get(object, self.world.threads.now()) {
            return known;
        }
        let class = rows::class(self.client(), object);
        self.classes.note(object, class.as_ref(), self.world.threads.now());
        class.ok_or(Error::Io)
    }
}

/// Asks all servers that are met in a directory for the first time, several at once. All its names are known.
pub(crate) fn meet(shared: &Arc<Shared>, directory: Node) {
    let now = shared.world.threads.now();
    let mut unknown: BTreeMap<Key, Capability> = BTreeMap::new();
    if let Ok(folder) = shared.tree.lock().folder(directory) {
        let rows = folder.entries.values().filter(|slot| slot.local == Local::Same);
        for object in rows.filter_map(|slot| slot.server.as_ref()?.object()) {
            if shared.classes.get(object, now).is_none() {
                unknown.entry(key_of(object)).or_insert(*object);
            }
        }
    }
    let ports: BTreeSet<PutPort> = unknown.keys().map(|(port, _)| *port).collect();
    if ports.len() < 2 {
        return; // it is asked when its row is listed
    }
    let unknown: Vec<Capability> = unknown.into_values().collect();
    let mut threads = Vec::new();
    for some in unknown.chunks(unknown.len().div_ceil(ASKED_MAX)) {
        let (asker, some) = (Arc::clone(shared), some.to_vec());
        let ask = move || {
            for object in some {
                // Whoever lists it hears what came of this.
                drop(asker.class(&object));
            }
        };
        // Where there is no thread, they are asked when their rows are listed.
        threads.extend(shared.world.threads.spawn("ask", ask));
    }
    for thread in threads {
        // One that panicked has said so.
        let _ = thread.join();
    }
}
