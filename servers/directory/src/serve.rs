//! Requests: the operations of `idl/directory.class` over the store. The original's forms are in `classic`.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{
    Capability, CapabilitySet, CheckField, ObjectNumber, Private, PutPort, Rights, ServerSecret,
};
use amoeba_server::{AnyObject, Call, Object, Objects, Pending, Running};
use amoeba_stubs::directory::{
    self, ChangesReply, ClassicGetseqnrReply, ClassicInstallRow, ClassicListReply, ClassicLookupReply,
    ClassicRowName, DescribeReply, ExportReply, InstallRow, ListFullReply, ListReply, LookupReply,
    RECOVER_MAX, RecoverReply, RowFound, RowName, UsageReply,
};
use amoeba_stubs::{Client, standard};
use amoeba_threads::SpawnError;
use amoeba_wire::Status;
use amoeba_world::{Disk, Error, TransOptions, World};

use crate::checkpoint;
use crate::classic;
use crate::guarded::Guarded;
use crate::listing::{self, Exports};
use crate::memory::{Look, Stop};
use crate::restrict::Restrictor;
use crate::row::{COLUMNS_MAX, DELETE, Directory, MODIFY, Masks, Name, Row};
use crate::store::{Options, Store, StoreError};
use crate::update::{Install, Outcome, Refusal, Rename, Update};
use crate::walk::{admit, walk};

/// How long another server is searched for when one of its capabilities must be restricted.
const RESTRICT_LOCATE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const RESTRICT_TIME_MAX: Duration = Duration::from_secs(10);
/// Directories that one recovery looks at.
const RECOVER_SCAN_MAX: u32 = 20_000;

/// Why a directory server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its disks cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel does not let it listen.
    #[error("cannot listen: {0}")]
    Listen(Error),
    /// No room for its threads.
    #[error(transparent)]
    Threads(#[from] SpawnError),
}

/// Recovers the service on these disks and serves it on `threads` threads. Returns once requests are taken.
///
/// # Errors
/// See [`StartError`].
pub fn start(
    world: &World,
    tables: Arc<dyn Disk>,
    log: Arc<dyn Disk>,
    options: Options,
    threads: usize,
) -> Result<Running, StartError> {
    let store = Arc::new(Store::open(world, tables, log, options)?);
    checkpoint::attend(&store)?;
    let port = store.identity().get_port.clone();
    let server = Arc::new(DirectoryServer::new(store, threads));
    let listener =
        world.transactions.listen(&port, directory::REQUEST_SIZE_MAX).map_err(StartError::Listen)?;
    Ok(directory::start(world, listener, server, threads)?)
}

/// The directory server of one store.
pub struct DirectoryServer {
    store: Arc<Store>,
    restrictor: Arc<Restrictor>,
    exports: Exports,
}

impl DirectoryServer {
    /// The server of `store`, to be served on `threads` threads.
    pub fn new(store: Arc<Store>, threads: usize) -> DirectoryServer {
        let world = store.world().clone();
        let restrictor = Restrictor::new(
            &store.world().threads,
            threads,
            Box::new(move |capability, mask| ask_server(&world, capability, mask)),
        );
        DirectoryServer { store, restrictor: Arc::new(restrictor), exports: Exports::default() }
    }

    /// What it serves.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What takes rights from what is found.
    pub(crate) fn restrictor(&self) -> &Restrictor {
        &self.restrictor
    }

    /// The directory that `private` names now.
    pub(crate) fn admit(&self, private: &Private) -> Result<Arc<Guarded>, Refusal> {
        self.store.look(|look| Ok(admit(&self.store, look, private)?.clone()))
    }

    /// The directory the request names.
    pub(crate) fn admitted(&self, call: &Call) -> Result<Arc<Guarded>, Refusal> {
        self.admit(&call.capability().private)
    }

