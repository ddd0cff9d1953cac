//! Taking rights from capabilities that were found in rows.
//!
//! Our own directories are restricted here. Any other object's capability can only be restricted by its server, by a
//! transaction; results are kept in a bounded cache, since the same row is looked up again and again. No transaction
//! runs while a view of the tables or a lock is held.
//!
//! A server may take a question and never answer: a stunned process, or two directory services whose threads all ask
//! each other. So only some of the server's threads ask at once, and fewer the same port; the others wait a little, and
//! do not wait at all for a port that has kept one waiting for long.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use amoeba_cap::{Capability, CapabilitySet, Private, PutPort, Rights, Suite};
use amoeba_threads::{Condition, Instant, Threads};
use amoeba_world::Error;

use crate::store::Store;
use crate::update::Refusal;
use crate::walk::lessen;

/// Restrictions to remember.
const CACHE_ENTRIES_MAX: usize = 16_384;
/// Ports to remember that did not answer.
const SILENT_MAX: usize = 1024;
/// How long a port that did not answer is not asked again, so that one dead server does not hold every thread.
const SILENT_TIME: Duration = Duration::from_secs(1);
/// How long a thread waits until it may ask, and how long a question to a port may take before nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks an object's server for its capability with at most these rights.
pub type AskServer = dyn Fn(&Capability, Rights) -> Result<Capability, Error> + Send + Sync;

/// Restricts capabilities, and remembers what other servers answered.
pub struct Restrictor {
    ask: Box<AskServer>,
    threads: Threads,
    cache: Mutex<Cache>,
    asking: amoeba_threads::Mutex<Asking>,
    asked: Condition,
    asking_max: usize,
    asking_port_max: usize,
}

/// Questions that are not answered yet.
#[derive(Default)]
struct Asking {
    /// When those to each port began, the oldest first.
    began: BTreeMap<PutPort, Vec<Instant>>,
    count: usize,
}

/// The right to ask a port; dropping it lets another ask.
struct Question<'a> {
    restrictor: &'a Restrictor,
    port: PutPort,
    began: Instant,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut asking = self.restrictor.asking.lock();
        asking.count -= 1;
        if let Some(began) = asking.began.get_mut(&self.port) {
            let place = began.iter().position(|began| *began == self.began);
            place.map(|place| began.remove(place));
            if began.is_empty() {
                asking.began.remove(&self.port);
            }
        }
        drop(asking);
        self.restrictor.asked.notify_all();
    }
}

type Key = (Capability, Rights);

/// The oldest entry goes first.
#[derive(Default)]
struct Cache {
    results: BTreeMap<Key, Capability>,
    order: VecDeque<Key>,
    /// Ports that did not answer, each until when it is not asked.
    silent: BTreeMap<PutPort, Instant>,
}

impl Restrictor {
    /// A restrictor with an empty cache, for a server with `server_threads` threads: at most half of them ask at once,
    /// at most a quarter the same port.
    pub fn new(threads: &Threads, server_threads: usize, ask: Box<AskServer>) -> Restrictor {
        Restrictor {
            ask,
            threads: threads.clone(),
            cache: Mutex::default(),
            asking: amoeba_threads::Mutex::new(threads, Asking::default()),
            asked: Condition::new(threads),
            asking_max: (server_threads / 2).max(1),
            asking_port_max: (server_threads / 4).max(1),
        }
    }

    /// Every capability of `set` with at most the rights `mask`. A member that cannot be restricted is replaced by one
    /// that has only its port; if that happens to all, there is no result.
    pub fn restrict_set(
        &self,
        store: &Store,
        set: &CapabilitySet,
        mask: Rights,
    ) -> Result<CapabilitySet, Refusal> {
        let mut reached = false;
        let mut suites = Vec::with_capacity(set.suites().len());
        for suite in set.suites() {
            let restricted = self.restrict(store, &suite.capability, mask)?;
            reached |= restricted.is_some() && suite.current;
            let portal = Capability { port: suite.capability.port, private: Private::NULL };
            suites.push(Suite { capability: restricted.unwrap_or(portal), current: suite.current });
        }
        if !reached {
            return Err(Refusal::Unreachable);
        }
        let restricted = CapabilitySet::from_suites(set.initial(), suites);
        Ok(restricted.expect("as many members as the set it is made from"))
    }

