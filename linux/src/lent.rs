//! Memory files: sealed against every change, lent by passing a descriptor, and never asked back.
//!
//! Who still has one is for the operating system to say. The owner keeps a descriptor of its own that can only read, and
//! lends another opening of the file. A lease for writing is granted to the owner only as long as no other opening
//! exists: not in the daemon that passes it on, not under way in a socket, not in the borrower, not mapped there, nor in
//! anything the borrower made from it. So a borrower that dies, or lies, or keeps it for ever is seen as what it is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::{Error, Memory, MemoryFile};
use nix::libc;
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
    open,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::client::Client;

/// What every memory file is sealed with.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// Bytes of a block as fstat counts them.
const STAT_BLOCK_SIZE: u64 = 512;

/// The size of a memory file that can never change, is not empty and has all its pages: whoever reads a hole is given a page
/// for it, so that a file of holes would cost its lender nothing and its borrower all memory there is.
pub(crate) fn check(file: &OwnedFd) -> Option<usize> {
    let seals = fcntl_get_seals(file).ok()?;
    let facts = fstat(file).ok()?;
    let size = u64::try_from(facts.st_size).ok()?;
    let held = u64::try_from(facts.st_blocks).ok()?.checked_mul(STAT_BLOCK_SIZE)?;
    let is_whole = (1..=held).contains(&size);
    if seals.contains(SEALS) && is_whole { usize::try_from(size).ok() } else { None }
}

