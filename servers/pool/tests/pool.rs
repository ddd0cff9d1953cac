//! The run server, and placement without one, over hosts that only pretend.

mod fakes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{Capability, ServerSecret};
use amoeba_name::Names;
use amoeba_place::{
    By, CONFINED_RIGHTS, FindError, Need, Parameters, Place, Placer, SERVER_RIGHTS, State, find,
};
use amoeba_pool::{Keys, Options, RunningPool};
use amoeba_stubs::pool::{self, ADMIN, FindHostReply, HostRecord, STATE_DOWN, STATE_UP};
use amoeba_stubs::standard::{self, Setting};
use amoeba_wire::Status;
use amoeba_world::{Error, World};

use fakes::{FakeGuests, FakeHost, FakePool, get_port};

const X86: &str = "x86_64-linux";

/// Hosts, their directory, and a run server over them.
struct System {
    world: World,
    guests: BTreeMap<String, Arc<FakeGuests>>,
    hosts: BTreeMap<String, FakeHost>,
    pool: FakePool,
    server: Option<RunningPool>,
    /// Of the run server, all rights.
    run: Capability,
}

impl System {
    fn new(hosts: &[&str]) -> System {
        System::of(hosts.iter().map(|host| (*host, FakeGuests::idle(X86))).collect(), options())
    }

    /// Hosts that are asked once, so that what was placed on them is all that makes them differ.
    fn asked_once(hosts: &[&str]) -> System {
        let options = Options { interval: Duration::from_secs(3600), ..options() };
        System::of(hosts.iter().map(|host| (*host, FakeGuests::idle(X86))).collect(), options)
    }

    fn of(guests: Vec<(&str, Arc<FakeGuests>)>, options: Options) -> System {
        let world = amoeba_loopback::world();
        let guests: BTreeMap<String, _> =
            guests.into_iter().map(|(name, guests)| (name.to_owned(), guests)).collect();
        let hosts: BTreeMap<String, FakeHost> = guests
            .iter()
            .map(|(name, guests)| (name.clone(), FakeHost::start(&world, name, guests.clone())))
            .collect();
        let pool = FakePool::start(&world, hosts.iter().map(|(name, host)| (name.clone(), host.directory)));
        let server = run_server(&world, &pool, options);
        let run = server.super_capability();
        System { world, guests, hosts, pool, server: Some(server), run }
    }

    fn stop_host(&mut self, name: &str) {
        self.hosts.remove(name).expect("it runs").stop();
    }

    fn start_host(&mut self, name: &str) {
        let host = FakeHost::start(&self.world, name, self.guests[name].clone());
        self.hosts.insert(name.to_owned(), host);
    }

    fn find(&self, need: &Need, count: u32) -> Result<FindHostReply, Error> {
        pool::find_host(&self.world, &self.run, &need.to_record(), count)
    }

    /// The host that one process that needs nothing in particular would get.
    fn place(&self) -> Place {
        let reply = self.find(&Need::default(), 1).expect("the pool works");
        let place = reply.places.into_iter().next();
        let place = place.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&reply.refusal)));
        Place { host: String::from_utf8(place.host).expect("names are text"), server: place.server }
    }

    fn why(&self, decision: u64) -> String {
        String::from_utf8(pool::why(&self.world, &self.run, decision).expect("just decided")).unwrap()
    }

    fn records(&self) -> BTreeMap<String, HostRecord> {
        let records = pool::hosts(&self.world, &self.run).expect("the pool works");
        records.into_iter().map(|record| (String::from_utf8(record.name.clone()).unwrap(), record)).collect()
    }

    /// Waits until what the server knows of a host is as said.
    fn until(&self, host: &str, good: impl Fn(&HostRecord) -> bool) {
        until(&self.world, || self.records().get(host).is_some_and(&good));
    }

    fn set(&self, name: &str, value: &str) -> Result<(), Error> {
        let setting = Setting { name: name.into(), value: value.into() };
        standard::setparams(&self.world, &self.run, 1, &[setting])
    }
}

/// Waits for as long as it takes; a test that hangs is ended by whoever runs it.
fn until(world: &World, good: impl Fn() -> bool) {
    while !good() {
        world.threads.sleep(Duration::from_millis(5));
    }
}

fn options() -> Options {
    let short = Duration::from_millis(50);
    Options { interval: short, scan_interval: short, ..Options::default() }
}

