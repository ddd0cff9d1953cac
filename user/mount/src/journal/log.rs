//! The file in which the journal is kept: entries one behind the other, flushed for all who wait at once.
//!
//! Integers are little-endian. `check` is BLAKE3 of all behind it.
//!
//! ```text
//! size u32 of all behind the check | check 32 | generation u64 | number u64 | kind u8 | size u32 of the record | record | data
//! ```
//!
//! - `INLINE`: what is to become of a scratch, and its contents. `FILE`: the same, the contents are in a file beside the log.
//! - `NAMES`: what is to become of it by now; the contents are where they were. `DONE`: nothing any more.
//!
//! When nothing is to be redone the log begins anew at its start, with the next generation: it ends where the check is wrong or
//! the generation another. One that has grown is written anew with what is to be redone, under another name first.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use amoeba_threads::{Condition, Mutex, MutexGuard, Threads};
use amoeba_wire::{Malformed, Reader};

use super::record::{RECORD_SIZE_MAX, Record};

/// Bytes of a scratch that is kept in the log itself.
pub(crate) const INLINE_MAX: usize = 64 << 10;
/// Bytes after which the log is written anew, unless more than half of it is still needed.
const LOG_SIZE_MAX: u64 = 16 << 20;
/// The log grows by so many zeros, so that most flushes need not write where its bytes lie too.
const GROWTH: usize = 1 << 20;
const CHECK_SIZE: usize = 32;
/// Size and check.
const FRONT_SIZE: usize = 4 + CHECK_SIZE;
/// Generation, number, kind, size of the record.
const HEAD_SIZE: usize = 8 + 8 + 1 + 4;

const INLINE: u8 = 1;
const FILE: u8 = 2;
const NAMES: u8 = 3;
const DONE: u8 = 4;

/// A scratch that is to be redone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Live {
    pub(crate) record: Record,
    /// Its contents, where they are in the log.
    pub(crate) data: Option<Vec<u8>>,
}

/// What is to be redone, by number.
pub(crate) type All = BTreeMap<u64, Live>;