    /// A row of the directory the request names.
    pub(crate) fn row(&self, call: &Call, name: &[u8]) -> Result<(Row, Arc<Guarded>), Refusal> {
        let name = good_name(name)?;
        let private = &call.capability().private;
        self.store.look(|look| {
            let directory = admit(&self.store, look, private)?;
            let row = look.row_bytes(private.object, name.as_bytes())?;
            let row = row.bytes().ok_or(Refusal::NotFound)?;
            Ok((Row::from_bytes(row).map_err(|_| Refusal::Damaged)?, directory.clone()))
        })
    }

    /// Walks a path: how many of its bytes were used, and the row at the end with the set as the caller may have it.
    pub(crate) fn find(&self, call: &Call, path: &[u8]) -> Result<(usize, Row), Refusal> {
        let found = self.store.look(|look| walk(&self.store, look, &call.capability().private, path))?;
        if self.restrictor.is_covered(&found.row.set, found.mask) {
            return Ok((found.used, found.row));
        }
        let set = self.restrictor.restrict_set(&self.store, &found.row.set, found.mask)?;
        Ok((found.used, Row { set, ..found.row }))
    }

    /// Rows of several directories at one moment, each with its set as the caller may have it.
    pub(crate) fn find_rows(
        &self,
        call: &Call,
        rows: &[(Option<Private>, &[u8])],
    ) -> Result<Vec<Result<Row, Status>>, Status> {
        let genuine: Vec<Result<Private, Status>> = rows
            .iter()
            .map(|(directory, _)| {
                let directory = directory.ok_or(Status::STD_NOTFOUND)?;
                call.admit::<0>(self, &directory).map(|_| directory)
            })
            .collect();
        let look = |look: &Look<'_>| {
            let find = |(directory, (_, name)): (&Result<Private, Status>, &(_, &[u8]))| match directory {
                Ok(directory) => self.row_in(look, directory, name),
                Err(status) => Ok(Err(*status)),
            };
            // All of them, even if one is missed: so that what all lack is read before the next look.
            let found: Vec<_> = genuine.iter().zip(rows).map(find).collect();
            found.into_iter().collect::<Result<Vec<_>, Stop>>()
        };
        let found = self.store.look(look).map_err(Refusal::status)?;
        let restrict = |(row, mask): (Row, Rights)| {
            let set = self.restrictor.restrict_set(&self.store, &row.set, mask).map_err(Refusal::status)?;
            Ok(Row { set, ..row })
        };
        Ok(found.into_iter().map(|found| found.and_then(restrict)).collect())
    }

    fn row_in(
        &self,
        look: &Look<'_>,
        directory: &Private,
        name: &[u8],
    ) -> Result<Result<(Row, Rights), Status>, Stop> {
        let find = || {
            good_name(name)?;
            admit(&self.store, look, directory)?;
            let row = look.row_bytes(directory.object, name)?;
            let row = Row::from_bytes(row.bytes().ok_or(Refusal::NotFound)?).map_err(|_| Refusal::Damaged)?;
            let mask = row.mask(directory.rights);
            Ok((row, mask))
        };
        match find() {
            Ok(found) => Ok(Ok(found)),
            Err(Stop::Refused(refusal)) => Ok(Err(refusal.status())),
            Err(Stop::Missed) => Err(Stop::Missed),
        }
    }

    /// Does an update on the directory the request names and answers. When nobody knows whether it was done, no reply
    /// is sent: the client hears that it may have been.
    pub(crate) fn update(&self, update: Result<Update, Refusal>, pending: Pending<()>) {
        self.update_to(update, pending, |_| ());
    }

    /// As [`DirectoryServer::update`], with a result.
    fn update_to<T: Send + 'static>(
        &self,
        update: Result<Update, Refusal>,
        pending: Pending<T>,
        result: impl FnOnce(Outcome) -> T + Send + 'static,
    ) {
        match update {
            Ok(update) => {
                let reply = move |done: Result<Outcome, Refusal>| answer(pending, done.map(result));
                self.store.update_then(update, Box::new(reply));
            }
            Err(refusal) => answer(pending, Err(refusal)),
        }
    }

    pub(crate) fn make(&self, call: &Call, columns: Vec<Vec<u8>>, pending: Pending<Capability>) {
        let is_super = call.capability().object() == ObjectNumber::SUPER;
        let admitted = if is_super { Ok(()) } else { self.admitted(call).map(drop) };
        let owner = call.caller().signature.unwrap_or(PutPort::NULL);
        self.create_to(admitted.map(|()| Update::Create { columns, owner }), pending);
    }

    /// Does an update that makes a directory, and answers with its capability.
    fn create_to(&self, update: Result<Update, Refusal>, pending: Pending<Capability>) {
        let store = self.store.clone();
        self.update_to(update, pending, move |outcome| match outcome {
            Outcome::Created(object, random) => store.capability(object, Rights::ALL, random),
            other => unreachable!("a create gives a new directory, not {other:?}"),
        });
    }

    /// Prepares and does an install. `old` of null means that there must be no such row.
    pub(crate) fn install_rows(&self, call: &Call, rows: Vec<(Private, InstallRow)>, pending: Pending<()>) {
        let prepared = rows
            .into_iter()
            .map(|(directory, row)| {
                let checked = call.admit::<{ MODIFY.bits() }>(self, &directory);
                checked.and_then(|_| self.prepare(directory, row).map_err(Refusal::status))
            })
            .collect::<Result<Vec<Install>, Status>>();
        match prepared {
            Ok(installs) => self.update(Ok(Update::Install(installs)), pending),
            Err(status) => pending.send(Err(status)),
        }
    }

    /// Asks the servers of a row's members, before anything is locked, what they make of the rights of `old`.
    fn prepare(&self, directory: Private, row: InstallRow) -> Result<Install, Refusal> {
        let name = Name::from_vec(row.name).map_err(|_| Refusal::BadArgument)?;
        let old = (!row.old.is_null()).then_some(row.old);
        let mut restricted = Vec::new();
        if let Some(old) = &old
            && let Some(current) = self.store.row(directory.object, &name)?
        {
            for member in current.set.current().filter(|member| is_lessened(member, old)) {
                let made = self.restrictor.restrict(&self.store, member, old.rights())?;
                restricted.extend(made.map(|made| (*member, made)));
            }
        }
        let InstallRow { set: new, keep, masks, kind, attributes, .. } = row;
        Ok(Install { directory, name, new, old, keep, masks: to_masks(masks), kind, attributes, restricted })
    }
}

