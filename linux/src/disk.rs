//! A disk in an image file or on a block device.

mod prepare;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use amoeba_world::{Disk, DiskError};
use rustix::fs::{FlockOperation, SeekFrom, flock, seek};

/// A disk image could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has this image open: two servers on one image would destroy it.
    #[error("{0} is in use by another process")]
    InUse(PathBuf),
    /// Neither a regular file nor a block device.
    #[error("{0} is neither a file nor a block device")]
    NotADisk(PathBuf),
    /// The operating system refused.
    #[error("cannot open {path}: {source}")]
    Io {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An image file or a block device, locked against other processes while it is open.
pub struct FileDisk {
    file: File,
    size: AtomicU64,
    /// A block device has the size it has.
    fixed: bool,
    /// Linux reports a failed write-back once and then calls the pages clean: what failed once stays failed.
    broken: AtomicBool,
    growing: Mutex<()>,
}

impl FileDisk {
    /// Opens an existing image or block device.
    pub fn open(path: &Path) -> Result<FileDisk, OpenError> {
        FileDisk::open_with(path, false)
    }

    /// Opens an image; makes an empty one of size 0, mode 0600, when there is none.
    pub fn open_or_create(path: &Path) -> Result<FileDisk, OpenError> {
        FileDisk::open_with(path, true)
    }

    fn open_with(path: &Path, create: bool) -> Result<FileDisk, OpenError> {
        let failed = |source| OpenError::Io { path: path.into(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::InUse(path.into())),
            Err(errno) => return Err(failed(errno.into())),
        }
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::NotADisk(path.into()));
        }
        let size = seek(&file, SeekFrom::End(0)).map_err(|errno| failed(errno.into()))?;
        if create {
            sync_name(path).map_err(failed)?;
        }
        Ok(FileDisk {
            file,
            size: AtomicU64::new(size),
            fixed: kind.is_block_device(),
            broken: AtomicBool::new(false),
            growing: Mutex::new(()),
        })
    }

    fn check_within(&self, offset: u64, count: usize) -> Result<(), DiskError> {
        let end = u64::try_from(count).ok().and_then(|count| offset.checked_add(count));
        if end.is_some_and(|end| end <= self.size()) { Ok(()) } else { Err(DiskError::Full) }
    }
}

