//! A client of Bullet that remembers what was acknowledged to it.
//!
//! The promises it checks: a file committed with safety is there, whole, under its capability and under restricted
//! ones, until it is destroyed; a destroyed file stays destroyed; nothing is ever half there; a forged capability is no
//! capability and one with too few rights is refused as that.

use amoeba_cap::{Capability, CheckField, Private, Rights};
use amoeba_sim::{Place, Prng};
use amoeba_stubs::{bullet, bullet_stream, standard};
use amoeba_wire::Status;
use amoeba_world::{Error, World};

use crate::{Outcome, TRANSACTION_MAX, outcome};

const SIZE_MAX: u64 = 20_000;
/// Three pieces of the largest size.
const READ_MAX: usize = 60_000;

/// What a client knows of a file.
struct File {
    capability: Capability,
    content: Vec<u8>,
    state: FileState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileState {
    /// Acknowledged with safety: it must be there.
    Safe,
    /// Committed without safety, or destroyed perhaps: there and whole, or not there.
    Perhaps,
    /// Destroyed.
    Gone,
}

/// One client thread and its files.
pub struct Files {
    server: Capability,
    random: Prng,
    files: Vec<File>,
}

impl Files {
    /// A client of the Bullet server `server`.
    pub fn new(server: Capability, random: Prng) -> Files {
        Files { server, random, files: Vec::new() }
    }

    /// A random operation, checked.
    pub fn step(&mut self, place: &Place) {
        let world = &place.world;
        let before = world.threads.now();
        let what = self.random.below(14);
        match what {
            0..4 => self.create(world),
            4 => self.create_in_pieces(world),
            5 => self.create_unsafely(world),
            6 => self.derive(world),
            7..10 => self.read_one(world),
            10 => self.destroy_one(world),
            11 => self.restrict_one(world),
            12 => self.compact(world),
            _ => self.forge(world),
        }
        let took = world.threads.now() - before;
        assert!(took <= TRANSACTION_MAX * 10, "operation {what} took {took:?}");
    }

    fn content(&mut self) -> Vec<u8> {
        let size = match self.random.below(10) {
            0 => 0,
            1 => self.random.between(0, SIZE_MAX),
            _ => self.random.between(1, 2000),
        };
        self.random.bytes(size as usize)
    }

    /// The capability of a new file, unless it was refused for a reason that a server may have, or lost on the way.
    fn made(&self, result: Result<Capability, Error>) -> Option<Capability> {
        match outcome(result) {
            Outcome::Done(capability) => Some(capability),
            Outcome::NotDone(None | Some(Status::STD_NOSPACE | Status::STD_NOMEM)) => None,
            Outcome::NotDone(Some(status)) => panic!("no reason to refuse a file: {status}"),
            Outcome::Unknown => None, // perhaps there is now a file that nobody knows
        }
    }

    fn remember(&mut self, capability: Option<Capability>, content: Vec<u8>, state: FileState) {
        if let Some(capability) = capability {
            self.files.push(File { capability, content, state });
        }
    }

    fn create(&mut self, world: &World) {
        let content = self.content();
        let flags = bullet::COMMIT | bullet::SAFETY;
        let result = bullet::create(world, &self.server, flags, content.clone());
        let capability = self.made(result);
        self.remember(capability, content, FileState::Safe);
    }

    fn create_unsafely(&mut self, world: &World) {
        let content = self.content();
        let result = bullet::create(world, &self.server, bullet::COMMIT, content.clone());
        let Some(capability) = self.made(result) else { return };
        let synced = self.random.chance(500) && bullet::sync(world, &self.server).is_ok();
        // It is safe only if no crash came between; a read after the sync tells.
        let whole = synced && bullet_stream::read_whole(world, &capability, READ_MAX).is_ok();
        let state = if whole { FileState::Safe } else { FileState::Perhaps };
        self.remember(Some(capability), content, state);
    }

    /// An uncommitted file lives in the server's memory only: any step may find it gone.
    fn create_in_pieces(&mut self, world: &World) {
        let pieces = [self.content(), self.content(), self.content()];
        let result = bullet::create(world, &self.server, 0, pieces[0].clone());
        let Some(mut draft) = self.made(result) else { return };
        let mut content = pieces[0].clone();
        for (index, piece) in pieces.iter().enumerate().skip(1) {
            let last = index + 1 == pieces.len();
            let flags = if last { bullet::COMMIT | bullet::SAFETY } else { 0 };
            match outcome(bullet::modify(world, &draft, flags, content.len() as u64, piece.clone())) {
                Outcome::Done(same) => draft = same,
                Outcome::NotDone(_) | Outcome::Unknown => return,
            }
            content.extend_from_slice(piece);
        }
        self.remember(Some(draft), content, FileState::Safe);
    }