/// Whether `old` may be `member` with fewer rights.
fn is_lessened(member: &Capability, old: &Capability) -> bool {
    member != old
        && member.port == old.port
        && member.object() == old.object()
        && member.rights().contains(old.rights())
}

fn ask_server(world: &World, capability: &Capability, mask: Rights) -> Result<Capability, Error> {
    let options = TransOptions {
        locate_timeout: RESTRICT_LOCATE_TIMEOUT,
        deadline: Some(RESTRICT_TIME_MAX),
        ..TransOptions::default()
    };
    let client = Client::new(&*world.transactions, &options);
    let answer = standard::restrict(client, capability, mask.bits().into())?;
    let honest = answer.port == capability.port && (mask & capability.rights()).contains(answer.rights());
    if honest { Ok(answer) } else { Err(Error::BadReply) }
}

pub(crate) fn good_name(name: &[u8]) -> Result<Name, Refusal> {
    Name::new(name).map_err(|_| Refusal::BadArgument)
}

fn to_masks(masks: [u8; COLUMNS_MAX]) -> Masks {
    masks.map(Rights::from_bits_retain)
}

/// Answers, or, when nobody knows whether the request was executed, lets the client hear just that.
fn answer<T>(pending: Pending<T>, result: Result<T, Refusal>) {
    match result {
        Err(Refusal::Unknown) => drop(pending),
        result => pending.send(result.map_err(Refusal::status)),
    }
}

