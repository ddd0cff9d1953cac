//! The host's servers as their clients see them.

use std::sync::Arc;

use amoeba_cap::{Capability, ObjectNumber, PutPort, Rights, SystemSecret};
use amoeba_host::{
    About, Column, HOST, HostDirectory, HostSeed, Kernel, PERMANENT, Processes, Random, Row, System, Tod,
};
use amoeba_stubs::system::{Network, Way};
use amoeba_stubs::{directory, hostdir, random, standard, system, tod};
use amoeba_wire::Status;
use amoeba_world::{Error, World};

struct Two(Capability);

impl Processes for Two {
    fn processes(&self, column: Column) -> Vec<(u32, Capability)> {
        let all = vec![(7, self.0), (12, self.0)];
        all.into_iter().filter(|(number, _)| column == Column::Owner || *number == 12).collect()
    }
}

fn process() -> Capability {
    Capability::from_bytes([9; 16])
}

/// The clock's server as the group sees it.
fn restricted_tod(seed: &HostSeed, port: PutPort) -> Capability {
    seed.keys("tod").secret.capability(port, ObjectNumber::SUPER, Rights::from_bits_retain(0x3F), PERMANENT)
}

/// The host directory of a world of one process, with a clock in it.
fn host(world: &World) -> Capability {
    let seed = HostSeed::from_bytes([3; 32]);
    let listen = |name: &str| world.transactions.listen(&seed.keys(name).get_port, 1 << 16).unwrap();
    let (directory, clock) = (listen("host"), listen("tod"));
    let tod = seed.keys("tod").capability(clock.put_port(), ObjectNumber::SUPER);
    let keys = seed.keys("host");
    let capability = keys.capability(directory.put_port(), HOST);
    let tod = Row { owner: tod, group: restricted_tod(&seed, clock.put_port()) };
    let server = HostDirectory::new(keys, directory.put_port(), [("tod", tod)], Arc::new(Two(process())));
    hostdir::start(world, directory, Arc::new(server), 2).unwrap();
    tod::start(world, clock, Tod::server(seed.keys("tod").secret, world.clock.clone()), 2).unwrap();
    capability
}

#[test]
fn the_directory_is_walked_like_any_other() {
    let world = amoeba_loopback::world();
    let host = host(&world);
    let clock = directory::lookup(&world, &host, b"tod").unwrap().set;
    assert!(tod::get_time(&world, clock.first().unwrap()).is_ok());
    let found = directory::lookup(&world, &host, b"ps/12").unwrap();
    assert_eq!((found.set.first(), found.tail.len()), (Some(&process()), 0));
    let beyond = directory::lookup(&world, &host, b"tod/more/of/it").unwrap();
    assert_eq!(beyond.tail, b"more/of/it");
    for missing in [&b"nothing"[..], b"ps/8", b"ps/x"] {
        let error = directory::lookup(&world, &host, missing).unwrap_err();
        assert_eq!(error, Error::Refused(Status::STD_NOTFOUND));
    }
}

#[test]
fn its_rows_come_in_pages() {
    let world = amoeba_loopback::world();
    let host = host(&world);
    let names =
        |page: directory::ListReply| -> Vec<Vec<u8>> { page.rows.into_iter().map(|row| row.name).collect() };
    let first = directory::list(&world, &host, b"", 1).unwrap();
    assert!(first.more);
    assert_eq!(names(first), [b"ps"]);
    let second = directory::list(&world, &host, b"ps", 10).unwrap();
    assert!(!second.more);
    assert_eq!(names(second), [b"tod"]);
}

#[test]
fn nobody_changes_it_and_nobody_looks_without_the_right() {
    let world = amoeba_loopback::world();
    let host = host(&world);
    let error = directory::delete(&world, &host, b"tod").unwrap_err();
    assert_eq!(error, Error::Refused(Status::STD_COMBAD));
    let blind = standard::restrict(&world, &host, 0).unwrap();
    let error = directory::lookup(&world, &blind, b"tod").unwrap_err();
    assert_eq!(error, Error::Refused(Status::STD_DENIED));
}

