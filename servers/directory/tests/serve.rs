//! The server as its clients see it, and path names over it.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use amoeba_cap::{Capability, CapabilitySet, GetPort, Rights, Suite};
use amoeba_directory::start;
use amoeba_name::{NameError, Names};
use amoeba_stubs::directory::{self, ClassicInstallRow, InstallRow, RowName};
use amoeba_stubs::{Client, standard};
use amoeba_wire::{Command, Header, Reader, Status, Writer};
use amoeba_world::{Error, Message, TransOptions, World};
use support::Service;

const OPEN: [u8; 4] = [0xFF; 4];

fn refused(status: Status) -> Error {
    Error::Refused(status)
}

/// A served service; the root's capability with all rights.
fn serve(world: &World) -> (Service, Capability) {
    let service = Service::in_world(world.clone());
    start(world, service.tables.clone(), service.log.clone(), service.options, 4).unwrap();
    let root = service.root();
    (service, root)
}

fn append(world: &World, directory: &Capability, name: &str, cap: &Capability) {
    let set = CapabilitySet::singleton(*cap);
    directory::append(world, directory, name.as_bytes(), &set, &OPEN, b"").unwrap();
}

fn mkdir(world: &World, parent: &Capability, name: &str) -> Capability {
    let made = directory::create(world, parent, &[b"owner".to_vec(), b"group".to_vec(), b"other".to_vec()]);
    let made = made.unwrap();
    append(world, parent, name, &made);
    made
}

fn restrict(world: &World, cap: &Capability, rights: u8) -> Capability {
    standard::restrict(world, cap, rights.into()).unwrap()
}

fn lookup(world: &World, directory: &Capability, path: &str) -> Result<Capability, Error> {
    let reply = directory::lookup(world, directory, path.as_bytes())?;
    assert_eq!(reply.tail, b"");
    Ok(*reply.set.first().unwrap())
}

#[test]
fn columns_decide_what_a_lookup_brings_out() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let home = mkdir(&world, &root, "home");
    let deep = mkdir(&world, &home, "deep");
    directory::chmod(&world, &root, b"home", &[0xFF, 0x4F, 0x02, 0xFF]).unwrap();
    assert_eq!(directory::getmasks(&world, &root, b"home"), Ok([0xFF, 0x4F, 0x02, 0]));
    let found = |rights| lookup(&world, &restrict(&world, &root, rights), "home").unwrap();
    assert_eq!(found(0xFF), home);
    assert_eq!(found(0x02), restrict(&world, &home, 0x4F));
    assert_eq!(found(0x04), restrict(&world, &home, 0x02));
    assert_eq!(found(0x06), restrict(&world, &home, 0x4F));
    // The rights on each directory choose the columns in the next: 0x02 of home is its second column.
    directory::chmod(&world, &home, b"deep", &[0xFF, 0x42, 0, 0]).unwrap();
    let other = restrict(&world, &root, 0x04);
    assert_eq!(lookup(&world, &other, "home/deep"), Ok(restrict(&world, &deep, 0x42)));
    assert_eq!(lookup(&world, &other, "home/deep/x"), Err(refused(Status::STD_NOTFOUND)));
    let none = restrict(&world, &root, 0xC8); // the fourth column is not there
    assert_eq!(lookup(&world, &none, "home"), Err(refused(Status::STD_DENIED)));
    assert_eq!(directory::list(&world, &none, b"", 10), Err(refused(Status::STD_DENIED)));
    assert_eq!(directory::delete(&world, &none, b"home"), Err(refused(Status::STD_DENIED)));
}