impl Objects for DirectoryServer {
    fn secret(&self) -> &ServerSecret {
        &self.store.identity().secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        if object == ObjectNumber::SUPER {
            return Some(self.store.identity().super_random);
        }
        self.store.directory(object).ok()?.map(|directory| directory.random)
    }

    fn verifies(&self, private: &Private) -> bool {
        let secret = self.secret();
        if private.object == ObjectNumber::SUPER {
            return secret.verifies(private, self.store.identity().super_random);
        }
        let verifies = |look: &Look<'_>| {
            Ok(look.directory(private.object)?.as_ref().is_some_and(|known| known.verifies(secret, private)))
        };
        self.store.look(verifies).unwrap_or(false)
    }

    fn touch(&self, object: ObjectNumber) {
        self.store.mark_used(object);
    }

    /// A slash, then `d` for delete, `w` for modify and the digits of the columns, a dash for each that is missing.
    fn info(&self, object: AnyObject) -> Result<String, Status> {
        if object.is_super() {
            return Ok("soap generic capability".to_owned()); // the original's words
        }
        let letters = [(DELETE.bits(), 'd'), (MODIFY.bits(), 'w'), (1, '1'), (2, '2'), (4, '3'), (8, '4')];
        let letter = |(bit, letter)| if object.rights().bits() & bit != 0 { letter } else { '-' };
        Ok(std::iter::once('/').chain(letters.into_iter().map(letter)).collect())
    }

    fn status(&self, object: AnyObject) -> Result<String, Status> {
        if object.is_super() {
            return Ok(self.service_status());
        }
        let directory = self.store.directory(object.number()).map_err(Refusal::status)?;
        let directory = directory.ok_or(Status::STD_CAPBAD)?;
        Ok(format!(
            "rows {}, columns {}, sequence {}\n",
            directory.rows,
            directory.columns.len(),
            directory.sequence
        ))
    }

    fn destroy(&self, call: &Call, _: AnyObject) -> Result<(), Status> {
        let directory = call.capability().private;
        self.store.update(Update::Discard { directory }).map(|_| ()).map_err(Refusal::status)
    }

    fn age(&self, _: &Call) -> Result<(), Status> {
        self.store.age().map_err(Refusal::status)
    }
}

impl DirectoryServer {
    fn service_status(&self) -> String {
        let count =
            |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        let (usage, counters) = (self.store.usage(), &self.store.counters);
        format!(
            "directories {}, sequence {}, ticks {}\nupdates {}, log flushes {}, checkpoints {}\n\
             tables {}, log {} of {}, cache {} of {}, waiting {} bytes\nrestrictions cached {}\n",
            usage.state.directories,
            usage.state.applied,
            usage.state.tick,
            count(&counters.updates),
            count(&counters.batches),
            count(&counters.checkpoints),
            usage.tables,
            usage.log_used,
            usage.log,
            usage.cache_used,
            usage.cache,
            usage.waiting,
            self.restrictor.cached(),
        )
    }
}

type Super = Object<{ Rights::ALL.bits() }>;
type Modify = Object<{ MODIFY.bits() }>;
type Discard = Object<{ DELETE.bits() }>;

impl directory::Serve for DirectoryServer {
    fn lookup(&self, call: &Call, _: AnyObject, path: &[u8]) -> Result<LookupReply, Status> {
        let (used, row) = self.find(call, path).map_err(Refusal::status)?;
        let tail = path[used..].to_vec();
        Ok(LookupReply { tail, set: row.set, kind: row.kind, time: row.time, attributes: row.attributes })
    }

    fn list(&self, call: &Call, _: AnyObject, after: &[u8], count: u32) -> Result<ListReply, Status> {
        listing::list(self, call, after, count).map_err(Refusal::status)
    }

