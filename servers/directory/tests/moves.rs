//! Operations on several rows or directories at once: rename, makedir, removedir, full lists, changes, usage, export.

mod support;

use amoeba_cap::{Capability, CapabilitySet, GetPort, Rights};
use amoeba_directory::export::{Item, parse_page};
use amoeba_directory::start;
use amoeba_stubs::directory::{
    self, DELETE, MODIFY, NOTEMPTY, RENAME_EXCHANGE, RENAME_NEW, RENAME_OVER, UNREACH,
};
use amoeba_stubs::standard;
use amoeba_wire::Status;
use amoeba_world::{Error, World};
use support::Service;

const OPEN: [u8; 4] = [0xFF; 4];

fn refused<T>(status: Status) -> Result<T, Error> {
    Err(Error::Refused(status))
}

fn serve(world: &World) -> (Service, Capability) {
    let service = Service::in_world(world.clone());
    start(world, service.tables.clone(), service.log.clone(), service.options, 4).unwrap();
    let root = service.root();
    (service, root)
}

fn restrict(world: &World, cap: &Capability, rights: u8) -> Capability {
    standard::restrict(world, cap, rights.into()).unwrap()
}

fn makedir(world: &World, parent: &Capability, name: &str) -> Capability {
    directory::makedir(world, parent, name.as_bytes(), &[], &OPEN, b"").unwrap()
}

fn file(byte: u8) -> Capability {
    Capability::from_bytes([byte; 16])
}

fn append(world: &World, parent: &Capability, name: &str, cap: Capability) {
    directory::append(world, parent, name.as_bytes(), &cap.into(), &OPEN, name.as_bytes()).unwrap();
}

fn found(world: &World, parent: &Capability, path: &str) -> Option<Capability> {
    match directory::lookup(world, parent, path.as_bytes()) {
        Ok(reply) => reply.set.first().copied(),
        Err(error) => {
            assert_eq!(error, Error::Refused(Status::STD_NOTFOUND));
            None
        }
    }
}

#[test]
fn a_directory_is_made_and_removed_with_its_name() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let masks = [0xFF, 0x41, 0, 0];
    let made = directory::makedir(&world, &root, b"home", &[], &masks, b"mode").unwrap();
    assert_eq!(found(&world, &root, "home"), Some(made));
    let row = directory::lookup(&world, &root, b"home").unwrap();
    assert_eq!(row.attributes, b"mode");
    assert_eq!(directory::getmasks(&world, &root, b"home"), Ok(masks));
    let like_parent = directory::describe(&world, &made).unwrap().columns;
    assert_eq!(like_parent, directory::describe(&world, &root).unwrap().columns);
    let one = directory::makedir(&world, &root, b"one", &[b"only".to_vec()], &OPEN, b"").unwrap();
    assert_eq!(directory::describe(&world, &one).unwrap().columns, [b"only".to_vec()]);
    assert_eq!(directory::makedir(&world, &root, b"one", &[], &OPEN, b""), refused(Status::STD_EXISTS));
    let before = directory::usage(&world, &root).unwrap().directories;
    let weak = restrict(&world, &root, !MODIFY.bits());
    assert_eq!(directory::makedir(&world, &weak, b"two", &[], &OPEN, b""), refused(Status::STD_DENIED));
    assert_eq!(directory::usage(&world, &root).unwrap().directories, before, "a refused one leaves nothing");

    append(&world, &made, "x", file(1));
    assert_eq!(directory::removedir(&world, &root, b"home"), refused(NOTEMPTY));
    directory::delete(&world, &made, b"x").unwrap();
    assert_eq!(directory::removedir(&world, &weak, b"home"), refused(Status::STD_DENIED));
    let second = restrict(&world, &root, 0x02 | MODIFY.bits() | DELETE.bits());
    assert_eq!(directory::removedir(&world, &second, b"home"), refused(Status::STD_DENIED), "masked away");
    assert_eq!(directory::removedir(&world, &root, b"none"), refused(Status::STD_NOTFOUND));
    append(&world, &root, "file", file(2));
    assert_eq!(directory::removedir(&world, &root, b"file"), refused(Status::STD_ARGBAD));
    append(&world, &root, "self", root);
    assert_eq!(directory::removedir(&world, &root, b"self"), refused(Status::STD_DENIED), "the root stays");
    directory::removedir(&world, &root, b"home").unwrap();
    assert_eq!(found(&world, &root, "home"), None);
    assert_eq!(standard::info_text(&world, &made), refused(Status::STD_CAPBAD));
    assert_eq!(directory::usage(&world, &root).unwrap().directories, before - 1);
}

