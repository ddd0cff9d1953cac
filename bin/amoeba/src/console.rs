//! The terminal and the signals of this process, for the subcommands.

use std::any::Any;
use std::io::{self, IsTerminal};

use amoeba_cli::{Console, Signals, Standard};
use amoeba_linux::terminal;

/// The terminal this process was started on.
pub(crate) struct Terminal;

impl Console for Terminal {
    fn is_terminal(&self, stream: Standard) -> bool {
        match stream {
            Standard::Input => io::stdin().is_terminal(),
            Standard::Output => io::stdout().is_terminal(),
            Standard::Error => io::stderr().is_terminal(),
        }
    }

    fn size(&self) -> Option<(u16, u16)> {
        terminal::size()
    }

    fn raw_mode(&self) -> io::Result<Box<dyn Any + Send>> {
        Ok(Box::new(terminal::RawMode::enter()?))
    }

    fn signals(&self, numbers: &[i32]) -> io::Result<Box<dyn Signals>> {
        Ok(Box::new(Caught(signal_hook::iterator::Signals::new(numbers)?)))
    }

    fn suspend(&self) {
        terminal::suspend();
    }
}

struct Caught(signal_hook::iterator::Signals);

impl Signals for Caught {
    fn next(&mut self) -> Option<i32> {
        self.0.forever().next()
    }
}
