//! Requests: the operations of `idl/bullet.class` over the store. The original's forms are in `classic`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amoeba_cap::{Capability, CheckField, ObjectNumber, Private, PutPort, Rights, ServerSecret};
use amoeba_server::{AnyObject, Bulk, Call, Object, Objects};
use amoeba_stubs::Client;
use amoeba_stubs::bullet::{
    self, CREATE, CompactReply, FsckReply, IdentityReply, ListReply, MODIFY, PROBLEM_SIZE_MAX, READ,
    READ_SIZE_MAX, ReadWholeReply, UsageReply, WHOLE_SIZE_MAX,
};
use amoeba_stubs::bullet_file::{self, OpenFile};
use amoeba_stubs::standard::{CMD_NTOUCH, CMD_RESTRICT, CMD_TOUCH};
use amoeba_wire::{Command, Status};
use amoeba_world::{Error, TransOptions, World};

use crate::store::{Commit, Compare, Counter, Edit, FileId, MakeMemory, Outcome, Store, StoreError, Whole};
use crate::{admin, classic};

/// The Bullet server of one store.
pub struct BulletServer {
    store: Arc<Store>,
    /// For copies from other servers.
    world: World,
    fetches: AtomicUsize,
}

/// Copies from other servers at once; one more is STD_NOTNOW. So two servers that copy from each other always have
/// threads left to answer each other: [`THREADS_MIN`] is more than this.
const FETCHES_MAX: usize = 2;
/// The fewest threads of a server.
pub(crate) const THREADS_MIN: usize = 4;
/// How long another server may take for one piece of a file that is copied from it; then the copy is given up.
const PIECE_TIME_MAX: Duration = Duration::from_secs(30);
const _: () = assert!(THREADS_MIN > FETCHES_MAX);

impl BulletServer {
    /// The server of `store`.
    pub fn new(world: &World, store: Arc<Store>) -> BulletServer {
        BulletServer { store, world: world.clone(), fetches: AtomicUsize::new(0) }
    }

    /// What it serves.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The file that the request names. Its number may have come to mean another file since the skeleton's check.
    pub(crate) fn file(&self, call: &Call) -> Result<FileId, Status> {
        self.store.verified(&call.capability().private).ok_or(Status::STD_CAPBAD)
    }

    pub(crate) fn make(&self, call: &Call, flags: u16, data: Vec<u8>) -> Result<Capability, Status> {
        let rights = call.rights();
        let is_super = call.capability().object() == ObjectNumber::SUPER;
        let compare = if is_super || !rights.contains(READ) {
            None
        } else {
            Some(Compare { file: self.file(call)?, rights })
        };
        let outcome = self
            .store
            .create(data, commit_of(flags)?, compare, owner_of(call))
            .map_err(StoreError::status)?;
        Ok(self.capability_of(call, outcome))
    }

    pub(crate) fn edit(&self, call: &Call, flags: u16, edit: Edit) -> Result<Capability, Status> {
        let outcome = self
            .store
            .edit(self.file(call)?, edit, commit_of(flags)?, owner_of(call))
            .map_err(StoreError::status)?;
        Ok(self.capability_of(call, outcome))
    }

    pub(crate) fn read_at(&self, call: &Call, offset: u64, size: usize) -> Result<Vec<u8>, Status> {
        self.store.read(self.file(call)?, offset, size).map_err(StoreError::status)
    }

    pub(crate) fn size_of(&self, call: &Call) -> Result<u64, Status> {
        self.store.count_operation(Counter::Size);
        self.store.size(self.file(call)?).map_err(StoreError::status)
    }

    fn capability_of(&self, call: &Call, outcome: Outcome) -> Capability {
        match outcome {
            Outcome::New(file) => self.capability(call.port(), file, Rights::ALL),
            Outcome::Same => *call.capability(),
            Outcome::Equal(file, rights) => self.capability(call.port(), file, rights),
        }
    }

    fn capability(&self, port: PutPort, file: FileId, rights: Rights) -> Capability {
        self.store.secret().capability(port, file.object, rights, file.random)
    }