    fn list_full(
        &self,
        call: &Call,
        _: AnyObject,
        after: &[u8],
        count: u32,
    ) -> Result<ListFullReply, Status> {
        listing::list_full(self, call, after, count).map_err(Refusal::status)
    }

    fn changes(&self, call: &Call, directories: Vec<Private>) -> Result<ChangesReply, Status> {
        listing::changes(self, call, &directories)
    }

    fn export(&self, _: &Call, _: Super, snapshot: u64, after: &[u8]) -> Result<ExportReply, Status> {
        self.exports.page(self, snapshot, after).map_err(Refusal::status)
    }

    fn export_end(&self, _: &Call, _: Super, snapshot: u64) -> Result<(), Status> {
        self.exports.end(snapshot);
        Ok(())
    }

    fn usage(&self, _: &Call, _: AnyObject) -> Result<UsageReply, Status> {
        Ok(listing::usage(self))
    }

    fn rename(
        &self,
        call: &Call,
        _: Modify,
        name: &[u8],
        to: Private,
        new: &[u8],
        how: u8,
        pending: Pending<CapabilitySet>,
    ) {
        if let Err(status) = call.admit::<{ MODIFY.bits() }>(self, &to) {
            return pending.send(Err(status));
        }
        let how = match how {
            directory::RENAME_NEW => Rename::New,
            directory::RENAME_OVER => Rename::Over,
            directory::RENAME_EXCHANGE => Rename::Exchange,
            _ => return pending.send(Err(Status::STD_ARGBAD)),
        };
        let directory = call.capability().private;
        let names = good_name(name).and_then(|name| Ok((name, good_name(new)?)));
        let update = names.map(|(name, new)| Update::Rename { directory, name, to, new, how });
        let (store, restrictor) = (self.store.clone(), self.restrictor.clone());
        self.update_to(update, pending, move |outcome| match outcome {
            Outcome::Replaced(set, mask) if !restrictor.must_ask(&store, &set, mask) => {
                restrictor.restrict_set(&store, &set, mask).unwrap_or_default()
            }
            _ => CapabilitySet::default(),
        });
    }

    fn makedir(
        &self,
        call: &Call,
        _: Modify,
        name: &[u8],
        columns: Vec<Vec<u8>>,
        masks: [u8; COLUMNS_MAX],
        attributes: &[u8],
        pending: Pending<Capability>,
    ) {
        let (directory, masks, attributes) =
            (call.capability().private, to_masks(masks), attributes.to_vec());
        let owner = call.caller().signature.unwrap_or(PutPort::NULL);
        let update = |name| Update::MakeDir { directory, name, columns, owner, masks, attributes };
        self.create_to(good_name(name).map(update), pending);
    }

    fn removedir(&self, call: &Call, _: Modify, name: &[u8], pending: Pending<()>) {
        let directory = call.capability().private;
        self.update(good_name(name).map(|name| Update::RemoveDir { directory, name }), pending);
    }

    fn append(
        &self,
        call: &Call,
        _: Modify,
        name: &[u8],
        set: CapabilitySet,
        masks: [u8; COLUMNS_MAX],
        attributes: &[u8],
        pending: Pending<()>,
    ) {
        let directory = call.capability().private;
        let attributes = attributes.to_vec();
        let update = |name| Update::Append { directory, name, set, masks: to_masks(masks), attributes };
        self.update(good_name(name).map(update), pending);
    }

    fn replace(&self, call: &Call, _: Modify, name: &[u8], set: CapabilitySet, pending: Pending<()>) {
        let directory = call.capability().private;
        self.update(good_name(name).map(|name| Update::Replace { directory, name, set }), pending);
    }

    fn delete(&self, call: &Call, _: Modify, name: &[u8], pending: Pending<()>) {
        let directory = call.capability().private;
        self.update(good_name(name).map(|name| Update::Delete { directory, name }), pending);
    }