#[test]
fn a_bad_capability_is_not_a_weak_one() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let mut flipped = root.to_bytes();
    flipped[15] ^= 1;
    let flipped = Capability::from_bytes(flipped);
    assert_eq!(lookup(&world, &flipped, "x"), Err(refused(Status::STD_CAPBAD)));
    let mut raised = restrict(&world, &root, 0x01);
    raised.private.rights = Rights::ALL;
    assert_eq!(lookup(&world, &raised, "x"), Err(refused(Status::STD_CAPBAD)));
    let weak = restrict(&world, &root, 0x01);
    let set = CapabilitySet::singleton(root);
    assert_eq!(directory::append(&world, &weak, b"x", &set, &OPEN, b""), Err(refused(Status::STD_DENIED)));
    assert_eq!(directory::discard(&world, &weak), Err(refused(Status::STD_DENIED)));
    let unknown = Header::request(&root, Command(2199));
    let reply = world.transactions.trans(Message { header: unknown, data: vec![] }, &TransOptions::default());
    assert_eq!(reply.unwrap().header.status(), Status::STD_COMBAD);
    let row = InstallRow { directory: flipped.private, ..install_row(&root, "x", &root, &Capability::NULL) };
    assert_eq!(directory::install(&world, &root, &[row]), Err(refused(Status::STD_CAPBAD)));
}

#[test]
fn bad_names_and_paths_are_refused() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let set = CapabilitySet::singleton(root);
    let append = |name: &[u8]| directory::append(&world, &root, name, &set, &OPEN, b"");
    for bad in [&b""[..], b".", b"..", b"a/b"] {
        assert_eq!(append(bad), Err(refused(Status::STD_ARGBAD)));
    }
    assert_eq!(append(&[b'n'; 256]), Err(Error::NotSent(Status::STD_ARGBAD)));
    assert_eq!(append(&[0xFE; 255]), Ok(()));
    let empty = CapabilitySet::default();
    assert_eq!(directory::append(&world, &root, b"e", &empty, &OPEN, b""), Err(refused(Status::STD_ARGBAD)));
    assert_eq!(directory::lookup(&world, &root, b"//"), Err(refused(Status::STD_ARGBAD)));
    assert_eq!(directory::lookup(&world, &root, b"a/../b"), Err(refused(Status::STD_NOTFOUND)));
    // Past the stub's own check, too.
    let mut writer = Writer::new();
    writer.put_string(&[b'n'; 256]);
    let request = Message { header: Header::request(&root, directory::CMD_DELETE), data: writer.finish() };
    let reply = world.transactions.trans(request, &TransOptions::default()).unwrap();
    assert_eq!(reply.header.status(), Status::STD_ARGBAD);
}

#[test]
fn rights_are_taken_from_other_servers_objects_too() {
    let world = amoeba_loopback::world();
    let ((_one, root), (_two, foreign)) = (serve(&world), serve(&world));
    let masks = [0xFF, 0x03, 0, 0];
    let dead = Capability { port: amoeba_cap::PutPort::from_bytes([9; 6]), ..foreign };
    let suites = [dead, foreign].map(|capability| Suite { capability, current: true });
    let both = CapabilitySet::from_suites(2, suites.to_vec()).unwrap();
    directory::append(&world, &root, b"both", &both, &masks, b"").unwrap();
    directory::append(&world, &root, b"dead", &CapabilitySet::singleton(dead), &masks, b"").unwrap();
    assert_eq!(directory::lookup(&world, &root, b"both").unwrap().set, both, "all rights need nobody's help");
    let weak = restrict(&world, &root, 0x02);
    for _ in 0..2 {
        let found = directory::lookup(&world, &weak, b"both").unwrap().set;
        let [first, second] = found.suites() else { panic!("{found:?}") };
        assert_eq!((first.capability.port, first.capability.rights()), (dead.port, Rights::NONE));
        assert_eq!(second.capability, restrict(&world, &foreign, 0x03));
        assert_eq!(directory::lookup(&world, &weak, b"dead"), Err(refused(Status::SP_UNREACH)));
    }
}

fn install_row(directory: &Capability, name: &str, new: &Capability, old: &Capability) -> InstallRow {
    let set = if new.is_null() { CapabilitySet::default() } else { CapabilitySet::singleton(*new) };
    let (name, kind, attributes) = (name.as_bytes().to_vec(), Capability::NULL, Vec::new());
    let directory = directory.private;
    InstallRow { directory, name, set, old: *old, keep: true, masks: OPEN, kind, attributes }
}

