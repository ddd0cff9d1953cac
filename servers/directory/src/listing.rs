//! Lists, and what else is asked about many rows or directories at once.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use amoeba_cap::{CapabilitySet, Private};
use amoeba_server::Call;
use amoeba_stubs::directory::{
    ChangesReply, ExportReply, LIST_FULL_MAX, LIST_MAX, ListFullReply, ListReply, RowFull, RowHead,
    UsageReply,
};
use amoeba_threads::Instant;
use amoeba_wire::Status;

use crate::export::{self, Position};
use crate::row::{Name, Row};
use crate::serve::{DirectoryServer, good_name};
use crate::store::Snapshot;
use crate::update::Refusal;
use crate::walk::damaged;

/// Bytes of rows after which a page of a full list takes no more.
const PAGE_SIZE: usize = 1 << 20;
/// Rows that are read at once for it.
const FULL_CHUNK: usize = 256;
/// Rows of a page for which other servers are asked.
const QUESTIONS_MAX: usize = 16;
/// How long an export may rest until what it keeps of the past goes.
pub(crate) const EXPORT_REST_MAX: Duration = Duration::from_secs(60);

/// A page of names.
pub(crate) fn list(
    server: &DirectoryServer,
    call: &Call,
    after: &[u8],
    count: u32,
) -> Result<ListReply, Refusal> {
    let after = after_name(after)?;
    let count = (count as usize).min(LIST_MAX);
    let directory = server.admitted(call)?;
    let (mut rows, mut more) = (Vec::new(), false);
    server.store().rows_after(call.capability().object(), after.as_ref(), count + 1, |name, row| {
        more = rows.len() == count;
        if !more {
            let masks = row.masks.map(|mask| mask.bits());
            rows.push(RowHead { name: name.as_bytes().to_vec(), time: row.time, masks });
        }
        !more
    })?;
    Ok(ListReply { columns: directory.columns.clone(), rows, more })
}

/// A page of rows with all they have.
pub(crate) fn list_full(
    server: &DirectoryServer,
    call: &Call,
    after: &[u8],
    count: u32,
) -> Result<ListFullReply, Refusal> {
    let after = after_name(after)?;
    let count = (count as usize).min(LIST_FULL_MAX);
    let directory = server.admitted(call)?;
    let (mut rows, mut more, mut size) = (Vec::new(), false, 0);
    let chunk = (count + 1).min(FULL_CHUNK);
    server.store().rows_after(call.capability().object(), after.as_ref(), chunk, |name, row| {
        more = rows.len() == count || size >= PAGE_SIZE;
        if !more {
            size += name.as_bytes().len() + row.attributes.len() + row.set.encoded_size();
            rows.push((name, row));
        }
        !more
    })?;
    let mut questions = 0;
    let rows = rows.into_iter().map(|(name, row)| full(server, call, name, row, &mut questions)).collect();
    Ok(ListFullReply { rows, more, sequence: directory.sequence })
}

fn full(server: &DirectoryServer, call: &Call, name: Name, row: Row, questions: &mut usize) -> RowFull {
    let mask = row.mask(call.rights());
    let asks = server.restrictor().must_ask(server.store(), &row.set, mask);
    *questions += usize::from(asks);
    let set = if asks && *questions > QUESTIONS_MAX {
        Err(Status::STD_NOTNOW)
    } else {
        server.restrictor().restrict_set(server.store(), &row.set, mask).map_err(Refusal::status)
    };
    let (status, set) = match set {
        Ok(set) => (0, set),
        Err(status) => (status.0, CapabilitySet::default()),
    };
    RowFull {
        name: name.as_bytes().to_vec(),
        status,
        kind: row.kind,
        time: row.time,
        masks: row.masks.map(|mask| mask.bits()),
        set,
        attributes: row.attributes,
    }
}

fn after_name(after: &[u8]) -> Result<Option<Name>, Refusal> {
    if after.is_empty() { Ok(None) } else { good_name(after).map(Some) }
}

/// When several directories changed last.
pub(crate) fn changes(
    server: &DirectoryServer,
    call: &Call,
    directories: &[Private],
) -> Result<ChangesReply, Status> {
    // Read first: whatever changes from here on has a larger number.
    let now = server.store().state().applied;
    let sequence = |private: &Private| match call.admit::<0>(server, private) {
        Ok(_) => match server.admit(private) {
            Ok(directory) => Ok(directory.sequence),
            Err(Refusal::Damaged) => Err(Status::STD_SYSERR),
            Err(_) => Ok(0),
        },
        Err(Status::STD_CAPBAD) => Ok(0),
        Err(status) => Err(status),
    };
    Ok(ChangesReply { sequences: directories.iter().map(sequence).collect::<Result<_, _>>()?, now })
}

/// How much room the service takes.
pub(crate) fn usage(server: &DirectoryServer) -> UsageReply {
    let usage = server.store().usage();
    UsageReply {
        directories: usage.state.directories,
        sequence: usage.state.applied,
        tables: usage.tables,
        log: usage.log,
        log_used: usage.log_used,
        cache: usage.cache,
        cache_used: usage.cache_used,
        waiting: usage.waiting,
    }
}

/// The export that runs, if one does.
#[derive(Default)]
pub(crate) struct Exports(Mutex<Option<Export>>);

struct Export {
    snapshot: Snapshot,
    used: Instant,
}

impl Exports {
    /// A page of an export; begins one if `number` is 0.
    pub(crate) fn page(
        &self,
        server: &DirectoryServer,
        number: u64,
        after: &[u8],
    ) -> Result<ExportReply, Refusal> {
        let position = Position::parse(after).map_err(|_| Refusal::BadArgument)?;
        if number == 0 && position != Position::start() {
            return Err(Refusal::BadArgument);
        }
        let snapshot = if number == 0 { self.begin(server)? } else { self.running(server, number)? };
        let (identity, state) = (server.store().identity(), &snapshot.state);
        let (page, next) = export::page(identity, state, &snapshot.view, &position).map_err(damaged)?;
        let next = next.map(|next| next.to_bytes()).unwrap_or_default();
        Ok(ExportReply { snapshot: state.applied, next, page })
    }

    fn begin(&self, server: &DirectoryServer) -> Result<Snapshot, Refusal> {
        let snapshot = server.store().snapshot()?;
        let used = server.store().world().threads.now();
        *self.lock() = Some(Export { snapshot: snapshot.clone(), used });
        Ok(snapshot)
    }

    fn running(&self, server: &DirectoryServer, number: u64) -> Result<Snapshot, Refusal> {
        self.forget_old(server);
        let mut running = self.lock();
        let export = running.as_mut().filter(|export| export.snapshot.state.applied == number);
        let export = export.ok_or(Refusal::NotFound)?;
        export.used = server.store().world().threads.now();
        Ok(export.snapshot.clone())
    }

    /// Ends an export that nobody goes on with.
    pub(crate) fn forget_old(&self, server: &DirectoryServer) {
        let now = server.store().world().threads.now();
        let mut running = self.lock();
        if running.as_ref().is_some_and(|export| now.since(export.used) > EXPORT_REST_MAX) {
            *running = None;
        }
    }

    pub(crate) fn end(&self, number: u64) {
        let mut running = self.lock();
        if running.as_ref().is_some_and(|export| export.snapshot.state.applied == number) {
            *running = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Export>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
