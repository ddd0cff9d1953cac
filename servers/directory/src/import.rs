//! An import: makes the disks of a service of the pages of an export, so that every capability which verified then
//! verifies again. The service does not run meanwhile, and nothing that was begun and not finished can be started.

use std::sync::Arc;

use amoeba_cap::ObjectNumber;
use amoeba_wire::Malformed;
use amoeba_world::{Disk, DiskError, Entropy, random};
use redb::{Database, ReadableDatabase};

use crate::backend::Pages;
use crate::export::{Item, PageHead, Service, parse_page};
use crate::guarded::Guarded;
use crate::kept::KeptRow;
use crate::log::{Log, LogError};
use crate::memory::Overlay;
use crate::store::{Formatted, Identity, StoreError, durable, open_database};
use crate::tables::{self, State, TableError, View, contained};
use crate::update::ROOT;

/// Bytes of pages of the tables to keep in memory meanwhile.
const CACHE_SIZE: usize = 32 << 20;
/// What an honest service's counters are below, so that counting on ends with the world.
const COUNT_MAX: u64 = u64::MAX / 2;

/// Why pages do not make a service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// These bytes are no page, or a damaged one.
    #[error("page {number} of the export is damaged")]
    Damaged {
        /// Which page it should have been.
        number: u32,
    },
    /// A page is missing, comes twice, or is of another export.
    #[error("page {number} of the export should come here and does not")]
    OutOfOrder {
        /// Which page it should have been.
        number: u32,
    },
    /// The pages are good, but what is in them does not fit together.
    #[error("the export does not fit together: {0}")]
    Inconsistent(&'static str),
    /// The disks.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<TableError> for ImportError {
    fn from(error: TableError) -> ImportError {
        ImportError::Store(error.into())
    }
}

impl From<LogError> for ImportError {
    fn from(error: LogError) -> ImportError {
        ImportError::Store(error.into())
    }
}

impl From<DiskError> for ImportError {
    fn from(error: DiskError) -> ImportError {
        ImportError::Store(error.into())
    }
}

/// An import that is under way.
pub struct Importer {
    pages: Pages,
    database: Database,
    volume: [u8; 16],
    expected: PageHead,
    service: Option<Service>,
    directories: u64,
    rows: u64,
    /// Rows that the directories say they have.
    rows_said: u64,
    /// The directory whose rows come now, and how many of them are still to come.
    at: Option<(ObjectNumber, u64)>,
    /// The last directory and the key of the last row: they come in their order, so nothing comes twice.
    last_directory: ObjectNumber,
    last_row: Vec<u8>,
    ended: bool,
}

impl Importer {
    /// Begins an import into two disks; whatever they held is gone. `tables` must be able to grow; for
    /// `log_size` see [`crate::store::Format`].
    ///
    /// # Errors
    /// A disk failed or is full.
    pub fn new(
        tables: Arc<dyn Disk>,
        log: &dyn Disk,
        entropy: &dyn Entropy,
        log_size: u64,
    ) -> Result<Importer, ImportError> {
        let volume = random(entropy);
        Log::format(log, &volume, log_size)?;
        tables.set_size(0)?;
        tables.flush()?;
        let pages = Pages::new(tables);
        let database = open_database(&pages, CACHE_SIZE)?;
        let transaction = durable(&database)?;
        tables::store_changes(&transaction, &Overlay::default())?;
        transaction.commit().map_err(TableError::from)?;
        let expected = PageHead { size: 0, snapshot: 0, number: 0 };
        Ok(Importer {
            pages,
            database,
            volume,
            expected,
            service: None,
            directories: 0,
            rows: 0,
            rows_said: 0,
            at: None,
            last_directory: ObjectNumber::SUPER,
            last_row: Vec::new(),
            ended: false,
        })
    }

    /// Takes the next page of the export.
    ///
    /// # Errors
    /// It is damaged, not the next one, or does not fit with those before; a disk failed or is full.
    pub fn page(&mut self, page: &[u8]) -> Result<(), ImportError> {
        let number = self.expected.number;
        let (head, items) = parse_page(page).map_err(|Malformed| ImportError::Damaged { number })?;
        if number == 0 {
            self.expected.snapshot = head.snapshot;
        }
        if (head.number, head.snapshot) != (number, self.expected.snapshot) || self.ended {
            return Err(ImportError::OutOfOrder { number });
        }
        let mut contents = Overlay::default();
        items.into_iter().try_for_each(|item| self.item(item, &mut contents))?;
        contained(|| {
            let transaction = durable(&self.database)?;
            tables::store_changes(&transaction, &contents)?;
            transaction.commit().map_err(TableError::from)?;
            Ok::<_, StoreError>(self.pages.drain()?)
        })?;
        self.expected.number += 1;
        Ok(())
    }