    /// Fetches a file of another server and keeps it, committed with safety. Nothing is left of half a copy.
    fn fetch(&self, call: &Call, original: &Capability) -> Result<FileId, Status> {
        let owner = owner_of(call);
        let options = piece_options();
        let client = Client::new(&*self.world.transactions, &options);
        let open = bullet_file::open(client, original).map_err(status_of)?;
        let mut file = None;
        let fetched = self.fetch_pieces(client, &open, owner, &mut file);
        if let (Err(_), Some(file)) = (&fetched, file) {
            // Whatever goes wrong here, the sweeper forgets an uncommitted file.
            let _ = self.store.destroy(file);
        }
        fetched
    }

    fn fetch_pieces(
        &self,
        client: Client<'_>,
        original: &OpenFile,
        owner: u64,
        file: &mut Option<FileId>,
    ) -> Result<FileId, Status> {
        let size = original.size();
        let mut offset = 0;
        loop {
            // Several transactions of a piece each are under way, so that the way is seldom empty.
            let mut data = vec![0; (size - offset).min(READ_SIZE_MAX as u64) as usize];
            original.read_at(client, offset, &mut data).map_err(status_of)?;
            let end = offset + data.len() as u64;
            let commit = if end == size { Commit::Disk } else { Commit::Later };
            let outcome = match *file {
                None => self.store.create(data, commit, None, owner),
                Some(file) => self.store.edit(file, Edit::Modify { offset, data }, commit, owner),
            };
            if let Outcome::New(new) = outcome.map_err(StoreError::status)? {
                *file = Some(new);
            }
            if commit == Commit::Disk {
                return Ok(file.expect("the first piece made the file"));
            }
            offset = end;
        }
    }
}

/// When a request wants its file committed. SAFETY without COMMIT only says what is to come; other flags are not known.
fn commit_of(flags: u16) -> Result<Commit, Status> {
    match flags {
        _ if flags & !(bullet::COMMIT | bullet::SAFETY) != 0 => Err(Status::STD_ARGBAD),
        bullet::SAFETY => Ok(Commit::Later),
        _ if flags & bullet::COMMIT == 0 => Ok(Commit::No),
        _ if flags & bullet::SAFETY == 0 => Ok(Commit::Memory),
        _ => Ok(Commit::Disk),
    }
}

/// The account that a request is done for: the signature that its client proved, as a number; 0 for none.
fn owner_of(call: &Call) -> u64 {
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&call.caller().signature.unwrap_or(PutPort::NULL).to_bytes());
    u64::from_le_bytes(bytes)
}

/// How pieces of another server's file are asked for: a server that never answers must not keep a thread for ever.
fn piece_options() -> TransOptions {
    TransOptions { deadline: Some(PIECE_TIME_MAX), ..TransOptions::default() }
}

/// What the client of a copy hears of the transaction with the original's server.
fn status_of(error: Error) -> Status {
    match error {
        Error::Refused(status) if !status.is_rpc() => status,
        Error::BadReply => Status::STD_SYSERR,
        _ => Status::STD_NOTNOW,
    }
}

impl Objects for BulletServer {
    fn secret(&self) -> &ServerSecret {
        self.store.secret()
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        if object == ObjectNumber::SUPER {
            return Some(self.store.super_random());
        }
        self.store.file(object).map(|file| file.random)
    }

    fn verifies(&self, private: &Private) -> bool {
        match private.object {
            ObjectNumber::SUPER => self.store.secret().verifies(private, self.store.super_random()),
            _ => self.store.verified(private).is_some(),
        }
    }

    fn touch(&self, object: ObjectNumber) {
        self.store.touch(object);
    }

    fn performed(&self, command: Command) {
        match command {
            CMD_RESTRICT => self.store.count_operation(Counter::Restrict),
            CMD_TOUCH | CMD_NTOUCH => self.store.count_operation(Counter::Touch),
            _ => {} // the others are counted where they are done
        }
    }

    fn info(&self, object: AnyObject) -> Result<String, Status> {
        self.store.count_operation(Counter::Info);
        if object.is_super() {
            return Ok("bullet server".to_string());
        }
        let file = self.store.file(object.number()).ok_or(Status::STD_CAPBAD)?;
        let size = self.store.size(file).map_err(StoreError::status)?;
        let damage = if self.store.is_damaged(file.object) { ", damaged" } else { "" };
        Ok(format!("- {size:>8} bytes{damage}"))
    }

    fn status(&self, object: AnyObject) -> Result<String, Status> {
        self.store.count_operation(Counter::Status);
        if object.is_super() { Ok(self.store.status()) } else { Err(Status::STD_COMBAD) }
    }

