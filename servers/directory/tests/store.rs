//! The store under crashes, failures and damage.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use amoeba_cap::{Capability, CapabilitySet, ObjectNumber, Private, PutPort, Rights};
use amoeba_directory::update::Install;
use amoeba_directory::{Name, Outcome, Refusal, Store, StoreError, Update};
use support::{CrashDisk, OPEN, Random, Service};

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn cap(number: u64) -> Capability {
    let mut bytes = [7; 16];
    bytes[6..14].copy_from_slice(&number.to_le_bytes());
    Capability::from_bytes(bytes)
}

fn append(directory: Private, text: &str, number: u64) -> Update {
    let set = CapabilitySet::singleton(cap(number));
    Update::Append { directory, name: name(text), set, masks: OPEN, attributes: Vec::new() }
}

fn create(store: &Store) -> Private {
    let columns = vec![b"owner".to_vec()];
    match store.update(Update::Create { columns, owner: PutPort::NULL }).unwrap() {
        Outcome::Created(object, random) => store.capability(object, Rights::ALL, random).private,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let service = Service::new();
    let root = service.root().private;
    let store = service.open().unwrap();
    for number in 0..100 {
        store.update(append(root, &format!("row{number}"), number)).unwrap();
    }
    assert_eq!(store.update(append(root, "row7", 1)), Err(Refusal::Exists));
    drop(store);
    let store = service.open().unwrap();
    for number in 0..100 {
        let row = store.row(root.object, &name(&format!("row{number}"))).unwrap().unwrap();
        assert_eq!(row.set, CapabilitySet::singleton(cap(number)));
    }
    assert_eq!(store.directory(root.object).unwrap().unwrap().rows, 100);
}

/// A server is killed while it waits for its log; the next one shows what the operating system has of it. The power fails then.
#[test]
fn what_a_start_has_shown_survives_the_next_crash() {
    let service = Service::new();
    let root = service.root().private;
    let store = Arc::new(service.open().unwrap());
    let before = service.log.image();
    service.log.block();
    let waiting = {
        let store = store.clone();
        std::thread::spawn(move || store.update(append(root, "row", 1)).map(drop))
    };
    while service.log.image() == before {
        std::thread::yield_now();
    }
    let killed = Service {
        tables: service.tables.killed(),
        log: service.log.killed(),
        world: service.world.clone(),
        ..service
    };
    let shown = killed.open().unwrap();
    assert!(shown.row(root.object, &name("row")).unwrap().is_some());
    let (tables, log) = (killed.tables.power_failed(), killed.log.power_failed());
    let later = Service { tables, log, ..killed }.open().unwrap();
    assert!(later.row(root.object, &name("row")).unwrap().is_some(), "it was shown");
    service.log.unblock();
    waiting.join().unwrap().unwrap();
}

/// The rows that must be there, by directory and name.
type Model = BTreeMap<(ObjectNumber, String), u64>;

/// One client's life between two crashes.
struct Client<'a> {
    store: &'a Store,
    random: &'a mut Random,
    model: &'a mut Model,
    live: &'a mut Vec<Private>,
    dead: &'a mut Vec<Private>,
}

