//! Peers that break the rules hurt only themselves.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use amoeba_cap::PutPort;
use amoeba_linux::kernel::{BindError, Config, Daemon};
use amoeba_wire::{DATA_SIZE_MAX, HEADER_SIZE, Header, Status};
use amoeba_world::{Error, TransOptions, Transactions};
use common::{Echo, System, port, request};

/// The protocol spoken by hand.
struct Raw(UnixStream);

impl Raw {
    fn connect(system: &System) -> Raw {
        Raw(UnixStream::connect(&system.path).unwrap())
    }

    /// Says a frame; whether the daemon still listens.
    fn say(&mut self, kind: u8, fixed: &[u8], data: &[u8]) -> bool {
        let length = (fixed.len() + data.len()) as u32;
        let frame = [&length.to_le_bytes()[..], &[kind, 0, 0, 0], fixed, data].concat();
        self.0.write_all(&frame).is_ok()
    }

    /// The next frame: kind, fixed part and data together. `None` when the daemon has closed.
    fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut prefix = [0; 8];
        self.0.read_exact(&mut prefix).ok()?;
        let length = u32::from_le_bytes(*prefix.first_chunk().unwrap());
        let mut rest = vec![0; length as usize];
        self.0.read_exact(&mut rest).ok()?;
        Some((prefix[4], rest))
    }

    fn attach(&mut self) -> [u8; 16] {
        assert!(self.say(1, &5u32.to_le_bytes(), &[]));
        let (kind, fixed) = self.hear().unwrap();
        assert_eq!(kind, 65);
        *fixed.first_chunk().unwrap()
    }

    fn trans_head(port: PutPort) -> Vec<u8> {
        let header = Header { port, command: 2000, ..Header::NULL };
        let mut fixed = vec![0; 32];
        fixed[..8].copy_from_slice(&1_000_000_000u64.to_le_bytes());
        fixed[8..16].copy_from_slice(&u64::MAX.to_le_bytes()); // no deadline
        fixed[16..24].copy_from_slice(&(DATA_SIZE_MAX as u64).to_le_bytes());
        fixed.extend_from_slice(&header.to_bytes(false));
        assert_eq!(fixed.len(), 32 + HEADER_SIZE);
        fixed
    }
}

/// The daemon still does its work.
fn works(system: &System, port: PutPort) {
    let reply = system.client().trans(request(port, vec![1, 2, 3]), &TransOptions::default());
    assert_eq!(reply.unwrap().data, [1, 2, 3]);
}

#[test]
fn garbage_closes_only_its_connection() {
    let system = System::start("garbage");
    let echo = Echo::start(&system, 1, 100);
    let mut attached = Raw::connect(&system);
    attached.attach();
    let mut noise = vec![0; 5000];
    amoeba_linux::entropy().fill(&mut noise);
    noise[4] = 0xEE; // no kind
    for frame in [&noise[..], &[0xFF; 64], &[0; 8], &[1, 0, 0, 0, 1, 0, 0, 0, 9], &[4, 0, 0, 0, 1, 1, 0, 0]] {
        let mut stranger = Raw::connect(&system);
        let _ = stranger.0.write_all(frame);
        assert_eq!(stranger.hear(), None);
    }
    // Legal frames out of turn: GETREQ by a stranger, a second ATTACH, an answer of the kernel.
    let mut stranger = Raw::connect(&system);
    stranger.say(6, &[1; 6], &[]);
    assert_eq!(stranger.hear(), None);
    for (kind, size) in [(1, 4), (2, 16), (66, 0)] {
        let mut member = Raw::connect(&system);
        member.attach();
        member.say(kind, &vec![0; size], &[]);
        assert_eq!(member.hear(), None, "kind {kind}");
    }
    attached.say(10, &[], &[]);
    assert_eq!(attached.hear().unwrap().0, 71);
    works(&system, echo.port);
}