fn keys() -> Keys {
    Keys { get_port: get_port("run"), secret: ServerSecret::from_bytes([9; 32]) }
}

fn run_server(world: &World, pool: &FakePool, options: Options) -> RunningPool {
    let names = Names::new(world, pool.capability);
    amoeba_pool::start(world, keys(), &names, b"/", options, 4).expect("there is room")
}

fn spread<'a>(hosts: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    hosts.for_each(|host| *counts.entry(host).or_default() += 1);
    counts
}

fn is_even(counts: &BTreeMap<&str, usize>) -> bool {
    counts.len() == 3 && counts.values().all(|count| (15..=25).contains(count))
}

#[test]
fn sixty_placements_spread_over_three_equal_hosts() {
    let system = System::asked_once(&["anvil", "bolt", "cask"]);
    let places: Vec<Place> = (0..60).map(|_| system.place()).collect();
    let counts = spread(places.iter().map(|place| place.host.as_str()));
    assert!(is_even(&counts), "one by one: {counts:?}");
    for place in &places {
        assert_eq!(place.server.port, system.hosts[&place.host].server.port);
        assert_eq!(place.server.rights(), SERVER_RIGHTS, "no more than it takes to start a process");
    }
}

#[test]
fn who_may_have_no_process_see_a_hosts_files_gets_places_without_that_right() {
    let mut system = System::asked_once(&["anvil", "bolt", "cask"]);
    let run = standard::restrict(&system.world, &system.run, !u32::from(pool::HOST.bits()) & 0xFF).unwrap();
    let find = |system: &System, count| {
        pool::find_host(&system.world, &run, &Need::default().to_record(), count).map(|reply| reply.places)
    };
    let places = find(&system, 30).unwrap();
    assert_eq!(places.len(), 30);
    for place in &places {
        let server = &system.hosts[std::str::from_utf8(&place.host).unwrap()].server;
        let confined = standard::restrict(&system.world, server, CONFINED_RIGHTS.bits().into()).unwrap();
        assert_eq!(place.server, confined);
    }
    // What hosts have said once holds when they say nothing any more.
    for host in ["anvil", "bolt", "cask"] {
        system.stop_host(host);
    }
    assert_eq!(find(&system, 3).unwrap().len(), 3);
}

#[test]
fn a_map_of_sixty_spreads_in_one_decision() {
    let system = System::asked_once(&["anvil", "bolt", "cask"]);
    let reply = system.find(&Need::default(), 60).unwrap();
    let counts = spread(reply.places.iter().map(|place| std::str::from_utf8(&place.host).unwrap()));
    assert!(is_even(&counts), "{counts:?}");
    assert!(reply.refusal.is_empty());
    let records = system.records();
    assert_eq!(records.values().map(|record| record.chosen).sum::<u64>(), 60);
    assert!(
        records.values().all(|record| record.considered == 1 && record.polls > 0 && record.state == STATE_UP)
    );
    assert!(
        system.why(reply.decision).starts_with("60 of 60 processes placed: "),
        "{}",
        system.why(reply.decision)
    );
}

#[test]
fn a_dead_host_is_refused_with_its_reason_and_used_again_when_back() {
    let mut system = System::new(&["anvil", "bolt"]);
    system.place();
    system.stop_host("bolt");
    system.until("bolt", |record| record.state == STATE_DOWN);
    assert_eq!(system.records()["bolt"].reason, b"its process server cannot be found");
    for _ in 0..20 {
        assert_eq!(system.place().host, "anvil");
    }
    let only = Need { only: vec!["bolt".into()], ..Need::default() };
    let reply = system.find(&only, 1).unwrap();
    assert_eq!(reply.places, []);
    let refusal = String::from_utf8(reply.refusal).unwrap();
    assert!(refusal.starts_with(
        "no host can take it\n\nrefused:\n  anvil  not among the hosts asked for\n  bolt   down for "
    ));
    assert_eq!(refusal, system.why(reply.decision));
    system.start_host("bolt");
    system.until("bolt", |record| record.state == STATE_UP);
    assert_eq!(system.find(&only, 1).unwrap().places.len(), 1);
}

