//! The memory of a channel: a memory file for each side, which its owner alone can write.
//!
//! The owner maps its file read-write and then seals it: no later mapping can write, and nobody can change its size. So
//! whoever holds the descriptor may read, and no mapping of it ever faults for want of a page behind the end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence, fence};

use amoeba_channel::{Own, Peer, RING_OFFSET, Word, is_ring_size, region_size};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What every region is sealed with.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);
/// A host may set this one on every memory file.
const SEAL_EXEC: SealFlags = SealFlags::from_bits_retain(0x20);

/// The size of the ring in a region, if it is one: a memory file with the right seals and a right size.
pub(crate) fn check(file: &OwnedFd) -> Option<usize> {
    let seals = fcntl_get_seals(file).ok()?;
    let size = usize::try_from(fstat(file).ok()?.st_size).ok()?;
    let ring_size = size.checked_sub(RING_OFFSET)?;
    (seals.difference(SEAL_EXEC) == SEALS && is_ring_size(ring_size)).then_some(ring_size)
}

/// Mapped pages.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to this value alone and is reached from any thread alike.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(file: impl AsFd, size: usize, protection: ProtFlags) -> io::Result<Mapping> {
        // SAFETY: the system chooses the place, so that no memory in use is replaced.
        let start = unsafe { mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Mapping { start, size })
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        // SAFETY: words lie in the first page at multiples of their size, and the mapping outlives the reference. Both
        // processes reach them by atomic operations alone; that the other one writes at any time is what an atomic is for.
        unsafe { AtomicU64::from_ptr(self.at(word.offset(), 8).cast()) }
    }

    /// The place of `size` bytes at `offset`, which must lie within.
    fn at(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(offset <= self.size && size <= self.size - offset, "ends keep to the region");
        // SAFETY: it lies within the mapping, as was just checked.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing borrowed from the mapping outlives it.
        // It fails only for arguments that were not a mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// The region of this side.
#[derive(Debug)]
pub(crate) struct OwnRegion {
    mapping: Mapping,
    ring_size: usize,
}

impl OwnRegion {
    /// A fresh region, and the file by which the peer maps it.
    pub(crate) fn create(ring_size: usize) -> io::Result<(OwnRegion, OwnedFd)> {
        assert!(is_ring_size(ring_size), "a ring of {ring_size} bytes");
        let size = region_size(ring_size);
        let file = memfd_create("amoeba-channel", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, size as u64)?;
        let mapping = Mapping::new(&file, size, ProtFlags::READ | ProtFlags::WRITE)?;
        fcntl_add_seals(&file, SEALS)?;
        Ok((OwnRegion { mapping, ring_size }, file))
    }
}

impl Own for OwnRegion {
    fn ring_size(&self) -> usize {
        self.ring_size
    }

    fn load(&self, word: Word) -> u64 {
        self.mapping.word(word).load(Ordering::Relaxed)
    }

    fn store(&self, word: Word, value: u64) {
        self.mapping.word(word).store(value, Ordering::Release);
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.mapping.at(offset, bytes.len());
        // SAFETY: the place lies within the mapping, which only this side writes, and no reference points into it;
        // `bytes` lies elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// The region of the peer: it may hold anything, and change while it is read.
#[derive(Debug)]
pub(crate) struct PeerRegion {
    mapping: Mapping,
    ring_size: usize,
}

impl PeerRegion {
    /// Maps the peer's region.
    ///
    /// # Errors
    /// The system's own; `InvalidInput` for a file that is no region.
    pub(crate) fn map(file: &OwnedFd) -> io::Result<PeerRegion> {
        let ring_size = check(file).ok_or(io::ErrorKind::InvalidInput)?;
        let mapping = Mapping::new(file, region_size(ring_size), ProtFlags::READ)?;
        Ok(PeerRegion { mapping, ring_size })
    }

    /// Copies `size` bytes from `offset` to `to`.
    ///
    /// # Safety
    /// `to` is valid for writes of `size` bytes, and does not lie in the mapping.
    unsafe fn copy(&self, offset: usize, size: usize, to: *mut u8) {
        let from = self.mapping.at(offset, size);
        // The compiler must neither read the source again later nor think that it still holds what was copied.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the source lies within the mapping; the caller vouches for the destination. The peer may write at the
        // same time: then any bytes may be copied, and any bytes are what the callers expect.
        unsafe { std::ptr::copy_nonoverlapping(from, to, size) };
        compiler_fence(Ordering::SeqCst);
    }
}

impl Peer for PeerRegion {
    fn ring_size(&self) -> usize {
        self.ring_size
    }

    fn load(&self, word: Word) -> u64 {
        self.mapping.word(word).load(Ordering::Acquire)
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        // SAFETY: `into` is valid for its length and is memory of this process alone.
        unsafe { self.copy(offset, into.len(), into.as_mut_ptr()) }
    }

    fn append(&self, offset: usize, size: usize, into: &mut Vec<u8>) {
        into.reserve(size);
        // SAFETY: `size` bytes were reserved behind the end, where nothing else is; all of them are then initialised.
        unsafe {
            self.copy(offset, size, into.as_mut_ptr().add(into.len()));
            into.set_len(into.len() + size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amoeba_channel::{HEAD_OFFSET, RING_SIZE_DEFAULT};

    #[test]
    fn what_one_side_writes_the_other_reads_and_cannot_write() {
        let (own, file) = OwnRegion::create(RING_SIZE_DEFAULT).unwrap();
        let peer = PeerRegion::map(&file).unwrap();
        own.write(HEAD_OFFSET, &[1, 2, 3]);
        own.store(Word::Produced, 7);
        assert_eq!(Peer::load(&peer, Word::Produced), 7);
        let mut read = [0; 3];
        peer.read(HEAD_OFFSET, &mut read);
        assert_eq!(read, [1, 2, 3]);
        own.write(RING_OFFSET + RING_SIZE_DEFAULT - 2, &[8, 9]);
        let mut appended = vec![7];
        peer.append(RING_OFFSET + RING_SIZE_DEFAULT - 2, 2, &mut appended);
        assert_eq!(appended, [7, 8, 9]);
        assert!(Mapping::new(&file, 4096, ProtFlags::READ | ProtFlags::WRITE).is_err());
        assert!(rustix::io::write(&file, &[1]).is_err());
        assert!(ftruncate(&file, 0).is_err() && ftruncate(&file, 1 << 20).is_err());
    }

    #[test]
    fn what_is_no_region_is_refused() {
        let memfd = || memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let sized = |size| {
            let file = memfd();
            ftruncate(&file, size).unwrap();
            file
        };
        let right = region_size(RING_SIZE_DEFAULT) as u64;
        assert_eq!(check(&std::fs::File::open("/dev/zero").unwrap().into()), None);
        assert_eq!(check(&sized(right)), None, "not sealed");
        for (size, seals, accepted) in [
            (right, SEALS, true),
            (right + 1, SEALS, false),
            (0, SEALS, false),
            (right, SEALS.difference(SealFlags::SHRINK), false),
            (right, SEALS.difference(SealFlags::FUTURE_WRITE), false),
            (right, SEALS.difference(SealFlags::SEAL), false),
            (right, SEALS.union(SealFlags::WRITE), false),
        ] {
            let file = sized(size);
            fcntl_add_seals(&file, seals).unwrap();
            assert_eq!(check(&file).is_some(), accepted, "{size} {seals:?}");
            assert_eq!(PeerRegion::map(&file).is_ok(), accepted);
        }
    }
}
