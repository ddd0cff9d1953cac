//! Reading a file of which there are several copies, whose servers fail where the test says.

use std::collections::BTreeMap;
use std::sync::Mutex;

use amoeba_cap::{Capability, CapabilitySet, GetPort, PutPort};
use amoeba_stubs::bullet::{CMD_READ, CMD_READ_WHOLE, CMD_SIZE, WHOLE_SIZE_MAX};
use amoeba_stubs::bullet_stream::{PIECE_SIZE, StreamError, read_set};
use amoeba_wire::{Header, Status};
use amoeba_world::{Error, Listener, Message, TransOptions, Transactions};
use proptest::prelude::*;

/// How a server with a copy behaves.
#[derive(Clone, Debug)]
struct Copy {
    contents: Vec<u8>,
    /// Requests that it answers before it fails.
    answers: usize,
    /// What a client hears then.
    failure: Error,
    /// Requests after which it is there again.
    back_after: usize,
    /// Whether it does not know what the original's server did not.
    classic: bool,
}

impl Copy {
    fn of(contents: &[u8]) -> Copy {
        let contents = contents.to_vec();
        Copy { contents, answers: usize::MAX, failure: LOST, back_after: usize::MAX, classic: false }
    }

    fn answering(self, answers: usize, failure: Error) -> Copy {
        Copy { answers, failure, ..self }
    }
}

const LOST: Error = Error::MaybeExecuted(Status::RPC_FAILURE);
const NOBODY: Error = Error::NotSent(Status::RPC_NOTFOUND);

/// Servers by the first byte of their port, and how often each was asked.
struct Servers(Mutex<BTreeMap<u8, (Copy, usize)>>);

impl Servers {
    fn new(copies: &[Copy]) -> (Servers, CapabilitySet) {
        let mut set = CapabilitySet::default();
        let mut servers = BTreeMap::new();
        for (number, copy) in (1..).zip(copies) {
            set.push(Capability::from_bytes([number; 16])).expect("few copies");
            servers.insert(number, (copy.clone(), 0));
        }
        (Servers(Mutex::new(servers)), set)
    }
}

impl Transactions for Servers {
    fn trans(&self, request: Message, _: &TransOptions) -> Result<Message, Error> {
        let mut servers = self.0.lock().unwrap();
        let (copy, asked) =
            servers.get_mut(&request.header.port.to_bytes()[0]).expect("a server of the test");
        *asked += 1;
        if *asked > copy.answers && *asked <= copy.answers.saturating_add(copy.back_after) {
            return Err(copy.failure);
        }
        let size = copy.contents.len();
        let data = match request.header.command() {
            CMD_SIZE => (size as u64).to_le_bytes().to_vec(),
            CMD_READ_WHOLE if copy.classic => return Ok(Message::status(Status::STD_COMBAD)),
            CMD_READ_WHOLE => {
                let whole = if size <= WHOLE_SIZE_MAX { &copy.contents[..] } else { &[] };
                [&(size as u64).to_le_bytes()[..], &[0; 8], whole].concat()
            }
            CMD_READ => {
                let offset = u64::from_le_bytes(request.data[..8].try_into().unwrap()) as usize;
                let wanted = u32::from_le_bytes(request.data[8..12].try_into().unwrap()) as usize;
                copy.contents[offset..size.min(offset + wanted)].to_vec()
            }
            other => panic!("{other:?} is not how a file is read"),
        };
        Ok(Message { header: Header::reply(Status::STD_OK), data })
    }

    fn listen(&self, _: &GetPort, _: usize) -> Result<Listener, Error> {
        Err(NOBODY)
    }

    fn put_port(&self, _: &GetPort) -> Result<PutPort, Error> {
        Err(NOBODY)
    }
}

fn read(copies: &[Copy]) -> (Result<u64, StreamError>, Vec<u8>) {
    let (servers, set) = Servers::new(copies);
    let mut bytes = Vec::new();
    (read_set(&servers, &set, &mut bytes), bytes)
}

fn contents(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 7 + index / 251) as u8).collect()
}