impl Client<'_> {
    fn step(&mut self, number: u64) {
        let directory = self.live[self.random.below(self.live.len() as u64) as usize];
        let text = format!("n{}", self.random.below(20));
        let key = (directory.object, text.clone());
        let set = CapabilitySet::singleton(cap(number));
        let there = self.model.contains_key(&key);
        match self.random.below(10) {
            0..3 => {
                let done = self.store.update(append(directory, &text, number));
                assert_eq!(done, if there { Err(Refusal::Exists) } else { Ok(Outcome::Done) });
                self.model.entry(key).or_insert(number);
            }
            3..5 => {
                let done = self.store.update(Update::Replace { directory, name: name(&text), set });
                assert_eq!(done, if there { Ok(Outcome::Done) } else { Err(Refusal::NotFound) });
                self.model.entry(key).and_modify(|value| *value = number);
            }
            5 => {
                let done = self.store.update(Update::Delete { directory, name: name(&text) });
                assert_eq!(done.is_ok(), self.model.remove(&key).is_some());
            }
            6 => self.live.push(create(self.store)),
            7 => self.retract(directory),
            8 => self.discard(directory),
            _ => self.install(number),
        }
    }

    fn retract(&mut self, directory: Private) {
        let Ok(Outcome::Retracted(random)) = self.store.update(Update::Retract { directory }) else {
            panic!()
        };
        let new = self.store.capability(directory.object, Rights::ALL, random).private;
        self.live.retain(|live| *live != directory);
        self.live.push(new);
        self.dead.push(directory);
    }

    fn discard(&mut self, directory: Private) {
        let rows = self.model.keys().filter(|(object, _)| *object == directory.object).count();
        let done = self.store.update(Update::Discard { directory });
        if directory.object.get() == 1 {
            assert_eq!(done, Err(Refusal::Denied));
        } else if rows > 0 {
            assert_eq!(done, Err(Refusal::NotEmpty));
        } else {
            assert_eq!(done, Ok(Outcome::Done));
            self.live.retain(|live| *live != directory);
            self.dead.push(directory);
        }
    }

    /// Changes two rows at once, with an `old` that is sometimes wrong.
    fn install(&mut self, number: u64) {
        let rows: Vec<(Private, String, Option<u64>)> = (0..2)
            .map(|index| {
                let directory = self.live[self.random.below(self.live.len() as u64) as usize];
                let text = format!("n{}", index * 10 + self.random.below(10));
                let old = self.model.get(&(directory.object, text.clone())).copied();
                (directory, text, if self.random.below(8) == 0 { Some(u64::MAX) } else { old })
            })
            .collect();
        let installs = rows.iter().map(|(directory, text, old)| Install {
            directory: *directory,
            name: name(text),
            new: CapabilitySet::singleton(cap(number)),
            old: old.map(cap),
            keep: true,
            masks: OPEN,
            kind: Capability::NULL,
            attributes: Vec::new(),
            restricted: Vec::new(),
        });
        let done = self.store.update(Update::Install(installs.collect()));
        if rows.iter().any(|(_, _, old)| *old == Some(u64::MAX)) {
            assert_eq!(done, Err(Refusal::Clash));
        } else {
            assert_eq!(done, Ok(Outcome::Done));
            rows.iter().for_each(|(directory, text, _)| {
                self.model.insert((directory.object, text.clone()), number);
            });
        }
    }
}

fn check(store: &Store, model: &Model, live: &[Private], dead: &[Private]) {
    let mut found = Model::new();
    let mut directories = Vec::new();
    let each = |object, directory: &amoeba_directory::Directory| {
        directories.push((object, directory.rows));
        true
    };
    store.directories_from(ObjectNumber::SUPER, each).unwrap();
    for (object, count) in directories {
        let mut rows = 0;
        let each = |name: Name, row: amoeba_directory::Row| {
            rows += 1;
            let bytes = row.set.first().unwrap().to_bytes();
            let number = u64::from_le_bytes(bytes[6..14].try_into().unwrap());
            found.insert((object, String::from_utf8(name.as_bytes().to_vec()).unwrap()), number);
            true
        };
        store.rows_after(object, None, 7, each).unwrap();
        assert_eq!(rows, count, "the count of {object}");
    }
    assert_eq!(&found, model);
    let verifies = |private: &Private| {
        let directory = store.directory(private.object).unwrap();
        directory.is_some_and(|directory| store.identity().secret.verifies(private, directory.random))
    };
    assert!(live.iter().all(verifies), "a capability no longer verifies");
    assert!(!dead.iter().any(verifies), "a dead capability verifies");
    assert_eq!(store.state().directories, live.len() as u64);
}

#[test]
fn crashes_lose_nothing_that_was_acknowledged_and_show_nothing_half_done() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut service = Service::new();
        let (mut model, mut live, mut dead) = (Model::new(), vec![service.root().private], Vec::new());
        for life in 0..4 {
            let store = service.open().unwrap_or_else(|error| panic!("seed {seed} life {life}: {error}"));
            check(&store, &model, &live, &dead);
            for number in 0..random.below(120) {
                let number = life * 1000 + number;
                Client {
                    store: &store,
                    random: &mut random,
                    model: &mut model,
                    live: &mut live,
                    dead: &mut dead,
                }
                .step(number);
            }
            check(&store, &model, &live, &dead);
            std::mem::forget(store); // a crash runs no destructor
            service = service.crash(&mut random);
        }
    }
}

