//! The log of a detached process: a file of bounded size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The most bytes of output that a log keeps.
pub const LOG_SIZE_MAX: u64 = 16 << 20;
/// What a log ends with when there was more.
pub const LOG_CUT_MARK: &[u8] = b"\n[amoeba: the log is full, the rest of the output was dropped]\n";

/// The writing end.
pub(super) struct Log {
    file: File,
    size: u64,
    full: bool,
}

impl Log {
    /// A log at the end of the file at `path`, which is readable by its owner alone.
    pub(super) fn append_to(path: &Path) -> io::Result<Log> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Log { file, size, full: size > LOG_SIZE_MAX })
    }

    /// Appends what there is room for; the rest is dropped, and the log says so.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.full {
            return Ok(());
        }
        let room = usize::try_from(LOG_SIZE_MAX.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        self.file.write_all(kept)?;
        self.size += kept.len() as u64;
        if kept.len() < bytes.len() {
            self.full = true;
            self.file.write_all(LOG_CUT_MARK)?;
        }
        Ok(())
    }
}

/// Up to `size` bytes from `offset`, and whether that is the end for now.
pub(super) fn read(path: &Path, offset: u64, size: u32) -> io::Result<(Vec<u8>, bool)> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    if offset >= end {
        return Ok((Vec::new(), true));
    }
    file.seek(SeekFrom::Start(offset))?;
    let size = u64::from(size).min(end - offset);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(size).read_to_end(&mut bytes)?;
    let at_end = offset + bytes.len() as u64 >= end;
    Ok((bytes, at_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_says_that_it_is_cut() {
        let path = std::env::temp_dir().join(format!("amoeba-log-{}", std::process::id()));
        let mut log = Log::append_to(&path).unwrap();
        let piece = vec![b'x'; 5 << 20];
        for _ in 0..5 {
            log.append(&piece).unwrap();
        }
        let (bytes, end) = read(&path, LOG_SIZE_MAX - 1, 1000).unwrap();
        assert_eq!((&bytes[1..], end), (LOG_CUT_MARK, true));
        let (bytes, end) = read(&path, 0, 10).unwrap();
        assert_eq!((&bytes[..], end), (&[b'x'; 10][..], false));
        assert_eq!(read(&path, u64::MAX, 10).unwrap(), (vec![], true));
        std::fs::remove_file(&path).unwrap();
    }
}
