//! Export and import: everything comes back, as of one moment, or nothing does.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amoeba_cap::{Capability, ObjectNumber, Private, PutPort, Rights};
use amoeba_directory::export::{Position, page};
use amoeba_directory::{Directory, ImportError, Importer, Name, Outcome, Row, Store, Update};
use support::{CrashDisk, OPEN, Random, Service};

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn append(directory: Private, text: &str, size: usize) -> Update {
    let set = Capability::from_bytes([9; 16]).into();
    Update::Append { directory, name: name(text), set, masks: OPEN, attributes: vec![size as u8; size] }
}

fn make_directory(store: &Store, parent: Private, text: &str) -> Private {
    let update = Update::MakeDir {
        directory: parent,
        name: name(text),
        columns: Vec::new(),
        owner: PutPort::from_bytes([3; 6]),
        masks: OPEN,
        attributes: b"mode=755".to_vec(),
    };
    match store.update(update).unwrap() {
        Outcome::Created(object, random) => store.capability(object, Rights::ALL, random).private,
        other => panic!("{other:?}"),
    }
}

/// The pages of an export.
fn export(store: &Store) -> Vec<Vec<u8>> {
    let snapshot = store.snapshot().unwrap();
    let (mut pages, mut position) = (Vec::new(), Some(Position::start()));
    while let Some(at) = position {
        // A client keeps the position as bytes.
        let at = Position::parse(&at.to_bytes()).unwrap();
        let at = if pages.is_empty() { Position::start() } else { at };
        let (page, next) = page(store.identity(), &snapshot.state, &snapshot.view, &at).unwrap();
        pages.push(page);
        position = next;
    }
    pages
}

type Contents = (BTreeMap<ObjectNumber, Directory>, BTreeMap<(ObjectNumber, Vec<u8>), Row>);

fn contents(store: &Store) -> Contents {
    let (mut directories, mut rows) = (BTreeMap::new(), BTreeMap::new());
    store
        .directories_from(ObjectNumber::SUPER, |object, directory| {
            directories.insert(object, directory.clone());
            true
        })
        .unwrap();
    for &object in directories.keys() {
        store
            .rows_after(object, None, 1000, |name, row| {
                rows.insert((object, name.as_bytes().to_vec()), row);
                true
            })
            .unwrap();
    }
    (directories, rows)
}

fn filled(service: &Service, random: &mut Random) -> Store {
    let store = service.open().unwrap();
    let mut directories = vec![service.root().private];
    for number in 0..60 {
        let parent = directories[random.below(directories.len() as u64) as usize];
        directories.push(make_directory(&store, parent, &format!("d{number}")));
    }
    for number in 0..600 {
        let parent = directories[random.below(directories.len() as u64) as usize];
        store.update(append(parent, &format!("r{number}"), random.below(4000) as usize)).unwrap();
    }
    let gone = directories[7];
    store.update(Update::Retract { directory: gone }).unwrap();
    store.update(Update::Tick).unwrap();
    store
}

fn import(
    world: &amoeba_world::World,
    pages: &[Vec<u8>],
) -> Result<(Arc<CrashDisk>, Arc<CrashDisk>), ImportError> {
    let (tables, log) = (CrashDisk::new(), CrashDisk::new());
    let mut importer = Importer::new(tables.clone(), &*log, &*world.entropy, 0)?;
    pages.iter().try_for_each(|page| importer.page(page))?;
    importer.finish()?;
    Ok((tables, log))
}