    /// Whether the rights `mask` are all that any member of `set` has.
    pub fn is_covered(&self, set: &CapabilitySet, mask: Rights) -> bool {
        !set.is_empty() && set.suites().iter().all(|suite| mask.contains(suite.capability.rights()))
    }

    /// Whether another server would have to be asked to take rights from a member of `set`.
    pub fn must_ask(&self, store: &Store, set: &CapabilitySet, mask: Rights) -> bool {
        set.suites().iter().any(|Suite { capability, .. }| {
            let covered = mask.contains(capability.rights()) || capability.is_null();
            let key = (*capability, mask & capability.rights());
            !covered && capability.port != store.port() && self.known(&key).is_none()
        })
    }

    /// `capability` with at most the rights `mask`, `None` when its server cannot be asked.
    pub fn restrict(
        &self,
        store: &Store,
        capability: &Capability,
        mask: Rights,
    ) -> Result<Option<Capability>, Refusal> {
        if mask.contains(capability.rights()) || capability.is_null() {
            return Ok(Some(*capability));
        }
        if capability.port == store.port() {
            let private = store.look(|look| lessen(store, look, &capability.private, mask))?;
            return Ok(Some(Capability { port: capability.port, private }));
        }
        let key = (*capability, mask & capability.rights());
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let Some(_question) = self.may_ask(capability.port) else { return Ok(None) };
        if let Some(known) = self.known(&key) {
            return Ok(known); // somebody else asked while we waited
        }
        let answer = (self.ask)(capability, mask);
        match answer {
            Ok(restricted) => self.remember(key, restricted),
            // It answered; that this object is gone says nothing of its others.
            Err(Error::Refused(_) | Error::BadReply) => {}
            Err(_) => self.remember_silence(capability.port),
        }
        Ok(answer.ok())
    }

    /// Waits until this port may be asked; `None` when that takes too long.
    fn may_ask(&self, port: PutPort) -> Option<Question<'_>> {
        let latest = self.threads.now() + PATIENCE;
        let mut asking = self.asking.lock();
        loop {
            let now = self.threads.now();
            let began = asking.began.get(&port).map_or(&[][..], Vec::as_slice);
            let port_is_free = began.len() < self.asking_port_max;
            if port_is_free && asking.count < self.asking_max {
                asking.began.entry(port).or_default().push(now);
                asking.count += 1;
                return Some(Question { restrictor: self, port, began: now });
            }
            let until = if port_is_free { latest } else { latest.min(began[0] + PATIENCE) };
            if now >= until {
                return None;
            }
            asking = self.asked.wait_until(asking, Some(until)).0;
        }
    }

    /// What is known without asking; the inner `None`: that it is no use to ask now.
    fn known(&self, key: &Key) -> Option<Option<Capability>> {
        let cache = self.cache();
        if let Some(restricted) = cache.results.get(key) {
            return Some(Some(*restricted));
        }
        let until = cache.silent.get(&key.0.port)?;
        (self.threads.now() < *until).then_some(None)
    }

    fn remember_silence(&self, port: PutPort) {
        let now = self.threads.now();
        let mut cache = self.cache();
        cache.silent.retain(|_, until| now < *until);
        if cache.silent.len() < SILENT_MAX {
            cache.silent.insert(port, now + SILENT_TIME);
        }
    }

    /// How many results are remembered.
    pub fn cached(&self) -> usize {
        self.cache().results.len()
    }

    fn remember(&self, key: Key, restricted: Capability) {
        let mut cache = self.cache();
        if cache.results.insert(key, restricted).is_none() {
            cache.order.push_back(key);
        }
        if cache.order.len() > CACHE_ENTRIES_MAX
            && let Some(oldest) = cache.order.pop_front()
        {
            cache.results.remove(&oldest);
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