#[test]
fn an_install_is_all_or_nothing() {
    let world = amoeba_loopback::world();
    let ((_one, root), (_two, foreign)) = (serve(&world), serve(&world));
    let sub = mkdir(&world, &root, "sub");
    let none = Capability::NULL;
    let install = |rows: &[InstallRow]| directory::install(&world, &root, rows);
    install(&[install_row(&root, "a", &foreign, &none), install_row(&sub, "b", &sub, &none)]).unwrap();
    let clash = Err(refused(Status::SP_CLASH));
    assert_eq!(install(&[install_row(&root, "c", &sub, &none), install_row(&sub, "b", &sub, &none)]), clash);
    assert_eq!(lookup(&world, &root, "c"), Err(refused(Status::STD_NOTFOUND)));
    assert_eq!(install(&[install_row(&root, "a", &sub, &sub)]), clash);
    assert_eq!(install(&[install_row(&root, "no", &sub, &sub)]), clash);
    // A member with fewer rights will do, of our own and of another server.
    install(&[install_row(&sub, "b", &foreign, &restrict(&world, &sub, 0x01))]).unwrap();
    install(&[install_row(&root, "a", &none, &restrict(&world, &foreign, 0x01))]).unwrap();
    assert_eq!(lookup(&world, &root, "a"), Err(refused(Status::STD_NOTFOUND)));
    assert_eq!(lookup(&world, &sub, "b"), Ok(foreign));
    let mut forged = restrict(&world, &foreign, 0x01);
    forged.private.check = amoeba_cap::CheckField::NULL;
    assert_eq!(install(&[install_row(&sub, "b", &sub, &forged)]), clash);
    let twice = [install_row(&sub, "x", &sub, &none), install_row(&sub, "x", &sub, &none)];
    assert_eq!(install(&twice), Err(refused(Status::STD_ARGBAD)));
    let weak = restrict(&world, &sub, 0x01);
    assert_eq!(install(&[install_row(&weak, "y", &sub, &none)]), Err(refused(Status::STD_DENIED)));
}

#[test]
fn setlookup_has_a_status_for_each() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let sub = mkdir(&world, &root, "sub");
    directory::put_attributes(&world, &root, b"sub", b"mode=755").unwrap();
    let mut bad = root.private;
    bad.check = amoeba_cap::CheckField::NULL;
    let row = |directory, name: &str| RowName { directory, name: name.as_bytes().to_vec() };
    let rows = [row(root.private, "sub"), row(root.private, "no"), row(bad, "sub")];
    let found = directory::setlookup(&world, &root, &rows).unwrap();
    let statuses: Vec<Status> = found.iter().map(|row| Status(row.status)).collect();
    assert_eq!(statuses, [Status::STD_OK, Status::STD_NOTFOUND, Status::STD_CAPBAD]);
    assert_eq!(found[0].set.first(), Some(&sub));
    assert_eq!(found[0].attributes, b"mode=755");
    assert!(found[0].time > 0);
}

#[test]
fn a_retracted_capability_is_dead() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let sub = mkdir(&world, &root, "sub");
    let weak = restrict(&world, &sub, 0x43);
    let denied = directory::retract(&world, &weak, 0xFF);
    assert_eq!(denied, Err(refused(Status::STD_DENIED)));
    let new = directory::retract(&world, &sub, 0x7F).unwrap();
    assert_eq!(new.rights().bits(), 0x7F);
    for dead in [&sub, &weak, &lookup(&world, &root, "sub").unwrap()] {
        assert_eq!(directory::getseqnr(&world, dead), Err(refused(Status::STD_CAPBAD)));
    }
    assert!(directory::getseqnr(&world, &new).is_ok());
}