#[test]
fn a_rename_takes_the_whole_row_along_or_does_nothing() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let (a, b) = (makedir(&world, &root, "a"), makedir(&world, &root, "b"));
    let rename = |from: &Capability, name: &str, to: &Capability, new: &str, how| {
        directory::rename(&world, from, name.as_bytes(), &to.private, new.as_bytes(), how)
    };
    append(&world, &a, "x", file(1));
    directory::chmod(&world, &a, b"x", &[0xFF, 3, 1, 0]).unwrap();
    directory::puttype(&world, &a, b"x", &file(9)).unwrap();
    let none = CapabilitySet::default();
    assert_eq!(rename(&a, "x", &b, "y", RENAME_NEW), Ok(none.clone()));
    assert_eq!((found(&world, &a, "x"), found(&world, &b, "y")), (None, Some(file(1))));
    let row = directory::lookup(&world, &b, b"y").unwrap();
    assert_eq!((row.attributes.as_slice(), row.kind), (&b"x"[..], file(9)));
    assert_eq!(directory::getmasks(&world, &b, b"y"), Ok([0xFF, 3, 1, 0]));

    append(&world, &b, "z", file(2));
    assert_eq!(rename(&b, "y", &b, "z", RENAME_NEW), refused(Status::STD_EXISTS));
    assert_eq!(rename(&b, "y", &b, "z", RENAME_EXCHANGE), Ok(none.clone()));
    assert_eq!((found(&world, &b, "y"), found(&world, &b, "z")), (Some(file(2)), Some(file(1))));
    assert_eq!(rename(&b, "y", &b, "z", RENAME_OVER), Ok(file(1).into()));
    assert_eq!((found(&world, &b, "y"), found(&world, &b, "z")), (None, Some(file(2))));
    assert_eq!(rename(&b, "z", &b, "z", RENAME_OVER), Ok(none.clone()));
    assert_eq!(rename(&b, "none", &b, "z", RENAME_OVER), refused(Status::STD_NOTFOUND));
    assert_eq!(rename(&b, "z", &b, "none", RENAME_EXCHANGE), refused(Status::STD_NOTFOUND));
    assert_eq!(rename(&b, "z", &b, "..", RENAME_NEW), refused(Status::STD_ARGBAD));
    assert_eq!(rename(&b, "z", &b, "q", 7), refused(Status::STD_ARGBAD));

    // A directory that is not empty is not lost by being replaced; an empty one may be.
    append(&world, &root, "f", file(3));
    assert_eq!(rename(&root, "f", &root, "b", RENAME_OVER), refused(NOTEMPTY));
    assert_eq!(rename(&root, "f", &root, "a", RENAME_OVER), Ok(a.into()));
    let weak = restrict(&world, &b, !MODIFY.bits());
    assert_eq!(rename(&weak, "z", &root, "z", RENAME_NEW), refused(Status::STD_DENIED));
    assert_eq!(rename(&root, "a", &weak, "z", RENAME_OVER), refused(Status::STD_DENIED));
}

