//! What the skeleton promises: nothing unchecked reaches an operation, and nothing an operation does stops the server.

use std::time::Duration;

use amoeba_cap::{Capability, CheckField, ObjectNumber, Private, Rights};
use amoeba_stubs::standard;
use amoeba_tests_classes::{Probe, basis, probe};
use amoeba_wire::{Command, Header, Status};
use amoeba_world::{Error, Message, TransOptions, World};

fn refused<T>(status: Status) -> Result<T, Error> {
    Err(Error::Refused(status))
}

fn raw(world: &World, header: Header, data: &[u8]) -> Result<Message, Error> {
    world.transactions.trans(Message { header, data: data.to_vec() }, &TransOptions::default())
}

#[test]
fn a_flipped_bit_is_a_bad_capability_and_a_missing_right_is_denied() {
    // Each bit from a process of its own, so that nobody is slowed.
    let (world, _) = amoeba_loopback::two_processes();
    let (running, _, capability) = Probe::start(&world, 2);
    let object = probe::create(&world, &capability).unwrap();
    for bit in [0, 23, 24, 31, 32, 79] {
        let mut private = object.private.to_bytes();
        private[bit / 8] ^= 1 << (bit % 8);
        let forged = Capability { private: Private::from_bytes(private), ..object };
        assert_eq!(probe::classic(&world, &forged, 0, 0, 0), refused(Status::STD_CAPBAD), "bit {bit}");
        assert_eq!(standard::touch(&world, &forged), refused(Status::STD_CAPBAD), "bit {bit}");
    }
    let weak = standard::restrict(&world, &object, u32::from(probe::WRITE.bits())).unwrap();
    assert_eq!(weak.rights(), probe::WRITE);
    assert_eq!(probe::classic(&world, &weak, 0, 0, 0), refused(Status::STD_DENIED));
    assert_eq!(standard::destroy(&world, &weak), refused(Status::STD_DENIED));
    assert_eq!(probe::bulk(&world, &weak, b"data", 0), Ok(b"data".to_vec()));
    running.stop();
}

#[test]
fn restrict_only_shrinks() {
    let world = amoeba_loopback::world();
    let (running, _, capability) = Probe::start(&world, 1);
    let object = probe::create(&world, &capability).unwrap();
    let mut current = object;
    for mask in [0xFFFF_FFFFu32, 0b0111, 0b1110, 0xFF] {
        let next = standard::restrict(&world, &current, mask).unwrap();
        assert_eq!(next.rights(), current.rights() & Rights::from_bits_retain(mask as u8));
        assert_eq!(next.object(), object.object());
        current = next;
    }
    assert_eq!(current.rights().bits(), 0b0110);
    let lifted = Capability { private: Private { rights: Rights::ALL, ..current.private }, ..current };
    assert_eq!(standard::restrict(&world, &lifted, 0xFF), refused(Status::STD_CAPBAD));
    running.stop();
}

#[test]
fn the_capability_is_looked_at_before_rights_kind_and_data() {
    let world = amoeba_loopback::world();
    let (running, probe, capability) = Probe::start(&world, 1);
    let object = probe::create(&world, &capability).unwrap();
    let forged = Capability { private: Private { check: CheckField::NULL, ..object.private }, ..object };
    let weak = standard::restrict(&world, &object, 0).unwrap();
    let status = |capability: &Capability, command: Command, data: &[u8]| {
        raw(&world, Header::request(capability, command), data).unwrap().header.status()
    };
    assert_eq!(status(&forged, probe::CMD_ECHO, b"garbage"), Status::STD_CAPBAD);
    assert_eq!(status(&forged, probe::CMD_CREATE, b""), Status::STD_CAPBAD);
    assert_eq!(status(&weak, probe::CMD_CREATE, b""), Status::STD_COMBAD, "it works on the server itself");
    assert_eq!(status(&weak, probe::CMD_ECHO, b"garbage"), Status::STD_DENIED);
    assert_eq!(status(&object, probe::CMD_ECHO, b"garbage"), Status::STD_ARGBAD);
    assert_eq!(status(&object, probe::CMD_PANICS, b"more than nothing"), Status::STD_ARGBAD);
    assert_eq!(status(&capability, probe::CMD_NOT_ON_SUPER, b""), Status::STD_COMBAD);
    assert_eq!(status(&object, probe::CMD_NOT_ON_SUPER, b""), Status::STD_OK);
    assert_eq!(status(&object, Command(15099), b""), Status::STD_COMBAD);
    assert_eq!(status(&object, Command(2006), b""), Status::STD_COMBAD, "a command of another server");
    assert_eq!(status(&object, Command(0), b""), Status::STD_COMBAD);
    assert_eq!(status(&object, Command(1000), b""), Status::STD_COMBAD, "monitor is not offered");
    assert!(!probe.touched.lock().unwrap().contains_key(&ObjectNumber::MAX));
    running.stop();
}

