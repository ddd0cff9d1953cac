//! Contents of files that were fetched once, as plain files of this host under the BLAKE3 of what they hold.
//!
//! ```text
//! contents/HASH     a whole file
//! versions/KEY      a symbolic link with the text HASH: what a version of a caller's file holds
//! new/NUMBER        what is not whole yet; emptied at the start
//! ```
//!
//! A KEY is made from the identity that caller and host share, so that nobody can say what another caller's files hold. What
//! a crash has left behind is compared with its name before it is used for the first time.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Which contents a version of a caller's file has.
pub(crate) type Key = [u8; 16];
type Hash = [u8; 32];

/// The most versions that are remembered; past it those go that were remembered first.
const VERSIONS_MAX: usize = 1 << 18;
/// The most versions of which nobody need look what they hold; when there are more, it is looked at again.
const KNOWN_MAX: usize = 8192;

/// See the module.
pub struct Store {
    directory: PathBuf,
    size_max: u64,
    numbers: AtomicU64,
    fetched: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: BTreeMap<Hash, Kept>,
    /// Bytes of all that is kept.
    size: u64,
    uses: u64,
    versions: usize,
    /// Versions that were looked at: what they hold stays true.
    known: BTreeMap<Key, Hash>,
}

struct Kept {
    size: u64,
    used: u64,
    /// Whether its bytes were compared with its name since the start.
    verified: bool,
}