#[test]
fn a_rename_gives_nobody_more_rights() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let (theirs, mine) = (makedir(&world, &root, "theirs"), makedir(&world, &root, "mine"));
    append(&world, &theirs, "secret", mine);
    directory::chmod(&world, &theirs, b"secret", &[0xFF, 0x01, 0, 0]).unwrap();
    // The second column and MODIFY: it may rename within the directory, but not carry the row before its own first column.
    let group = restrict(&world, &theirs, 0x02 | MODIFY.bits());
    let carried = directory::rename(&world, &group, b"secret", &mine.private, b"s", RENAME_NEW);
    assert_eq!(carried, refused(Status::STD_DENIED));
    append(&world, &mine, "bait", file(1));
    let exchanged = directory::rename(&world, &mine, b"bait", &group.private, b"secret", RENAME_EXCHANGE);
    assert_eq!(exchanged, refused(Status::STD_DENIED));
    directory::rename(&world, &group, b"secret", &group.private, b"renamed", RENAME_NEW).unwrap();
    assert_eq!(directory::getmasks(&world, &theirs, b"renamed"), Ok([0xFF, 0x01, 0, 0]));
    assert_eq!(found(&world, &group, "renamed"), Some(restrict(&world, &mine, 0x01)));
}

#[test]
fn a_full_list_has_what_lookups_have() {
    let world = amoeba_loopback::world();
    let ((_service, root), (_other, foreign)) = (serve(&world), serve(&world));
    for index in 0..30 {
        let number = format!("own{index:02}");
        makedir(&world, &root, &number);
        directory::chmod(&world, &root, number.as_bytes(), &[0xFF, 0x41, 1, 0]).unwrap();
        append(&world, &root, &format!("there{index:02}"), foreign);
        directory::chmod(&world, &root, format!("there{index:02}").as_bytes(), &[0xFF, 3, 1, 0]).unwrap();
    }
    // A server that is not there, so that its capability cannot be restricted.
    let nobody = world.transactions.put_port(&GetPort::from_bytes([5; 6])).unwrap();
    let silent = Capability { port: nobody, ..file(0xFF) };
    append(&world, &root, "silent", silent);
    directory::chmod(&world, &root, b"silent", &[0xFF, 1, 1, 0]).unwrap();
    for rights in [0xFF, 0x02, 0x04] {
        let view = restrict(&world, &root, rights);
        let (mut rows, mut after) = (Vec::new(), Vec::new());
        loop {
            let page = directory::list_full(&world, &view, &after, 13).unwrap();
            assert!(page.rows.len() <= 13 && page.sequence == directory::getseqnr(&world, &view).unwrap());
            rows.extend(page.rows);
            if !page.more {
                break;
            }
            after = rows.last().unwrap().name.clone();
        }
        assert_eq!(rows.len(), 61);
        for row in rows {
            let looked = directory::lookup(&world, &view, &row.name);
            match Status(row.status) {
                Status::STD_OK => {
                    let looked = looked.unwrap();
                    assert_eq!(
                        (row.set, row.time, row.attributes),
                        (looked.set, looked.time, looked.attributes)
                    );
                }
                status => {
                    assert_eq!((status, looked.unwrap_err()), (UNREACH, Error::Refused(UNREACH)));
                    assert!(row.name == b"silent" && row.set.is_empty());
                }
            }
        }
    }
    // A page that would ask too much says so row by row.
    let asking = restrict(&world, &root, 0x02);
    for index in 0..30 {
        let masks = [0xFF, 0x20 + index, 0, 0];
        directory::chmod(&world, &root, format!("there{index:02}").as_bytes(), &masks).unwrap();
    }
    let rows = directory::list_full(&world, &asking, b"", 1000).unwrap().rows;
    let late = rows.iter().filter(|row| Status(row.status) == Status::STD_NOTNOW).count();
    assert!(late > 0, "all of {} rows were asked for", rows.len());
}