    fn chmod(&self, call: &Call, _: Modify, name: &[u8], masks: [u8; COLUMNS_MAX], pending: Pending<()>) {
        let (directory, masks) = (call.capability().private, to_masks(masks));
        self.update(good_name(name).map(|name| Update::Chmod { directory, name, masks }), pending);
    }

    fn getmasks(&self, call: &Call, _: AnyObject, name: &[u8]) -> Result<[u8; COLUMNS_MAX], Status> {
        let (row, _) = self.row(call, name).map_err(Refusal::status)?;
        Ok(row.masks.map(|mask| mask.bits()))
    }

    fn setlookup(&self, call: &Call, rows: Vec<RowName>) -> Result<Vec<RowFound>, Status> {
        let wanted: Vec<_> = rows.iter().map(|row| (Some(row.directory), row.name.as_slice())).collect();
        Ok(self.find_rows(call, &wanted)?.into_iter().map(row_found).collect())
    }

    fn install(&self, call: &Call, rows: Vec<InstallRow>, pending: Pending<()>) {
        self.install_rows(call, rows.into_iter().map(|row| (row.directory, row)).collect(), pending);
    }

    fn create(&self, call: &Call, _: AnyObject, columns: Vec<Vec<u8>>, pending: Pending<Capability>) {
        self.make(call, columns, pending);
    }

    fn discard(&self, call: &Call, _: Discard, pending: Pending<()>) {
        self.update(Ok(Update::Discard { directory: call.capability().private }), pending);
    }

    fn puttype(&self, call: &Call, _: Modify, name: &[u8], kind: Capability, pending: Pending<()>) {
        let directory = call.capability().private;
        self.update(good_name(name).map(|name| Update::PutType { directory, name, kind }), pending);
    }

    fn getseqnr(&self, call: &Call, _: AnyObject) -> Result<u64, Status> {
        Ok(self.admitted(call).map_err(Refusal::status)?.sequence)
    }

    fn get_attributes(&self, call: &Call, _: AnyObject, name: &[u8]) -> Result<Vec<u8>, Status> {
        Ok(self.row(call, name).map_err(Refusal::status)?.0.attributes)
    }

    fn put_attributes(&self, call: &Call, _: Modify, name: &[u8], attributes: &[u8], pending: Pending<()>) {
        let (directory, attributes) = (call.capability().private, attributes.to_vec());
        let update = |name| Update::PutAttributes { directory, name, attributes };
        self.update(good_name(name).map(update), pending);
    }

    fn describe(&self, call: &Call, _: AnyObject) -> Result<DescribeReply, Status> {
        let directory = self.admitted(call).map_err(Refusal::status)?;
        let Directory { columns, rows, time, sequence, owner, .. } = Directory::clone(&directory);
        Ok(DescribeReply { columns, rows, time, sequence, owner })
    }

    fn retract(
        &self,
        call: &Call,
        object: Object<{ MODIFY.bits() | DELETE.bits() }>,
        mask: u8,
        pending: Pending<Capability>,
    ) {
        let rights = object.rights() & Rights::from_bits_retain(mask);
        let (store, update) = (self.store.clone(), Update::Retract { directory: call.capability().private });
        self.update_to(Ok(update), pending, move |outcome| match outcome {
            Outcome::Retracted(random) => store.capability(object.number(), rights, random),
            other => unreachable!("a retract gives a new random, not {other:?}"),
        });
    }

    fn recover(&self, call: &Call, after: u32) -> Result<RecoverReply, Status> {
        let account = call.caller().signature.filter(|port| !port.is_null()).ok_or(Status::STD_DENIED)?;
        let start = after.checked_add(1).and_then(ObjectNumber::new).ok_or(Status::STD_ARGBAD)?;
        let (mut directories, mut scanned, mut last) = (Vec::new(), 0, 0);
        let each = |object: ObjectNumber, directory: &Directory| {
            if directory.owner == account {
                directories.push(self.store.capability(object, Rights::ALL, directory.random));
            }
            (scanned, last) = (scanned + 1, object.get());
            scanned < RECOVER_SCAN_MAX && directories.len() < RECOVER_MAX
        };
        self.store.directories_from(start, each).map_err(Refusal::status)?;
        let stopped = scanned == RECOVER_SCAN_MAX || directories.len() == RECOVER_MAX;
        Ok(RecoverReply { directories, next: if stopped { last } else { 0 } })
    }