#[test]
fn a_crash_in_the_middle_of_a_commit_does_it_whole_or_not_at_all() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let service = Service::new();
        let root = service.root().private;
        let store = Arc::new(service.open().unwrap());
        for number in 0..random.below(80) {
            store.update(append(root, &format!("a{number}"), number)).unwrap();
        }
        let before = store.directory(root.object).unwrap().unwrap().rows;
        // The log or, when a checkpoint is due, the tables stop in the middle of their flush.
        let disk = if random.below(2) == 0 { service.log.clone() } else { service.tables.clone() };
        disk.block();
        let installing = {
            let store = store.clone();
            std::thread::spawn(move || {
                for round in 0..3 {
                    let install = |index: u64| Install {
                        directory: root,
                        name: name(&format!("b{round}-{index}")),
                        new: CapabilitySet::singleton(cap(index)),
                        old: None,
                        keep: true,
                        masks: OPEN,
                        kind: Capability::NULL,
                        attributes: Vec::new(),
                        restricted: Vec::new(),
                    };
                    let _ = store.update(Update::Install((0..10).map(install).collect()));
                }
            })
        };
        std::thread::sleep(std::time::Duration::from_millis(random.below(10)));
        let (tables, log) = (service.tables.crash(&mut random), service.log.crash(&mut random));
        let crashed = Store::open(&service.world, tables, log, service.options)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let rows = crashed.directory(root.object).unwrap().unwrap().rows;
        assert!(rows >= before && (rows - before).is_multiple_of(10), "seed {seed}: {before} then {rows}");
        disk.unblock();
        installing.join().unwrap();
    }
}

#[test]
fn after_a_failed_flush_updates_are_refused_and_lookups_answered() {
    let service = Service::new();
    let root = service.root().private;
    let store = service.open().unwrap();
    store.update(append(root, "kept", 1)).unwrap();
    service.log.failing.store(true, Ordering::Relaxed);
    assert_eq!(store.update(append(root, "lost", 2)), Err(Refusal::Unknown));
    service.log.failing.store(false, Ordering::Relaxed);
    assert_eq!(store.update(append(root, "late", 3)), Err(Refusal::ReadOnly));
    assert_eq!(store.checkpoint(), Err(Refusal::ReadOnly));
    assert!(store.row(root.object, &name("kept")).unwrap().is_some());
    assert!(store.row(root.object, &name("lost")).unwrap().is_none());
    drop(store);
    let store = service.open().unwrap();
    assert!(store.row(root.object, &name("kept")).unwrap().is_some());
    assert!(store.row(root.object, &name("late")).unwrap().is_none());
    store.update(append(root, "again", 4)).unwrap();
}

#[test]
fn lookups_do_not_wait_for_updates() {
    let mut service = Service::new();
    service.options.checkpoint_entries = 2;
    let root = service.root().private;
    let store = Arc::new(service.open().unwrap());
    store.update(append(root, "one", 1)).unwrap();
    for disk in [service.log.clone(), service.tables.clone()] {
        disk.block();
        let updating = {
            let (store, text) = (store.clone(), format!("two{}", Arc::as_ptr(&disk) as usize));
            std::thread::spawn(move || {
                (0..4).for_each(|index| {
                    store.update(append(root, &format!("{text}-{index}"), 2)).unwrap();
                });
            })
        };
        // If a lookup waited for the update, it would wait for ever.
        for _ in 0..100 {
            assert!(store.row(root.object, &name("one")).unwrap().is_some());
            assert!(store.row(root.object, &name("no")).unwrap().is_none());
            std::thread::yield_now();
        }
        disk.unblock();
        updating.join().unwrap();
    }
}