/// Makes the name of a new image as durable as its contents will be.
fn sync_name(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match File::open(parent)?.sync_all() {
        // Some file systems cannot flush a directory; the image itself is flushed all the same.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

fn meaning(error: &io::Error) -> DiskError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => DiskError::Full,
        ErrorKind::UnexpectedEof => DiskError::Full,
        _ => DiskError::Failed,
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        let _one_at_a_time = self.growing.lock().expect("no holder of this lock panics");
        if self.fixed {
            return if size == self.size() { Ok(()) } else { Err(DiskError::Full) };
        }
        self.file.set_len(size).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => DiskError::Full, // beyond what a file can be
            _ => meaning(&error),
        })?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.check_within(offset, bytes.len())?;
        self.file.read_exact_at(bytes, offset).map_err(|error| meaning(&error))
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check_within(offset, bytes.len())?;
        self.file.write_all_at(bytes, offset).map_err(|error| meaning(&error))
    }

    fn begin(&self, offset: u64, size: u64) {
        prepare::begin(&self.file, offset, size);
    }

    fn prepare(&self, offset: u64, size: u64) -> Result<bool, DiskError> {
        if self.fixed {
            return Ok(false);
        }
        let end = offset.checked_add(size).filter(|end| *end <= self.size()).ok_or(DiskError::Full)?;
        prepare::write_holes(&self.file, offset, end).map_err(|error| meaning(&error))
    }

    fn flush(&self) -> Result<(), DiskError> {
        if self.broken.load(Ordering::Acquire) {
            return Err(DiskError::Failed);
        }
        self.file.sync_data().map_err(|_| {
            self.broken.store(true, Ordering::Release);
            DiskError::Failed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("amoeba-disk-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn what_is_written_is_read_again() {
        let home = directory("again");
        let image = home.join("image");
        let disk = FileDisk::open_or_create(&image).unwrap();
        assert_eq!(disk.size(), 0);
        assert_eq!(disk.write(0, b"x"), Err(DiskError::Full));
        disk.set_size(8192).unwrap();
        disk.write(4000, b"across a page").unwrap();
        disk.flush().unwrap();
        let mut bytes = [1; 15];
        disk.read(3999, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0across a page\0");
        drop(disk);
        let disk = FileDisk::open(&image).unwrap();
        assert_eq!(disk.size(), 8192);
        disk.read(3999, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0across a page\0");
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn its_ends_are_its_ends() {
        let home = directory("ends");
        let disk = FileDisk::open_or_create(&home.join("image")).unwrap();
        disk.set_size(100).unwrap();
        assert_eq!(disk.write(99, b"xx"), Err(DiskError::Full));
        assert_eq!(disk.read(u64::MAX, &mut [0; 2]), Err(DiskError::Full));
        assert_eq!(disk.read(100, &mut []), Ok(()));
        assert_eq!(disk.set_size(u64::MAX), Err(DiskError::Full));
        assert_eq!(disk.size(), 100);
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn one_image_has_one_user() {
        let home = directory("user");
        let image = home.join("image");
        let first = FileDisk::open_or_create(&image).unwrap();
        assert!(matches!(FileDisk::open(&image), Err(OpenError::InUse(_))));
        drop(first);
        assert!(FileDisk::open(&image).is_ok());
        assert!(matches!(FileDisk::open(&home), Err(OpenError::Io { .. })));
        assert!(matches!(FileDisk::open(Path::new("/dev/null")), Err(OpenError::NotADisk(_))));
        std::fs::remove_dir_all(home).unwrap();
    }

    /// A block device that lasts as long as the test, if this machine lets us make one.
    struct Loop(String);

    impl Loop {
        fn of(image: &Path) -> Option<Loop> {
            let made =
                std::process::Command::new("losetup").args(["--find", "--show"]).arg(image).output().ok()?;
            let name = String::from_utf8(made.stdout).ok()?;
            made.status.success().then(|| Loop(name.trim().to_string()))
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = std::process::Command::new("losetup").args(["--detach", &self.0]).status();
        }
    }

    #[test]
    fn a_block_device_is_a_disk_of_the_size_it_has() {
        let home = directory("loop");
        let image = home.join("image");
        File::create(&image).unwrap().set_len(4 << 20).unwrap();
        let Some(device) = Loop::of(&image) else {
            eprintln!("SKIPPED: no loop device can be set up here (that takes root and losetup)");
            return std::fs::remove_dir_all(home).unwrap();
        };
        let disk = FileDisk::open(Path::new(&device.0)).unwrap();
        assert_eq!(disk.size(), 4 << 20);
        assert_eq!(disk.set_size(8 << 20), Err(DiskError::Full));
        assert_eq!(disk.write((4 << 20) - 1, b"xx"), Err(DiskError::Full));
        assert_eq!(disk.prepare(0, 1 << 20), Ok(false));
        disk.write(123_456, b"on a device").unwrap();
        disk.begin(0, 1 << 20);
        disk.flush().unwrap();
        drop(disk);
        let disk = FileDisk::open(Path::new(&device.0)).unwrap();
        let mut bytes = [0; 11];
        disk.read(123_456, &mut bytes).unwrap();
        assert_eq!(&bytes, b"on a device");
        drop((disk, device));
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn a_full_device_is_full() {
        let full = FileDisk::open_with(Path::new("/dev/full"), false);
        assert!(matches!(full, Err(OpenError::NotADisk(_))));
        assert_eq!(meaning(&io::Error::from_raw_os_error(28)), DiskError::Full);
        assert_eq!(meaning(&io::Error::from_raw_os_error(5)), DiskError::Failed);
    }
}