#[test]
fn what_cannot_run_a_program_says_why() {
    let small = FakeGuests::idle(X86);
    small.set(|load| load.memory_free = 1 << 30);
    let busy = FakeGuests::idle(X86);
    busy.set(|load| load.load = 8.0);
    let system = System::of(
        vec![
            ("anvil", FakeGuests::idle(X86)),
            ("busy", busy),
            ("raspberry", FakeGuests::idle("aarch64-linux")),
            ("small", small),
        ],
        options(),
    );
    let need = Need { architecture: X86.into(), memory: 2 << 30, ..Need::default() };
    let reply = system.find(&need, 1).unwrap();
    assert_eq!(reply.places[0].host, b"anvil");
    assert_eq!(
        system.why(reply.decision),
        "\
anvil: the best of 2 hosts
needs x86_64-linux, 2 GiB of memory

HOST   CHOSEN  VALUE  MIPS  LOAD  PLACED  MEMORY  TRANSFER
anvil  1       100%   4000  0.00  0.00    8 GiB   2 ms
busy   -       44%    1778  8.00  0.00    8 GiB   2 ms

refused:
  raspberry  wrong CPU: the program is for x86_64-linux, the host executes aarch64-linux
  small      too little memory: 2 GiB needed, 1 GiB free
"
    );
    let vax = Need { architecture: "vax".into(), ..Need::default() };
    let reply = system.find(&vax, 1).unwrap();
    assert_eq!(
        String::from_utf8(reply.refusal).unwrap(),
        "\
no host can take it
needs vax

refused:
  anvil      wrong CPU: the program is for vax, the host executes x86_64-linux
  busy       wrong CPU: the program is for vax, the host executes x86_64-linux
  raspberry  wrong CPU: the program is for vax, the host executes aarch64-linux
  small      wrong CPU: the program is for vax, the host executes x86_64-linux
"
    );
    let huge = Need { memory: 3 << 30, architecture: X86.into(), ..Need::default() };
    let places = system.find(&huge, 9).unwrap().places;
    assert_eq!(places.len(), 4, "two on each of the large ones: what was placed before counts");
}

#[test]
fn a_process_leads_to_its_decision() {
    let system = System::new(&["anvil"]);
    let reply = system.find(&Need::default(), 1).unwrap();
    let process = Capability::from_bytes([7; 16]);
    let number = process.object().get();
    let why = |port, number| pool::why_process(&system.world, &system.run, port, number);
    assert_eq!(why(process.port, number), Err(Error::Refused(Status::STD_NOTFOUND)));
    pool::note(&system.world, &system.run, reply.decision, process.port, number).unwrap();
    assert_eq!(why(process.port, number).unwrap(), system.why(reply.decision).into_bytes());
    assert_eq!(why(process.port, number + 1), Err(Error::Refused(Status::STD_NOTFOUND)));
    let unknown = pool::note(&system.world, &system.run, reply.decision + 1, process.port, number);
    assert_eq!(unknown, Err(Error::Refused(Status::STD_NOTFOUND)));
    assert_eq!(
        pool::why(&system.world, &system.run, reply.decision + 1),
        Err(Error::Refused(Status::STD_NOTFOUND))
    );
}

#[test]
fn parameters_are_seen_and_set() {
    let system = System::new(&["anvil"]);
    system.place();
    let values = || -> BTreeMap<String, String> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let reply = standard::getparams(&system.world, &system.run).unwrap();
        reply.parameters.into_iter().map(|each| (text(each.name), text(each.value))).collect()
    };
    let before = values();
    let names: Vec<&str> = before.keys().map(String::as_str).collect();
    let all = "CACHEMEM CACHETIME DISPATCH ENABLE EQUIVPERC MEMTRUNC PREF-x86_64-linux RATE WORK";
    assert_eq!(names.join(" "), all);
    system.set("EQUIVPERC", "50").unwrap();
    assert_eq!(values()["EQUIVPERC"], "50");
    for (name, value) in [("EQUIVPERC", "51"), ("NONSENSE", "1"), ("ENABLE", "yes")] {
        assert_eq!(system.set(name, value), Err(Error::Refused(Status::STD_ARGBAD)));
    }
    system.set("PREF-x86_64-linux", "0").unwrap();
    let refusal = system.find(&Need::default(), 1).unwrap().refusal;
    let text = "no host can take it\n\nrefused:\n  anvil  switched off: PREF-x86_64-linux is 0\n";
    assert_eq!(String::from_utf8(refusal).unwrap(), text);
    system.set("ENABLE", "0").unwrap();
    assert_eq!(system.find(&Need::default(), 1), Err(Error::Refused(Status::STD_NOTNOW)));
}

