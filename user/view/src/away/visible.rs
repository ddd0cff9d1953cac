//! The file system that shows a caller's files at a mount.
//!
//! One that is read only is shared by all processes of the caller on this host and keeps what it was told until the next of
//! them begins ([`begin`](super::begin)); one that may be written belongs to one process at a time and believes what it
//! was told for [`BELIEVED`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use amoeba_stubs::view::{self, KIND_DIRECTORY, KIND_FILE, KIND_LINK, NodeRecord, OWNER_CALLER, OWNER_ROOT};
use amoeba_volume::{Attributes, Cached, Entry, Error, Handle, Kind, Node, Notifier, OpenMode, Opened, Time};
use amoeba_world::World;

use super::contents::{Content, Contents};
use super::nodes::{Known, Listing, Table};
use super::source::{Failure, Source};
use super::store::Store;
use super::writing::Writing;

/// How long what was told of a tree that may be written is believed.
pub const BELIEVED: Duration = Duration::from_secs(1);
/// How long the kernel believes what it was told of a tree that is only read: it hears when that is wrong.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the kernel believes that a name is not there in a tree that is only read: it hears when a process begins and that
/// may be wrong.
const ABSENT: Duration = Duration::from_secs(2);
/// The most names of a directory that are asked for because one of them is.
const FORESEEN_MAX: usize = 4096;
/// The most names of a directory that can be listed.
const LISTED_MAX: usize = 1 << 20;
/// How often a file that changes while it is opened is opened again.
const OPEN_TRIES: usize = 3;
/// Who everybody else is.
const NOBODY: u32 = 65534;

/// Who the owners of a caller's files are on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user that the caller's processes run as.
    pub user: u32,
    /// Its group.
    pub group: u32,
    /// Whether there is nobody else: then everything belongs to them.
    pub is_alone: bool,
}

/// See the module.
pub struct Visible {
    /// The path of the mount's root among the caller's.
    pub(super) base: Vec<u8>,
    pub(super) source: Arc<Source>,
    pub(super) contents: Contents,
    pub(super) store: Arc<Store>,
    owner: Owner,
    pub(super) table: Mutex<Table>,
    opens: Mutex<Opens>,
    pub(super) notifier: OnceLock<Arc<dyn Notifier>>,
    /// When the process that began last began.
    pub(super) since: Mutex<Instant>,
    pub(super) writing: Option<Writing>,
}

/// What is open.
#[derive(Default)]
struct Opens {
    next: u64,
    files: BTreeMap<u64, OpenFile>,
    directories: BTreeMap<u64, Vec<Line>>,
}

#[derive(Clone)]
struct OpenFile {
    content: Content,
    backed: bool,
    writes: bool,
}

/// A line of an open directory.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) name: Vec<u8>,
    pub(super) record: NodeRecord,
}

impl Visible {
    /// A caller's files, only to be read, from the root on.
    pub fn to_read(world: &World, store: &Arc<Store>, identity: [u8; 32], owner: Owner) -> Visible {
        Visible::over(Arc::new(Source::new(world)), store, identity, owner, Vec::new(), false)
    }

    /// What lies in the caller's directory `path`, also to be written, for one process at a time.
    pub fn to_write(
        world: &World,
        store: &Arc<Store>,
        identity: [u8; 32],
        owner: Owner,
        path: &[u8],
    ) -> Visible {
        let path = path.strip_prefix(b"/").unwrap_or(path).to_vec();
        let source = Arc::new(Source::new(world));
        Visible::over(source, store, identity, owner, path, true)
    }

    fn over(
        source: Arc<Source>,
        store: &Arc<Store>,
        identity: [u8; 32],
        owner: Owner,
        base: Vec<u8>,
        writable: bool,
    ) -> Visible {
        Visible {
            base,
            contents: Contents::new(store.clone(), identity),
            store: store.clone(),
            owner,
            table: Mutex::new(Table::new()),
            opens: Mutex::default(),
            notifier: OnceLock::new(),
            since: Mutex::new(Instant::now()),
            writing: writable.then(|| Writing::new(source.clone())),
            source,
        }
    }

    pub(super) fn set_notifier(&self, notifier: Arc<dyn Notifier>) {
        // A file system is mounted once.
        let _ = self.notifier.set(notifier);
    }

    /// From when on what was told is believed.
    fn valid_since(&self) -> Instant {
        let since = *held(&self.since);
        match self.writing {
            Some(_) => Instant::now().checked_sub(BELIEVED).map_or(since, |then| then.max(since)),
            None => since,
        }
    }

