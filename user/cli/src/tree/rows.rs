//! Rows of many directories of one service, written many at a time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_stubs::directory::{self, INSTALL_MAX, InstallRow, RowFound, RowName, SETLOOKUP_MAX};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;

use super::{Report, held, identity};
use crate::graph::Graph;

/// Bytes of rows that are written at once: well below what a transaction and an entry of the log take.
const BATCH_SIZE_MAX: usize = 200 << 10;
/// Rows do not wait for others longer than this, so that little is lost to an interrupt.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A row, and what people call it.
pub(super) struct Row {
    pub(super) row: InstallRow,
    pub(super) path: Vec<u8>,
}

/// Rows that wait to be written.
pub(super) struct Rows<'a> {
    graph: &'a Graph,
    /// Any directory of the service.
    directory: Capability,
    report: &'a Report,
    pending: Mutex<Batch>,
}

struct Batch {
    rows: Vec<Row>,
    size: usize,
    since: Instant,
}

impl Batch {
    fn new() -> Batch {
        Batch { rows: Vec::new(), size: 0, since: Instant::now() }
    }
}

impl<'a> Rows<'a> {
    pub(super) fn new(graph: &'a Graph, directory: Capability, report: &'a Report) -> Rows<'a> {
        Rows { graph, directory, report, pending: Mutex::new(Batch::new()) }
    }

    /// Writes a row, soon, perhaps on another thread.
    pub(super) fn add(&self, row: Row) {
        let size = row.row.name.len() + row.row.attributes.len() + 100 + 20 * row.row.set.suites().len();
        let full = {
            let mut pending = held(&self.pending);
            let spilled = (pending.size + size > BATCH_SIZE_MAX)
                .then(|| std::mem::replace(&mut *pending, Batch::new()));
            pending.rows.push(row);
            pending.size += size;
            let due = pending.rows.len() == INSTALL_MAX || pending.since.elapsed() > WAIT_MAX;
            let due = due.then(|| std::mem::replace(&mut *pending, Batch::new()));
            [spilled, due]
        };
        full.into_iter().flatten().for_each(|batch| self.write(batch.rows));
    }

    /// Writes what waits.
    pub(super) fn flush(&self) {
        let batch = std::mem::replace(&mut *held(&self.pending), Batch::new());
        self.write(batch.rows);
    }

    fn write(&self, rows: Vec<Row>) {
        let all: Vec<InstallRow> = rows.iter().map(|row| row.row.clone()).collect();
        if all.is_empty() || directory::install(self.graph.world(), &self.directory, &all).is_ok() {
            return;
        }
        // One of them does not fit, or nobody knows whether they were written: each by itself.
        for row in rows {
            if let Err(error) = self.write_one(&row.row) {
                self.report
                    .failed(&row.path, &anyhow::Error::from(error).context(crate::out::printable(&row.path)));
            }
        }
    }

    fn write_one(&self, row: &InstallRow) -> Result<(), Refusal> {
        let names = [RowName { directory: row.directory, name: row.name.clone() }];
        let there = directory::setlookup(self.graph.world(), &self.directory, &names)?;
        let there = there.into_iter().find(is_there);
        let is_written = match &there {
            Some(there) => same(&there.set, &row.set) && there.attributes == row.attributes,
            None => row.set.first().is_none(),
        };
        if is_written {
            return Ok(());
        }
        let old = there.and_then(|there| there.set.first().copied()).unwrap_or(Capability::NULL);
        directory::install(self.graph.world(), &self.directory, &[InstallRow { old, ..row.clone() }])
    }
}

/// What rows of a directory stand for, in the order of `names`; `None` where there is no such row.
pub(super) fn look(
    graph: &Graph,
    directory: &Capability,
    names: &[Vec<u8>],
) -> Result<Vec<Option<RowFound>>, Refusal> {
    let mut found = Vec::with_capacity(names.len());
    for names in names.chunks(SETLOOKUP_MAX) {
        let name = |name: &Vec<u8>| RowName { directory: directory.private, name: name.clone() };
        let names: Vec<RowName> = names.iter().map(name).collect();
        for row in directory::setlookup(graph.world(), directory, &names)? {
            match Status(row.status) {
                Status::STD_NOTFOUND => found.push(None),
                status if status.is_error() => return Err(Refusal::Refused(status)),
                _ => found.push(Some(row)),
            }
        }
    }
    Ok(found)
}

fn is_there(row: &RowFound) -> bool {
    !Status(row.status).is_error()
}

/// Whether two sets stand for the same objects.
pub(super) fn same(one: &CapabilitySet, other: &CapabilitySet) -> bool {
    one.current().map(identity).eq(other.current().map(identity))
}