    /// A new version of a committed file; the old one stays as it is.
    fn derive(&mut self, world: &World) {
        let Some(index) = self.draw() else { return };
        let (capability, mut content) = (self.files[index].capability, self.files[index].content.clone());
        if self.files[index].state != FileState::Safe {
            return;
        }
        let piece = self.content();
        let at = self.random.between(0, content.len() as u64) as usize;
        let flags = bullet::COMMIT | bullet::SAFETY;
        let insert = self.random.chance(500) && !piece.is_empty();
        let result = if insert {
            bullet::insert(world, &capability, flags, at as u64, piece.clone())
        } else {
            bullet::modify(world, &capability, flags, at as u64, piece.clone())
        };
        let Some(made) = self.made(result) else { return };
        let end = if insert { at } else { content.len().min(at + piece.len()) };
        content.splice(at..end, piece);
        if content.len() as u64 > SIZE_MAX {
            let _ = standard::destroy(world, &made);
        } else if made != capability {
            self.remember(Some(made), content, FileState::Safe);
        }
    }

    fn draw(&mut self) -> Option<usize> {
        let count = self.files.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }

    fn read_one(&mut self, world: &World) {
        if let Some(index) = self.draw() {
            let file = &self.files[index];
            check(file, &bullet_stream::read_whole(world, &file.capability, READ_MAX));
        }
    }

    fn destroy_one(&mut self, world: &World) {
        let Some(index) = self.draw() else { return };
        let file = &mut self.files[index];
        let before = file.state;
        file.state = match outcome(standard::destroy(world, &file.capability)) {
            Outcome::Done(()) => {
                assert!(before != FileState::Gone, "a file was destroyed twice");
                FileState::Gone
            }
            Outcome::NotDone(Some(Status::STD_CAPBAD)) if before != FileState::Safe => FileState::Gone,
            Outcome::NotDone(None) => before,
            Outcome::NotDone(Some(status)) => panic!("a {before:?} file cannot be destroyed: {status}"),
            Outcome::Unknown if before == FileState::Gone => before,
            Outcome::Unknown => FileState::Perhaps,
        };
    }

    fn restrict_one(&mut self, world: &World) {
        let Some(index) = self.draw() else { return };
        let file = &self.files[index];
        let reader =
            match outcome(standard::restrict(world, &file.capability, u32::from(bullet::READ.bits()))) {
                Outcome::Done(reader) => reader,
                Outcome::NotDone(Some(status)) if file.state == FileState::Safe => {
                    panic!("a capability of a file that is there cannot be restricted: {status}")
                }
                _ => return,
            };
        assert_eq!(reader.rights(), bullet::READ);
        check(file, &bullet_stream::read_whole(world, &reader, READ_MAX));
        match outcome(standard::destroy(world, &reader)) {
            Outcome::Done(()) => panic!("who may only read destroyed a file"),
            Outcome::NotDone(Some(Status::STD_DENIED)) | Outcome::NotDone(None) | Outcome::Unknown => {}
            Outcome::NotDone(Some(Status::STD_CAPBAD)) if file.state != FileState::Safe => {}
            Outcome::NotDone(Some(status)) => panic!("{status} is not how a right is missed"),
        }
    }

    /// Files move to other places while others read, destroy and crash.
    fn compact(&self, world: &World) {
        match outcome(bullet::compact(world, &self.server)) {
            Outcome::Done(_) | Outcome::Unknown => {}
            // Another client is at it already.
            Outcome::NotDone(None | Some(Status::STD_NOTNOW | Status::STD_NOSPACE)) => {}
            Outcome::NotDone(Some(status)) => panic!("no reason to refuse a compaction: {status}"),
        }
    }

    /// More rights, or another check field: no capability at all.
    fn forge(&mut self, world: &World) {
        let Some(index) = self.draw() else { return };
        let mut capability = self.files[index].capability;
        let mut check = capability.private.check.to_bytes();
        check[self.random.below(6) as usize] ^= 1 << self.random.below(8);
        let rights =
            if self.random.chance(500) { capability.private.rights } else { Rights::from_bits_retain(3) };
        capability.private = Private { check: CheckField::from_bytes(check), rights, ..capability.private };
        match outcome(bullet::size(world, &capability)) {
            Outcome::NotDone(None | Some(Status::STD_CAPBAD)) | Outcome::Unknown => {}
            other => panic!("a forged capability gave {other:?}"),
        }
    }

    /// When every harm has ended: everything acknowledged is there, and nothing destroyed. Counts what is there.
    pub fn check_all(&self, place: &Place) -> usize {
        let mut there = 0;
        for file in &self.files {
            let result = bullet_stream::read_whole(&place.world, &file.capability, READ_MAX);
            let heard = matches!(result, Ok(_) | Err(Error::Refused(_)));
            assert!(heard, "after every harm has ended a file is read: {result:?}");
            check(file, &result);
            there += usize::from(result.is_ok());
        }
        there
    }

    /// Files ever acknowledged.
    pub fn count(&self) -> usize {
        self.files.len()
    }
}

/// Whether this answer to a read may be.
fn check(file: &File, result: &Result<Vec<u8>, Error>) {
    match (result, file.state) {
        (Ok(content), FileState::Safe | FileState::Perhaps) => {
            assert!(*content == file.content, "{:?} is not what it was", file.capability);
        }
        (Err(Error::Refused(Status::STD_CAPBAD)), FileState::Perhaps | FileState::Gone) => {}
        (Err(Error::NotSent(_) | Error::MaybeExecuted(_)), _) => {}
        (Ok(_), FileState::Gone) => panic!("{:?} was destroyed and is there", file.capability),
        (Err(error), state) => {
            panic!("{:?}, {state:?}, {} bytes: {error}", file.capability, file.content.len())
        }
    }
}
