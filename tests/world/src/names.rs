//! A client of the directory server that remembers what was acknowledged to it.
//!
//! The promises it checks: an acknowledged append, replace, delete or install is there whatever crashes; an install
//! changes all its rows or none; of two that compare and swap the same row one loses; a directory's capability
//! verifies for ever. A name whose last update was lost on the way is not touched again: it must show one of the two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use amoeba_cap::{Capability, CapabilitySet, CheckField, ObjectNumber, Private, PutPort, Rights};
use amoeba_sim::{Place, Prng};
use amoeba_stubs::directory::{self, InstallRow};
use amoeba_wire::Status;
use amoeba_world::{Error, World};

use crate::{Outcome, TRANSACTION_MAX, outcome};

const MASKS: [u8; 4] = [0xFF; 4];
const NAMES_MAX: u64 = 24;
/// The row that all clients fight for.
pub const SHARED: &[u8] = b"shared";

/// What a name stands for, `None` for nothing.
type Value = Option<Capability>;

/// One client thread and its directories.
pub struct Names {
    root: Capability,
    home: Option<Home>,
    random: Prng,
    swaps: Swaps,
}

/// Two directories of one client.
struct Home {
    directories: [Capability; 2],
    /// What each name certainly stands for.
    known: BTreeMap<Place2, Value>,
    /// Updates nobody knows the outcome of: all their rows changed, or none.
    open: Vec<Vec<(Place2, Value, Value)>>,
}

/// A name in the first or the second directory.
type Place2 = (usize, Vec<u8>);

/// Acknowledged swaps of the shared row.
#[derive(Clone, Default)]
pub struct Swaps(Arc<Mutex<SwapLog>>);

#[derive(Default)]
struct SwapLog {
    /// From which value to which, acknowledged.
    done: BTreeMap<[u8; 16], [u8; 16]>,
    /// Offered, outcome lost.
    unknown: Vec<([u8; 16], [u8; 16])>,
}

impl Swaps {
    fn log(&self) -> std::sync::MutexGuard<'_, SwapLog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, old: &Capability, new: &Capability) {
        let other = self.log().done.insert(old.to_bytes(), new.to_bytes());
        assert!(other.is_none(), "two clients swapped the same value of the shared row");
    }

    fn unknown(&self, old: &Capability, new: &Capability) {
        self.log().unknown.push((old.to_bytes(), new.to_bytes()));
    }

    /// Whether acknowledged swaps lead from `first` to `last`, over unknown ones where none was acknowledged.
    pub fn check(&self, first: &Capability, last: &Capability) {
        let log = self.log();
        let mut value = first.to_bytes();
        let mut passed = 0;
        let mut seen = BTreeSet::new();
        while value != last.to_bytes() {
            assert!(seen.insert(value), "the shared row went in a circle");
            value = match log.done.get(&value) {
                Some(next) => {
                    passed += 1;
                    *next
                }
                None => {
                    let mut ways = log.unknown.iter().filter(|(old, _)| *old == value);
                    // Of several unknown swaps of one value at most one happened: the one that leads on.
                    let next = ways.find(|(_, new)| log.done.contains_key(new) || *new == last.to_bytes());
                    let further = || log.unknown.iter().find(|(old, _)| *old == value);
                    next.or_else(further).map(|(_, new)| *new).expect("an acknowledged swap was lost")
                }
            };
        }
        assert_eq!(passed, log.done.len(), "acknowledged swaps are missing from the row's history");
    }

    /// Acknowledged swaps.
    pub fn count(&self) -> usize {
        self.log().done.len()
    }
}

/// A capability that nobody serves: a value to be stored.
pub fn value(random: &mut Prng) -> Capability {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    let port = PutPort::from_bytes(bytes[..6].try_into().expect("six bytes"));
    let check = CheckField::from_bytes(bytes[6..12].try_into().expect("six bytes"));
    Capability { port, private: Private { object: ObjectNumber::SUPER, rights: Rights::ALL, check } }
}

impl Names {
    /// A client of the service with this root directory.
    pub fn new(root: Capability, random: Prng, swaps: Swaps) -> Names {
        Names { root, home: None, random, swaps }
    }

    /// A random operation, checked.
    pub fn step(&mut self, place: &Place) {
        let world = &place.world;
        let before = world.threads.now();
        let Some(mut home) = self.home.take() else {
            self.home = self.settle(world);
            return;
        };
        match self.random.below(12) {
            0..4 => self.change(&mut home, world),
            4..6 => self.install(&mut home, world),
            6..8 => self.look(&home, world),
            8 => home.check_list(world),
            9 => self.come_and_go(world),
            _ => self.swap(world),
        }
        self.home = Some(home);
        let took = world.threads.now() - before;
        assert!(took <= TRANSACTION_MAX * 10, "an operation took {took:?}");
    }