impl Store {
    /// The store in `directory`, which is made, of at most `size_max` bytes: what was used last stays.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(directory: &Path, size_max: u64) -> io::Result<Store> {
        let new = directory.join("new");
        let _ = fs::remove_dir_all(&new);
        for part in [directory.to_owned(), directory.join("contents"), directory.join("versions"), new] {
            DirBuilder::new().recursive(true).mode(0o700).create(part)?;
        }
        let mut state = State::default();
        let mut found = Vec::new();
        for entry in fs::read_dir(directory.join("contents"))? {
            let entry = entry?;
            let (facts, hash) = (entry.metadata()?, entry.file_name().to_str().and_then(unhex));
            match hash {
                Some(hash) => {
                    found.push((facts.modified().unwrap_or(SystemTime::UNIX_EPOCH), hash, facts.len()))
                }
                None => fs::remove_file(entry.path())?,
            }
        }
        found.sort_unstable();
        for (_, hash, size) in found {
            state.uses += 1;
            state.size += size;
            state.kept.insert(hash, Kept { size, used: state.uses, verified: false });
        }
        state.versions = fs::read_dir(directory.join("versions"))?.count();
        let store = Store {
            directory: directory.to_owned(),
            size_max,
            numbers: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            state: Mutex::new(state),
        };
        store.make_room(0);
        Ok(store)
    }

    /// Bytes that came from callers since the start.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// So many bytes came from a caller.
    pub(crate) fn count_fetched(&self, size: usize) {
        self.fetched.fetch_add(size as u64, Ordering::Relaxed);
    }

    /// The contents of a version, if they are here.
    pub(crate) fn find(&self, key: &Key) -> Option<File> {
        let known = self.state().known.get(key).copied();
        let hash = match known {
            Some(hash) => hash,
            None => {
                let hash = unhex(fs::read_link(self.version(key)).ok()?.to_str()?)?;
                let mut state = self.state();
                if state.known.len() >= KNOWN_MAX {
                    state.known.clear();
                }
                state.known.insert(*key, hash);
                hash
            }
        };
        self.take(&hash)
    }

    /// The contents with this hash, if they are here.
    pub(crate) fn take(&self, hash: &Hash) -> Option<File> {
        let verified = {
            let mut state = self.state();
            state.uses += 1;
            let used = state.uses;
            let kept = state.kept.get_mut(hash)?;
            kept.used = used;
            kept.verified
        };
        let file = File::open(self.contents(hash)).ok();
        let right = file.filter(|file| {
            verified || {
                // The store is read from the most recent start on in the order of use.
                let _ = file.set_modified(SystemTime::now());
                is_right(file, hash)
            }
        });
        let mut state = self.state();
        match &right {
            Some(_) => {
                if let Some(kept) = state.kept.get_mut(hash) {
                    kept.verified = true;
                }
            }
            None => {
                let gone = state.kept.remove(hash).map_or(0, |kept| kept.size);
                state.size -= gone;
                let _ = fs::remove_file(self.contents(hash));
            }
        }
        right
    }

    /// Whether something of this size is here, so that it is worth asking what a file holds.
    pub(crate) fn has_size(&self, size: u64) -> bool {
        self.state().kept.values().any(|kept| kept.size == size)
    }

    /// Whether a file of this size may be kept.
    pub(crate) fn may_keep(&self, size: u64) -> bool {
        size <= self.size_max / 2
    }

    /// A new file to be filled and given to [`Store::keep`].
    pub(crate) fn begin(&self) -> io::Result<(PathBuf, File)> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join("new").join(number.to_string());
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((path, file))
    }

    /// Keeps `data` as what a version holds.
    pub(crate) fn put(&self, key: &Key, data: &[u8]) -> io::Result<File> {
        let hash = *blake3::hash(data).as_bytes();
        if let Some(file) = self.take(&hash) {
            self.remember(key, &hash)?;
            return Ok(file);
        }
        let (path, mut file) = self.begin()?;
        file.write_all(data)?;
        self.settle(key, &path, &hash, data.len() as u64)
    }

    /// Keeps a whole file that was begun as what a version holds.
    pub(crate) fn keep(&self, key: &Key, path: &Path) -> io::Result<File> {
        let file = File::open(path)?;
        let (hash, size) = (hash_of(&file)?, file.metadata()?.len());
        self.settle(key, path, &hash, size)
    }

    /// Says that a version has the contents with this hash.
    pub(crate) fn remember(&self, key: &Key, hash: &Hash) -> io::Result<()> {
        // In one step: others who fetch the same file at the same time say the same, and whoever looks finds one of them.
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let new = self.directory.join("new").join(number.to_string());
        std::os::unix::fs::symlink(hex(hash), &new)?;
        fs::rename(&new, self.version(key))?;
        let mut state = self.state();
        state.known.remove(key);
        state.versions += 1;
        if state.versions > VERSIONS_MAX {
            state.versions = 0;
            drop(state);
            self.forget_versions()?;
        }
        Ok(())
    }

    fn settle(&self, key: &Key, path: &Path, hash: &Hash, size: u64) -> io::Result<File> {
        let file = File::open(path)?;
        self.make_room(size);
        fs::rename(path, self.contents(hash))?;
        {
            let mut state = self.state();
            state.uses += 1;
            let used = state.uses;
            let before = state.kept.insert(*hash, Kept { size, used, verified: true });
            state.size += size;
            state.size -= before.map_or(0, |kept| kept.size);
        }
        self.remember(key, hash)?;
        Ok(file)
    }

    /// Removes what was used longest ago until `size` more bytes fit.
    fn make_room(&self, size: u64) {
        let mut state = self.state();
        while state.size + size > self.size_max {
            let Some(oldest) = state.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(hash, _)| *hash)
            else {
                return;
            };
            let gone = state.kept.remove(&oldest).map_or(0, |kept| kept.size);
            state.size -= gone;
            // Who has it open goes on reading.
            let _ = fs::remove_file(self.contents(&oldest));
        }
    }

    /// Forgets versions whose contents are gone, or all if there are still too many.
    fn forget_versions(&self) -> io::Result<()> {
        let directory = self.directory.join("versions");
        let mut left = 0;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let hash = fs::read_link(&path).ok().and_then(|hash| unhex(hash.to_str()?));
            if hash.is_some_and(|hash| self.state().kept.contains_key(&hash)) && left < VERSIONS_MAX / 2 {
                left += 1;
            } else {
                fs::remove_file(&path)?;
            }
        }
        self.state().versions += left;
        Ok(())
    }

    fn contents(&self, hash: &Hash) -> PathBuf {
        self.directory.join("contents").join(hex(hash))
    }

    fn version(&self, key: &Key) -> PathBuf {
        self.directory.join("versions").join(hex(key))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_right(file: &File, hash: &Hash) -> bool {
    hash_of(file).is_ok_and(|found| found == *hash)
}

fn hash_of(file: &File) -> io::Result<Hash> {
    use std::os::unix::fs::FileExt;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let size = file.read_at(&mut piece, offset)?;
        if size == 0 {
            return Ok(*hasher.finalize().as_bytes());
        }
        hasher.update(&piece[..size]);
        offset += size as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A directory that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("amoeba-store-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn text(file: Option<File>) -> Option<String> {
        let mut text = String::new();
        file?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn several_may_fetch_the_same_file_at_the_same_time() {
        let folder = Folder::new("several");
        let store = Store::open(&folder.0, 100_000).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..500u64 {
                        let mut key = [0; 16];
                        key[..8].copy_from_slice(&number.to_le_bytes());
                        store.put(&key, b"the same").unwrap();
                        assert!(store.find(&key).is_some(), "it was just kept");
                    }
                });
            }
        });
    }

    #[test]
    fn what_was_kept_is_found_also_after_a_start_unless_a_crash_has_torn_it() {
        let folder = Folder::new("kept");
        let store = Store::open(&folder.0, 1000).unwrap();
        store.put(&[1; 16], b"one").unwrap();
        store.put(&[2; 16], b"two").unwrap();
        store.put(&[3; 16], b"one").unwrap();
        assert_eq!(text(store.find(&[3; 16])).as_deref(), Some("one"));
        let store = Store::open(&folder.0, 1000).unwrap();
        assert_eq!(text(store.find(&[1; 16])).as_deref(), Some("one"));
        let torn = store.contents(blake3::hash(b"two").as_bytes());
        fs::write(torn, b"tw").unwrap();
        assert!(store.find(&[2; 16]).is_none());
        assert!(store.find(&[9; 16]).is_none());
        assert!(store.has_size(3));
    }

    #[test]
    fn what_a_version_holds_is_what_was_said_last_of_it() {
        let folder = Folder::new("said");
        let store = Store::open(&folder.0, 1000).unwrap();
        for text_of_it in ["one", "two", "one"] {
            store.put(&[1; 16], text_of_it.as_bytes()).unwrap();
            // The second time nobody looks.
            for _ in 0..2 {
                assert_eq!(text(store.find(&[1; 16])).as_deref(), Some(text_of_it));
            }
        }
        let other = |number: u64| blake3::hash(&number.to_le_bytes()).as_bytes()[..16].try_into().unwrap();
        for number in 0..KNOWN_MAX as u64 + 10 {
            store.state().known.insert(other(number), [0; 32]);
        }
        store.put(&[2; 16], b"two").unwrap();
        assert_eq!(text(store.find(&[2; 16])).as_deref(), Some("two"));
        assert_eq!(store.state().known.len(), 1);
        assert_eq!(text(store.find(&[1; 16])).as_deref(), Some("one"));
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let folder = Folder::new("room");
        let store = Store::open(&folder.0, 10).unwrap();
        store.put(&[1; 16], b"aaaa").unwrap();
        store.put(&[2; 16], b"bbbb").unwrap();
        assert!(store.find(&[1; 16]).is_some());
        store.put(&[3; 16], b"cccc").unwrap();
        assert!(store.find(&[2; 16]).is_none());
        assert!(store.find(&[1; 16]).is_some() && store.find(&[3; 16]).is_some());
        assert!(store.may_keep(5) && !store.may_keep(6));
    }
}