#[test]
fn standard_operations_are_there() {
    let world = amoeba_loopback::world();
    let (service, root) = serve(&world);
    let sub = mkdir(&world, &root, "sub");
    let info = |cap: &Capability| standard::info_text(&world, cap).unwrap();
    assert_eq!(info(&root), "/dw1234");
    assert_eq!(info(&restrict(&world, &root, 0x42)), "/-w-2--");
    let service_cap = service.formatted.identity.super_capability(service.port());
    assert_eq!(info(&service_cap), "soap generic capability");
    assert!(standard::status_text(&world, &service_cap).unwrap().contains("directories 2"));
    standard::touch(&world, &sub).unwrap();
    standard::age(&world, &service_cap).unwrap();
    assert_eq!(standard::age(&world, &root), Err(refused(Status::STD_COMBAD)));
    append(&world, &sub, "x", &root);
    assert_eq!(standard::destroy(&world, &sub), Err(refused(Status::SP_NOTEMPTY)));
    directory::delete(&world, &sub, b"x").unwrap();
    standard::destroy(&world, &sub).unwrap();
    assert_eq!(standard::touch(&world, &sub), Err(refused(Status::STD_CAPBAD)));
    assert!(directory::create(&world, &service_cap, &[b"only".to_vec()]).is_ok());
    assert_eq!(directory::create(&world, &service_cap, &[]), Err(refused(Status::STD_ARGBAD)));
}

#[test]
fn an_account_finds_its_directories_again() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let account = GetPort::from_bytes([1, 2, 3, 4, 5, 6]);
    let options = TransOptions { signature: Some(account), ..TransOptions::default() };
    let client = Client::new(&*world.transactions, &options);
    let columns = [b"owner".to_vec()];
    let made: Vec<Capability> = (0..3).map(|_| directory::create(client, &root, &columns).unwrap()).collect();
    mkdir(&world, &root, "not mine");
    let found = directory::recover(client, &root, 0).unwrap();
    assert_eq!((found.directories, found.next), (made, 0));
    assert_eq!(directory::recover(&world, &root, 0), Err(refused(Status::STD_DENIED)));
}

#[test]
fn a_failed_flush_is_heard_as_maybe_executed() {
    let world = amoeba_loopback::world();
    let (service, root) = serve(&world);
    append(&world, &root, "kept", &root);
    service.log.failing.store(true, Ordering::Relaxed);
    let set = CapabilitySet::singleton(root);
    let append = |name: &[u8]| directory::append(&world, &root, name, &set, &OPEN, b"");
    assert_eq!(append(b"lost"), Err(Error::MaybeExecuted(Status::RPC_FAILURE)));
    assert_eq!(append(b"more"), Err(refused(Status::STD_WRITEPROT)));
    assert_eq!(lookup(&world, &root, "kept"), Ok(root));
}