    /// Two directories that no row names. A creation that is lost on the way leaves one that nobody knows.
    fn settle(&mut self, world: &World) -> Option<Home> {
        let columns = [b"owner".to_vec()];
        let make = || match outcome(directory::create(world, &self.root, &columns)) {
            Outcome::Done(directory) => Some(directory),
            Outcome::NotDone(None) | Outcome::Unknown => None,
            Outcome::NotDone(Some(status)) => panic!("no reason to refuse a directory: {status}"),
        };
        let directories = [make()?, make()?];
        Some(Home { directories, known: BTreeMap::new(), open: Vec::new() })
    }

    /// A name that no update with a lost outcome has touched.
    fn draw(&mut self, home: &Home) -> Option<Place2> {
        let name = format!("name {}", self.random.below(NAMES_MAX)).into_bytes();
        let place = (self.random.below(2) as usize, name);
        (!home.is_open(&place)).then_some(place)
    }

    fn change(&mut self, home: &mut Home, world: &World) {
        let Some(place) = self.draw(home) else { return };
        let (directory, name) = (home.directories[place.0], place.1.as_slice());
        let old = home.value(&place);
        let new = value(&mut self.random);
        let set = CapabilitySet::singleton(new);
        // What fits, and now and then what does not.
        let (result, refusal, wanted) = match self.random.below(3) {
            0 => {
                let result = directory::append(world, &directory, name, &set, &MASKS, b"");
                (result, old.map(|_| Status::STD_EXISTS), Some(new))
            }
            1 => {
                let result = directory::replace(world, &directory, name, &set);
                (result, old.is_none().then_some(Status::STD_NOTFOUND), Some(new))
            }
            _ => {
                let result = directory::delete(world, &directory, name);
                (result, old.is_none().then_some(Status::STD_NOTFOUND), None)
            }
        };
        match outcome(result) {
            Outcome::Done(()) => {
                assert_eq!(refusal, None, "an update was done that could not be");
                home.known.insert(place, wanted);
            }
            Outcome::NotDone(None) => {}
            Outcome::NotDone(status) => assert_eq!(status, refusal, "{:?} stood for {old:?}", place.1),
            Outcome::Unknown if refusal.is_some() => {} // whenever it runs it is refused
            Outcome::Unknown => home.lose(vec![(place, old, wanted)]),
        }
    }

    /// Rows of both directories at once.
    fn install(&mut self, home: &mut Home, world: &World) {
        let (Some(first), Some(second)) = (self.draw(home), self.draw(home)) else { return };
        if first == second {
            return;
        }
        let wrong = self.random.chance(200);
        let mut changes = Vec::new();
        let mut rows = Vec::new();
        for (index, place) in [first, second].into_iter().enumerate() {
            let old = home.value(&place);
            let new = self.random.chance(800).then(|| value(&mut self.random));
            let stated = if wrong && index == 1 { Some(value(&mut self.random)) } else { old };
            rows.push(install_row(&home.directories[place.0], &place.1, new, stated));
            changes.push((place, old, new));
        }
        let impossible = wrong || changes.iter().any(|(_, old, new)| old.is_none() && new.is_none());
        match outcome(directory::install(world, &self.root, &rows)) {
            Outcome::Done(()) => {
                assert!(!wrong, "an install was done over a row that was not what it said");
                home.known.extend(changes.into_iter().map(|(place, _, new)| (place, new)));
            }
            Outcome::NotDone(None) => {}
            Outcome::NotDone(Some(status)) => assert!(impossible, "{status} to a good install: {changes:?}"),
            Outcome::Unknown if wrong => {}
            Outcome::Unknown => home.lose(changes),
        }
    }

    fn look(&mut self, home: &Home, world: &World) {
        if let Some(place) = self.draw(home) {
            let found = lookup(world, &home.directories[place.0], &place.1);
            if let Some(found) = found {
                assert_eq!(found, home.value(&place), "{:?}", String::from_utf8_lossy(&place.1));
            }
        }
    }

