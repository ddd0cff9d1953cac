//! The viewer of a host: a process of our binary, started when the first guest wants its caller's files.

use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::desk::SOCKET;

/// How long a viewer may take to open its desk.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Keeps the viewer of a host running as long as it is needed.
pub(in crate::guest) struct Keeper {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    socket: PathBuf,
    viewer: Mutex<Option<Child>>,
}

impl Keeper {
    /// Would start `program` with `arguments`; without arguments there is no viewer.
    pub(in crate::guest) fn new(
        program: &Path,
        arguments: &[OsString],
        environment: &[(OsString, OsString)],
        logs: &Path,
    ) -> Keeper {
        Keeper {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            environment: environment.to_vec(),
            socket: logs.join(SOCKET),
            viewer: Mutex::new(None),
        }
    }

    /// Sees to it that there is a viewer.
    ///
    /// # Errors
    /// None can be started here.
    pub(in crate::guest) fn ensure(&self) -> io::Result<()> {
        if self.arguments.is_empty() {
            return Err(io::Error::other("this host shows nobody's files but its own"));
        }
        let mut viewer = self.viewer.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = viewer.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if runs {
            return Ok(());
        }
        let _ = std::fs::remove_file(&self.socket);
        // It ends when the other end of its input does.
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + START_TIMEOUT;
        while UnixStream::connect(&self.socket).is_err() {
            if !matches!(child.try_wait(), Ok(None)) || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other("it does not open its desk"));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        *viewer = Some(child);
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let viewer = self.viewer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = viewer.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
