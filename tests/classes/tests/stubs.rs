//! What generated code promises: every value comes back, limits hold on both sides, only what is idempotent is resent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use amoeba_cap::{Capability, CapabilitySet, GetPort, Private, PutPort};
use amoeba_stubs::rt::Marshal;
use amoeba_tests_classes::{Probe, basis, probe};
use amoeba_wire::{Header, Status};
use amoeba_world::{Error, Listener, Message, TransOptions, Transactions};
use proptest::prelude::*;

fn refused<T>(status: Status) -> Result<T, Error> {
    Err(Error::Refused(status))
}

fn sample() -> probe::Everything {
    let cap = Capability::from_bytes([3; 16]);
    probe::Everything {
        flag: true,
        a: 1,
        b: 2,
        c: 3,
        d: 4,
        e: -5,
        f: -6,
        g: -7,
        name: b"name".to_vec(),
        blob: vec![0; 16],
        six: *b"sixsix",
        one: cap,
        part: cap.private,
        place: cap.port,
        set: CapabilitySet::singleton(cap),
        points: vec![probe::Point { x: 1, y: -1 }],
        words: vec![b"a".to_vec(), Vec::new()],
        grid: vec![vec![1, 2], Vec::new()],
    }
}

#[test]
fn the_bytes_of_a_record_are_its_fields_in_order() {
    let bytes = sample().to_bytes().unwrap();
    let mut wanted = vec![1, 1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0xFB, 0xFF, 0xFA, 0xFF, 0xFF, 0xFF];
    wanted.extend((-7i64).to_le_bytes());
    wanted.extend(b"name\0");
    wanted.extend([16, 0, 0, 0]);
    wanted.extend([0; 16]);
    wanted.extend(b"sixsix");
    wanted.extend([3; 16 + 10 + 6]);
    wanted.extend([1, 0, 1, 0]);
    wanted.extend([3; 16]);
    wanted.extend([1, 0]);
    wanted.extend([1, 0, 0, 0, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    wanted.extend(b"\x02\0\0\0a\0\0");
    wanted.extend([2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0]);
    assert_eq!(bytes, wanted);
    assert_eq!(probe::Everything::from_bytes(&bytes), Ok(sample()));
}

#[test]
fn everything_comes_back() {
    let world = amoeba_loopback::world();
    let (running, _, object) = Probe::start(&world, 1);
    let ports = [PutPort::from_bytes([1; 6]), PutPort::from_bytes([2; 6])];
    let reply = probe::echo(&world, &object, &sample(), &ports, true).unwrap();
    assert_eq!(reply, probe::EchoReply { everything: sample(), ports: ports.to_vec(), flag: true });

    let set = CapabilitySet::default();
    let points = [probe::Point { x: 0, y: 0 }];
    let loose = probe::echo_loose(
        &world,
        &object,
        false,
        1,
        2,
        b"loose",
        b"",
        &[0; 6],
        &object,
        &object.private,
        object.port,
        &set,
        &points,
        &[7, 8],
    );
    assert_eq!(loose, Ok(probe::EchoLooseReply { name: b"loose".to_vec(), numbers: vec![7, 8] }));

    let classic = probe::classic(&world, &object, -1, 200, 2).unwrap();
    assert_eq!((classic.position, classic.count, classic.safe, classic.place), (u32::MAX, 200, true, object));
    let labelled = probe::labelled(&world, &object, b"label", b"data");
    assert_eq!(labelled, Ok(probe::LabelledReply { name: b"label".to_vec(), data: b"data".to_vec() }));
    let names = probe::names(&world, &object, b"server", 9, 1, 2, 3, 4, 5).unwrap();
    let wanted =
        probe::NamesReply { server: b"server".to_vec(), header: 9, data: vec![1, 2], result: 15, size: 3 };
    assert_eq!(names, wanted);
    let data = vec![5; probe::DATA_MAX];
    assert_eq!(probe::bulk(&world, &object, data.clone(), 0), Ok(data));
    for (from, to) in [(0, 0), (7, 7), (250, 270), (1, probe::DATA_MAX as u32)] {
        let held: Vec<u8> = (from..to).map(|at| at as u8).collect();
        assert!(probe::shared(&world, &object, from, to) == Ok(held), "{from} to {to}");
    }
    let too_much = probe::shared(&world, &object, 0, probe::DATA_MAX as u32 + 1);
    assert_eq!(too_much, Err(Error::Refused(Status::STD_OVERFLOW)));
    assert_eq!(probe::shared(&world, &object, 2, 1), Err(Error::Refused(Status::STD_ARGBAD)));
    let pair = |left, right| basis::Pair { left, right };
    assert_eq!(basis::swap(&world, &object, &[pair(1, 2)]), Ok(vec![pair(2, 1)]));
    running.stop();
}

#[test]
fn over_its_limit_nothing_is_sent() {
    let world = amoeba_loopback::world();
    let (running, _, object) = Probe::start(&world, 1);
    let not_sent = |change: fn(&mut probe::Everything)| {
        let mut everything = sample();
        change(&mut everything);
        let result = probe::echo(&world, &object, &everything, &[], false).map(drop);
        assert_eq!(result, Err(Error::NotSent(Status::STD_ARGBAD)));
    };
    not_sent(|all| all.name = vec![b'x'; 9]);
    not_sent(|all| all.name = b"a\0b".to_vec());
    not_sent(|all| all.blob = vec![0; 17]);
    not_sent(|all| all.points = vec![probe::Point { x: 0, y: 0 }; 4]);
    not_sent(|all| all.words = vec![b"five5".to_vec()]);
    not_sent(|all| all.grid = vec![vec![0; 3]]);
    let bulk = probe::bulk(&world, &object, vec![0; probe::DATA_MAX + 1], 0);
    assert_eq!(bulk, Err(Error::NotSent(Status::STD_ARGBAD)));
    running.stop();
}

#[test]
fn the_server_holds_the_limits_against_clients_that_do_not() {
    let world = amoeba_loopback::world();
    let (running, _, object) = Probe::start(&world, 1);
    let status = |command, data: &[u8]| {
        let request = Message { header: Header::request(&object, command), data: data.to_vec() };
        world.transactions.trans(request, &TransOptions::default()).unwrap().header.status()
    };
    let good = {
        let mut bytes = sample().to_bytes().unwrap();
        bytes.extend([0, 0, 0, 0, 1]);
        bytes
    };
    assert_eq!(status(probe::CMD_ECHO, &good), Status::STD_OK);
    assert_eq!(status(probe::CMD_ECHO, &good[..good.len() - 1]), Status::STD_ARGBAD, "too short");
    assert_eq!(status(probe::CMD_ECHO, &[&good[..], &[0]].concat()), Status::STD_ARGBAD, "too long");
    let mut many = good.clone();
    let ports = many.len() - 5;
    many[ports..ports + 4].copy_from_slice(&[255; 4]);
    assert_eq!(status(probe::CMD_ECHO, &many), Status::STD_ARGBAD, "a list of 2^32 - 1");
    assert_eq!(status(probe::CMD_LABELLED, b"nine byte\0"), Status::STD_ARGBAD);
    assert_eq!(status(probe::CMD_LABELLED, b"endless"), Status::STD_ARGBAD);
    assert_eq!(status(probe::CMD_LATER, b"endless"), Status::STD_ARGBAD, "also when it would be deferred");
    running.stop();
}

/// A server that answers every request with the same reply, or the same failure.
struct Fixed {
    answer: Mutex<Result<Message, Error>>,
    tries: AtomicUsize,
    reply_size_max: AtomicUsize,
}

impl Fixed {
    fn new(answer: Result<Message, Error>) -> Arc<Fixed> {
        Arc::new(Fixed { answer: Mutex::new(answer), tries: 0.into(), reply_size_max: 0.into() })
    }
}

impl Transactions for Fixed {
    fn trans(&self, _: Message, options: &TransOptions) -> Result<Message, Error> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        self.reply_size_max.store(options.reply_size_max, Ordering::Relaxed);
        self.answer.lock().unwrap().clone()
    }

    fn listen(&self, _: &GetPort, _: usize) -> Result<Listener, Error> {
        Err(Error::NotSent(Status::RPC_TRYAGAIN))
    }

    fn put_port(&self, _: &GetPort) -> Result<PutPort, Error> {
        Ok(PutPort::NULL)
    }
}

#[test]
fn only_what_is_idempotent_is_sent_again() {
    let maybe = Error::MaybeExecuted(Status::RPC_FAILURE);
    for (error, idempotent_tries) in
        [(maybe, 3), (Error::NotSent(Status::RPC_NOTFOUND), 1), (Error::Refused(Status::STD_OVERFLOW), 1)]
    {
        let fixed = Fixed::new(Err(error));
        let t: &dyn Transactions = &*fixed;
        assert_eq!(probe::count(t, &Capability::NULL), Err(error));
        assert_eq!(fixed.tries.swap(0, Ordering::Relaxed), 1);
        assert_eq!(probe::count_once(t, &Capability::NULL), Err(error));
        assert_eq!(fixed.tries.load(Ordering::Relaxed), idempotent_tries);
    }
}

#[test]
fn a_reply_is_believed_only_as_far_as_the_class_goes() {
    let reply = |header: Header, data: &[u8]| Fixed::new(Ok(Message { header, data: data.to_vec() }));
    let ok = Header::reply(Status::STD_OK);
    let count = |fixed: Arc<Fixed>| probe::count(&*fixed as &dyn Transactions, &Capability::NULL);
    assert_eq!(count(reply(ok, &[1, 0, 0, 0, 0, 0, 0, 0])), Ok(1));
    assert_eq!(count(reply(ok, &[1, 0, 0])), Err(Error::BadReply));
    assert_eq!(count(reply(ok, &[0; 9])), Err(Error::BadReply));
    assert_eq!(count(reply(Header::reply(Status::RPC_FAILURE), &[])), refused(Status::RPC_REMOTERPC));
    assert_eq!(count(reply(Header::reply(Status::STD_NOTNOW), &[1])), refused(Status::STD_NOTNOW));

    let fixed = reply(Header { size: 256, ..ok }, &[]);
    let classic = probe::classic(&*fixed as &dyn Transactions, &Capability::NULL, 0, 0, 0);
    assert_eq!(classic, Err(Error::BadReply), "the count is a u8");
    assert_eq!(fixed.reply_size_max.load(Ordering::Relaxed), 0, "no more is taken than the class allows");
    let fixed = reply(ok, &[0; 17]);
    assert_eq!(probe::too_long(&*fixed as &dyn Transactions, &Capability::NULL), Err(Error::BadReply));
    assert_eq!(fixed.reply_size_max.load(Ordering::Relaxed), probe::NAME_MAX + 1);
}

#[test]
fn no_bytes_panic_and_a_record_that_reads_writes_the_same() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Ok(everything) = probe::Everything::from_bytes(bytes) {
            let again = everything.to_bytes().expect("what was read is within its limits");
            assert_eq!(probe::Everything::from_bytes(&again), Ok(everything));
        }
        let fixed = Fixed::new(Ok(Message { header: Header::NULL, data: bytes.to_vec() }));
        let t: &dyn Transactions = &*fixed;
        let object = Capability::NULL;
        let _ = probe::echo(t, &object, &sample(), &[], true);
        let _ = probe::labelled(t, &object, b"", b"");
        let _ = basis::swap(t, &object, &[]);
        let _ = amoeba_stubs::standard::getparams(t, &object);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_value_within_its_limits_comes_back(
        numbers: (bool, u8, u16, u32, u64, i16, i32, i64),
        name in proptest::collection::vec(1u8..=255, 0..=8),
        blob in proptest::collection::vec(any::<u8>(), 0..=16),
        cap: [u8; 16],
        six: [u8; 6],
        points in proptest::collection::vec(any::<(i32, i32)>(), 0..=3),
        words in proptest::collection::vec(proptest::collection::vec(1u8..=255, 0..=4), 0..=3),
        grid in proptest::collection::vec(proptest::collection::vec(any::<u16>(), 0..=2), 0..=2),
    ) {
        let (flag, a, b, c, d, e, f, g) = numbers;
        let one = Capability::from_bytes(cap);
        let points = points.into_iter().map(|(x, y)| probe::Point { x, y }).collect();
        let part = Private { check: amoeba_cap::CheckField::NULL, ..one.private };
        let set = CapabilitySet::from(one);
        let everything = probe::Everything {
            flag, a, b, c, d, e, f, g, name, blob, six, one, part, place: one.port, set, points, words, grid,
        };
        let bytes = everything.to_bytes().unwrap();
        prop_assert_eq!(probe::Everything::from_bytes(&bytes), Ok(everything));
    }
}
