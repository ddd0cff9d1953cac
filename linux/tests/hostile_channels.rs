//! Clients and servers of channels that break the rules hurt only themselves.

mod common;

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_channel::{HEAD_OFFSET, RING_OFFSET, RING_SIZE_DEFAULT, Word, region_size};
use amoeba_linux::kernel::CHANNELS_PER_CLIENT_MAX;
use amoeba_wire::{HEADER_SIZE, Header, Status};
use amoeba_world::{Message, TransOptions, Transactions};
use common::{Echo, System, port, request};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType, connect, recvmsg, sendmsg, socket,
};

const INTRODUCE: u8 = 14;
const ACCEPT: u8 = 15;
const CHANNEL: u8 = 75;
const INTRODUCED: u8 = 74;

/// The protocol spoken by hand, with descriptors.
struct Raw(OwnedFd);

impl Raw {
    fn attach(system: &System) -> (Raw, [u8; 16]) {
        let raw = Raw::connect(system);
        assert!(raw.say(1, &5u32.to_le_bytes(), &[]));
        let (kind, fixed, _) = raw.hear().unwrap();
        assert_eq!(kind, 65);
        (raw, *fixed.first_chunk().unwrap())
    }

    fn join(system: &System, cookie: [u8; 16]) -> Raw {
        let raw = Raw::connect(system);
        assert!(raw.say(2, &cookie, &[]));
        assert_eq!(raw.hear().unwrap().0, 66);
        raw
    }

    fn connect(system: &System) -> Raw {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(&system.path).unwrap()).unwrap();
        Raw(socket)
    }

    fn say(&self, kind: u8, fixed: &[u8], descriptors: &[BorrowedFd<'_>]) -> bool {
        let frame = [&(fixed.len() as u32).to_le_bytes()[..], &[kind, 0, 0, 0], fixed].concat();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        sendmsg(&self.0, &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL).is_ok()
    }

    /// The next frame and its descriptors; `None` when the daemon has closed.
    fn hear(&self) -> Option<(u8, Vec<u8>, Vec<OwnedFd>)> {
        let mut bytes = vec![0; 1 << 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
                .ok()
                .filter(|received| received.bytes > 0)?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        bytes.truncate(received.bytes);
        Some((bytes[4], bytes.split_off(8), descriptors))
    }

    fn introduce(&self, port: PutPort, region: &OwnedFd) -> Option<(u8, Vec<u8>, Vec<OwnedFd>)> {
        self.say(INTRODUCE, &introduce(port), &[region.as_fd()]).then(|| self.hear()).flatten()
    }
}

fn introduce(port: PutPort) -> Vec<u8> {
    [&[0; 8][..], &port.to_bytes(), &[0; 2]].concat()
}

/// A region that this test writes as it likes.
struct Region {
    file: OwnedFd,
    start: *mut u8,
}

// SAFETY: the mapping is written through raw pointers only, by whoever likes to.
unsafe impl Send for Region {}

impl Region {
    fn new() -> Region {
        let size = region_size(RING_SIZE_DEFAULT);
        let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, size as u64).unwrap();
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the system chooses a place that nothing else uses.
        let start = unsafe { mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, &file, 0) };
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).unwrap();
        Region { file, start: start.unwrap().cast() }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= region_size(RING_SIZE_DEFAULT));
        for (index, &byte) in bytes.iter().enumerate() {
            // SAFETY: it lies within the mapping, as was just checked.
            unsafe { self.start.add(offset + index).write_volatile(byte) }
        }
    }

    fn set(&self, word: Word, value: u64) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.write(word.offset(), &value.to_ne_bytes());
    }

    /// Announces the first request: so many bytes of data, of which so many are there.
    fn request(&self, size: u32, there: u64) {
        let header = Header { command: 2000, ..Header::NULL }.to_bytes(false);
        assert_eq!(header.len(), HEADER_SIZE);
        let reply_size_max = (1u64 << 30).to_le_bytes();
        let head = [&1u32.to_le_bytes()[..], &size.to_le_bytes(), &reply_size_max, &header].concat();
        self.write(HEAD_OFFSET, &head);
        self.set(Word::Produced, 1 << 32 | there);
    }
}