#[test]
fn users_can_neither_set_parameters_nor_send_nonsense() {
    let system = System::new(&["anvil"]);
    let user = system.server.as_ref().unwrap().user_capability();
    assert!(!user.rights().intersects(ADMIN));
    let setting = Setting { name: b"ENABLE".to_vec(), value: b"0".to_vec() };
    let denied = standard::setparams(&system.world, &user, 1, &[setting]);
    assert_eq!(denied, Err(Error::Refused(Status::STD_DENIED)));
    assert_eq!(
        pool::find_host(&system.world, &user, &Need::default().to_record(), 1).unwrap().places.len(),
        1
    );
    let status = standard::restrict(&system.world, &user, pool::STATUS.bits().into()).unwrap();
    let denied = pool::find_host(&system.world, &status, &Need::default().to_record(), 1);
    assert_eq!(denied, Err(Error::Refused(Status::STD_DENIED)));
    assert!(pool::hosts(&system.world, &status).is_ok());
    let bad = Err(Error::Refused(Status::STD_ARGBAD));
    assert_eq!(system.find(&Need::default(), 0), bad);
    assert_eq!(system.find(&Need::default(), 1025), bad);
    assert_eq!(system.find(&Need { here: "\x1b[2J".into(), ..Need::default() }, 1), bad);
    let unreadable = pool::Need { here: vec![0xFF], ..Need::default().to_record() };
    assert_eq!(pool::find_host(&system.world, &system.run, &unreadable, 1), bad);
    assert_eq!(
        system.find(&Need { avoid: vec!["x".into(); 65], ..Need::default() }, 1),
        Err(Error::NotSent(Status::STD_ARGBAD))
    );
}

#[test]
fn hosts_come_and_go_with_the_directory_and_stay_without_it() {
    let mut system = System::new(&["anvil"]);
    let bolt = FakeHost::start(&system.world, "bolt", FakeGuests::idle(X86));
    let rows = [
        ("bolt", bolt.directory),
        (".run", system.run),
        ("ghost", Capability::NULL),
        ("a\nb", bolt.directory),
    ];
    for (name, capability) in rows {
        system.pool.directory.rows().insert(name.into(), capability);
    }
    pool::rescan(&system.world, &system.run).unwrap();
    system.until("bolt", |record| record.state == STATE_UP);
    system.until("ghost", |record| record.state == STATE_DOWN);
    assert_eq!(system.records().into_keys().collect::<Vec<_>>(), ["anvil", "bolt", "ghost"]);
    system.pool.directory.rows().remove(&b"ghost"[..]);
    until(&system.world, || !system.records().contains_key("ghost"));
    system.set("EQUIVPERC", "0").unwrap();
    std::mem::replace(&mut system.pool, FakePool::start(&amoeba_loopback::world(), [])).stop();
    assert_eq!(pool::rescan(&system.world, &system.run), Err(Error::Refused(pool::NOPOOLDIR)));
    let hosts: Vec<String> = (0..40).map(|_| system.place().host).collect();
    assert_eq!(spread(hosts.iter().map(String::as_str)).len(), 2, "hosts outlive the directory");
    let status = standard::status_text(&system.world, &system.run).unwrap();
    let first = status.lines().next().unwrap();
    assert!(first.starts_with("2 hosts, 40 decisions remembered, pool directory read "), "{first}");
    assert!(first.ends_with(" s ago, last problem: no directory server answers"), "{first}");
    assert!(status.lines().nth(1).unwrap().starts_with("HOST   STAT    SINCE  LREPL"), "{status}");
}

#[test]
fn a_pool_directory_that_was_never_there_is_an_error() {
    let world = amoeba_loopback::world();
    let names = Names::new(&world, Capability::from_bytes([3; 16]));
    let server = amoeba_pool::start(&world, keys(), &names, b"/profile/hosts", options(), 2).unwrap();
    let find = |need: &Need| pool::find_host(&world, &server.user_capability(), &need.to_record(), 1);
    assert_eq!(find(&Need::default()), Err(Error::Refused(pool::NOPOOLDIR)));
    server.stop();
}

