//! How a file's bytes are had: whole out of the store, whole from the caller, or piece by piece.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amoeba_stubs::view::{self, NodeRecord, PIECE_SIZE_MAX};

use super::source::{Failure, Source};
use super::store::{Key, Store};

/// Bytes of a file that is fetched before its first byte is given; of a larger one pieces are, as they are read.
const WHOLE_SIZE_MAX: u64 = 4 << 20;
/// Bytes from which on the caller is asked what a file holds, if something of its size is here.
const IDENTITY_SIZE_MIN: u64 = 64 << 10;
/// The most files of which pieces are here.
const PARTIAL_MAX: usize = 64;

/// An open file's bytes.
#[derive(Clone)]
pub(crate) enum Content {
    /// They are all here.
    Whole(Arc<File>),
    /// Some may be here.
    Partial(Arc<Partial>),
    /// They are being written here.
    Local,
}

/// The contents that one caller's files have.
pub(crate) struct Contents {
    store: Arc<Store>,
    identity: [u8; 32],
    /// Files of which pieces have come.
    partial: Mutex<BTreeMap<Key, Arc<Partial>>>,
    /// Files that are being fetched, so that none is fetched twice at the same time.
    fetching: Mutex<BTreeMap<Key, Arc<Mutex<()>>>>,
}

/// A file of which pieces are here.
pub(crate) struct Partial {
    key: Key,
    version: [u8; 16],
    size: u64,
    /// The file that they are kept in; none for what is too large to be kept.
    kept: Option<(PathBuf, File)>,
    /// Which pieces are here, and how many of them; empty once the file was given to the store.
    pieces: Mutex<(Vec<bool>, usize)>,
    store: Arc<Store>,
}

impl Contents {
    pub(crate) fn new(store: Arc<Store>, identity: [u8; 32]) -> Contents {
        Contents { store, identity, partial: Mutex::default(), fetching: Mutex::default() }
    }

    /// The bytes of a file that is of this version.
    pub(crate) fn open(&self, source: &Source, path: &[u8], node: &NodeRecord) -> Result<Content, Failure> {
        let key = self.key(&node.version);
        if let Some(file) = self.store.find(&key) {
            return Ok(Content::Whole(Arc::new(file)));
        }
        if let Some(partial) = held(&self.partial).get(&key) {
            return Ok(Content::Partial(partial.clone()));
        }
        let turn = held(&self.fetching).entry(key).or_default().clone();
        let fetched = {
            let _turn = held(&turn);
            match self.store.find(&key) {
                Some(file) => Ok(Content::Whole(Arc::new(file))),
                None => self.fetch(source, path, node, key),
            }
        };
        held(&self.fetching).remove(&key);
        fetched
    }

    /// Bytes that this host has made itself are those of a version that the caller has now.
    pub(crate) fn know(&self, version: &[u8; 16], data: &[u8]) {
        // It can be fetched again.
        drop(self.store.put(&self.key(version), data));
    }

    fn fetch(&self, source: &Source, path: &[u8], node: &NodeRecord, key: Key) -> Result<Content, Failure> {
        if node.size >= IDENTITY_SIZE_MIN && self.store.has_size(node.size) {
            let hash = source.ask(|client, run| view::identity(client, run, &node.version, path))?;
            if let Some(file) = self.store.take(&hash) {
                self.store.remember(&key, &hash).map_err(|_| Failure(view::BROKEN))?;
                return Ok(Content::Whole(Arc::new(file)));
            }
        }
        if node.size > WHOLE_SIZE_MAX {
            return self.begin(node, key).map(Content::Partial).map_err(|_| Failure(view::BROKEN));
        }
        let mut data = Vec::with_capacity(node.size as usize);
        while (data.len() as u64) < node.size {
            let piece = fetch_piece(source, path, &node.version, data.len() as u64)?;
            self.store.count_fetched(piece.len());
            if piece.is_empty() {
                return Err(Failure(view::CHANGED));
            }
            data.extend_from_slice(&piece);
        }
        let file = self.store.put(&key, &data).map_err(|_| Failure(view::BROKEN))?;
        Ok(Content::Whole(Arc::new(file)))
    }