/// Pages of a memory file.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to this value alone, and is reached from any thread alike.
unsafe impl Send for Pages {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(file: impl AsFd, size: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Pages> {
        // SAFETY: the system chooses the place, so that no memory in use is replaced.
        let start =
            unsafe { mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED | flags, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Pages { start, size })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: nothing borrowed from the mapping outlives it.
        // It fails only for arguments that were not a mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// A memory file that is sealed.
struct Sealed {
    file: OwnedFd,
    pages: Pages,
}

impl Sealed {
    /// Maps it to read.
    fn map(file: OwnedFd) -> io::Result<Sealed> {
        let size = check(&file).ok_or(io::ErrorKind::InvalidInput)?;
        let pages = Pages::new(&file, size, ProtFlags::READ, MapFlags::POPULATE)?;
        Ok(Sealed { file, pages })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the whole mapping lies within the file, which was checked to be sealed against shrinking and against
        // all writing: these bytes never change as long as the mapping is there, and it is there as long as `self`.
        unsafe { std::slice::from_raw_parts(self.pages.start.as_ptr(), self.pages.size) }
    }
}

/// Another opening of the same file, to read.
fn reopen(file: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether any other opening of the file exists. `file` can only read.
fn is_held_elsewhere(file: &OwnedFd) -> bool {
    let lease = |kind: i32| {
        // SAFETY: the call takes a descriptor that is open and a number.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) == 0 }
    };
    let granted = lease(libc::F_WRLCK);
    if granted {
        lease(libc::F_UNLCK); // nobody could open it in between: no other descriptor of it exists
    }
    !granted
}

/// Whether this system can say who holds a memory file. Without that none is made.
fn can_tell() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    let tell = || -> io::Result<bool> {
        let file = create(1, &mut |_| {})?.file;
        let other = reopen(&file)?;
        let held = is_held_elsewhere(&file);
        drop(other);
        Ok(held && !is_held_elsewhere(&file))
    };
    *CAN.get_or_init(|| tell().unwrap_or(false))
}

fn create(size: usize, fill: &mut dyn FnMut(&mut [u8])) -> io::Result<Sealed> {
    let file = memfd_create("amoeba-file", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, size as u64)?;
    // Without this a system that is short of memory would end the process at a touch instead of refusing here.
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size as u64)?;
    let pages = Pages::new(&file, size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::POPULATE)?;
    // SAFETY: a fresh mapping of this size, that nobody else has or can get before it is sealed.
    fill(unsafe { std::slice::from_raw_parts_mut(pages.start.as_ptr(), size) });
    drop(pages); // a mapping that can write would keep it from being sealed
    fcntl_add_seals(&file, SEALS)?;
    Sealed::map(reopen(&file)?)
}

/// One of this process.
struct Own {
    sealed: Sealed,
    client: Client,
}

impl MemoryFile for Own {
    fn bytes(&self) -> &[u8] {
        self.sealed.bytes()
    }

    fn is_lent(&self) -> bool {
        is_held_elsewhere(&self.sealed.file)
    }

    fn lend(&self, to: Address) -> Result<u64, Error> {
        let lent = reopen(&self.sealed.file).map_err(|error| {
            tracing::debug!("cannot lend a memory file: {error}");
            Error::NotSent(Status::RPC_TRYAGAIN)
        })?;
        self.client.lend(to, lent)
    }
}

/// One of another process.
struct Borrowed(Sealed);

impl MemoryFile for Borrowed {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn is_lent(&self) -> bool {
        false
    }

    fn lend(&self, _: Address) -> Result<u64, Error> {
        Err(Error::NotSent(Status::STD_DENIED))
    }
}

/// A memory file that `client` can lend.
pub(crate) fn make(client: &Client, size: usize, fill: &mut dyn FnMut(&mut [u8])) -> Option<Memory> {
    if size == 0 || !can_tell() {
        return None;
    }
    match create(size, fill) {
        Ok(sealed) => Some(std::sync::Arc::new(Own { sealed, client: client.clone() })),
        Err(error) => {
            tracing::debug!("no memory file of {size} bytes: {error}");
            None
        }
    }
}

/// The memory file behind a descriptor that came from another process.
///
/// # Errors
/// BadReply: it is none, or can still change.
pub(crate) fn borrowed(file: OwnedFd) -> Result<Memory, Error> {
    Ok(std::sync::Arc::new(Borrowed(Sealed::map(file).map_err(|_| Error::BadReply)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(size: usize) -> Sealed {
        create(size, &mut |bytes| bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8))
            .unwrap()
    }

    #[test]
    fn nobody_can_change_it_and_everybody_reads_the_same() {
        let own = filled(10_000);
        let lent = Sealed::map(reopen(&own.file).unwrap()).unwrap();
        assert_eq!(own.bytes(), lent.bytes());
        assert_eq!(own.bytes()[300], 44);
        assert!(rustix::io::write(&lent.file, &[1]).is_err());
        assert!(ftruncate(&lent.file, 0).is_err());
        let path = format!("/proc/self/fd/{}", lent.file.as_raw_fd());
        if let Ok(writable) = open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            assert!(rustix::io::write(&writable, &[1]).is_err());
            assert!(
                Pages::new(&writable, 10_000, ProtFlags::READ | ProtFlags::WRITE, MapFlags::empty()).is_err()
            );
        }
    }

    #[test]
    fn it_is_lent_as_long_as_anybody_else_has_it_open_or_mapped() {
        if !can_tell() {
            return eprintln!("SKIPPED: this system does not say who holds a memory file");
        }
        let own = filled(5000);
        assert!(!is_held_elsewhere(&own.file));
        let own_twice = own.file.try_clone().unwrap();
        assert!(!is_held_elsewhere(&own.file), "a second name for the same opening is still ours");
        drop(own_twice);
        let lent = reopen(&own.file).unwrap();
        assert!(is_held_elsewhere(&own.file));
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        nix::sys::socket::sendmsg::<()>(
            a.as_raw_fd(),
            &[io::IoSlice::new(b"x")],
            &[nix::sys::socket::ControlMessage::ScmRights(&[lent.as_raw_fd()])],
            nix::sys::socket::MsgFlags::empty(),
            None,
        )
        .unwrap();
        drop(lent);
        assert!(is_held_elsewhere(&own.file), "under way in a socket");
        drop((a, b));
        assert!(!is_held_elsewhere(&own.file), "the socket is gone, and so is what was in it");
        let mapped = Sealed::map(reopen(&own.file).unwrap()).unwrap();
        let Sealed { file, pages } = mapped;
        drop(file);
        assert!(is_held_elsewhere(&own.file), "mapped");
        drop(pages);
        assert!(!is_held_elsewhere(&own.file));
    }

    #[test]
    fn what_can_change_is_not_borrowed() {
        let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, 4096).unwrap();
        rustix::io::write(&file, &[0; 4096]).unwrap();
        assert_eq!(check(&file), None);
        for seals in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::WRITE] {
            fcntl_add_seals(&file, seals).unwrap();
            assert_eq!(check(&file), None, "not sealed for good");
        }
        assert!(borrowed(file.try_clone().unwrap()).is_err());
        fcntl_add_seals(&file, SealFlags::SEAL).unwrap();
        assert_eq!(check(&file), Some(4096));
        assert_eq!(borrowed(file).unwrap().bytes(), [0; 4096]);
        assert_eq!(check(&std::fs::File::open("/dev/zero").unwrap().into()), None);
    }

    #[test]
    fn what_has_holes_is_not_borrowed() {
        let holes = |pages: u64, written: &[u64]| {
            let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            ftruncate(&file, pages * 4096).unwrap();
            for page in written {
                assert_eq!(rustix::io::pwrite(&file, &[1; 4096], page * 4096).unwrap(), 4096);
            }
            fcntl_add_seals(&file, SEALS).unwrap();
            file
        };
        for file in [holes(1 << 30, &[]), holes(3, &[0, 2]), holes(1, &[])] {
            assert_eq!(check(&file), None);
            assert!(borrowed(file).is_err());
        }
        assert_eq!(borrowed(holes(2, &[0, 1])).unwrap().bytes(), [1; 8192]);
    }
}
