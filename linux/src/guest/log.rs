//! The log of a detached process: a file of bounded size.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::control::{Report, send_report};
use super::pump::{Closed, Sink};

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
    ///
    /// # Errors
    /// The host cannot write it; then nothing more is written ever, so that the log ends where it was cut.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let appended = self.try_append(bytes);
        self.full |= appended.is_err();
        appended
    }

    fn try_append(&mut self, bytes: &[u8]) -> io::Result<()> {
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

/// A log as the output of a guest, made when there is something to write. A log that cannot be written is no broken pipe:
/// the guest runs on, and the process server hears once that the rest is lost.
pub(super) struct LogSink {
    path: PathBuf,
    /// `None` before the first output.
    log: Option<Log>,
    lost: bool,
    /// The socket to the process server.
    control: UnixStream,
}

impl LogSink {
    /// The output goes to the log at `path`, and what happens to it is told over `control`.
    pub(super) fn new(path: &Path, control: UnixStream) -> LogSink {
        LogSink { path: path.into(), log: None, lost: false, control }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let log = match &mut self.log {
            Some(log) => log,
            log => log.insert(Log::append_to(&self.path)?),
        };
        log.append(bytes)
    }
}

impl Sink for LogSink {
    fn write(&mut self, _position: u64, bytes: &[u8]) -> Result<(), Closed> {
        if !self.lost
            && let Err(error) = self.append(bytes)
        {
            self.lost = true;
            let _ = send_report(&self.control, &Report::OutputLost(error.to_string()));
        }
        Ok(())
    }

    fn close(&mut self, _position: u64) {}
}

/// What the readers of a log that the host could not write see at its end.
pub(super) fn lost_mark(reason: &str) -> Vec<u8> {
    format!("\n[amoeba: {reason}: the rest of the output was lost]\n").into_bytes()
}

/// As [`read`], where `mark` follows the log.
pub(super) fn read_marked(path: &Path, mark: &[u8], offset: u64, size: u32) -> (Vec<u8>, bool) {
    let end = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if offset < end {
        let (bytes, _) = read(path, offset, size).unwrap_or_default();
        return (bytes, false);
    }
    let rest = usize::try_from(offset - end).ok().and_then(|offset| mark.get(offset..)).unwrap_or_default();
    let part = &rest[..rest.len().min(size as usize)];
    (part.to_vec(), part.len() == rest.len())
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
    use crate::guest::control::receive_report;

    #[test]
    fn a_log_on_a_full_disk_tells_and_goes_on() {
        let (control, server) = UnixStream::pair().unwrap();
        let mut sink = LogSink::new(Path::new("/dev/full"), control);
        assert_eq!(sink.write(0, b"lost"), Ok(()));
        assert_eq!(sink.write(4, b"lost too"), Ok(()));
        let Report::OutputLost(reason) = receive_report(&server).unwrap() else { panic!() };
        assert!(reason.starts_with("No space left on device"), "{reason}");
        drop(sink);
        assert!(receive_report(&server).is_err(), "it is told once");
    }

    #[test]
    fn a_lost_rest_is_marked_for_whoever_reads() {
        let path = std::env::temp_dir().join(format!("amoeba-lost-{}", std::process::id()));
        std::fs::write(&path, b"begun").unwrap();
        let mark = lost_mark("no space");
        assert_eq!(mark, b"\n[amoeba: no space: the rest of the output was lost]\n");
        for size in [1, 4, 100] {
            let (mut seen, mut end) = (Vec::new(), false);
            while !end {
                let part = read_marked(&path, &mark, seen.len() as u64, size);
                seen.extend(part.0);
                end = part.1;
            }
            assert_eq!(seen, [b"begun", &mark[..]].concat());
        }
        assert_eq!(read_marked(&path, &mark, u64::MAX, 10), (vec![], true));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_marked(&path, &mark, 0, 100), (mark, true));
    }

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
