//! What the daemons have to say: a file each under `log/`. A disk without room silences them, and stops none.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::state::State;

/// A log larger than this is moved aside when its daemon starts.
const LOG_SIZE_MAX: u64 = 8 << 20;
/// Bytes of the end of a log that are shown when a start fails.
const TAIL: u64 = 2000;
/// Bytes of the end of a log in which a reason is searched.
const SEARCHED: u64 = 64 << 10;
/// What the line of an error has before its text.
const ERROR: &str = " ERROR ";

/// Daemons write their log to standard error, which the supervisor keeps; `AMOEBA_LOG` chooses how much.
pub(crate) fn to_standard_error() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("AMOEBA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    builder.with_writer(|| Patient(io::stderr())).log_internal_errors(false).init();
}

/// A writer that loses what it cannot write: logging must not end a daemon.
struct Patient<W>(W);

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.0.write(bytes).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// Standard output and standard error of a daemon: its log, or nothing when there is no room for one.
pub(crate) fn streams(state: &State, role: &str) -> (Stdio, Stdio) {
    match open(state, role).and_then(|log| Ok((log.try_clone()?, log))) {
        Ok((out, error)) => (out.into(), error.into()),
        Err(error) => {
            tracing::warn!("the {role} daemon has no log: {error}");
            (Stdio::null(), Stdio::null())
        }
    }
}

/// The log of a daemon, to be appended to; the last one is kept beside it.
fn open(state: &State, role: &str) -> io::Result<fs::File> {
    let path = state.path(&format!("log/{role}.log"));
    let open = || fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let mut log = open()?;
    if log.seek(SeekFrom::End(0))? > LOG_SIZE_MAX {
        fs::rename(&path, path.with_extension("log.old"))?;
        log = open()?;
    }
    Ok(log)
}

/// Bytes that are in a daemon's log; 0 when the next start will begin a new one.
pub(crate) fn size(state: &State, role: &str) -> u64 {
    let size = fs::metadata(state.path(&format!("log/{role}.log"))).map_or(0, |log| log.len());
    if size > LOG_SIZE_MAX { 0 } else { size }
}

/// The end of a log, of what was written behind the byte `from`.
pub(crate) fn tail(path: &Path, from: u64) -> String {
    read(path, from, TAIL).unwrap_or_else(|error| format!("{}: {error}", path.display()))
}

/// The last error in a log behind the byte `from`, without time and module; the last line if no line is an error.
pub(crate) fn why(path: &Path, from: u64) -> Option<String> {
    let text = read(path, from, SEARCHED).ok()?;
    let errors = text.lines().rev().filter_map(|line| Some(line.split_once(ERROR)?.1));
    let error = errors.map(|error| error.split_once(": ").map_or(error, |(_, text)| text)).next();
    error.or_else(|| text.lines().next_back()).map(str::to_owned)
}

fn read(path: &Path, from: u64, size_max: u64) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(from.max(size.saturating_sub(size_max))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_last_error_of_this_start() {
        let path = std::env::temp_dir().join(format!("amoeba-log-{}", std::process::id()));
        let old = "2026-01-01T00:00:00Z ERROR amoeba_bin: an old story\n";
        let new =
            "2026-01-01T00:00:01Z ERROR amoeba_bin: config.toml: line 1\n2026-01-01T00:00:01Z  INFO x: bye\n";
        fs::write(&path, format!("{old}{new}")).unwrap();
        let from = old.len() as u64;
        assert_eq!(why(&path, from).as_deref(), Some("config.toml: line 1"));
        assert!(!tail(&path, from).contains("old story"));
        fs::write(&path, format!("{old}thread 'main' panicked")).unwrap();
        assert_eq!(why(&path, from).as_deref(), Some("thread 'main' panicked"));
        fs::write(&path, old).unwrap();
        assert_eq!(why(&path, from), None);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_full_disk_does_not_end_who_logs() {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(Patient(full).write(b"hello").unwrap(), 5);
    }
}