#[test]
fn changes_tell_which_of_many_directories_changed() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let (a, b) = (makedir(&world, &root, "a"), makedir(&world, &root, "b"));
    let forged = Capability { port: root.port, ..file(9) };
    let changes = || directory::changes(&world, &root, &[a.private, b.private, forged.private]).unwrap();
    let before = changes();
    assert_eq!(before.sequences[0], directory::getseqnr(&world, &a).unwrap());
    assert_eq!(before.sequences[2], 0);
    assert_eq!(changes(), before);
    append(&world, &b, "x", file(1));
    let after = changes();
    assert!(after.now > before.now && after.sequences[1] > before.sequences[1]);
    assert_eq!(after.sequences[0], before.sequences[0]);
}

#[test]
fn an_export_is_for_the_services_owner_and_one_at_a_time() {
    let world = amoeba_loopback::world();
    let (service, root) = serve(&world);
    let owner = service.formatted.identity.super_capability(service.port());
    for index in 0..400 {
        let set = CapabilitySet::singleton(file(1));
        let name = format!("row{index:03}");
        directory::append(&world, &root, name.as_bytes(), &set, &OPEN, &[7; 4096]).unwrap();
    }
    assert_eq!(directory::export(&world, &root, 0, b""), refused(Status::STD_COMBAD));
    let weak = restrict(&world, &owner, 0x7F);
    assert_eq!(directory::export(&world, &weak, 0, b""), refused(Status::STD_DENIED));
    let first = directory::export(&world, &owner, 0, b"").unwrap();
    assert!(!first.next.is_empty(), "one page proves little");
    append(&world, &root, "later", file(2));
    let (mut rows, mut next) = (0, first.next.clone());
    let mut page = first.page;
    loop {
        let (head, items) = parse_page(&page).unwrap();
        assert_eq!(head.snapshot, first.snapshot);
        rows += items.iter().filter(|item| matches!(item, Item::Row(..))).count();
        if next.is_empty() {
            break;
        }
        let reply = directory::export(&world, &owner, first.snapshot, &next).unwrap();
        (page, next) = (reply.page, reply.next);
    }
    assert_eq!(rows, 400, "what came later is not in it");
    let again = directory::export(&world, &owner, 0, b"").unwrap();
    assert!(again.snapshot > first.snapshot);
    let old = directory::export(&world, &owner, first.snapshot, &first.next);
    assert_eq!(old, refused(Status::STD_NOTFOUND));
    directory::export_end(&world, &owner, again.snapshot).unwrap();
    let ended = directory::export(&world, &owner, again.snapshot, &again.next);
    assert_eq!(ended, refused(Status::STD_NOTFOUND));
}

#[test]
fn usage_counts_what_there_is() {
    let world = amoeba_loopback::world();
    let (service, root) = serve(&world);
    makedir(&world, &root, "a");
    let usage = directory::usage(&world, &root).unwrap();
    assert_eq!(usage.directories, 2);
    assert_eq!(usage.cache, service.options.cache_size as u64);
    assert!(usage.log > 0 && usage.tables > 0 && usage.cache_used > 0 && usage.sequence > 1);
    let all = Rights::ALL.bits();
    let owner = service.formatted.identity.super_capability(service.port());
    assert_eq!(directory::usage(&world, &restrict(&world, &owner, all)).unwrap().directories, 2);
}

#[test]
fn what_was_deleted_leaves_the_memory() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let used = || directory::usage(&world, &root).unwrap().cache_used;
    let mut before = 0;
    for round in 0..10 {
        for index in 0..100 {
            let name = format!("{round}-{index}");
            append(&world, &root, &name, file(1));
            directory::delete(&world, &root, name.as_bytes()).unwrap();
        }
        assert_eq!(found(&world, &root, &format!("{round}-99")), None);
        let made = makedir(&world, &root, "directory");
        directory::removedir(&world, &root, b"directory").unwrap();
        assert_eq!(directory::describe(&world, &made).map(drop), refused(Status::STD_CAPBAD));
        if round == 0 {
            before = used();
        }
    }
    // What was asked for in vain is kept, a thousand deleted names are not.
    assert!(used() < before + 10_000, "{before} bytes, then {}", used());
}