#[test]
fn the_groups_column_shows_what_leads_to_no_host_and_nothing_shows_more() {
    let world = amoeba_loopback::world();
    let host = host(&world);
    let group = standard::restrict(&world, &host, hostdir::COLUMN_2.bits().into()).unwrap();
    let look = |directory: &Capability, path: &[u8]| directory::lookup(&world, directory, path);
    let first = |directory: &Capability, path: &[u8]| *look(directory, path).unwrap().set.first().unwrap();
    assert_eq!(first(&host, b"tod").rights(), Rights::ALL);
    assert_eq!(first(&group, b"tod").rights().bits(), 0x3F);
    assert!(tod::get_time(&world, &first(&group, b"tod")).is_ok());
    // `ps` itself is had with the group's column alone, so that nobody sees through it what he does not see here.
    let ps = first(&group, b"ps");
    assert_eq!(ps.rights(), hostdir::COLUMN_2);
    for (directory, path) in [(&group, &b"ps/7"[..]), (&ps, b"7")] {
        assert_eq!(look(directory, path).unwrap_err(), Error::Refused(Status::STD_NOTFOUND));
    }
    assert_eq!((first(&ps, b"12"), first(&host, b"ps/7")), (process(), process()));
    let masks = |directory: &Capability| -> Vec<[u8; 4]> {
        directory::list(&world, directory, b"", 10).unwrap().rows.into_iter().map(|row| row.masks).collect()
    };
    assert_eq!(masks(&host), [[0xFF, 0x02, 0, 0], [0xFF, 0x3F, 0, 0]]);
    assert_eq!(masks(&first(&host, b"ps")), [[0xFF, process().rights().bits(), 0, 0], [0xFF, 0, 0, 0]]);
    assert_eq!(masks(&ps).len(), 1);
}

#[test]
fn random_bytes_are_counted_and_statistics_need_their_right() {
    let world = amoeba_loopback::world();
    let seed = HostSeed::from_bytes([4; 32]);
    let secret = SystemSecret::from_bytes([5; 32]);
    assert_ne!(seed.capability(&secret, "random"), seed.capability(&secret, "sys"));
    let listen =
        |name: &str| world.transactions.listen(&seed.keys(name).get_port, system::REQUEST_SIZE_MAX).unwrap();
    let (entropy, sys) = (listen("random"), listen("sys"));
    let whole = |name: &str, port| seed.keys(name).capability(port, ObjectNumber::SUPER);
    let (random, statistics) = (whole("random", entropy.put_port()), whole("sys", sys.put_port()));
    random::start(&world, entropy, Random::server(seed.keys("random").secret, world.entropy.clone()), 2)
        .unwrap();
    let about = About { version: "1.2.3".into(), host: "anvil".into() };
    let server = System::server(seed.keys("sys").secret, about, world.threads.clone(), Counting);
    system::start(&world, sys, server, 2).unwrap();
    assert_eq!(random::get_random(&world, &random, 1024).unwrap().len(), 1024);
    assert_eq!(random::get_random(&world, &random, 1025), Err(Error::Refused(Status::STD_ARGBAD)));
    assert_eq!(system::statistics(&world, &statistics).unwrap(), b"packets 3\n");
    let less = standard::restrict(&world, &statistics, Rights::NONE.bits().into()).unwrap();
    let denied = Error::Refused(Status::STD_DENIED);
    assert_eq!(system::statistics(&world, &less), Err(denied));
    assert_eq!(system::network(&world, &less), Err(denied));
    assert_eq!(system::way(&world, &less, less.port), Err(denied));
    assert!(standard::status_text(&world, &statistics).unwrap().starts_with("packets 3\n"));
    let said = system::about(&world, &less).unwrap();
    assert_eq!((&said.version[..], &said.host[..]), (&b"1.2.3"[..], &b"anvil"[..]));
    let data = vec![7; system::ECHO_SIZE_MAX];
    assert_eq!(system::echo(&world, &less, data.clone()).unwrap(), data);
    assert_eq!(system::way(&world, &statistics, less.port).unwrap().processes, 7);
    assert_eq!(system::network(&world, &statistics), Err(Error::Refused(Status::STD_NOTNOW)));
}

/// A kernel that has counted three packets.
struct Counting;

impl Kernel for Counting {
    fn statistics(&self) -> Result<String, Status> {
        Ok("packets 3\n".into())
    }

    fn network(&self) -> Result<Network, Status> {
        Err(Status::STD_NOTNOW)
    }

    fn way(&self, _: PutPort) -> Result<Way, Status> {
        let (link, peer) = (Vec::new(), Vec::new());
        Ok(Way { reach: system::HERE, processes: 7, hops: 0, trusted: true, link, peer })
    }
}