#[test]
fn a_panic_costs_its_own_client_only() {
    let world = amoeba_loopback::world();
    let (running, _, capability) = Probe::start(&world, 1);
    let maybe = Err(Error::MaybeExecuted(Status::RPC_FAILURE));
    for _ in 0..3 {
        assert_eq!(probe::panics(&world, &capability), maybe);
    }
    assert_eq!(probe::never(&world, &capability), maybe, "a duty to answer that is dropped");
    assert!(standard::status_text(&world, &capability).unwrap().contains("panics 3"));
    running.stop();
}

#[test]
fn a_reply_may_come_later_from_another_thread() {
    let world = amoeba_loopback::world();
    let (running, _, capability) = Probe::start(&world, 1);
    assert_eq!(probe::later(&world, &capability, b"later", b"1234"), Ok(b"late".to_vec()));
    let pair = basis::Pair { left: 1, right: 2 };
    let apart = basis::split(&world, &capability, &pair);
    assert_eq!(apart, Ok(basis::SplitReply { left: 1, right: 2 }));
    running.stop();
}

#[test]
fn only_statuses_of_servers_reach_a_client() {
    let world = amoeba_loopback::world();
    let (running, _, capability) = Probe::start(&world, 1);
    assert_eq!(probe::fails(&world, &capability, -15001), refused(probe::FULL));
    assert_eq!(probe::fails(&world, &capability, Status::RPC_NOTFOUND.0), refused(Status::STD_SYSERR));
    assert_eq!(probe::fails(&world, &capability, 0), refused(Status::STD_SYSERR));
    assert_eq!(probe::fails(&world, &capability, 7), refused(Status::STD_SYSERR));
    assert_eq!(probe::too_long(&world, &capability), refused(Status::STD_OVERFLOW));
    running.stop();
}

#[test]
fn the_standard_operations_do_what_the_manual_says() {
    let world = amoeba_loopback::world();
    let (running, probe, capability) = Probe::start(&world, 2);
    let object = probe::create(&world, &capability).unwrap();
    assert_eq!(standard::info_text(&world, &object).unwrap(), "* probe 1 ff");
    let part = standard::info(&world, &object, 7).unwrap();
    assert_eq!((part.length, part.text.as_slice()), (12, &b"* probe"[..]));
    assert_eq!(standard::status(&world, &object, 100), refused(Status::STD_COMBAD));
    assert_eq!(standard::age(&world, &object), refused(Status::STD_COMBAD), "it works on the server itself");
    assert_eq!(standard::age(&world, &capability), Ok(()));
    assert!(probe.touched.lock().unwrap().is_empty());
    assert_eq!(standard::destroy(&world, &capability), refused(Status::STD_COMBAD), "the class says so");

    let copy = standard::copy(&world, &capability, &object).unwrap();
    assert_ne!(copy.object(), object.object());
    assert_eq!(standard::touch(&world, &copy), Ok(()));
    let parameters = standard::getparams(&world, &capability).unwrap();
    assert_eq!((parameters.count, parameters.parameters[0].value.as_slice()), (1, &b"blue"[..]));
    let red = standard::Setting { name: b"colour".to_vec(), value: b"red".to_vec() };
    assert_eq!(standard::setparams(&world, &capability, 1, &[red]), Ok(()));
    assert_eq!(standard::getparams(&world, &capability).unwrap().parameters[0].value, b"red");

    let before = probe.touched.lock().unwrap()[&object.object()];
    let nobody = Private { object: ObjectNumber::MAX, ..object.private };
    let (touched, last) =
        standard::touch_all(&world, capability.port, &[object.private, nobody, copy.private]);
    assert_eq!((touched, last), (2, refused(Status::STD_CAPBAD)));
    assert_eq!(probe.touched.lock().unwrap()[&object.object()], before + 1);

    assert_eq!(standard::destroy(&world, &object), Ok(()));
    assert_eq!(standard::info_text(&world, &object), refused(Status::STD_CAPBAD));
    running.stop();
}