    fn destroy(&self, call: &Call, object: AnyObject) -> Result<(), Status> {
        if object.is_super() {
            return Err(Status::STD_COMBAD);
        }
        self.store.destroy(self.file(call)?).map_err(StoreError::status)
    }

    fn age(&self, _: &Call) -> Result<(), Status> {
        self.store.age().map(drop).map_err(StoreError::status)
    }

    fn copy(&self, call: &Call, _: AnyObject, original: &Capability) -> Result<Capability, Status> {
        let copy = if original.port == call.port() {
            call.admit::<{ READ.bits() }>(self, &original.private)?;
            // The number may have come to mean another file since.
            let file = self.store.verified(&original.private).ok_or(Status::STD_CAPBAD)?;
            self.store.copy(file, owner_of(call)).map_err(StoreError::status)?
        } else {
            self.store.count_operation(Counter::CopyRemote);
            let busy = self.fetches.fetch_add(1, Ordering::Relaxed);
            let fetched =
                if busy < FETCHES_MAX { self.fetch(call, original) } else { Err(Status::STD_NOTNOW) };
            self.fetches.fetch_sub(1, Ordering::Relaxed);
            fetched?
        };
        Ok(self.capability(call.port(), copy, Rights::ALL))
    }
}

/// Reading and editing need both rights: an edit of a committed file is a copy of what it holds.
const EDIT: u8 = READ.bits() | MODIFY.bits();

impl bullet::Serve for BulletServer {
    fn create(
        &self,
        call: &Call,
        _: Object<{ CREATE.bits() }>,
        flags: u16,
        data: Vec<u8>,
    ) -> Result<Capability, Status> {
        self.make(call, flags, data)
    }

    fn create_many(
        &self,
        call: &Call,
        _: Object<{ CREATE.bits() }>,
        flags: u16,
        files: Vec<Vec<u8>>,
    ) -> Result<Vec<Capability>, Status> {
        let durable = match commit_of(flags)? {
            Commit::No | Commit::Later => return Err(Status::STD_ARGBAD),
            Commit::Memory => false,
            Commit::Disk => true,
        };
        let made = self.store.create_many(files, durable, owner_of(call)).map_err(StoreError::status)?;
        Ok(made.into_iter().map(|file| self.capability(call.port(), file, Rights::ALL)).collect())
    }

