//! The terminal of this process.

use std::fs::File;
use std::io;

use rustix::process::{Signal, getpgrp, getpid, kill_process};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

/// Rows and columns of the terminal on standard output or input; `None` when there is none.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).ok()?;
    Some((size.ws_row, size.ws_col)).filter(|size| *size != (0, 0))
}

/// Whether this process hears what is typed at its terminal, Ctrl-C above all. It may have no terminal.
pub fn in_foreground() -> bool {
    let group = File::open("/dev/tty").and_then(|terminal| Ok(tcgetpgrp(terminal)?));
    group.is_ok_and(|group| group == getpgrp())
}

/// A terminal in raw mode; dropping it puts the terminal back as it was.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Hands every key typed on standard input to this process as it is.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn enter() -> io::Result<RawMode> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        Ok(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before); // the terminal may be gone
    }
}

/// Stops this process until it is continued.
pub fn suspend() {
    let _ = kill_process(getpid(), Signal::STOP);
}
