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
/// How long it is believed that none can be started.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Keeps the viewer of a host running as long as it is needed.
pub(in crate::guest) struct Keeper {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    socket: PathBuf,
    viewer: Mutex<Viewer>,
}

/// The viewer, as it was last seen.
enum Viewer {
    NeverStarted,
    Started(Child),
    /// It did not come to its desk, because of something that may have changed after [`RETRY_INTERVAL`].
    Failed(Instant),
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
            viewer: Mutex::new(Viewer::NeverStarted),
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
        if let Viewer::Started(child) = &mut *viewer
            && matches!(child.try_wait(), Ok(None))
        {
            return Ok(());
        }
        if matches!(&*viewer, Viewer::Failed(when) if when.elapsed() < RETRY_INTERVAL) {
            return Err(io::Error::other("it did not open its desk a moment ago"));
        }
        match self.start() {
            Ok(child) => *viewer = Viewer::Started(child),
            Err(error) => {
                tracing::warn!("the viewer of this host does not start: {error}");
                *viewer = Viewer::Failed(Instant::now());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Starts a viewer, and waits until it is at its desk.
    fn start(&self) -> io::Result<Child> {
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
        Ok(child)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let viewer = self.viewer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Viewer::Started(child) = viewer {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