    fn modify(
        &self,
        call: &Call,
        _: Object<EDIT>,
        flags: u16,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Capability, Status> {
        self.edit(call, flags, Edit::Modify { offset, data })
    }

    fn insert(
        &self,
        call: &Call,
        _: Object<EDIT>,
        flags: u16,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Capability, Status> {
        self.edit(call, flags, Edit::Insert { offset, data })
    }

    fn delete(
        &self,
        call: &Call,
        _: Object<EDIT>,
        flags: u16,
        offset: u64,
        size: u64,
    ) -> Result<Capability, Status> {
        self.edit(call, flags, Edit::Delete { offset, size })
    }

    fn read(&self, call: &Call, _: Object<{ READ.bits() }>, offset: u64, size: u32) -> Result<Bulk, Status> {
        let size = (size as usize).min(READ_SIZE_MAX);
        self.store.read_bulk(self.file(call)?, offset, size).map_err(StoreError::status)
    }

    fn read_small(&self, call: &Call, _: Object<{ READ.bits() }>, size_max: u32) -> Result<Bulk, Status> {
        let (file, size_max) = (self.file(call)?, (size_max as usize).min(READ_SIZE_MAX));
        match self.store.size(file) {
            Ok(size) if size > size_max as u64 => Err(Status::STD_OVERFLOW),
            Ok(size) => self.store.read_bulk(file, 0, size as usize).map_err(StoreError::status),
            Err(error) => Err(error.status()),
        }
    }

    fn read_whole(
        &self,
        call: &Call,
        _: Object<{ READ.bits() }>,
        lend: bool,
    ) -> Result<ReadWholeReply, Status> {
        let make = |bytes: &[u8]| {
            self.world.transactions.memory(bytes.len(), &mut |memory| memory.copy_from_slice(bytes))
        };
        let file = self.file(call)?;
        let make: Option<&MakeMemory> = if lend { Some(&make) } else { None };
        let whole = self.store.read_whole(file, WHOLE_SIZE_MAX as u64, make).map_err(StoreError::status)?;
        Ok(match whole {
            Whole::Small(data) => ReadWholeReply { size: data.len() as u64, ticket: 0, data },
            Whole::Large(size) => ReadWholeReply { size, ticket: 0, data: Vec::new() },
            Whole::Lendable(memory) => {
                // Whoever is on another host, or gone, cannot be lent anything and reads in pieces.
                let ticket = memory.lend(call.caller().process).unwrap_or(0);
                ReadWholeReply { size: memory.bytes().len() as u64, ticket, data: Vec::new() }
            }
        })
    }

    fn size(&self, call: &Call, _: Object<{ READ.bits() }>) -> Result<u64, Status> {
        self.size_of(call)
    }

    fn sync(&self, _: &Call, _: Object<0>) -> Result<(), Status> {
        self.store.sync().map_err(StoreError::status)
    }

    fn fsck(&self, _: &Call, _: Object<255>, repair: bool) -> Result<FsckReply, Status> {
        let check = self.store.check(repair).map_err(StoreError::status)?;
        let text = |problem: String| problem.into_bytes().into_iter().take(PROBLEM_SIZE_MAX).collect();
        Ok(FsckReply {
            file_count: check.file_count,
            size: check.size,
            problem_count: check.problem_count,
            problems: check.problems.into_iter().map(text).collect(),
        })
    }

    fn compact(&self, _: &Call, _: Object<255>) -> Result<CompactReply, Status> {
        admin::compact(&self.store)
    }

    fn usage(&self, _: &Call, _: Object<{ READ.bits() }>) -> Result<UsageReply, Status> {
        Ok(admin::usage(&self.store))
    }

    fn list(&self, _: &Call, _: Object<255>, after: u32) -> Result<ListReply, Status> {
        Ok(admin::list(&self.store, after))
    }

    fn identity(&self, _: &Call, _: Object<255>) -> Result<IdentityReply, Status> {
        Ok(admin::identity(&self.store))
    }

    fn adopt(
        &self,
        _: &Call,
        _: Object<255>,
        get_port: [u8; 6],
        random: [u8; 6],
        secret: [u8; 32],
    ) -> Result<(), Status> {
        admin::adopt(&self.store, get_port, random, secret)
    }

    fn restore(
        &self,
        call: &Call,
        _: Object<255>,
        number: u32,
        random: [u8; 6],
        owner: u64,
        data: Vec<u8>,
    ) -> Result<Capability, Status> {
        admin::restore(&self.store, call, number, random, owner, data)
    }

    fn classic_compact(&self, _: &Call, _: Object<255>) -> Result<(), Status> {
        admin::compact(&self.store).map(drop)
    }

    fn classic_create(
        &self,
        call: &Call,
        _: Object<{ CREATE.bits() }>,
        flags: u16,
        data: Vec<u8>,
    ) -> Result<Capability, Status> {
        self.make(call, flags, data)
    }

    fn classic_delete(
        &self,
        call: &Call,
        _: Object<EDIT>,
        offset: i32,
        flags: u16,
        size: i32,
    ) -> Result<Capability, Status> {
        self.edit(
            call,
            flags,
            Edit::Delete { offset: classic::offset(offset)?, size: classic::offset(size)? },
        )
    }

    fn classic_fsck(&self, _: &Call, _: Object<255>) -> Result<(), Status> {
        self.store.check(true).map(drop).map_err(StoreError::status)
    }

    fn classic_insert(
        &self,
        call: &Call,
        _: Object<EDIT>,
        offset: i32,
        flags: u16,
        data: Vec<u8>,
    ) -> Result<Capability, Status> {
        self.edit(call, flags, Edit::Insert { offset: classic::offset(offset)?, data })
    }

    fn classic_modify(
        &self,
        call: &Call,
        _: Object<EDIT>,
        offset: i32,
        flags: u16,
        data: Vec<u8>,
    ) -> Result<Capability, Status> {
        self.edit(call, flags, Edit::Modify { offset: classic::offset(offset)?, data })
    }

    fn classic_read(
        &self,
        call: &Call,
        _: Object<{ READ.bits() }>,
        offset: i32,
        wanted: u16,
    ) -> Result<Vec<u8>, Status> {
        self.read_at(call, classic::offset(offset)?, usize::from(wanted).min(bullet::CLASSIC_SIZE_MAX))
    }

    fn classic_size(&self, call: &Call, _: Object<{ READ.bits() }>) -> Result<i32, Status> {
        classic::size(self.size_of(call)?)
    }
}