    pub(super) fn lifetime(&self) -> Duration {
        if self.writing.is_some() { BELIEVED } else { KEPT }
    }

    pub(super) fn absent(&self) -> Duration {
        match self.writing {
            _ if self.table().misses_too_much() => Duration::ZERO,
            Some(_) => BELIEVED,
            None => ABSENT,
        }
    }

    /// What a node is, as far as is known, else as the caller says.
    pub(super) fn current(&self, node: Node) -> Result<NodeRecord, Error> {
        let path = {
            let mut table = self.table();
            let known = table.get_mut(node)?;
            // While it is written here, and without a name, this host knows best.
            if known.checked >= Some(self.valid_since()) || known.scratch.is_some() || known.gone {
                return Ok(self.with_scratch(known));
            }
            table.path(node, &self.base)?
        };
        let asked = Instant::now();
        let record = self.ask(&path)?;
        let mut table = self.table();
        let known = table.get_mut(node)?;
        if record.kind != known.record.kind && known.record.kind != 0 {
            return Err(Error::Stale);
        }
        (known.record, known.checked) = (record, Some(asked));
        Ok(self.with_scratch(known))
    }

    /// Asks the caller what a path stands for.
    pub(super) fn ask(&self, path: &[u8]) -> Result<NodeRecord, Error> {
        self.send_first();
        let record = self.source.ask(|client, run| view::lookup(client, run, path))?;
        match record.kind {
            KIND_FILE | KIND_DIRECTORY | KIND_LINK => Ok(record),
            _ => Err(Error::Io),
        }
    }

    /// What a node is, with the size and times of what is being written.
    fn with_scratch(&self, known: &Known) -> NodeRecord {
        let mut record = known.record.clone();
        if let Some(scratch) = &known.scratch {
            let time = scratch.modified();
            record.size = scratch.size();
            record.allocated = record.size.next_multiple_of(4096);
            (record.modified_seconds, record.modified_nanoseconds) = (time.seconds, time.nanoseconds);
            if known.gone {
                record.links = 0;
            }
        }
        record
    }

    /// Finds a name for the kernel, and remembers its node, or that it is not there.
    pub(super) fn find_or_miss(&self, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        loop {
            let before = self.table().given_up();
            let found = self.find(directory, name);
            if !matches!(found, Err(Error::NotFound)) {
                return found;
            }
            let mut table = self.table();
            // Otherwise a process has begun meanwhile, which may have to find what was not there.
            if table.given_up() == before {
                table.miss(directory, name);
                return found;
            }
        }
    }

    /// Finds a name, and remembers its node.
    pub(super) fn find(&self, directory: Node, name: &[u8]) -> Result<Entry, Error> {
        if let Some(entry) = self.find_known(directory, name) {
            return Ok(entry);
        }
        let of = self.current(directory)?;
        if of.kind != KIND_DIRECTORY {
            return Err(Error::NotDirectory);
        }
        let listing = self.listing(directory, &of)?;
        let listed = listing.as_ref().map(|listing| listing.entries.get(name));
        let (record, asked) = match (listed, &listing) {
            (Some(None), _) => return Err(Error::NotFound),
            (Some(Some(record)), Some(listing)) if listing.fetched >= self.valid_since() => {
                (record.clone(), listing.fetched)
            }
            _ => {
                let path = self.child_path(directory, name)?;
                let asked = Instant::now();
                (self.ask(&path)?, asked)
            }
        };
        Ok(self.remember(directory, name, &record, asked))
    }

    /// The entry of a name that the kernel remembers and that needs no asking.
    fn find_known(&self, directory: Node, name: &[u8]) -> Option<Entry> {
        let mut table = self.table();
        let node = table.child(directory, name)?;
        let known = table.get_mut(node).ok()?;
        let (record, checked) = (known.record.clone(), known.checked);
        if checked < Some(self.valid_since()) && known.scratch.is_none() {
            return None;
        }
        table.remember(directory, name, &record, checked);
        let known = table.get(node).ok()?;
        Some(self.entry(node, &self.with_scratch(known)))
    }

    pub(super) fn remember(
        &self,
        directory: Node,
        name: &[u8],
        record: &NodeRecord,
        asked: Instant,
    ) -> Entry {
        let mut table = self.table();
        let node = table.remember(directory, name, record, Some(asked));
        let shown = table.get(node).map_or_else(|_| record.clone(), |known| self.with_scratch(known));
        self.entry(node, &shown)
    }

    pub(super) fn child_path(&self, directory: Node, name: &[u8]) -> Result<Vec<u8>, Error> {
        let mut path = self.table().path(directory, &self.base)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(path)
    }