#[test]
fn the_originals_forms_are_the_originals_bytes() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let sub = mkdir(&world, &root, "sub");
    let trans = |command: Command, extra: u16, data: &[u8]| {
        let header = Header { extra, ..Header::request(&root, command) };
        world.transactions.trans(Message { header, data: data.to_vec() }, &TransOptions::default()).unwrap()
    };
    let mut writer = Writer::new();
    writer.put_string(b"row").put_capset(&CapabilitySet::singleton(sub)).put_i32(0xFF).put_i32(2);
    assert_eq!(trans(Command(2103), 0, &writer.finish()).header.status(), Status::STD_OK);
    append(&world, &root, "not classic", &sub);
    let listed = trans(Command(2102), 0, &[]);
    assert_eq!((listed.header.extra, listed.header.status()), (0xFFFF, Status::STD_OK));
    let mut page = Reader::new(&listed.data);
    assert_eq!((page.get_i16(), page.get_i16()), (Ok(3), Ok(2)));
    for column in ["owner", "group", "other"] {
        assert_eq!(page.get_string(20), Ok(column.as_bytes()));
    }
    for (name, masks) in [("row", [0xFF, 2, 0]), ("sub", [0xFF; 3])] {
        assert_eq!(page.get_string(20), Ok(name.as_bytes()));
        assert_eq!([page.get_i32(), page.get_i32(), page.get_i32()], masks.map(Ok));
    }
    assert_eq!(page.end(), Ok(()));
    let found = trans(Command(2106), 0, b"row\0");
    let mut reply = Reader::new(&found.data);
    assert_eq!(reply.get_string(255), Ok(&b""[..]));
    assert_eq!(reply.get_capset(), Ok(CapabilitySet::singleton(sub)));
    let mut writer = Writer::new();
    writer.put_capset(&root.into()).put_string(b"no").put_capset(&root.into()).put_string(b"row");
    let found = trans(Command(2107), 0, &writer.finish());
    let mut reply = Reader::new(&found.data);
    assert_eq!((reply.get_i16(), reply.get_i16()), (Ok(Status::STD_NOTFOUND.0), Ok(0)));
    assert_eq!((reply.get_cap(), reply.get_i32().is_ok()), (Ok(Capability::NULL), true));
    assert_eq!(reply.get_capset(), Ok(CapabilitySet::singleton(sub)));
    let masks = directory::classic_getmasks(&world, &root, b"row");
    assert_eq!(masks, Ok(vec![0xFF, 2, 0]));
    let bad = directory::classic_append(&world, &root, b"a b", &root.into(), &[]);
    assert_eq!(bad, Err(refused(Status::STD_ARGBAD)));
    let created = trans(Command(2100), 0, b"one\0two\0");
    let made = created.header.capability();
    assert_eq!(directory::describe(&world, &made).unwrap().columns, [b"one".to_vec(), b"two".to_vec()]);
}

#[test]
fn masks_for_columns_that_are_not_there_are_ignored() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let narrow = directory::create(&world, &root, &[b"one".to_vec(), b"two".to_vec()]).unwrap();
    directory::classic_append(&world, &narrow, b"a", &root.into(), &[0x0F, 0x02, 0xFF, 0xFF]).unwrap();
    directory::append(&world, &narrow, b"b", &root.into(), &[0x0F, 0x02, 0xFF, 0xFF], &[]).unwrap();
    for name in [b"a", b"b"] {
        assert_eq!(directory::getmasks(&world, &narrow, name), Ok([0x0F, 0x02, 0, 0]));
        assert_eq!(directory::classic_getmasks(&world, &narrow, name), Ok(vec![0x0F, 0x02]));
    }
    directory::classic_chmod(&world, &narrow, b"a", &[0x01, 0x02, 0x04, 0x08]).unwrap();
    assert_eq!(directory::getmasks(&world, &narrow, b"a"), Ok([0x01, 0x02, 0, 0]));
    // The bits of columns that are not there show nothing.
    let other = restrict(&world, &narrow, 0x0C);
    assert_eq!(lookup(&world, &other, "a"), Err(refused(Status::STD_DENIED)));
    let five = directory::classic_append(&world, &narrow, b"c", &root.into(), &[1; 5]);
    assert!(five.is_err(), "the original's stub has four at most");
}

#[test]
fn a_classic_install_that_names_a_row_twice_does_nothing() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let weaker = restrict(&world, &root, 0x43);
    let row = |directory: Capability, name: &str, new: Capability, old: Capability| ClassicInstallRow {
        directory: directory.into(),
        name: name.as_bytes().to_vec(),
        set: new.into(),
        old,
    };
    let none = Capability::NULL;
    let install = |rows: &[ClassicInstallRow]| directory::classic_install(&world, &root, rows);
    // The same row by two capabilities of one directory is the same row.
    let twice = [row(root, "x", root, none), row(root, "y", root, none), row(weaker, "x", root, none)];
    assert_eq!(install(&twice), Err(refused(Status::STD_ARGBAD)));
    assert_eq!(directory::describe(&world, &root).unwrap().rows, 0);
    install(&[row(root, "x", root, none), row(weaker, "y", root, none)]).unwrap();
    // Null says that there must be no such row: here it clashes, as it did for the original's server.
    assert_eq!(install(&[row(root, "x", weaker, none)]), Err(refused(Status::SP_CLASH)));
    assert_eq!(lookup(&world, &root, "x"), Ok(root));
}