#[test]
fn updates_go_on_during_a_checkpoint_and_a_crash_then_loses_none() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut service = Service::new();
        service.options.checkpoint_entries = 10;
        let root = service.root().private;
        let store = Arc::new(service.open().unwrap());
        if seed % 2 == 0 {
            amoeba_directory::checkpoint::attend(&store).unwrap();
        }
        (0..9).for_each(|number| drop(store.update(append(root, &format!("a{number}"), number)).unwrap()));
        service.tables.block();
        let stuck = {
            let store = store.clone();
            // It is answered, and then has a checkpoint to make, which does not end.
            std::thread::spawn(move || store.update(append(root, "a9", 9)).unwrap())
        };
        // Until somebody is at it: whoever came first would have to do it.
        while !service.tables.has_kept_waiting() {
            std::thread::yield_now();
        }
        assert!(store.row(root.object, &name("a9")).unwrap().is_some());
        for number in 0..random.below(40) {
            store.update(append(root, &format!("b{number}"), number)).unwrap();
        }
        for number in 0..5 {
            store.update(Update::Delete { directory: root, name: name(&format!("a{number}")) }).unwrap();
        }
        let listed = |store: &Store| {
            let mut rows = Vec::new();
            let each = |name, _| {
                rows.push(name);
                true
            };
            store.rows_after(root.object, None, 4, each).unwrap();
            rows
        };
        let before = listed(&store);
        assert_eq!(before.len() as u64, store.directory(root.object).unwrap().unwrap().rows);
        let mut crashed = Service {
            tables: service.tables.crash(&mut random),
            log: service.log.crash(&mut random),
            world: service.world.clone(),
            formatted: service.formatted.clone(),
            ..service
        };
        service.tables.unblock();
        stuck.join().unwrap();
        drop(store);
        for life in 0..3 {
            let store = crashed.open().unwrap();
            let expected = before.len() + life;
            assert_eq!(listed(&store).len(), expected, "seed {seed} life {life}");
            store.update(append(root, &format!("c{life}"), 1)).unwrap();
            std::mem::forget(store);
            crashed = crashed.crash(&mut random);
        }
    }
}

#[test]
fn clients_that_wait_share_a_flush() {
    let mut service = Service::new();
    service.options.checkpoint_entries = 10_000;
    let root = service.root().private;
    let store = Arc::new(service.open().unwrap());
    service.log.block();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let store = store.clone();
            std::thread::spawn(move || store.update(append(root, &format!("c{client}"), client)).unwrap())
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(100));
    service.log.unblock();
    clients.into_iter().for_each(|client| assert_eq!(client.join().unwrap(), Outcome::Done));
    assert!(store.counters.batches.load(Ordering::Relaxed) < 8);
    assert_eq!(store.counters.updates.load(Ordering::Relaxed), 8);
}

#[test]
fn a_full_disk_refuses_updates_until_there_is_room_and_loses_nothing() {
    let service = Service::new();
    let root = service.root().private;
    let store = service.open().unwrap();
    use amoeba_world::Disk;
    service.tables.size_max.store(service.tables.size(), Ordering::Relaxed);
    let mut done = 0;
    let refused = loop {
        let text = format!("row{done}");
        let set = CapabilitySet::singleton(cap(done));
        let attributes = vec![1; 4096];
        let update = Update::Append { directory: root, name: name(&text), set, masks: OPEN, attributes };
        match store.update(update) {
            Ok(_) => done += 1,
            Err(refusal) => break refusal,
        }
        assert!(done < 100_000, "the disk never filled");
    };
    assert_eq!(refused, Refusal::NoSpace);
    assert_eq!(store.update(append(root, "more", 1)), Err(Refusal::NoSpace));
    assert!(store.row(root.object, &name("row0")).unwrap().is_some());
    // What makes room is done all the same.
    for number in 0..20 {
        store.update(Update::Delete { directory: root, name: name(&format!("row{number}")) }).unwrap();
        done -= 1;
    }
    drop(store);
    let store = service.open().unwrap();
    assert_eq!(store.directory(root.object).unwrap().unwrap().rows, done);
    service.tables.size_max.store(0, Ordering::Relaxed);
    store.update(append(root, "more", 1)).unwrap();
    drop(store);
    let store = service.open().unwrap();
    assert_eq!(store.directory(root.object).unwrap().unwrap().rows, done + 1);
}