    /// The names of a directory, if they are few enough to be asked for because of one.
    fn listing(&self, directory: Node, of: &NodeRecord) -> Result<Option<Arc<Listing>>, Error> {
        let (known, foreseen, path) = {
            let table = self.table();
            let known = table.get(directory)?;
            (known.listing.clone(), known.foreseen, table.path(directory, &self.base)?)
        };
        let is_right = |listing: &Arc<Listing>| {
            listing.version == of.version && (self.writing.is_none() || listing.fetched >= self.valid_since())
        };
        if let Some(listing) = known.filter(is_right) {
            return Ok(Some(listing));
        }
        if !foreseen {
            return Ok(None);
        }
        let fetched = self.fetch_listing(directory, &path, FORESEEN_MAX)?;
        if fetched.is_none() {
            self.table().get_mut(directory)?.foreseen = false;
        }
        Ok(fetched)
    }

    /// Asks for all names of a directory; `None` if they are more than `max`.
    fn fetch_listing(&self, directory: Node, path: &[u8], max: usize) -> Result<Option<Arc<Listing>>, Error> {
        self.send_first();
        let fetched = Instant::now();
        let mut entries = BTreeMap::new();
        let mut after: Vec<u8> = Vec::new();
        let mut version = None;
        loop {
            let page = self.source.ask(|client, run| view::list(client, run, path, &after))?;
            let first = *version.get_or_insert(page.version);
            let last = page.entries.last().map(|entry| entry.name.clone());
            for entry in page.entries {
                let sound = amoeba_tree::is_component(&entry.name)
                    && (KIND_FILE..=KIND_LINK).contains(&entry.node.kind);
                if sound {
                    entries.insert(entry.name, entry.node);
                }
            }
            match last.filter(|last| page.more && *last > after) {
                None => {
                    let listing = Arc::new(Listing { version: first, entries, fetched });
                    self.table().get_mut(directory)?.listing = Some(listing.clone());
                    return Ok(Some(listing));
                }
                Some(_) if entries.len() >= max => return Ok(None),
                Some(last) => after = last,
            }
        }
    }

    /// Opens a directory: its names as they are now.
    pub(super) fn open_directory(&self, node: Node) -> Result<Handle, Error> {
        let of = self.current(node)?;
        if of.kind != KIND_DIRECTORY {
            return Err(Error::NotDirectory);
        }
        let listing = match self.listing(node, &of)? {
            Some(listing) => listing,
            None => {
                let path = self.table().path(node, &self.base)?;
                self.fetch_listing(node, &path, LISTED_MAX)?.ok_or(Error::TooLarge)?
            }
        };
        let line =
            |(name, record): (&Vec<u8>, &NodeRecord)| Line { name: name.clone(), record: record.clone() };
        let lines = listing.entries.iter().map(line).collect();
        let mut opens = held(&self.opens);
        opens.next += 1;
        let handle = opens.next;
        opens.directories.insert(handle, lines);
        Ok(Handle(handle))
    }

    /// The lines of an open directory from one on.
    pub(super) fn lines(&self, handle: Handle, from: usize, max: usize) -> Result<Vec<Line>, Error> {
        let opens = held(&self.opens);
        let lines = opens.directories.get(&handle.0).ok_or(Error::BadHandle)?;
        Ok(lines.iter().skip(from).take(max).cloned().collect())
    }

    pub(super) fn close_directory(&self, handle: Handle) {
        held(&self.opens).directories.remove(&handle.0);
    }