#[test]
fn an_import_is_the_service_that_was_exported() {
    let service = Service::new();
    let store = filled(&service, &mut Random(1));
    let pages = export(&store);
    assert!(pages.len() > 1, "one page proves little");
    let (was, state) = (contents(&store), store.state());
    drop(store);
    let (tables, log) = import(&service.world, &pages).unwrap();
    // As after a crash right behind the import.
    let (tables, log) = (tables.crash(&mut Random(2)), log.crash(&mut Random(3)));
    let store = Store::open(&service.world, tables, log, service.options).unwrap();
    assert!(contents(&store) == was);
    assert_eq!((store.state().applied, store.state().tick), (state.applied, state.tick));
    assert_eq!(store.state().directories, state.directories);
    let root = service.root().private;
    let known = store.directory(root.object).unwrap().unwrap();
    assert!(store.identity().secret.verifies(&root, known.random), "an old capability verifies");
    assert_eq!(store.port(), service.port());
    store.update(append(root, "it goes on", 1)).unwrap();
    assert!(store.state().applied > state.applied, "sequence numbers go on, too");
}

#[test]
fn a_lacking_doubled_swapped_or_changed_page_is_refused() {
    let service = Service::new();
    let store = filled(&service, &mut Random(4));
    let pages = export(&store);
    assert!(pages.len() > 1);
    for lacking in 0..pages.len() {
        let mut some = pages.clone();
        some.remove(lacking);
        assert!(import(&service.world, &some).is_err(), "without page {lacking}");
    }
    let doubled = [pages.clone(), pages[pages.len() - 1..].to_vec()].concat();
    assert!(matches!(import(&service.world, &doubled), Err(ImportError::OutOfOrder { .. })));
    let mut changed = pages.clone();
    changed[1][1000] ^= 4;
    assert!(matches!(import(&service.world, &changed), Err(ImportError::Damaged { number: 1 })));
    store.update(append(service.root().private, "one more", 1)).unwrap();
    let mixed = [pages[..1].to_vec(), export(&store)[1..].to_vec()].concat();
    assert!(matches!(import(&service.world, &mixed), Err(ImportError::OutOfOrder { number: 1 })));
}

#[test]
fn an_import_that_was_not_finished_cannot_be_started() {
    let service = Service::new();
    let store = filled(&service, &mut Random(5));
    let (tables, log) = (CrashDisk::new(), CrashDisk::new());
    let mut importer = Importer::new(tables.clone(), &*log, &*service.world.entropy, 0).unwrap();
    for page in export(&store) {
        let (tables, log) = (tables.crash(&mut Random(6)), log.crash(&mut Random(7)));
        assert!(Store::open(&service.world, tables, log, service.options).is_err());
        importer.page(&page).unwrap();
    }
    let copies = (tables.crash(&mut Random(8)), log.crash(&mut Random(9)));
    assert!(Store::open(&service.world, copies.0, copies.1, service.options).is_err());
    importer.finish().unwrap();
    assert!(Store::open(&service.world, tables, log, service.options).is_ok());
}

/// Two rows are always changed together; an export never shows one without the other.
#[test]
fn an_export_shows_one_moment_while_updates_go_on() {
    let service = Service::new();
    let store = Arc::new(service.open().unwrap());
    let root = service.root().private;
    let filler: Vec<_> = (0..300).map(|index| append(root, &format!("f{index}"), 4000)).collect();
    filler.into_iter().for_each(|update| drop(store.update(update).unwrap()));
    let stop = Arc::new(AtomicBool::new(false));
    let updating = {
        let (store, stop) = (store.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut number = 0u64;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let install = |text: &str| amoeba_directory::update::Install {
                    directory: root,
                    name: name(&format!("{text}{number}")),
                    new: Capability::from_bytes([7; 16]).into(),
                    old: None,
                    keep: true,
                    masks: OPEN,
                    kind: Capability::NULL,
                    attributes: Vec::new(),
                    restricted: Vec::new(),
                };
                store.update(Update::Install(vec![install("a"), install("z")])).unwrap();
            }
        })
    };
    for _ in 0..5 {
        let (tables, log) = import(&service.world, &export(&store)).unwrap();
        let copy = Store::open(&service.world, tables, log, service.options).unwrap();
        let (_, rows) = contents(&copy);
        let of = |first: u8| rows.keys().filter(|(_, name)| name[0] == first).count();
        assert_eq!(of(b'a'), of(b'z'));
    }
    stop.store(true, Ordering::Relaxed);
    updating.join().unwrap();
}