#[test]
fn long_classic_lists_come_in_pages() {
    let world = amoeba_loopback::world();
    let (service, root) = serve(&world);
    for index in 0..300 {
        append(&world, &root, &format!("{index:03}-{}", "x".repeat(100)), &root);
    }
    let (mut next, mut names, mut pages) = (0, Vec::new(), 0);
    while next != 0xFFFF {
        let reply = directory::classic_list(&world, &root, next).unwrap();
        let mut page = Reader::new(&reply.page);
        let (columns, rows) = (page.get_i16().unwrap(), page.get_i16().unwrap());
        (0..columns).for_each(|_| assert!(page.get_string(20).is_ok()));
        for _ in 0..rows {
            names.push(page.get_string(255).unwrap().to_vec());
            (0..columns).for_each(|_| assert!(page.get_i32().is_ok()));
        }
        (next, pages) = (reply.next, pages + 1);
    }
    assert!(pages > 3 && names.len() == 300 && names.is_sorted());
    drop(service);
}

#[test]
fn names_follow_paths_from_service_to_service() {
    let world = amoeba_loopback::world();
    let ((_one, root), (_two, foreign)) = (serve(&world), serve(&world));
    let names = Names::new(&world, root);
    let home = names.mkdir(b"/home").unwrap();
    let me = names.mkdir(b"home/./me").unwrap();
    names.append(b"/home/me/far", foreign).unwrap();
    let there = names.mkdir(b"/home/me/far/there").unwrap();
    assert_eq!(there.port, foreign.port, "a directory is made by the service it is named in");
    names.append(b"/home/me/far/there/back", root).unwrap();
    assert_eq!(names.resolve(b"/home/me/far//there/back/home/"), Ok(home));
    assert_eq!(names.resolve(b"/home/me/../../home"), Ok(home));
    assert_eq!(names.resolve(b"/.."), Ok(root));
    let here = names.clone().with_work(me, Some(b"/home/me"));
    assert_eq!(here.resolve(b"far/there"), Ok(there));
    assert_eq!(here.resolve(b"../../home"), Ok(home));
    assert_eq!(here.resolve(b"."), Ok(me));
    let nowhere = names.clone().with_work(me, None);
    assert!(matches!(nowhere.resolve(b".."), Err(NameError::Path(_))));
    // There and back again, too often.
    let round = "far/there/back/home/me/".repeat(6);
    assert_eq!(here.resolve(round.as_bytes()), Err(NameError::TooManyHops));
    let missing = NameError::Transaction(refused(Status::STD_NOTFOUND));
    assert_eq!(names.resolve(b"/home/you/x"), Err(missing));
    let rows: Vec<Vec<u8>> = names.list(b"/home").unwrap().rows.into_iter().map(|row| row.name).collect();
    assert_eq!(rows, [b"me".to_vec()]);
}

#[test]
fn a_path_through_a_file_says_so() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let get_port = GetPort::from_bytes([8; 6]);
    let listener = world.transactions.listen(&get_port, 1000).unwrap();
    let file = Capability { port: listener.put_port(), ..root };
    std::thread::spawn(move || {
        while let Ok(incoming) = listener.getreq() {
            incoming.reply.send(Message::status(Status::STD_COMBAD));
        }
    });
    let names = Names::new(&world, root);
    names.append(b"/file", file).unwrap();
    assert_eq!(names.resolve(b"/file"), Ok(file));
    assert_eq!(names.resolve(b"/file/x"), Err(NameError::NotADirectory));
    assert_eq!(names.mkdir(b"/file/x"), Err(NameError::NotADirectory));
    assert_eq!(names.list(b"/file"), Err(NameError::NotADirectory));
}

#[test]
fn another_member_is_tried_when_one_is_silent() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let dead = Capability { port: amoeba_cap::PutPort::from_bytes([9; 6]), ..root };
    let set = CapabilitySet::from_suites(
        2,
        [dead, root].map(|capability| Suite { capability, current: true }).to_vec(),
    );
    let names = Names::new(&world, set.unwrap());
    names.append(b"/x", root).unwrap();
    assert_eq!(names.resolve(b"/x"), Ok(root));
    assert_eq!(Names::new(&world, dead).resolve(b"/x"), Err(NameError::Unavailable));
}