#[test]
fn reading_goes_on_where_a_server_died() {
    let file = contents(3 * PIECE_SIZE + 5);
    for answers in 0..6 {
        for failure in [LOST, NOBODY, Error::Refused(Status::STD_SYSERR)] {
            let (size, bytes) = read(&[Copy::of(&file).answering(answers, failure), Copy::of(&file)]);
            assert_eq!(size.expect("the second copy is whole"), file.len() as u64);
            assert!(bytes == file, "after {answers} answers, {failure}");
        }
    }
}

#[test]
fn a_server_that_is_gone_is_searched_for_once() {
    let file = contents(6 * PIECE_SIZE);
    let (servers, set) = Servers::new(&[Copy::of(&file).answering(2, NOBODY)]);
    let mut bytes = Vec::new();
    let result = read_set(&servers, &set, &mut bytes);
    assert!(matches!(result, Err(StreamError::Server(NOBODY))), "{result:?}");
    assert!(bytes == file[..PIECE_SIZE], "what came before is not lost");
    assert_eq!(
        servers.0.lock().unwrap()[&1].1,
        3,
        "one request for the size, one for a piece, and one in vain"
    );
}

#[test]
fn a_server_that_gives_no_whole_files_is_read_in_pieces() {
    for size in [0, 5, 2 * PIECE_SIZE + 1] {
        let file = contents(size);
        let (read, bytes) = read(&[Copy { classic: true, ..Copy::of(&file) }]);
        assert_eq!(read.expect("it can be read"), size as u64);
        assert!(bytes == file);
    }
}

#[test]
fn a_copy_of_something_else_does_not_continue_a_file() {
    let file = contents(2 * PIECE_SIZE);
    let other = Copy::of(&file[1..]);
    let (result, bytes) = read(&[Copy::of(&file).answering(2, LOST), other.clone()]);
    assert!(matches!(result, Err(StreamError::Server(LOST))), "{result:?}");
    assert!(bytes == file[..PIECE_SIZE]);
    // Before the first byte nobody knows which is right.
    assert!(read(&[Copy::of(&file).answering(1, LOST), other]).1 == file[1..]);
}

#[test]
fn what_every_server_would_refuse_is_asked_of_one() {
    for status in [Status::STD_DENIED, Status::STD_COMBAD] {
        let refusing = Copy::of(b"").answering(0, Error::Refused(status));
        let (result, _) = read(&[refusing, Copy::of(b"secret")]);
        assert!(matches!(result, Err(StreamError::Server(Error::Refused(s))) if s == status), "{result:?}");
    }
}

#[test]
fn a_server_that_may_come_back_counts_more_than_one_that_refused() {
    let destroyed = Copy::of(b"").answering(0, Error::Refused(Status::STD_CAPBAD));
    let away = Copy::of(b"").answering(0, NOBODY);
    for copies in [[destroyed.clone(), away.clone()], [away, destroyed.clone()]] {
        let (result, _) = read(&copies);
        assert!(matches!(result, Err(StreamError::Server(NOBODY))), "{result:?}");
    }
    let (result, _) = read(&[destroyed.clone(), destroyed]);
    assert!(matches!(result, Err(StreamError::Server(Error::Refused(Status::STD_CAPBAD)))), "{result:?}");
    assert!(matches!(read(&[]).0, Err(StreamError::Server(Error::NotSent(_)))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever fails: what was written is the beginning of the file, and the whole file when it says so.
    #[test]
    fn nothing_but_the_file_is_written(
        size in 0..4 * PIECE_SIZE,
        lives in prop::collection::vec((0..8_usize, 1..6_usize), 2..5),
    ) {
        let file = contents(size);
        let copy = |&(answers, back_after): &(usize, usize)| Copy {
            back_after,
            ..Copy::of(&file).answering(answers, NOBODY)
        };
        let (result, bytes) = read(&lives.iter().map(copy).collect::<Vec<_>>());
        prop_assert!(file.starts_with(&bytes));
        if let Ok(size) = result {
            prop_assert_eq!(size as usize, file.len());
            prop_assert!(bytes == file);
        }
    }
}
