//! A client of the file server and the directory server that remembers exactly what it was promised.
//!
//! Everything it makes follows from numbers, so what it finds later is compared byte by byte. What nobody can know
//! (a transaction that may have been executed) may have happened or not, but whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::lot::Lot;
use amoeba::{
    Capability, CapabilitySet, Client as Stub, Error, Status, TransOptions, World, bullet, directory,
    standard,
};

/// A search for a server that is just being started again is given up soon.
const LOCATE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long it waits after an error before it goes on.
const PAUSE: Duration = Duration::from_millis(20);
/// Past this it takes as much away as it makes.
const FILES_MAX: usize = 400;
const ROWS_MAX: usize = 400;
const DIRECTORIES_MAX: usize = 4;
/// Capabilities that are dead, the latest, to be tried again. A server answers whoever sends it bad ones more and more slowly,
/// so few are tried: all clients are one process.
const DEAD_MAX: usize = 3;
/// Files that a crash may forget, for the same reason.
const DOUBTFUL_MAX: usize = 8;
/// Files of one client hold no more than this.
const SMALL_MAX: u64 = 20_000;
const LARGE_MAX: u64 = 1_500_000;
/// Files from this size on, and up to twice as much, come in several pieces before their commit.
const HUGE_MIN: u64 = 2_600_000;
const PIECE_SIZE: usize = 1 << 20;

/// What a refusal may say while the disk is full or fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Nothing is ever refused for the disk's sake.
    Sound,
    /// STD_NOSPACE and STD_NOMEM are no broken promise.
    Full,
    /// Neither are STD_SYSERR, after which nobody knows, and STD_WRITEPROT.
    Failing,
}

/// Where the servers are.
#[derive(Clone, Copy, Debug)]
pub struct Servers {
    /// The file server, with all rights.
    pub bullet: Capability,
    /// The root directory, with all rights.
    pub root: Capability,
}

/// How much a client has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations that were acknowledged.
    pub done: u64,
    /// Operations that were certainly not executed, or refused for the disk's sake.
    pub refused: u64,
    /// Operations of which nobody knows.
    pub unknown: u64,
    /// Files and rows that were looked at after a restart and were as promised.
    pub verified: u64,
}

impl Tally {
    /// Adds another client's.
    pub fn add(&mut self, other: &Tally) {
        self.done += other.done;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.verified += other.verified;
    }
}

/// How sure a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// It must be there.
    Durable,
    /// Whole or not there: committed without safety, or perhaps destroyed.
    Doubtful,
}

struct File {
    capability: Capability,
    /// The same with READ alone.
    reader: Capability,
    number: u64,
    size: usize,
    hold: Hold,
}

/// A row before and after a change: the number from which its capability was made; `None` where there is no such row.
struct Change {
    name: String,
    before: Option<u64>,
    after: Option<u64>,
}

struct Directory {
    capability: Capability,
    /// What each name stands for: a capability made from this number.
    rows: BTreeMap<String, u64>,
    /// Changes of which nobody knows, each all or nothing.
    unsure: Vec<Vec<Change>>,
    /// Whether it was perhaps retracted, so that its capability is perhaps dead.
    doubtful: bool,
}

/// See the module.
pub struct Client {
    number: u64,
    lot: Lot,
    servers: Servers,
    disk: Disk,
    made: u64,
    files: Vec<File>,
    directories: Vec<Directory>,
    dead_files: Vec<Capability>,
    dead_directories: Vec<Capability>,
    /// What it did and found.
    pub tally: Tally,
}

type Broken = String;

