//! Zeros into the holes of a sparse image, ahead of the writes that will come.
//!
//! A write into a hole makes the file system take space, and its flush then commits a journal: that doubles what a
//! small durable write costs. Zeros go past the page cache where the file system lets them, so that somebody else's
//! flush does not wait for them.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use nix::libc;
use rustix::fs::{OFlags, SeekFrom, fstatvfs, seek};

/// Bytes written at once.
const PIECE: usize = 1 << 20;
/// What such writes must be aligned to.
const ALIGNMENT: usize = 4096;
/// Bytes of the host's file system that are left to others.
const SPARE_MIN: u64 = 1 << 30;

/// Begins to write what is dirty of a range. A failure is the flush's to tell.
pub(super) fn begin(file: &File, offset: u64, size: u64) {
    let (Ok(offset), Ok(size)) = (offset.try_into(), size.try_into()) else { return };
    // SAFETY: the call takes numbers only, and the descriptor is open as long as `file` is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, size, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Writes zeros where `file` was never written, from `start` to `end`; false when its file system does not tell.
pub(super) fn write_holes(file: &File, start: u64, end: u64) -> io::Result<bool> {
    let mut at = start;
    let mut writer = None;
    while at < end {
        let hole = match seek(file, SeekFrom::Hole(at)) {
            Ok(hole) => hole.min(end),
            Err(rustix::io::Errno::INVAL) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        if hole == end {
            return Ok(true);
        }
        at = match seek(file, SeekFrom::Data(hole)) {
            Ok(data) => data.min(end),
            Err(rustix::io::Errno::NXIO) => end, // nothing but holes from here on
            Err(errno) => return Err(errno.into()),
        };
        refuse_if_scarce(file, at - hole)?;
        let writer = match &mut writer {
            Some(writer) => writer,
            none => none.insert(Writer::open(file)?),
        };
        writer.zeros(hole, at)?;
    }
    Ok(true)
}

fn refuse_if_scarce(file: &File, size: u64) -> io::Result<()> {
    let space = fstatvfs(file)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < size.saturating_add(SPARE_MIN) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
}

/// A second descriptor of the image, and aligned zeros.
struct Writer {
    file: File,
    zeros: Vec<u8>,
    aligned: usize,
}

impl Writer {
    fn open(file: &File) -> io::Result<Writer> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut options = OpenOptions::new();
        let direct = options.write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(&path);
        let file = match direct {
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                OpenOptions::new().write(true).open(&path)?
            }
            other => other?,
        };
        let zeros = vec![0; PIECE + ALIGNMENT];
        let aligned = zeros.as_ptr().align_offset(ALIGNMENT);
        Ok(Writer { file, zeros, aligned })
    }

    fn zeros(&self, start: u64, end: u64) -> io::Result<()> {
        let mut at = start;
        while at < end {
            let size = (PIECE as u64).min(end - at) as usize;
            self.file.write_all_at(&self.zeros[self.aligned..self.aligned + size], at)?;
            at += size as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_are_filled_and_data_stays() {
        let path = std::env::temp_dir().join(format!("amoeba-prepare-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&[7; 5000], 1 << 20).unwrap();
        let before = file.metadata().unwrap().blocks();
        let told = match write_holes(&file, 4096, 6 << 20) {
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                eprintln!("SKIPPED: the file system of {} is nearly full", path.display());
                return std::fs::remove_file(path).unwrap();
            }
            told => told.unwrap(),
        };
        file.sync_all().unwrap();
        let mut bytes = vec![1; 8 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes[1 << 20..][..5000].iter().all(|byte| *byte == 7));
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 5000);
        let blocks = file.metadata().unwrap().blocks() - before;
        assert!(!told || blocks * 512 >= 4 << 20, "{blocks} sectors more");
        std::fs::remove_file(path).unwrap();
    }
}