#[test]
fn a_damaged_log_never_panics_and_never_drops_what_is_followed_by_good_entries() {
    let mut service = Service::new();
    service.options.checkpoint_entries = 1000;
    let root = service.root().private;
    let store = service.open().unwrap();
    for number in 0..20 {
        store.update(append(root, &format!("row{number}"), number)).unwrap();
    }
    std::mem::forget(store);
    let image = service.log.image();
    let mut random = Random(1);
    let (mut refused, mut opened) = (0, 0);
    for _ in 0..200 {
        let mut damaged = image.clone();
        // Twenty batches of one block each lie in one of the two areas, behind the two blocks of the header.
        let area = if random.below(4) == 0 { 0 } else { (image.len() - 8192) / 2 };
        let at = 8192 + area + random.below(20 * 4096) as usize;
        damaged[at] ^= 1 << random.below(8);
        let tables = CrashDisk::of(service.tables.image());
        match Store::open(&service.world, tables, CrashDisk::of(damaged), service.options) {
            Ok(store) => {
                let rows = store.directory(root.object).unwrap().unwrap().rows;
                assert!(rows == 20 || rows == 19, "{rows} rows: more than the unprotected last batch went");
                opened += 1;
            }
            Err(StoreError::Log(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0 && opened > 0);
}

#[test]
fn disks_of_two_services_are_not_mixed() {
    let one = Service::new();
    let two = Service::in_world(one.world.clone());
    let mixed = Store::open(&one.world, one.tables.clone(), two.log.clone(), one.options);
    assert!(matches!(mixed, Err(StoreError::Log(amoeba_directory::log::LogError::OtherVolume))));
    let blank = Store::open(&one.world, one.tables.clone(), CrashDisk::of(vec![0; 65536]), one.options);
    assert!(matches!(blank, Err(StoreError::Log(amoeba_directory::log::LogError::NotALog))));
}

#[test]
fn what_nobody_touches_for_48_ticks_goes() {
    let service = Service::new();
    let store = service.open().unwrap();
    let (used, unused) = (create(&store), create(&store));
    for number in 0..1500 {
        store.update(append(unused, &format!("r{number}"), number)).unwrap();
    }
    for _ in 0..47 {
        store.mark_used(used.object);
        store.age().unwrap();
    }
    assert!(store.directory(unused.object).unwrap().is_some());
    store.mark_used(used.object);
    store.age().unwrap();
    assert!(store.directory(unused.object).unwrap().is_none());
    assert!(store.directory(used.object).unwrap().is_some());
    assert!(store.directory(service.root().object()).unwrap().is_some(), "the root never goes");
    let mut left = 0;
    let count = |_, _| {
        left += 1;
        true
    };
    store.rows_after(unused.object, None, 100, count).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn what_is_used_after_the_scan_and_before_its_end_stays_whole() {
    let service = Service::new();
    let store = service.open().unwrap();
    let late = create(&store);
    for number in 0..1500 {
        store.update(append(late, &format!("r{number}"), number)).unwrap();
    }
    for _ in 0..48 {
        store.update(Update::Tick).unwrap();
    }
    store.mark_used(late.object);
    let expire = |begun| store.update(Update::Expire { object: late.object, begun });
    assert_eq!(expire(false), Ok(Outcome::Done));
    assert_eq!(store.directory(late.object).unwrap().unwrap().rows, 1500);
    store.age().unwrap();
    for _ in 0..47 {
        store.update(Update::Tick).unwrap();
    }
    assert_eq!(expire(false), Ok(Outcome::More));
    let refused = store.update(append(late, "one more", 1));
    assert_eq!(refused, Err(Refusal::BadCapability), "nobody sees half of it");
    store.mark_used(late.object);
    assert_eq!(expire(true), Ok(Outcome::Done), "too late");
    assert!(store.directory(late.object).unwrap().is_none());
}

#[test]
fn damaged_tables_are_an_error_and_no_panic() {
    let service = Service::new();
    let root = service.root().private;
    let store = service.open().unwrap();
    for number in 0..500 {
        store.update(append(root, &format!("row{number}"), number)).unwrap();
    }
    store.checkpoint().unwrap();
    std::mem::forget(store);
    let image = service.tables.image();
    let mut random = Random(2);
    let (mut refused, mut opened) = (0, 0);
    for _ in 0..300 {
        let mut damaged = image.clone();
        for _ in 0..1 + random.below(20) {
            let at = random.below(damaged.len() as u64) as usize;
            damaged[at] ^= 1 << random.below(8);
        }
        let log = CrashDisk::of(service.log.image());
        match Store::open(&service.world, CrashDisk::of(damaged), log, service.options) {
            Ok(store) => {
                opened += 1;
                // It may see less, but nothing that was not there.
                let mut rows = Vec::new();
                let _ = store.rows_after(root.object, None, 100, |name, row| {
                    rows.push((name, row));
                    true
                });
                for (found, row) in rows {
                    let number = row.set.first().unwrap().to_bytes()[6..14].try_into().unwrap();
                    assert_eq!(found, name(&format!("row{}", u64::from_le_bytes(number))));
                }
                let _ = store.update(append(root, "one more", 1));
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0 && opened > 0, "{refused} {opened}");
}