/// A client by hand that has a channel to `port`: its region, and what it rings with.
fn channel(system: &System, port: PutPort) -> (Raw, Region, OwnedFd, Vec<OwnedFd>) {
    let (raw, _) = Raw::attach(system);
    let region = Region::new();
    for _ in 0..1000 {
        let (kind, _, mut descriptors) = raw.introduce(port, &region.file).unwrap();
        if kind == CHANNEL {
            let rope = descriptors.pop().unwrap();
            return (raw, region, rope, descriptors);
        }
    }
    panic!("no channel has come");
}

fn works(system: &System, port: PutPort) {
    let client = system.client();
    for number in 0..20u8 {
        let reply = client.trans(request(port, vec![number]), &TransOptions::default());
        assert_eq!(reply.unwrap().data, [number]);
    }
}

#[test]
fn ten_thousand_introductions_are_cut_off_with_an_error() {
    let system = System::start("ten-thousand");
    let echo = Echo::start(&system, 1, 100);
    let (raw, _) = Raw::attach(&system);
    let region = Region::new();
    let (mut channels, mut refused) = (Vec::new(), 0);
    for _ in 0..10_000 {
        match raw.introduce(echo.port, &region.file).unwrap() {
            (CHANNEL, _, descriptors) => channels.push(descriptors),
            (68, fixed, descriptors) => {
                assert_eq!(fixed, [1, 0, 0xFB, 0xFF], "not sent, RPC_TRYAGAIN");
                assert!(descriptors.is_empty());
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(channels.len() <= CHANNELS_PER_CLIENT_MAX && refused >= 10_000 - CHANNELS_PER_CLIENT_MAX);
    works(&system, echo.port);
}

#[test]
fn descriptors_out_of_place_end_their_connection_and_are_closed() {
    let system = System::start("out-of-place");
    let echo = Echo::start(&system, 1, 100);
    works(&system, echo.port);
    let region = Region::new();
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let unsealed = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    let right = introduce(echo.port);
    let (one, two) = (region.file.as_fd(), null.as_fd());
    let cases: [(u8, &[u8], Vec<BorrowedFd<'_>>); 8] = [
        (INTRODUCE, &right, vec![]),
        (INTRODUCE, &right, vec![two]),
        (INTRODUCE, &right, vec![unsealed.as_fd()]),
        (INTRODUCE, &right, vec![one, one]),
        (INTRODUCE, &right, vec![one, two, one, two, one]),
        (10, &[], vec![one]),
        (ACCEPT, &[7; 8], vec![]),
        (ACCEPT, &[7; 8], vec![two]),
    ];
    for (kind, fixed, descriptors) in cases {
        let (raw, _) = Raw::attach(&system);
        assert!(raw.say(kind, fixed, &descriptors));
        // What was answered before the descriptor was seen does not matter.
        let end = std::iter::from_fn(|| raw.hear()).take(3).count();
        assert!(end < 3, "kind {kind} with {} descriptors", descriptors.len());
    }
    // An acceptance that nobody waits for is too late, no crime; its region is closed.
    let (raw, _) = Raw::attach(&system);
    assert!(raw.say(ACCEPT, &[7; 8], &[one]));
    assert!(raw.say(10, &[], &[]));
    assert_eq!(raw.hear().unwrap().0, 71);
    works(&system, echo.port);
}

#[test]
fn a_server_that_never_accepts_holds_nobody() {
    let system = System::start("never-accepts");
    let (control, cookie) = Raw::attach(&system);
    assert!(control.say(4, &[&[9; 6][..], &[0; 2], &100u64.to_le_bytes()].concat(), &[]));
    let (kind, put, _) = control.hear().unwrap();
    assert_eq!(kind, 69);
    let put = PutPort::from_bytes(*put.first_chunk().unwrap());
    let client = system.client();
    let waiting = std::thread::spawn(move || {
        let trans = || client.trans(request(put, vec![]), &TransOptions::default());
        (0..3).map(|_| trans().map(|reply| reply.header.status())).collect::<Vec<_>>()
    });
    let thread = Raw::join(&system, cookie);
    let (mut served, mut introduced) = (0, 0);
    while served < 3 {
        assert!(thread.say(6, &put.to_bytes(), &[]));
        match thread.hear().unwrap() {
            (INTRODUCED, _, descriptors) => {
                assert_eq!(descriptors.len(), 3);
                introduced += 1;
            }
            (70, fixed, _) => {
                let reply = [&fixed[..8], &Header::NULL.to_bytes(false)].concat();
                assert!(thread.say(7, &reply, &[]));
                served += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(introduced > 0);
    assert_eq!(waiting.join().unwrap(), [Ok(Status::STD_OK); 3]);
}

#[test]
fn a_client_that_scribbles_hurts_only_itself() {
    let system = System::start("scribbles");
    let echo = Echo::start(&system, 2, 1 << 20);
    let scribblers: Vec<_> = (0..4u64)
        .map(|number| {
            let (raw, region, rope, others) = channel(&system, echo.port);
            std::thread::spawn(move || {
                let mut state = 0x9E37_79B9_7F4A_7C15 ^ (number + 1);
                let mut next = || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state
                };
                if number % 2 == 0 {
                    region.request(64 << 10, 32 << 10); // begin like an honest one
                }
                for _ in 0..3000 {
                    let word = [Word::Produced, Word::Consumed, Word::Sleeping, Word::Taken, Word::Withdrawn];
                    region.set(word[next() as usize % 5], next() >> (next() % 64));
                    let offset = next() as usize % (RING_OFFSET + 4096);
                    region.write(offset, &next().to_ne_bytes());
                    let _ = rustix::io::write(&rope, &[1]);
                }
                drop((raw, others));
            })
        })
        .collect();
    for _ in 0..20 {
        works(&system, echo.port);
    }
    for scribbler in scribblers {
        scribbler.join().unwrap();
    }
    works(&system, echo.port);
}

#[test]
fn a_request_that_stops_half_way_holds_no_thread() {
    let system = System::start("half-way");
    let echo = Echo::start(&system, 1, 1 << 20);
    let stopped: Vec<_> = (0..4)
        .map(|_| {
            let channel = channel(&system, echo.port);
            channel.1.request(1 << 20, 40_000);
            rustix::io::write(&channel.2, &[1]).unwrap();
            channel
        })
        .collect();
    for _ in 0..5 {
        works(&system, echo.port);
    }
    drop(stopped);
    works(&system, echo.port);
}

#[test]
fn a_reply_that_is_not_taken_holds_its_thread_for_a_moment_only() {
    let system = System::start("not-taken");
    let server = system.client();
    let listener = server.listen(&port(1), 100).unwrap();
    let put = listener.put_port();
    let serving = std::thread::spawn({
        let listener = listener.clone();
        move || {
            while let Ok(incoming) = listener.getreq() {
                let data =
                    if incoming.request.data.is_empty() { vec![5; 8 << 20] } else { incoming.request.data };
                incoming.reply.send(Message { header: Header::NULL, data });
            }
        }
    });
    let deaf: Vec<_> = (0..3)
        .map(|_| {
            let channel = channel(&system, put);
            channel.1.request(0, 0);
            rustix::io::write(&channel.2, &[1]).unwrap();
            channel
        })
        .collect();
    for _ in 0..3 {
        works(&system, put);
    }
    // An honest client takes replies of the same size.
    let client = system.client();
    for _ in 0..5 {
        let reply = client.trans(request(put, vec![]), &TransOptions::default()).unwrap();
        assert!(reply.data == vec![5; 8 << 20]);
    }
    drop(deaf);
    std::thread::sleep(Duration::from_millis(10));
    works(&system, put);
    listener.close();
    serving.join().unwrap();
}