    /// Opens a file. What is being written here is what is read here.
    pub(super) fn open_file(&self, node: Node, mode: OpenMode) -> Result<Opened, Error> {
        let writes = mode.contains(OpenMode::WRITE);
        if writes && self.writing.is_none() {
            return Err(Error::ReadOnly);
        }
        for _ in 0..OPEN_TRIES {
            let record = self.current(node)?;
            match record.kind {
                KIND_FILE => {}
                KIND_DIRECTORY => return Err(Error::IsDirectory),
                _ => return Err(Error::Invalid),
            }
            let path = self.table().path(node, &self.base);
            let is_scratch = self.table().get(node)?.scratch.is_some();
            let content = match path {
                _ if is_scratch => Ok(Content::Local),
                Err(error) => return Err(error),
                Ok(path) => self.contents.open(&self.source, &path, &record),
            };
            match content {
                Ok(content) => return self.opened(node, content, writes, &record),
                Err(Failure(view::CHANGED)) => self.table().get_mut(node)?.checked = None,
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(Error::Busy)
    }

    pub(super) fn opened(
        &self,
        node: Node,
        content: Content,
        writes: bool,
        record: &NodeRecord,
    ) -> Result<Opened, Error> {
        let mut table = self.table();
        let known = table.get_mut(node)?;
        let cached = if known.pages == record.version { Cached::Keep } else { Cached::Drop };
        known.pages = record.version;
        let mut backing = None;
        // Of the files of one node either all have the same one behind them or none has one; and what is written is none.
        if self.writing.is_none() {
            match (&mut known.backed, content.file()) {
                (Some((count, _, file)), _) => {
                    *count += 1;
                    backing = Some(file.clone());
                }
                (none, Some(file)) if known.plain == 0 => {
                    *none = Some((1, record.version, file.clone()));
                    backing = Some(file);
                }
                _ => {}
            }
        }
        if backing.is_none() {
            known.plain += 1;
        }
        known.writers += u64::from(writes);
        drop(table);
        let mut opens = held(&self.opens);
        opens.next += 1;
        let handle = opens.next;
        opens.files.insert(handle, OpenFile { content, backed: backing.is_some(), writes });
        Ok(Opened { handle: Handle(handle), cached, backing })
    }

    /// Closes a file; whether it was open to be written.
    pub(super) fn close_file(&self, node: Node, handle: Handle) -> bool {
        let Some(open) = held(&self.opens).files.remove(&handle.0) else { return false };
        let mut table = self.table();
        if let Ok(known) = table.get_mut(node) {
            if open.backed {
                if let Some((count, _, _)) = &mut known.backed {
                    *count -= 1;
                    if *count == 0 {
                        known.backed = None;
                    }
                }
            } else {
                known.plain = known.plain.saturating_sub(1);
            }
            known.writers = known.writers.saturating_sub(u64::from(open.writes));
        }
        open.writes
    }

    /// Whether anything is open.
    pub(super) fn has_open(&self) -> bool {
        let opens = held(&self.opens);
        !opens.files.is_empty() || !opens.directories.is_empty()
    }

    /// Part of an open file.
    pub(super) fn read_file(
        &self,
        node: Node,
        handle: Handle,
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, Error> {
        let content = held(&self.opens).files.get(&handle.0).ok_or(Error::BadHandle)?.content.clone();
        let (scratch, path) = {
            let table = self.table();
            (table.get(node)?.scratch.clone(), table.path(node, &self.base))
        };
        let content = match (scratch, content) {
            (Some(scratch), _) => {
                return super::contents::read_at(&scratch.file, offset, size).map_err(Error::from);
            }
            // It was written here, and is the caller's by now.
            (None, Content::Local) => {
                let record = self.current(node)?;
                self.contents.open(&self.source, path.as_deref().map_err(|error| *error)?, &record)?
            }
            (None, content) => content,
        };
        Ok(content.read(&self.source, &path.unwrap_or_default(), offset, size)?)
    }

    pub(super) fn entry(&self, node: Node, record: &NodeRecord) -> Entry {
        Entry {
            attributes: self.attributes(node, record),
            generation: 0,
            name_lifetime: self.lifetime(),
            attributes_lifetime: self.lifetime(),
        }
    }

    pub(super) fn attributes(&self, node: Node, record: &NodeRecord) -> Attributes {
        let who = |owner, caller| match owner {
            _ if self.owner.is_alone => caller,
            OWNER_CALLER => caller,
            OWNER_ROOT => 0,
            _ => NOBODY,
        };
        let time = |seconds, nanoseconds: u32| Time { seconds, nanoseconds: nanoseconds.min(999_999_999) };
        let modified = time(record.modified_seconds, record.modified_nanoseconds);
        Attributes {
            node,
            kind: kind_of(record),
            // Whatever the caller says, nobody gets the rights of another by it.
            permissions: record.mode & 0o1777,
            links: record.links,
            user: who(record.owner, self.owner.user),
            group: who(record.group, self.owner.group),
            device: 0,
            size: if record.kind == KIND_LINK { record.text.len() as u64 } else { record.size },
            allocated: record.allocated,
            accessed: modified,
            modified,
            changed: time(record.changed_seconds, record.changed_nanoseconds),
        }
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        held(&self.table)
    }

    /// What was changed here is the caller's before he is asked anything.
    fn send_first(&self) {
        if let Some(writing) = &self.writing
            && !writing.outbox.is_empty()
        {
            writing.outbox.flush(self);
        }
    }
}

pub(super) fn kind_of(record: &NodeRecord) -> Kind {
    match record.kind {
        KIND_DIRECTORY => Kind::Directory,
        KIND_LINK => Kind::SymbolicLink,
        _ => Kind::File,
    }
}

pub(super) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