impl Client {
    /// A client that has nothing yet.
    pub fn new(number: u64, seed: u64, servers: Servers, disk: Disk) -> Client {
        Client {
            number,
            lot: Lot::new(seed, number),
            servers,
            disk,
            made: 0,
            files: Vec::new(),
            directories: Vec::new(),
            dead_files: Vec::new(),
            dead_directories: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// The first answer that no honest server gives.
    pub fn work(&mut self, world: &World, stop: &AtomicBool) -> Result<(), Broken> {
        let options = TransOptions { locate_timeout: LOCATE_TIMEOUT, ..TransOptions::default() };
        while !stop.load(Ordering::Relaxed) {
            let before = self.tally;
            self.step(Stub::new(&*world.transactions, &options))?;
            if self.tally.done == before.done {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// One operation.
    fn step(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        match self.lot.below(20) {
            0..6 => self.create(stub),
            6..8 => self.destroy(stub),
            8 => self.read_one(stub),
            9 => self.make_directory(stub),
            10..14 => self.append(stub),
            14..16 => self.change(stub),
            16..18 => self.install(stub),
            18 => self.look_up_one(stub),
            _ => match self.lot.below(8) {
                0 => self.compact(stub),
                1..4 => self.list(stub),
                _ => self.retract(stub),
            },
        }
    }

    fn create(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        if self.files.len() >= FILES_MAX {
            return self.destroy(stub);
        }
        self.made += 1;
        let number = self.number << 40 | self.made;
        let size = match self.lot.below(200) {
            0 => HUGE_MIN + self.lot.below(HUGE_MIN),
            1..5 => self.lot.below(LARGE_MAX),
            _ => self.lot.below(SMALL_MAX),
        };
        let bytes = contents(number, size as usize);
        let doubtful = self.files.iter().filter(|file| file.hold == Hold::Doubtful).count();
        let unsafely = self.lot.below(4) == 0 && doubtful < DOUBTFUL_MAX;
        let hold = if unsafely { Hold::Doubtful } else { Hold::Durable };
        let safety = if hold == Hold::Durable { bullet::SAFETY } else { 0 };
        let result = self.create_in_pieces(stub, safety, &bytes);
        let Some(capability) = self.heard("create", result)? else { return Ok(()) };
        let reader = standard::restrict(stub, &capability, bullet::READ.bits().into());
        if hold == Hold::Doubtful && is_gone(&reader) {
            return Ok(()); // a crash forgot it already
        }
        let reader = self.heard("restrict", reader)?.unwrap_or(capability);
        self.files.push(File { capability, reader, number, size: bytes.len(), hold });
        Ok(())
    }

    /// At once, or in pieces of which the last commits: of a huge file the server writes the others before.
    fn create_in_pieces(&mut self, stub: Stub<'_>, safety: u16, bytes: &[u8]) -> Result<Capability, Error> {
        let flags = bullet::COMMIT | safety;
        if bytes.len() as u64 >= HUGE_MIN {
            let mut pieces = bytes.chunks(PIECE_SIZE);
            let first = pieces.next().expect("it is not empty");
            let (draft, last) =
                (bullet::create(stub, &self.servers.bullet, 0, first)?, (bytes.len() - 1) / PIECE_SIZE);
            for (piece, index) in pieces.zip(1..) {
                let flags = if index == last { flags } else { 0 };
                bullet::modify(stub, &draft, flags, (index * PIECE_SIZE) as u64, piece)?;
            }
            return Ok(draft);
        }
        if self.lot.below(4) > 0 {
            return bullet::create(stub, &self.servers.bullet, flags, bytes);
        }
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let draft = bullet::create(stub, &self.servers.bullet, 0, first)?;
        bullet::modify(stub, &draft, flags, first.len() as u64, second)
    }

    fn destroy(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        if self.files.is_empty() {
            return Ok(());
        }
        let index = self.lot.below(self.files.len() as u64) as usize;
        let result = standard::destroy(stub, &self.files[index].capability);
        if self.files[index].hold == Hold::Doubtful && is_gone(&result) {
            self.files.swap_remove(index); // a crash forgot it
            return Ok(());
        }
        let unknown = self.tally.unknown;
        if self.heard("destroy", result)?.is_some() {
            let file = self.files.swap_remove(index);
            keep_last(&mut self.dead_files, [file.capability, file.reader]);
        } else if self.tally.unknown > unknown {
            self.files[index].hold = Hold::Doubtful;
        }
        Ok(())
    }

    fn read_one(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        if self.files.is_empty() {
            return Ok(());
        }
        let index = self.lot.below(self.files.len() as u64) as usize;
        let file = &self.files[index];
        let found = read(stub, &file.reader, file.size);
        if file.hold == Hold::Doubtful && is_gone(&found) {
            self.files.swap_remove(index);
            return Ok(());
        }
        let (number, size) = (file.number, file.size);
        if let Some(found) = self.heard("read", found)?
            && found != contents(number, size)
        {
            return Err(format!("file {number:x} of {size} bytes has changed"));
        }
        Ok(())
    }

    fn make_directory(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        if self.directories.len() >= DIRECTORIES_MAX {
            return self.look_up_one(stub);
        }
        let made = directory::create(stub, &self.servers.root, &[b"owner".to_vec()]);
        if let Some(capability) = self.heard("directory create", made)? {
            self.directories.push(Directory {
                capability,
                rows: BTreeMap::new(),
                unsure: Vec::new(),
                doubtful: false,
            });
        }
        Ok(())
    }

    /// One of its directories that is certainly there, by index.
    fn some_directory(&mut self) -> Option<usize> {
        let sure: Vec<usize> =
            (0..self.directories.len()).filter(|index| !self.directories[*index].doubtful).collect();
        (!sure.is_empty()).then(|| sure[self.lot.below(sure.len() as u64) as usize])
    }

    fn append(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        let Some(index) = self.some_directory() else { return self.make_directory(stub) };
        if self.directories[index].rows.len() >= ROWS_MAX {
            return self.change(stub);
        }
        self.made += 1;
        let (number, name) = (self.made, format!("row {}", self.made));
        let parent = self.directories[index].capability;
        let set = CapabilitySet::singleton(value(self.number, number));
        let done = directory::append(stub, &parent, name.as_bytes(), &set, &[0xFF; 4], b"attributes");
        self.settle("append", index, done, vec![Change { name, before: None, after: Some(number) }])
    }

    /// Replaces or deletes a row.
    fn change(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        let Some(index) = self.some_directory() else { return Ok(()) };
        let Some((name, old)) = self.some_row(index) else { return self.append(stub) };
        let parent = self.directories[index].capability;
        self.made += 1;
        let number = self.made;
        if self.lot.below(2) == 0 {
            let set = CapabilitySet::singleton(value(self.number, number));
            let done = directory::replace(stub, &parent, name.as_bytes(), &set);
            self.settle("replace", index, done, vec![Change { name, before: Some(old), after: Some(number) }])
        } else {
            let done = directory::delete(stub, &parent, name.as_bytes());
            self.settle("delete", index, done, vec![Change { name, before: Some(old), after: None }])
        }
    }

    /// Several rows at once: one changed, one deleted, some new.
    fn install(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        let Some(index) = self.some_directory() else { return Ok(()) };
        if self.directories[index].rows.len() >= ROWS_MAX {
            return self.change(stub);
        }
        let parent = self.directories[index].capability;
        let mut changes = Vec::new();
        for change in 0..self.lot.between(2, 8) {
            self.made += 1;
            let number = self.made;
            match (change, self.some_row(index)) {
                (0, Some((name, old))) => {
                    changes.push(Change { name, before: Some(old), after: Some(number) })
                }
                (1, Some((name, old))) if changes.iter().all(|change: &Change| change.name != name) => {
                    changes.push(Change { name, before: Some(old), after: None });
                }
                _ => {
                    changes.push(Change { name: format!("row {number}"), before: None, after: Some(number) })
                }
            }
        }
        let row = |change: &Change| directory::InstallRow {
            directory: parent.private,
            name: change.name.clone().into_bytes(),
            set: change
                .after
                .map(|number| value(self.number, number))
                .map(CapabilitySet::singleton)
                .unwrap_or_default(),
            old: change.before.map_or(Capability::NULL, |number| value(self.number, number)),
            keep: false,
            masks: [0xFF; 4],
            kind: Capability::NULL,
            attributes: Vec::new(),
        };
        let rows: Vec<_> = changes.iter().map(row).collect();
        let done = directory::install(stub, &parent, &rows);
        self.settle("install", index, done, changes)
    }

    fn some_row(&mut self, index: usize) -> Option<(String, u64)> {
        let count = self.directories[index].rows.len() as u64;
        let at = if count == 0 { return None } else { self.lot.below(count) as usize };
        self.directories[index].rows.iter().nth(at).map(|(name, number)| (name.clone(), *number))
    }

    /// Writes down what became of a change of rows.
    fn settle(
        &mut self,
        what: &str,
        index: usize,
        done: Result<(), Error>,
        changes: Vec<Change>,
    ) -> Result<(), Broken> {
        let unknown = self.tally.unknown;
        let done = self.heard(what, done)?.is_some();
        let directory = &mut self.directories[index];
        if done {
            for Change { name, after, .. } in changes {
                match after {
                    Some(number) => directory.rows.insert(name, number),
                    None => directory.rows.remove(&name),
                };
            }
        } else if self.tally.unknown > unknown {
            // Until it is known, nothing else is done to these rows.
            for change in &changes {
                directory.rows.remove(&change.name);
            }
            directory.unsure.push(changes);
        }
        Ok(())
    }

    fn look_up_one(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        let Some(index) = self.some_directory() else { return Ok(()) };
        let Some((name, number)) = self.some_row(index) else { return Ok(()) };
        let found = directory::lookup(stub, &self.directories[index].capability, name.as_bytes());
        if let Some(found) = self.heard("lookup", found)?
            && found.set.first() != Some(&value(self.number, number))
        {
            return Err(format!("{name} stands for something else"));
        }
        Ok(())
    }

    fn list(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        let Some(index) = self.some_directory() else { return Ok(()) };
        let page = directory::list(stub, &self.directories[index].capability, b"", 1000);
        let Some(page) = self.heard("list", page)? else { return Ok(()) };
        let sure = self.directories[index].unsure.is_empty();
        if sure && !page.more && page.rows.len() != self.directories[index].rows.len() {
            return Err(format!("a list has {} rows", page.rows.len()));
        }
        Ok(())
    }

    /// Somebody else may be at it.
    fn compact(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        let done = bullet::compact(stub, &self.servers.bullet);
        self.heard("compact", done).map(drop)
    }

    /// Now and then: all capabilities of a directory die but the new one.
    fn retract(&mut self, stub: Stub<'_>) -> Result<(), Broken> {
        let Some(index) = self.some_directory() else { return Ok(()) };
        if self.lot.below(4) > 0 {
            return self.append(stub);
        }
        let old = self.directories[index].capability;
        let unknown = self.tally.unknown;
        let result = directory::retract(stub, &old, 0xFF);
        if let Some(new) = self.heard("retract", result)? {
            self.directories[index].capability = new;
            keep_last(&mut self.dead_directories, [old]);
        } else if self.tally.unknown > unknown {
            self.directories[index].doubtful = true;
        }
        Ok(())
    }

    /// What a result says: something, or nothing yet; an answer that no honest server gives is a broken promise.
    fn heard<T>(&mut self, what: &str, result: Result<T, Error>) -> Result<Option<T>, Broken> {
        let full = matches!(self.disk, Disk::Full | Disk::Failing);
        match result {
            Ok(value) => {
                self.tally.done += 1;
                return Ok(Some(value));
            }
            Err(Error::NotSent(_)) => self.tally.refused += 1,
            Err(Error::MaybeExecuted(_)) => self.tally.unknown += 1,
            Err(Error::Refused(Status::STD_NOSPACE | Status::STD_NOMEM)) if full => self.tally.refused += 1,
            Err(Error::Refused(Status::STD_WRITEPROT)) if self.disk == Disk::Failing => {
                self.tally.refused += 1
            }
            Err(Error::Refused(Status::STD_SYSERR)) if self.disk == Disk::Failing => self.tally.unknown += 1,
            // After bad capabilities, as a crash leaves them, a server may say that it has no time for this process now.
            Err(Error::Refused(Status::STD_NOTNOW)) => self.tally.refused += 1,
            // An uncommitted file is forgotten with its server: its second piece finds nothing.
            Err(Error::Refused(Status::STD_CAPBAD)) if what == "create" => self.tally.refused += 1,
            Err(error) => return Err(format!("client {}: {what}: {error:?}", self.number)),
        }
        Ok(None)
    }

    /// Destroys so many of its files, none of which may be refused.
    ///
    /// # Errors
    /// One was, or an answer that no honest server gives.
    pub fn destroy_some(&mut self, world: &World, count: usize) -> Result<(), Broken> {
        for _ in 0..count.min(self.files.len()) {
            let before = self.tally;
            self.destroy(Stub::from(world))?;
            if self.tally.refused + self.tally.unknown > before.refused + before.unknown {
                return Err("a destroy was refused".to_owned());
            }
        }
        Ok(())
    }

    /// After a restart: compares everything with what was promised; `there` are the numbers of the files that the server lists.
    /// What nobody knew is known afterwards.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn verify(&mut self, world: &World, there: &BTreeSet<u32>) -> Result<(), Broken> {
        let options = TransOptions::default();
        let stub = Stub::new(&*world.transactions, &options);
        self.verify_files(stub, there)?;
        for index in (0..self.directories.len()).rev() {
            if self.verify_directory(stub, index)?.is_none() {
                self.directories.swap_remove(index);
            }
        }
        for dead in &self.dead_files {
            if !is_gone(&bullet::size(stub, dead)) {
                return Err(format!("client {}: a destroyed file came back", self.number));
            }
        }
        for dead in &self.dead_directories {
            if !is_gone(&directory::describe(stub, dead)) {
                return Err(format!("client {}: a retracted capability came back", self.number));
            }
        }
        self.tally.verified += (self.dead_files.len() + self.dead_directories.len()) as u64;
        Ok(())
    }

    fn verify_files(&mut self, stub: Stub<'_>, there: &BTreeSet<u32>) -> Result<(), Broken> {
        let mut kept = Vec::new();
        for mut file in std::mem::take(&mut self.files) {
            let what = format!("client {}: file {:x} of {} bytes", self.number, file.number, file.size);
            if file.hold == Hold::Doubtful && !there.contains(&file.capability.private.object.get()) {
                continue; // a crash forgot it
            }
            match read(stub, &file.reader, file.size) {
                Ok(found) if found == contents(file.number, file.size) => file.hold = Hold::Durable,
                Ok(_) => return Err(format!("{what} has changed")),
                gone if file.hold == Hold::Doubtful && is_gone(&gone) => continue,
                Err(error) => return Err(format!("{what}, acknowledged as durable: {error:?}")),
            }
            kept.push(file);
        }
        self.tally.verified += kept.len() as u64;
        self.files = kept;
        Ok(())
    }

    /// `None` when it is certain now that its capability is dead, as it may be.
    fn verify_directory(&mut self, stub: Stub<'_>, index: usize) -> Result<Option<()>, Broken> {
        let directory = &mut self.directories[index];
        let described = directory::describe(stub, &directory.capability);
        if directory.doubtful && is_gone(&described) {
            return Ok(None);
        }
        directory.doubtful = false;
        let what = format!("client {}: a directory", self.number);
        let described = described.map_err(|error| format!("{what}: {error:?}"))?;
        for changes in std::mem::take(&mut directory.unsure) {
            let mut found = Vec::new();
            for change in &changes {
                found.push(number_of(stub, &directory.capability, &change.name, self.number)?);
            }
            let found_all = |side: fn(&Change) -> Option<u64>| {
                changes.iter().zip(&found).all(|(change, found)| side(change) == *found)
            };
            if !found_all(|change| change.before) && !found_all(|change| change.after) {
                let changes: Vec<_> = changes.iter().map(|change| &change.name).collect();
                return Err(format!("{what}: half a change is there: {changes:?}, found {found:?}"));
            }
            let settled =
                changes.into_iter().zip(found).filter_map(|(change, found)| Some((change.name, found?)));
            directory.rows.extend(settled);
        }
        let mut names = BTreeSet::new();
        let mut after = Vec::new();
        loop {
            let page = directory::list(stub, &directory.capability, &after, 100);
            let page = page.map_err(|error| format!("{what}: list: {error:?}"))?;
            names.extend(page.rows.iter().map(|row| String::from_utf8_lossy(&row.name).into_owned()));
            match page.rows.last() {
                Some(last) if page.more => after = last.name.clone(),
                _ => break,
            }
        }
        if !names.iter().eq(directory.rows.keys()) || described.rows != names.len() as u64 {
            let promised: BTreeSet<String> = directory.rows.keys().cloned().collect();
            let lost: Vec<_> = promised.difference(&names).collect();
            let extra: Vec<_> = names.difference(&promised).collect();
            return Err(format!(
                "{what}: lost {lost:?}, never acknowledged {extra:?}, says {}",
                described.rows
            ));
        }
        for (name, number) in &directory.rows {
            if number_of(stub, &directory.capability, name, self.number)? != Some(*number) {
                return Err(format!("{what}: {name} stands for something else"));
            }
        }
        self.tally.verified += names.len() as u64;
        Ok(Some(()))
    }
}

/// The number from which a row's capability was made; `None` when there is no such row.
fn number_of(stub: Stub<'_>, parent: &Capability, name: &str, client: u64) -> Result<Option<u64>, Broken> {
    match directory::lookup(stub, parent, name.as_bytes()) {
        Err(Error::Refused(Status::STD_NOTFOUND)) => Ok(None),
        Err(error) => Err(format!("{name}: {error:?}")),
        Ok(found) => {
            let first = found.set.first().copied().unwrap_or(Capability::NULL);
            let number = u64::from_le_bytes(std::array::from_fn(|index| first.to_bytes()[6 + index]));
            let honest = value(client, number) == first;
            honest.then_some(Some(number)).ok_or_else(|| format!("{name} stands for {first:?}"))
        }
    }
}

/// Adds to a list that keeps its last [`DEAD_MAX`].
fn keep_last<const N: usize>(list: &mut Vec<Capability>, more: [Capability; N]) {
    list.extend(more);
    list.drain(..list.len().saturating_sub(DEAD_MAX));
}

/// Whether the object or the capability is certainly no more.
fn is_gone<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Refused(Status::STD_CAPBAD)))
}

fn read(stub: Stub<'_>, file: &Capability, size: usize) -> Result<Vec<u8>, Error> {
    bullet::read(stub, file, 0, (size + 1) as u32)
}

/// What a row stands for: no server has this port, and nobody asks for one.
fn value(client: u64, number: u64) -> Capability {
    let mut bytes = [0xFF; 16];
    bytes[..6].copy_from_slice(&(client + 1).to_le_bytes()[..6]);
    bytes[6..14].copy_from_slice(&number.to_le_bytes());
    Capability::from_bytes(bytes)
}

/// Bytes that follow from a number.
fn contents(number: u64, size: usize) -> Vec<u8> {
    let mut lot = Lot::new(number, size as u64);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&lot.word().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