#[test]
fn a_set_of_eight_members_is_kept_restricted_compared_and_replaced_whole() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let (_other, foreign) = serve(&world);
    // One object each of two services, and again with fewer rights: the server takes rights from its own, asks for the others.
    let members: Vec<Capability> = (0..8)
        .map(|number| match number % 2 {
            0 => mkdir(&world, &root, &format!("own{number}")),
            _ => mkdir(&world, &foreign, &format!("foreign{number}")),
        })
        .collect();
    let suite =
        |(index, capability): (usize, &Capability)| Suite { capability: *capability, current: index != 5 };
    let set = CapabilitySet::from_suites(8, members.iter().enumerate().map(suite).collect()).unwrap();
    directory::append(&world, &root, b"eight", &set, &[0xFF, 0x43, 0, 0], b"").unwrap();
    assert_eq!(
        directory::lookup(&world, &root, b"eight").unwrap().set,
        set,
        "the order and what is not current too"
    );
    let weak = directory::lookup(&world, &restrict(&world, &root, 0x02), b"eight").unwrap().set;
    let wanted: Vec<_> = members.iter().map(|member| restrict(&world, member, 0x43)).collect();
    let weaker: Vec<_> = weak.suites().iter().map(|suite| suite.capability).collect();
    assert_eq!((weaker, weak.initial()), (wanted, 8));
    let last = |status: Status, new: &CapabilitySet, old: &Capability| {
        let row = InstallRow { set: new.clone(), ..install_row(&root, "eight", &root, old) };
        let outcome = directory::install(&world, &root, &[row]);
        assert_eq!(outcome, if status == Status::STD_OK { Ok(()) } else { Err(refused(status)) });
    };
    let fewer = CapabilitySet::from_suites(7, set.suites()[..7].to_vec()).unwrap();
    last(Status::SP_CLASH, &fewer, &root);
    last(Status::STD_OK, &fewer, &members[7]);
    last(Status::SP_CLASH, &set, &members[7]);
    last(Status::STD_OK, &set, &restrict(&world, &members[6], 0x01));
    let found =
        directory::setlookup(&world, &root, &[RowName { directory: root.private, name: b"eight".to_vec() }]);
    assert_eq!(found.unwrap()[0].set, set);
    // Nine are not a set: neither here, nor in bytes that say so.
    let mut nine = set.clone();
    assert!(nine.push(root).is_err());
    let mut data = Writer::new();
    data.put_string(b"nine").put_i16(9).put_i16(9);
    for _ in 0..9 {
        data.put_cap(&root).put_i16(1);
    }
    data.raw(&[0xFF; 4]).put_bytes(b"");
    let header = Header::request(&root, directory::CMD_APPEND);
    let reply = world.transactions.trans(Message { header, data: data.finish() }, &TransOptions::default());
    assert_eq!(reply.unwrap().header.status(), Status::STD_ARGBAD);
    assert_eq!(lookup(&world, &root, "nine"), Err(refused(Status::STD_NOTFOUND)));
}

/// A process that is stunned, say: it takes a question and does not answer.
#[test]
fn a_server_that_never_answers_does_not_hold_every_thread() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let (_other, foreign) = serve(&world);
    let stunned = world.transactions.listen(&GetPort::from_bytes(*b"stuns!"), 1 << 20).unwrap();
    let object = Capability { port: stunned.put_port(), ..foreign };
    append(&world, &root, "stunned", &object);
    append(&world, &root, "foreign", &foreign);
    for name in [b"stunned", b"foreign"] {
        directory::chmod(&world, &root, name, &[0xFF, 0x03, 0, 0]).unwrap();
    }
    let weak = restrict(&world, &root, 0x02);
    let (said, heard) = std::sync::mpsc::channel();
    for _ in 0..6 {
        let (world, said) = (world.clone(), said.clone());
        std::thread::spawn(move || said.send(lookup(&world, &weak, "stunned")));
    }
    let asked = stunned.getreq().unwrap();
    for _ in 0..5 {
        assert_eq!(heard.recv().unwrap(), Err(refused(Status::SP_UNREACH)));
    }
    assert_eq!(lookup(&world, &weak, "foreign"), Ok(restrict(&world, &foreign, 0x03)));
    assert_eq!(directory::list(&world, &root, b"", 10).unwrap().rows.len(), 2);
    asked.reply.send(Message::status(Status::STD_CAPBAD));
    assert_eq!(heard.recv().unwrap(), Err(refused(Status::SP_UNREACH)));
}