#[test]
fn a_doubted_host_is_chosen_again_after_it_has_answered() {
    let system = System::new(&["anvil"]);
    system.place();
    pool::doubt(&system.world, &system.run, b"anvil").unwrap();
    let polls = system.records()["anvil"].polls;
    system.until("anvil", |record| record.state == STATE_UP && record.polls >= polls);
    assert_eq!(system.place().host, "anvil");
    assert_eq!(pool::doubt(&system.world, &system.run, b"nobody"), Err(Error::Refused(Status::STD_NOTFOUND)));
}

#[test]
fn what_has_ended_counts_no_longer() {
    let system = System::new(&["anvil"]);
    let placed = || system.records()["anvil"].placed_thousandths;
    let decision = system.find(&Need::default(), 3).unwrap().decision;
    assert!(placed() > 2000);
    let ended = |decision, host: &[u8], count| pool::ended(&system.world, &system.run, decision, host, count);
    assert_eq!(ended(decision, b"anvil", 2), Ok(()));
    assert!(placed() <= 1000);
    let forgotten = Err(Error::Refused(Status::STD_NOTFOUND));
    for (decision, host, count) in
        [(decision, &b"anvil"[..], 2), (decision, b"bolt", 1), (decision, b"\xFF", 1), (0, b"anvil", 1)]
    {
        assert_eq!(ended(decision, host, count), forgotten);
    }
    assert_eq!(ended(decision, b"anvil", 1), Ok(()));
    assert_eq!(placed(), 0);
}

#[test]
fn copies_share_a_port_and_a_client_places_when_all_are_gone() {
    let mut system = System::new(&["anvil", "bolt"]);
    let copy = run_server(&system.world, &system.pool, options());
    assert_eq!(copy.super_capability(), system.run);
    let names = Names::new(&system.world, system.pool.capability);
    let placer = Placer::new(&system.world, &names, b"/", Parameters::default());
    let found = |count| find(&system.world, Some(&system.run), &placer, &Need::default(), count).unwrap();
    let first = found(1);
    assert!(matches!(first.by, By::RunServer { .. }));
    first.note(&system.world, &Capability::from_bytes([7; 16]));
    assert!(first.why(&system.world).is_some());
    first.doubt(&system.world, &placer, "anvil");
    system.until("anvil", |record| record.state == STATE_UP);
    system.server.take().unwrap().stop();
    let second = found(2);
    assert!(matches!(second.by, By::RunServer { .. }), "the copy has taken over");
    assert_eq!(second.places.len(), 2);
    copy.stop();
    let third = found(1);
    let By::Client(decision) = &third.by else { panic!("nobody else is there") };
    assert_eq!(third.why(&system.world), Some(decision.to_string()));
    assert_eq!(third.places[0].server.rights(), SERVER_RIGHTS);
}

#[test]
fn a_client_places_by_itself() {
    let mut system = System::new(&["anvil", "bolt", "cask"]);
    let names = Names::new(&system.world, system.pool.capability);
    let placer = Placer::new(&system.world, &names, b"/", Parameters::default());
    let world = system.world.clone();
    let find = |need: &Need, count| find(&world, None, &placer, need, count);
    let hosts: Vec<String> =
        (0..60).map(|_| find(&Need::default(), 1).unwrap().places.remove(0).host).collect();
    let counts = spread(hosts.iter().map(String::as_str));
    assert_eq!(counts.len(), 3, "{counts:?}");
    let places = find(&Need::default(), 60).unwrap().places;
    let counts = spread(places.iter().map(|place| place.host.as_str()));
    assert_eq!(counts.len(), 3, "{counts:?}");
    let vax = find(&Need { architecture: "vax".into(), ..Need::default() }, 1);
    assert!(
        matches!(&vax, Err(FindError::NoHost(why)) if why.contains("anvil  wrong CPU: the program is for vax")),
        "{vax:?}"
    );
    assert!(matches!(find(&Need::default(), 0), Err(FindError::Bad(_))));
    system.stop_host("cask");
    placer.doubt("cask");
    until(&system.world, || {
        let records = placer.hosts().unwrap();
        records.iter().any(|record| *record.name == *"cask" && matches!(record.state, State::Down { .. }))
    });
    let other = find(&Need::default(), 30).unwrap();
    assert!(other.places.iter().all(|place| place.host != "cask"));
    let nowhere = Placer::new(&system.world, &names, b"/anvil/no", Parameters::default());
    assert!(matches!(
        amoeba_place::find(&system.world, None, &nowhere, &Need::default(), 1),
        Err(FindError::Directory(_))
    ));
}