fn path(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// What the log in a folder says, which may not be there; and its generation.
fn read(folder: &Path) -> io::Result<(All, u64)> {
    let mut all = All::new();
    let bytes = match fs::read(path(folder)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((all, 0)),
        Err(error) => return Err(error),
    };
    let (mut at, mut generation) = (0, None);
    while let Ok((entry, size)) = parse(&bytes[at..]) {
        if *generation.get_or_insert(entry.generation) != entry.generation {
            break;
        }
        at += size;
        match (entry.kind, entry.record) {
            (INLINE, Some(record)) => {
                all.insert(entry.number, Live { record, data: Some(entry.data.to_vec()) });
            }
            (FILE, Some(record)) => drop(all.insert(entry.number, Live { record, data: None })),
            (NAMES, Some(record)) => {
                all.entry(entry.number).and_modify(|live| live.record = record);
            }
            _ => drop(all.remove(&entry.number)),
        }
    }
    Ok((all, generation.unwrap_or(0)))
}

/// As [`read`], without the generation.
pub(crate) fn what_is_left(folder: &Path) -> io::Result<All> {
    Ok(read(folder)?.0)
}

/// Removes the log of a folder, if nothing is left to be redone: whether that was so.
pub(crate) fn remove_if_done(folder: &Path) -> io::Result<bool> {
    if !what_is_left(folder)?.is_empty() {
        return Ok(false);
    }
    match fs::remove_file(path(folder)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(true),
    }
}

/// Writes the log anew: this is to be redone, and nothing else.
pub(crate) fn replace(folder: &Path, all: &All) -> io::Result<()> {
    let mut bytes = Vec::new();
    for (number, live) in all {
        let (kind, data) = live.data.as_ref().map_or((FILE, &[][..]), |data| (INLINE, &data[..]));
        bytes.extend(entry(1, *number, kind, &live.record.to_bytes(), data));
    }
    write_anew(folder, &bytes).map(drop)
}

fn write_anew(folder: &Path, bytes: &[u8]) -> io::Result<File> {
    let part = folder.join("log.part");
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    fs::rename(&part, path(folder))?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

struct Entry<'b> {
    generation: u64,
    number: u64,
    kind: u8,
    record: Option<Record>,
    data: &'b [u8],
}

fn entry(generation: u64, number: u64, kind: u8, record: &[u8], data: &[u8]) -> Vec<u8> {
    let size = HEAD_SIZE + record.len() + data.len();
    let mut bytes = Vec::with_capacity(FRONT_SIZE + size);
    bytes.extend_from_slice(&(size as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; CHECK_SIZE]);
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
    bytes.extend_from_slice(record);
    bytes.extend_from_slice(data);
    let check = *blake3::hash(&bytes[FRONT_SIZE..]).as_bytes();
    bytes[4..FRONT_SIZE].copy_from_slice(&check);
    bytes
}

/// The entry at the beginning of `bytes`, and its size.
fn parse(bytes: &[u8]) -> Result<(Entry<'_>, usize), Malformed> {
    let mut reader = Reader::new(bytes);
    let size = reader.get_u32()? as usize;
    if !(HEAD_SIZE..=HEAD_SIZE + RECORD_SIZE_MAX + INLINE_MAX).contains(&size) {
        return Err(Malformed);
    }
    let check = reader.array::<CHECK_SIZE>()?;
    let body = reader.take(size)?;
    if *blake3::hash(body).as_bytes() != check {
        return Err(Malformed);
    }
    let mut reader = Reader::new(body);
    let (generation, number) = (reader.get_u64()?, reader.get_u64()?);
    let [kind] = reader.array::<1>()?;
    let record = reader.get_bytes(RECORD_SIZE_MAX)?;
    let record = match kind {
        INLINE | FILE | NAMES => Some(Record::from_bytes(record)?),
        DONE => None,
        _ => return Err(Malformed),
    };
    Ok((Entry { generation, number, kind, record, data: reader.rest() }, FRONT_SIZE + size))
}

/// The log of a mount.
pub(crate) struct Log {
    folder: PathBuf,
    body: Mutex<Body>,
    /// Notified when a flush has ended.
    flushed: Condition,
}

struct Body {
    file: std::sync::Arc<File>,
    generation: u64,
    /// Where the next entry goes.
    end: u64,
    /// Bytes that the file has.
    size: u64,
    live: BTreeMap<u64, Place>,
    /// Entries that were written, the last of them that is urgent, and how many of them are on the disk.
    written: u64,
    urgent: u64,
    durable: u64,
    flushing: bool,
    /// The disk has failed: what it has since is not known.
    broken: bool,
}

/// Where a scratch that is to be redone stands in the log.
struct Place {
    record: Vec<u8>,
    /// Offset and size of its contents.
    data: Option<(u64, usize)>,
}

impl Log {
    /// The log in a folder, to be written on.
    pub(crate) fn open(threads: &Threads, folder: &Path) -> io::Result<Log> {
        let (all, _) = read(folder)?;
        let body = Body::with(
            folder,
            all.iter().map(|(number, live)| (*number, live.record.to_bytes(), live.data.clone())),
        )?;
        let body = Mutex::new(threads, body);
        Ok(Log { folder: folder.to_owned(), body, flushed: Condition::new(threads) })
    }

    /// Notes what is to become of a scratch, and its contents, if they are not in a file. With [`Log::flush`] it is durable.
    pub(crate) fn note(&self, number: u64, record: &Record, data: Option<&[u8]>) -> io::Result<()> {
        let (kind, data) = data.map_or((FILE, &[][..]), |data| (INLINE, data));
        self.append(number, kind, &record.to_bytes(), data, true)
    }

    /// Something else is to become of a scratch by now; its contents stay where they are. Unless it is `urgent` no flush is
    /// made for it.
    pub(crate) fn rename(&self, number: u64, record: &Record, urgent: bool) -> io::Result<()> {
        self.append(number, NAMES, &record.to_bytes(), &[], urgent)
    }

    /// A scratch need not be redone; no flush is made for that.
    pub(crate) fn done(&self, number: u64) -> io::Result<()> {
        self.append(number, DONE, &[], &[], false)
    }

    fn append(&self, number: u64, kind: u8, record: &[u8], data: &[u8], urgent: bool) -> io::Result<()> {
        let mut body = self.body.lock();
        if kind != INLINE && kind != FILE && !body.live.contains_key(&number) {
            return Ok(());
        }
        if body.end > LOG_SIZE_MAX.max(2 * body.needed()) {
            body = self.shrink(body)?;
        }
        body.append(number, kind, record, data)?;
        if urgent {
            body.urgent = body.written;
        }
        Ok(())
    }

    /// Writes the log anew, with what is needed of it.
    fn shrink<'t>(&self, mut body: MutexGuard<'t, Body>) -> io::Result<MutexGuard<'t, Body>> {
        // Whoever flushes has the old file.
        while body.flushing {
            body = self.flushed.wait(body);
        }
        let mut all = Vec::with_capacity(body.live.len());
        for (number, place) in &body.live {
            let read = |(offset, size): (u64, usize)| {
                let mut data = vec![0; size];
                body.file.read_exact_at(&mut data, offset).map(|()| data)
            };
            all.push((*number, place.record.clone(), place.data.map(read).transpose()?));
        }
        let (written, urgent, broken) = (body.written, body.urgent, body.broken);
        *body =
            Body { written, urgent, durable: written, broken, ..Body::with(&self.folder, all.into_iter())? };
        Ok(body)
    }

    /// Makes durable what was written before and is urgent, together with others who want that.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let mut body = self.body.lock();
        let wanted = body.urgent;
        loop {
            if body.broken {
                return Err(io::Error::other("the disk of the journal has failed"));
            } else if body.durable >= wanted {
                return Ok(());
            } else if body.flushing {
                body = self.flushed.wait(body);
                continue;
            }
            body.flushing = true;
            let (file, written) = (std::sync::Arc::clone(&body.file), body.written);
            drop(body);
            let result = file.sync_data();
            body = self.body.lock();
            body.flushing = false;
            match result {
                Ok(()) => body.durable = written,
                Err(_) => body.broken = true,
            }
            self.flushed.notify_all();
        }
    }
}