#[test]
fn renames_keep_everything_and_take_one_step() {
    let world = amoeba_loopback::world();
    let ((service, root), (_two, foreign)) = (serve(&world), serve(&world));
    let names = Names::new(&world, root);
    names.mkdir(b"/a").unwrap();
    names.append_with(b"/a/file", &foreign.into(), [0xFF, 1, 0, 0], b"mode").unwrap();
    names.append(b"/taken", root).unwrap();
    let exists = NameError::Transaction(refused(Status::STD_EXISTS));
    assert_eq!(names.rename(b"/a/file", b"/taken"), Err(exists));
    names.rename(b"/a/file", b"/moved").unwrap();
    assert!(names.resolve(b"/a/file").is_err());
    let moved = names.find(b"/moved").unwrap();
    assert_eq!((moved.set.first(), moved.attributes.as_slice()), (Some(&foreign), &b"mode"[..]));
    assert_eq!(names.getmasks(b"/moved"), Ok([0xFF, 1, 0, 0]));
    names.rename_over(b"/moved", b"/taken").unwrap();
    assert_eq!(names.find(b"/taken").unwrap().attributes, b"mode");
    assert_eq!(names.rename(b"/taken", b"/taken"), Ok(()));
    names.append(b"/far", foreign).unwrap();
    names.rename(b"/taken", b"/far/away").unwrap();
    assert_eq!(names.resolve(b"/far/away"), Ok(foreign));
    names.put(b"/p", root).unwrap();
    names.put(b"/p", foreign).unwrap();
    assert_eq!(names.resolve(b"/p"), Ok(foreign));
    names.rmdir(b"/a").unwrap();
    assert!(names.resolve(b"/a").is_err());
    drop(service);
}

#[test]
fn of_many_that_put_a_new_name_at_once_each_succeeds() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    for round in 0..20 {
        let path = format!("/name-{round}");
        std::thread::scope(|scope| {
            for byte in 1..=6 {
                let (names, path) = (Names::new(&world, root), path.as_bytes());
                scope.spawn(move || names.put(path, Capability::from_bytes([byte; 16])).unwrap());
            }
        });
        let last = Names::new(&world, root).resolve(path.as_bytes()).unwrap();
        assert!((1..=6).any(|byte| last == Capability::from_bytes([byte; 16])), "{last:?}");
    }
}

#[test]
fn many_clients_at_once() {
    let world = amoeba_loopback::world();
    let (_service, root) = serve(&world);
    let counter = Arc::new(mkdir(&world, &root, "counter"));
    append(&world, &root, "turn", &root);
    let clients: Vec<_> = (0..6u8)
        .map(|client| {
            let (world, counter) = (world.clone(), counter.clone());
            std::thread::spawn(move || {
                for round in 0..20 {
                    append(&world, &counter, &format!("{client}-{round}"), &root);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(directory::describe(&world, &counter).unwrap().rows, 120);
    let mut names = Vec::new();
    let mut after = Vec::new();
    loop {
        let page = directory::list(&world, &counter, &after, 7).unwrap();
        names.extend(page.rows.into_iter().map(|row| row.name));
        after = names.last().unwrap().clone();
        if !page.more {
            break;
        }
    }
    assert!(names.len() == 120 && names.is_sorted());
}