    fn begin(&self, node: &NodeRecord, key: Key) -> io::Result<Arc<Partial>> {
        let mut partial = held(&self.partial);
        let kept = self.store.may_keep(node.size).then(|| self.store.begin()).transpose()?;
        if let Some((_, file)) = &kept {
            file.set_len(node.size)?;
        }
        let count = node.size.div_ceil(PIECE_SIZE_MAX as u64) as usize;
        let begun = Arc::new(Partial {
            key,
            version: node.version,
            size: node.size,
            kept,
            pieces: Mutex::new((vec![false; count], 0)),
            store: self.store.clone(),
        });
        // What is whole by now, or nobody reads, goes first.
        partial.retain(|_, other| Arc::strong_count(other) > 1 && !held(&other.pieces).0.is_empty());
        if partial.len() < PARTIAL_MAX {
            partial.insert(key, begun.clone());
        }
        Ok(begun)
    }

    fn key(&self, version: &[u8; 16]) -> Key {
        blake3::keyed_hash(&self.identity, version).as_bytes()[..16].try_into().expect("a hash has 32 bytes")
    }
}

impl Content {
    /// Gives `size` bytes from `offset` on, or fewer at the end of the file.
    pub(crate) fn read(
        &self,
        source: &Source,
        path: &[u8],
        offset: u64,
        size: usize,
    ) -> Result<Vec<u8>, Failure> {
        match self {
            Content::Whole(file) => read_at(file, offset, size),
            Content::Partial(partial) => partial.read(source, path, offset, size),
            Content::Local => Err(Failure(view::CHANGED)),
        }
    }

    /// The file of this host that has all the bytes.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        match self {
            Content::Whole(file) => Some(file.clone()),
            Content::Partial(_) | Content::Local => None,
        }
    }
}

impl Partial {
    fn read(&self, source: &Source, path: &[u8], offset: u64, size: usize) -> Result<Vec<u8>, Failure> {
        let end = self.size.min(offset.saturating_add(size as u64));
        if offset >= end {
            return Ok(Vec::new());
        }
        let piece_size = PIECE_SIZE_MAX as u64;
        let Some((_, file)) = &self.kept else {
            let data = source.ask(|client, run| {
                view::read(client, run, &self.version, offset, (end - offset) as u32, path)
            });
            return data;
        };
        for piece in offset / piece_size..end.div_ceil(piece_size) {
            let is_here = held(&self.pieces).0.get(piece as usize).copied().unwrap_or(true);
            if is_here {
                continue;
            }
            let data = fetch_piece(source, path, &self.version, piece * piece_size)?;
            self.store.count_fetched(data.len());
            let expected = piece_size.min(self.size - piece * piece_size);
            if data.len() as u64 != expected {
                return Err(Failure(view::CHANGED));
            }
            file.write_all_at(&data, piece * piece_size).map_err(|_| Failure(view::BROKEN))?;
            self.came(piece as usize);
        }
        read_at(file, offset, (end - offset) as usize)
    }

    /// A piece is here; with the last one the file is the store's.
    fn came(&self, piece: usize) {
        let mut pieces = held(&self.pieces);
        let (here, count) = &mut *pieces;
        if here.get(piece) != Some(&false) {
            return;
        }
        here[piece] = true;
        *count += 1;
        if *count == here.len() {
            here.clear();
            drop(pieces);
            if let Some((path, _)) = &self.kept {
                // It is read on from here in any case.
                drop(self.store.keep(&self.key, path));
            }
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some((path, _)) = self.kept.take() {
            // Gone already if it is the store's.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn fetch_piece(source: &Source, path: &[u8], version: &[u8; 16], offset: u64) -> Result<Vec<u8>, Failure> {
    source.ask(|client, run| view::read(client, run, version, offset, PIECE_SIZE_MAX as u32, path))
}

pub(crate) fn read_at(file: &File, offset: u64, size: usize) -> Result<Vec<u8>, Failure> {
    let mut data = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match file.read_at(&mut data[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Failure(view::BROKEN)),
        }
    }
    data.truncate(filled);
    Ok(data)
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