impl Body {
    /// A new log with these scratches.
    fn with(folder: &Path, all: impl Iterator<Item = (u64, Vec<u8>, Option<Vec<u8>>)>) -> io::Result<Body> {
        let (generation, mut bytes, mut live) = (1, Vec::new(), BTreeMap::new());
        for (number, record, data) in all {
            let kind = if data.is_some() { INLINE } else { FILE };
            let data = data.unwrap_or_default();
            bytes.extend(entry(generation, number, kind, &record, &data));
            let place = (bytes.len() - data.len()) as u64;
            let data = (kind == INLINE).then_some((place, data.len()));
            live.insert(number, Place { record, data });
        }
        let file = std::sync::Arc::new(write_anew(folder, &bytes)?);
        let end = bytes.len() as u64;
        let (size, written, urgent, durable) = (end, 0, 0, 0);
        let (flushing, broken) = (false, false);
        Ok(Body { file, generation, end, size, live, written, urgent, durable, flushing, broken })
    }

    /// Bytes of what is to be redone.
    fn needed(&self) -> u64 {
        let size = |place: &Place| place.record.len() + place.data.map_or(0, |(_, size)| size);
        self.live.values().map(|place| size(place) as u64).sum()
    }

    fn append(&mut self, number: u64, kind: u8, record: &[u8], data: &[u8]) -> io::Result<()> {
        let bytes = entry(self.generation, number, kind, record, data);
        let after = self.end + bytes.len() as u64;
        if after > self.size {
            let size = after.next_multiple_of(GROWTH as u64);
            self.file.write_all_at(&vec![0; (size - self.size) as usize], self.size)?;
            self.size = size;
        }
        self.file.write_all_at(&bytes, self.end)?;
        self.end = after;
        self.written += 1;
        match kind {
            DONE => drop(self.live.remove(&number)),
            NAMES => {
                let place = self.live.get_mut(&number).expect("who appends has looked");
                place.record = record.to_vec();
            }
            _ => {
                let data = (kind == INLINE).then_some((after - data.len() as u64, data.len()));
                self.live.insert(number, Place { record: record.to_vec(), data });
            }
        }
        if self.live.is_empty() {
            (self.end, self.generation) = (0, self.generation + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use amoeba_world::World;

    use super::super::record::sample;
    use super::*;

    fn scene(name: &str) -> (World, PathBuf) {
        let folder = std::env::temp_dir().join(format!("amoeba-log-{}-{name}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        (amoeba_loopback::world(), folder)
    }

    fn live(name: &[u8], data: Option<&[u8]>) -> Live {
        Live { record: sample(name), data: data.map(<[u8]>::to_vec) }
    }

    #[test]
    fn what_was_noted_is_left_until_it_is_done() {
        let (world, folder) = scene("noted");
        assert_eq!(what_is_left(&folder).unwrap(), All::new(), "there is no log");
        let log = Log::open(&world.threads, &folder).unwrap();
        log.note(1, &sample(b"one"), Some(b"data of one")).unwrap();
        log.note(2, &sample(b"two"), None).unwrap();
        log.note(3, &sample(b"three"), Some(b"")).unwrap();
        log.rename(1, &sample(b"ONE"), true).unwrap();
        log.rename(4, &sample(b"four"), true).unwrap(); // of which nothing was noted
        log.done(3).unwrap();
        log.flush().unwrap();
        let expected = All::from([(1, live(b"ONE", Some(b"data of one"))), (2, live(b"two", None))]);
        assert_eq!(what_is_left(&folder).unwrap(), expected);
        drop(log);
        // The next one goes on.
        let log = Log::open(&world.threads, &folder).unwrap();
        log.note(2, &sample(b"two"), Some(b"2")).unwrap();
        log.done(1).unwrap();
        assert_eq!(what_is_left(&folder).unwrap(), All::from([(2, live(b"two", Some(b"2")))]));
        log.done(2).unwrap();
        assert_eq!(what_is_left(&folder).unwrap(), All::new());
        // It begins anew, over what it held.
        log.note(5, &sample(b"five"), Some(b"5")).unwrap();
        assert_eq!(what_is_left(&folder).unwrap(), All::from([(5, live(b"five", Some(b"5")))]));
        replace(&folder, &All::from([(7, live(b"seven", None))])).unwrap();
        assert_eq!(what_is_left(&folder).unwrap(), All::from([(7, live(b"seven", None))]));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_torn_log_ends_before_the_tear() {
        let (world, folder) = scene("torn");
        let log = Log::open(&world.threads, &folder).unwrap();
        let mut ends = vec![0];
        for number in 1..4 {
            log.note(number, &sample(b"n"), Some(&[number as u8; 20])).unwrap();
            ends.push(log.body.lock().end as usize);
        }
        let bytes = fs::read(path(&folder)).unwrap();
        for index in 0..ends[3] {
            let mut torn = bytes.clone();
            torn[index] ^= 1;
            fs::write(path(&folder), &torn).unwrap();
            let whole = ends.iter().filter(|end| **end <= index).count() - 1;
            assert_eq!(what_is_left(&folder).unwrap().len(), whole, "torn at {index}");
            fs::write(path(&folder), &bytes[..index]).unwrap();
            assert_eq!(what_is_left(&folder).unwrap().len(), whole, "cut at {index}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_log_that_has_grown_is_written_anew() {
        let (world, folder) = scene("grown");
        let log = Log::open(&world.threads, &folder).unwrap();
        log.note(1, &sample(b"stays"), Some(b"as it is")).unwrap();
        let data = vec![7; INLINE_MAX];
        for number in 2..2 + 3 * LOG_SIZE_MAX / INLINE_MAX as u64 {
            log.note(number, &sample(b"n"), Some(&data)).unwrap();
            log.done(number).unwrap();
        }
        log.flush().unwrap();
        let size = fs::metadata(path(&folder)).unwrap().len();
        assert!(size <= LOG_SIZE_MAX + 2 * GROWTH as u64, "{size}");
        assert_eq!(what_is_left(&folder).unwrap(), All::from([(1, live(b"stays", Some(b"as it is")))]));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn many_threads_flush_what_they_noted() {
        let (world, folder) = scene("threads");
        let log = std::sync::Arc::new(Log::open(&world.threads, &folder).unwrap());
        let write = |thread: u64| {
            let log = std::sync::Arc::clone(&log);
            let body = move || {
                for round in 0..50 {
                    let number = thread * 1000 + round;
                    log.note(number, &sample(b"n"), Some(&number.to_le_bytes())).unwrap();
                    log.flush().unwrap();
                    if round % 2 == 0 {
                        log.done(number).unwrap();
                    }
                }
            };
            world.threads.spawn("writer", body).unwrap()
        };
        let threads: Vec<_> = (1..5).map(write).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let left = what_is_left(&folder).unwrap();
        assert_eq!(left.len(), 4 * 25);
        assert!(left.iter().all(|(number, live)| live.data == Some(number.to_le_bytes().to_vec())));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn any_bytes_are_an_entry_or_none() {
        bolero::check!().for_each(|bytes: &[u8]| drop(parse(bytes)));
    }
}