#[test]
fn the_skeleton_and_the_class_file_of_std_agree() {
    assert_eq!(amoeba_server::NTOUCH_MAX, standard::NTOUCH_MAX);
    assert_eq!(amoeba_server::PARAMETERS_MAX, standard::PARAMETERS_MAX);
    assert_eq!(amoeba_server::TEXT_SIZE_MAX, standard::INFO_SIZE_MAX);
    let parameter_reads = probe::STANDARD.iter().filter(|offered| offered.rights == probe::READ).count();
    assert_eq!((probe::STANDARD.len(), parameter_reads), (10, 2), "status and getparams");
}

#[test]
fn a_capability_in_a_parameter_is_checked_too() {
    let world = amoeba_loopback::world();
    let (running, _, capability) = Probe::start(&world, 1);
    let object = probe::create(&world, &capability).unwrap();
    let nobody = Capability { private: Private::NULL, ..capability };
    assert_eq!(probe::admit(&world, &nobody, &object.private), Ok(object.object().get()));
    let weak = standard::restrict(&world, &object, u32::from(probe::READ.bits())).unwrap();
    assert_eq!(probe::admit(&world, &nobody, &weak.private), refused(Status::STD_DENIED));
    assert_eq!(probe::admit(&world, &nobody, &Private::NULL), refused(Status::STD_CAPBAD));
    running.stop();
}

#[test]
fn who_guesses_is_slowed_and_others_are_not() {
    let (world, other) = amoeba_loopback::two_processes();
    let (running, _, capability) = Probe::start(&world, 4);
    let forged =
        Capability { private: Private { check: CheckField::NULL, ..capability.private }, ..capability };
    // Several clients of one process guess at once; some guesses are turned away unseen.
    let guessers: Vec<_> = (0..4)
        .map(|_| {
            let guesser = other.clone();
            let guess = move || {
                (0..20)
                    .map(|_| standard::touch(&guesser, &forged))
                    .filter(|result| *result != refused(Status::STD_CAPBAD))
                    .collect::<Vec<_>>()
            };
            other.threads.spawn("guesser", guess).unwrap()
        })
        .collect();
    for guesser in guessers {
        let unseen = guesser.join().expect("a guesser ends");
        assert!(unseen.iter().all(|result| *result == refused(Status::STD_NOTNOW)), "{unseen:?}");
    }
    let status = standard::status_text(&world, &capability).unwrap();
    assert!(status.contains("callers remembered 1, worst 2:0:0:0:0:0:0:0 with "), "{status}");
    assert_eq!(standard::touch(&world, &capability), Ok(()), "the innocent are served");
    let slowed = TransOptions { locate_timeout: Duration::ZERO, ..TransOptions::default() };
    let client = amoeba_stubs::Client::new(&*other.transactions, &slowed);
    assert_eq!(standard::touch(client, &capability), Ok(()), "the guilty too, with a good capability");
    running.stop();
}

#[test]
fn a_closed_listener_ends_the_server() {
    let world = amoeba_loopback::world();
    let (running, _, capability) = Probe::start(&world, 3);
    running.stop();
    let gone = Err(Error::NotSent(Status::RPC_NOTFOUND));
    assert_eq!(standard::touch(&world, &capability), gone);
}