    fn item(&mut self, item: Item, contents: &mut Overlay) -> Result<(), ImportError> {
        let first = self.service.is_none();
        match item {
            Item::Service(service) if first => {
                let counters = [service.applied, service.tick];
                if ObjectNumber::new(service.next_object).is_none()
                    || counters.iter().any(|count| *count > COUNT_MAX)
                {
                    return Err(ImportError::Inconsistent("the service's counters are none"));
                }
                self.service = Some(service);
            }
            _ if first => return Err(ImportError::Inconsistent("it does not begin with the service")),
            Item::Service(_) => return Err(ImportError::Inconsistent("it has two beginnings")),
            Item::Directory(..) | Item::Row(..) | Item::End(..) if self.ended => {
                return Err(ImportError::Inconsistent("something follows its end"));
            }
            Item::Directory(object, directory) => {
                if object <= self.last_directory || self.at.is_some() {
                    return Err(ImportError::Inconsistent("a directory is where none can be"));
                }
                self.last_directory = object;
                self.directories += 1;
                self.rows_said = self.rows_said.saturating_add(directory.rows);
                contents.put_directory(object, Some(Arc::new(Guarded::new(directory))));
            }
            Item::Row(object, name, row) => {
                let row = KeptRow::of(object, &name, &row);
                if row.key() <= &*self.last_row {
                    return Err(ImportError::Inconsistent("a row is where none can be"));
                }
                self.count_row(object, contents)?;
                self.last_row.clear();
                self.last_row.extend_from_slice(row.key());
                contents.put_row(row);
            }
            Item::End(directories, rows) => {
                let whole = (directories, rows) == (self.directories, self.rows) && rows == self.rows_said;
                if !whole || self.at.is_some_and(|(_, left)| left > 0) {
                    return Err(ImportError::Inconsistent("something is missing"));
                }
                self.ended = true;
            }
        }
        Ok(())
    }

    /// Counts a row, which must be of a directory that is there and lacks one still.
    fn count_row(&mut self, object: ObjectNumber, contents: &Overlay) -> Result<(), ImportError> {
        let mut left = match self.at {
            Some((at, left)) if at == object => left,
            Some((_, left)) if left > 0 => {
                return Err(ImportError::Inconsistent("a directory has fewer rows than it says"));
            }
            _ => self.directory_rows(object, contents)?,
        };
        left =
            left.checked_sub(1).ok_or(ImportError::Inconsistent("a directory has more rows than it says"))?;
        self.at = Some((object, left));
        self.rows += 1;
        Ok(())
    }

    fn directory_rows(&self, object: ObjectNumber, contents: &Overlay) -> Result<u64, ImportError> {
        let missing = ImportError::Inconsistent("a row's directory is missing");
        if let Some(directory) = contents.directory(object) {
            return directory.as_ref().map(|directory| directory.rows).ok_or(missing);
        }
        let view = View::new(&self.database.begin_read().map_err(TableError::from)?)?;
        view.directory(object)?.map(|directory| directory.rows).ok_or(missing)
    }

    /// Makes a service of what was imported: only now can it be started. Returns once everything is durable.
    ///
    /// # Errors
    /// The last page did not come; a disk failed or is full.
    pub fn finish(self) -> Result<Formatted, ImportError> {
        let Some(service) = self.service.filter(|_| self.ended) else {
            return Err(ImportError::OutOfOrder { number: self.expected.number });
        };
        let identity = Identity {
            get_port: service.get_port,
            secret: service.secret,
            super_random: service.super_random,
            volume: self.volume,
        };
        let state = State {
            applied: service.applied,
            generation: 1,
            next_object: service.next_object,
            tick: service.tick,
            directories: self.directories,
        };
        let view = View::new(&self.database.begin_read().map_err(TableError::from)?)?;
        let root = view.directory(ROOT)?.ok_or(ImportError::Inconsistent("the root directory is missing"))?;
        drop(view);
        contained(|| {
            let transaction = durable(&self.database)?;
            tables::create(&transaction, &identity, state)?;
            transaction.commit().map_err(TableError::from)?;
            Ok::<_, StoreError>(self.pages.drain()?)
        })?;
        Ok(Formatted { identity, root_random: root.random })
    }
}