    fn classic_create(&self, call: &Call, _: AnyObject, columns: Vec<Vec<u8>>, pending: Pending<Capability>) {
        self.make(call, columns, pending);
    }

    fn classic_discard(&self, call: &Call, object: Discard, pending: Pending<()>) {
        self.discard(call, object, pending);
    }

    fn classic_list(&self, call: &Call, _: AnyObject, first: u16) -> Result<ClassicListReply, Status> {
        classic::list(self, call, first).map_err(Refusal::status)
    }

    fn classic_append(
        &self,
        call: &Call,
        object: Modify,
        name: &[u8],
        set: CapabilitySet,
        masks: Vec<i32>,
        pending: Pending<()>,
    ) {
        match classic::check_name(name) {
            Ok(()) => self.append(call, object, name, set, classic::masks(&masks), &[], pending),
            Err(refusal) => answer(pending, Err(refusal)),
        }
    }

    fn classic_chmod(&self, call: &Call, object: Modify, name: &[u8], masks: Vec<i32>, pending: Pending<()>) {
        self.chmod(call, object, name, classic::masks(&masks), pending);
    }

    fn classic_delete(&self, call: &Call, object: Modify, name: &[u8], pending: Pending<()>) {
        self.delete(call, object, name, pending);
    }

    fn classic_lookup(&self, call: &Call, _: AnyObject, path: &[u8]) -> Result<ClassicLookupReply, Status> {
        let (used, row) = self.find(call, path).map_err(Refusal::status)?;
        Ok(ClassicLookupReply { tail: path[used..].to_vec(), set: row.set })
    }

    fn classic_setlookup(&self, call: &Call, rows: Vec<ClassicRowName>) -> Result<Vec<u8>, Status> {
        classic::setlookup(self, call, &rows)
    }

    fn classic_install(&self, call: &Call, rows: Vec<ClassicInstallRow>, pending: Pending<()>) {
        match classic::install_rows(self, rows) {
            Ok(rows) => self.install_rows(call, rows, pending),
            Err(refusal) => answer(pending, Err(refusal)),
        }
    }

    fn classic_puttype(
        &self,
        call: &Call,
        object: Modify,
        name: &[u8],
        kind: Capability,
        pending: Pending<()>,
    ) {
        self.puttype(call, object, name, kind, pending);
    }

    fn classic_replace(
        &self,
        call: &Call,
        object: Modify,
        name: &[u8],
        set: CapabilitySet,
        pending: Pending<()>,
    ) {
        self.replace(call, object, name, set, pending);
    }

    fn classic_getmasks(&self, call: &Call, _: AnyObject, name: &[u8]) -> Result<Vec<i32>, Status> {
        let (row, directory) = self.row(call, name).map_err(Refusal::status)?;
        Ok(row.masks[..directory.columns.len()].iter().map(|mask| mask.bits().into()).collect())
    }

    fn classic_getseqnr(&self, call: &Call, object: AnyObject) -> Result<ClassicGetseqnrReply, Status> {
        let sequence = self.getseqnr(call, object)?;
        Ok(ClassicGetseqnrReply { high: (sequence >> 32) as u32, low: sequence as u32 })
    }
}

fn row_found(found: Result<Row, Status>) -> RowFound {
    match found {
        Ok(Row { time, kind, set, attributes, .. }) => RowFound { status: 0, kind, time, set, attributes },
        Err(status) => RowFound {
            status: status.0,
            kind: Capability::NULL,
            time: 0,
            set: CapabilitySet::default(),
            attributes: Vec::new(),
        },
    }
}