#[test]
fn unknown_cookies_and_versions_are_refused() {
    let system = System::start("cookies");
    let mut raw = Raw::connect(&system);
    raw.say(2, &[7; 16], &[]);
    assert_eq!(raw.hear(), Some((68, vec![1, 0, 0xFE, 0xFF]))); // not sent, RPC_NOTFOUND
    raw.say(1, &9u32.to_le_bytes(), &[]);
    assert_eq!(raw.hear().unwrap().0, 68);
    let cookie = raw.attach();
    let mut second = Raw::connect(&system);
    second.say(2, &cookie, &[]);
    assert_eq!(second.hear(), Some((66, vec![])));
}

#[test]
fn the_daemon_itself_refuses_a_byte_over_the_bound() {
    let system = System::start("over");
    let mut raw = Raw::connect(&system);
    raw.attach();
    let length = (DATA_SIZE_MAX + 1 + 64) as u32;
    raw.0.write_all(&[&length.to_le_bytes()[..], &[3, 0, 0, 0]].concat()).unwrap();
    assert_eq!(raw.hear(), Some((68, vec![1, 0, 0xFD, 0xFF]))); // not sent, RPC_BADADDRESS
    assert_eq!(raw.hear(), None);
}

#[test]
fn a_client_that_dies_while_sending_is_forgotten() {
    let system = System::start("sending");
    let echo = Echo::start(&system, 1, 1 << 20);
    for cut in [3, 8, 20, 64, 70_000] {
        let mut raw = Raw::connect(&system);
        raw.attach();
        let fixed = Raw::trans_head(echo.port);
        let length = (fixed.len() + (1 << 20)) as u32;
        let frame = [&length.to_le_bytes()[..], &[3, 0, 0, 0], &fixed, &[1; 1 << 20]].concat();
        raw.0.write_all(&frame[..cut]).unwrap();
    }
    works(&system, echo.port);
    assert_eq!(echo.served(), 1);
}

#[test]
fn a_client_that_never_reads_hurts_only_itself() {
    let system = System::start("unread");
    let echo = Echo::start(&system, 1, 16 << 20);
    let mut deaf = Raw::connect(&system);
    deaf.attach();
    deaf.say(3, &Raw::trans_head(echo.port), &vec![1; 16 << 20]);
    let mut flood = Raw::connect(&system);
    flood.attach();
    while flood.say(10, &[], &[]) {} // asks and never listens, until the daemon has had enough
    works(&system, echo.port);
    assert_eq!(deaf.hear().unwrap().1.len(), HEADER_SIZE + (16 << 20));
}

#[test]
fn a_second_request_on_one_connection_ends_it() {
    let system = System::start("second");
    let server = system.client();
    let listener = server.listen(&port(3), 100).unwrap();
    let mut raw = Raw::connect(&system);
    raw.attach();
    raw.say(3, &Raw::trans_head(listener.put_port()), &[]);
    let incoming = listener.getreq().unwrap();
    raw.say(3, &Raw::trans_head(listener.put_port()), &[]);
    assert_eq!(raw.hear(), None);
    incoming.reply.send(request(PutPort::NULL, vec![])); // to nobody
    assert_eq!(server.put_port(&port(3)).unwrap(), listener.put_port());
}