    /// A directory that is made, used, emptied and discarded.
    fn come_and_go(&mut self, world: &World) {
        let columns = [b"owner".to_vec(), b"other".to_vec()];
        let Ok(directory) = directory::create(world, &self.root, &columns) else { return };
        let set = CapabilitySet::singleton(value(&mut self.random));
        if directory::append(world, &directory, b"only", &set, &MASKS, b"").is_err() {
            return;
        }
        match outcome(directory::discard(world, &directory)) {
            Outcome::Done(()) => panic!("a directory was discarded with a row in it"),
            Outcome::NotDone(Some(status)) => assert_eq!(status, directory::NOTEMPTY),
            Outcome::NotDone(None) | Outcome::Unknown => {}
        }
        if directory::delete(world, &directory, b"only").is_err() {
            return;
        }
        if directory::discard(world, &directory).is_ok() {
            match outcome(directory::list(world, &directory, b"", 1)) {
                Outcome::NotDone(None | Some(Status::STD_CAPBAD)) | Outcome::Unknown => {}
                other => panic!("a discarded directory gave {other:?}"),
            }
        }
    }

    /// Compare and swap of the row that everybody wants.
    fn swap(&mut self, world: &World) {
        let Some(Some(old)) = lookup(world, &self.root, SHARED) else { return };
        let new = value(&mut self.random);
        let row = install_row(&self.root, SHARED, Some(new), Some(old));
        match outcome(directory::install(world, &self.root, &[row])) {
            Outcome::Done(()) => self.swaps.done(&old, &new),
            Outcome::NotDone(None | Some(directory::CLASH)) => {}
            Outcome::NotDone(Some(status)) => panic!("a swap cannot end with {status}"),
            Outcome::Unknown => self.swaps.unknown(&old, &new),
        }
    }

    /// When every harm has ended: everything acknowledged is there, everything else all or not at all.
    pub fn check_all(&self, place: &Place) {
        if let Some(home) = &self.home {
            home.check_all(&place.world);
        }
    }

    /// Names whose value is certain.
    pub fn count(&self) -> usize {
        self.home.as_ref().map_or(0, |home| home.known.len())
    }
}

impl Home {
    fn value(&self, place: &Place2) -> Value {
        self.known.get(place).copied().flatten()
    }

    fn is_open(&self, place: &Place2) -> bool {
        self.open.iter().flatten().any(|(other, ..)| other == place)
    }

    fn lose(&mut self, changes: Vec<(Place2, Value, Value)>) {
        self.known.retain(|place, _| !changes.iter().any(|(other, ..)| other == place));
        self.open.push(changes);
    }

    /// A list has every certain name that is there, and no other that is not open.
    fn check_list(&self, world: &World) {
        for (index, directory) in self.directories.iter().enumerate() {
            let list = match outcome(directory::list(world, directory, b"", 1000)) {
                Outcome::Done(list) => list,
                Outcome::NotDone(None) | Outcome::Unknown => continue,
                Outcome::NotDone(Some(status)) => panic!("a directory cannot be listed: {status}"),
            };
            let listed: BTreeSet<Vec<u8>> = list.rows.into_iter().map(|row| row.name).collect();
            for name in listed.iter().cloned() {
                let place = (index, name);
                assert!(self.is_open(&place) || self.value(&place).is_some(), "{place:?} was deleted");
            }
            for ((at, name), value) in &self.known {
                assert!(*at != index || value.is_none() || listed.contains(name), "{name:?} was lost");
            }
        }
    }

    fn check_all(&self, world: &World) {
        self.check_list(world);
        let find = |place: &Place2| {
            let found = lookup(world, &self.directories[place.0], &place.1);
            found.expect("after every harm has ended a name is looked up")
        };
        for (place, value) in &self.known {
            assert_eq!(find(place), *value, "{:?}", String::from_utf8_lossy(&place.1));
        }
        for changes in &self.open {
            let all = |pick: fn(&(Place2, Value, Value)) -> Value| {
                changes.iter().all(|change| find(&change.0) == pick(change))
            };
            assert!(all(|change| change.1) || all(|change| change.2), "half an install: {changes:?}");
        }
    }
}

/// What a name stands for; `None` when no answer came.
pub fn lookup(world: &World, directory: &Capability, name: &[u8]) -> Option<Value> {
    match directory::lookup(world, directory, name) {
        Ok(reply) => Some(reply.set.first().copied()),
        Err(Error::Refused(Status::STD_NOTFOUND)) => Some(None),
        Err(Error::Refused(status)) => panic!("a directory that is there says {status}"),
        Err(Error::BadReply) => panic!("an honest server does not stammer"),
        Err(_) => None,
    }
}

fn install_row(directory: &Capability, name: &[u8], new: Value, old: Value) -> InstallRow {
    InstallRow {
        directory: directory.private,
        name: name.to_vec(),
        set: new.map(CapabilitySet::singleton).unwrap_or_default(),
        old: old.unwrap_or(Capability::NULL),
        keep: false,
        masks: MASKS,
        kind: Capability::NULL,
        attributes: Vec::new(),
    }
}