#[test]
fn a_connection_that_dies_fails_what_it_was_given() {
    let system = System::start("given");
    let mut server = Raw::connect(&system);
    let cookie = server.attach();
    let mut thread = Raw::connect(&system);
    thread.say(2, &cookie, &[]);
    assert_eq!(thread.hear().unwrap().0, 66);
    server.say(4, &[&[5; 6][..], &[0; 2], &100u64.to_le_bytes()].concat(), &[]);
    let (kind, put) = server.hear().unwrap();
    assert_eq!(kind, 69);
    let put = PutPort::from_bytes(*put.first_chunk().unwrap());
    thread.say(6, &put.to_bytes(), &[]);
    let client = system.client();
    let waiting = std::thread::spawn(move || client.trans(request(put, vec![1]), &TransOptions::default()));
    assert_eq!(thread.hear().unwrap().0, 70);
    drop(thread); // the process lives on
    assert_eq!(waiting.join().unwrap().unwrap_err(), Error::MaybeExecuted(Status::RPC_FAILURE));
    // One that dies before anything was given to it takes nothing with it.
    let mut early = Raw::connect(&system);
    early.say(2, &cookie, &[]);
    assert_eq!(early.hear().unwrap().0, 66);
    early.say(6, &put.to_bytes(), &[]);
    drop(early);
    let client = system.client();
    let waiting = std::thread::spawn(move || client.trans(request(put, vec![2]), &TransOptions::default()));
    server.say(6, &put.to_bytes(), &[]);
    let (kind, asked) = server.hear().unwrap();
    assert_eq!((kind, asked.last()), (70, Some(&2)));
    let reply = [&asked[..8], &Header::NULL.to_bytes(false)].concat();
    server.say(7, &reply, b"yes");
    assert_eq!(waiting.join().unwrap().unwrap().data, b"yes");
    // The process dies: what it was executing fails as well.
    let client = system.client();
    let waiting = std::thread::spawn(move || client.trans(request(put, vec![3]), &TransOptions::default()));
    server.say(6, &put.to_bytes(), &[]);
    assert_eq!(server.hear().unwrap().0, 70);
    drop(server);
    assert_eq!(waiting.join().unwrap().unwrap_err(), Error::MaybeExecuted(Status::RPC_FAILURE));
}

#[test]
fn past_the_bounds_clients_are_told_to_try_again() {
    let system = System::start_with("bounds", |config| {
        config.connections_max = 8;
        config.buffered_max = 4 << 20;
    });
    let echo = Echo::start(&system, 1, 64 << 20);
    let trans = |size: usize| {
        // A process of its own each time, which has no channel yet.
        system
            .client()
            .trans(request(echo.port, vec![1; size]), &TransOptions::default())
            .map(|reply| reply.data.len())
    };
    let again = Err(Error::NotSent(Status::RPC_TRYAGAIN));
    assert_eq!(trans(1 << 20), Ok(1 << 20));
    assert_eq!(trans(32 << 20), again);
    assert_eq!(trans(1 << 20), Ok(1 << 20));
    let crowd: Vec<_> = (0..8).map(|_| Raw::connect(&system)).collect();
    let refused = system.client().trans(request(echo.port, vec![]), &TransOptions::default());
    assert_eq!(refused.map(|reply| reply.data.len()), again);
    drop(crowd);
    assert_eq!(trans(10), Ok(10));
}

#[test]
fn one_socket_has_one_daemon() {
    let system = System::start("one");
    let config = || Config::new(amoeba_cap::SystemSecret::from_bytes([1; 32]), amoeba_linux::entropy());
    let second = Daemon::bind(&system.path, config()).map(drop);
    assert!(
        matches!(second, Err(BindError::InUse { ref pid, .. }) if *pid == std::process::id().to_string()),
        "{second:?}"
    );
    let file = system.path.with_file_name("file");
    std::fs::write(&file, b"precious").unwrap();
    assert!(matches!(Daemon::bind(&file, config()).map(drop), Err(BindError::NotASocket(_))));
    let stale = system.path.with_file_name("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    drop(Daemon::bind(&stale, config()).unwrap());
    assert!(!stale.exists());
    assert!(matches!(
        Daemon::bind("/tmp/kernel.sock".as_ref(), config()).map(drop),
        Err(BindError::Unsafe(_))
    ));
}

#[test]
fn a_long_path_is_no_obstacle() {
    let system = System::start(&format!("long-{}", "x".repeat(150)));
    assert!(system.path.as_os_str().len() > 107);
    let echo = Echo::start(&system, 1, 100);
    works(&system, echo.port);
}
