//! The standard streams of a guest: its ends, ours, and the threads that pump between ours and the caller's objects.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_process::{ProcessDescriptor, WindowSize};
use amoeba_world::World;
use nix::libc;
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::log::LogSink;
use super::pump::{Closed, Drained, Sink, Source, pump_in, pump_out};
use super::remote::{RemoteSink, RemoteSource, ServedSource};
use super::tree;

/// Bytes we ask for in a pipe, so that a guest and its pump work at the same time.
const PIPE_SIZE: usize = 1 << 20;
/// How long after the end of an output the end of its process may come, to be told instead.
const ENDING_TIME: Duration = Duration::from_millis(20);
/// The character that ends input on a terminal.
const TERMINAL_END: &[u8] = &[4];

/// Where the streams of a guest may lead.
pub(super) struct Ways<'a> {
    pub(super) world: &'a World,
    /// The guest's log; empty for none.
    pub(super) log: &'a [u8],
    /// The socket to the process server.
    pub(super) control: &'a UnixStream,
    /// What reads as empty and takes everything.
    pub(super) nowhere: &'a File,
}

/// The guest's standard streams: its ends, and ours.
pub(super) struct Streams {
    pub(super) guests: [OwnedFd; 3],
    pub(super) ours: Ends,
}

/// Our ends.
#[derive(Default)]
pub(super) struct Ends {
    input: Option<(Box<dyn Source>, File, &'static [u8])>,
    outputs: Vec<(File, Box<dyn Sink>)>,
    pub(super) terminal: Option<OwnedFd>,
    /// The input, when it is served here.
    pub(super) served: Option<amoeba_stream::Sink>,
}

impl Streams {
    /// The streams that a descriptor asks for.
    pub(super) fn open(descriptor: &ProcessDescriptor, ways: &Ways<'_>) -> io::Result<Streams> {
        match descriptor.terminal {
            Some(window) => Streams::terminal(descriptor, ways.world, window),
            None => Streams::pipes(descriptor, ways),
        }
    }

    /// One terminal for all three. Its output goes to STDOUT.
    fn terminal(descriptor: &ProcessDescriptor, world: &World, window: WindowSize) -> io::Result<Streams> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        set_window(&master, window)?;
        let mut ours = Ends::default();
        if let Some(source) = RemoteSource::open(world, descriptor.capability(b"STDIN")) {
            ours.input = Some((Box::new(source), File::from(master.try_clone()?), TERMINAL_END));
        }
        let sink: Box<dyn Sink> = match RemoteSink::open(world, descriptor.capability(b"STDOUT")) {
            Some(sink) => Box::new(sink),
            None => Box::new(Nowhere),
        };
        ours.outputs.push((File::from(master.try_clone()?), sink));
        ours.terminal = Some(master);
        Ok(Streams { guests: [slave.try_clone()?, slave.try_clone()?, slave], ours })
    }

    fn pipes(descriptor: &ProcessDescriptor, ways: &Ways<'_>) -> io::Result<Streams> {
        let mut ours = Ends::default();
        let source: Option<Box<dyn Source>> = match &descriptor.served_input {
            Some(input) => {
                let source = ServedSource::serve(ways.world, input).map_err(io::Error::other)?;
                ours.served = Some(source.sink());
                Some(Box::new(source))
            }
            None => RemoteSource::open(ways.world, descriptor.capability(b"STDIN"))
                .map(|source| -> Box<dyn Source> { Box::new(source) }),
        };
        let input = match source {
            Some(source) => {
                let (read, write) = pipe()?;
                ours.input = Some((source, File::from(write), b""));
                Some(read)
            }
            None => None,
        };
        let named = [descriptor.capability(b"STDOUT"), descriptor.capability(b"STDERR")]
            .map(|stream| stream.filter(|stream| !stream.is_null()));
        let output = ours.output(named[0], descriptor.detached, ways)?;
        // One object for both means one pipe for both, which keeps the order in which the guest wrote.
        let errors = match &output {
            Some(pipe) if named[0] == named[1] => Some(pipe.try_clone()?),
            _ => ours.output(named[1], descriptor.detached, ways)?,
        };
        let or_nowhere = |end: Option<OwnedFd>| match end {
            Some(end) => Ok(end),
            None => ways.nowhere.as_fd().try_clone_to_owned(),
        };
        Ok(Streams { guests: [or_nowhere(input)?, or_nowhere(output)?, or_nowhere(errors)?], ours })
    }

    /// The guest's ends, in their order.
    pub(super) fn of_guest(&self) -> [BorrowedFd<'_>; 3] {
        let [input, output, errors] = &self.guests;
        [input.as_fd(), output.as_fd(), errors.as_fd()]
    }
}

impl Ends {
    /// The guest's end of a pipe for output: to the stream object, else to the log if it is detached, else nowhere.
    fn output(
        &mut self,
        stream: Option<Capability>,
        detached: bool,
        ways: &Ways<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        let sink: Box<dyn Sink> = match RemoteSink::open(ways.world, stream) {
            Some(sink) => Box::new(sink),
            None if detached && !ways.log.is_empty() => {
                let path = Path::new(OsStr::from_bytes(ways.log));
                Box::new(LogSink::new(path, ways.control.try_clone()?))
            }
            None => return Ok(None),
        };
        let (read, write) = pipe()?;
        self.outputs.push((File::from(read), sink));
        Ok(Some(write))
    }

    /// Starts a thread for every stream. With `awaited`, whoever takes the output hears of its end by that of the guest.
    pub(super) fn pump(&mut self, guest: Pid, awaited: bool) -> Pumps {
        let mut pumps = Pumps::default();
        if let Some((mut source, to, at_end)) = self.input.take() {
            let pump = move || pump_in(source.as_mut(), to, at_end);
            // Without a thread the guest reads the end of its input at once: the pipe closes with the closure.
            pumps.input = thread::Builder::new().name("stdin".into()).spawn(pump).ok();
        }
        for (from, mut sink) in self.outputs.drain(..) {
            let (tell, drained) = mpsc::channel();
            let terminal = rustix::termios::isatty(&from);
            let ending = pumps.ending.clone();
            let pump = move || {
                let ended = pump_out(from, sink.as_mut(), || awaited && ending.comes());
                if ended == Drained::Refused && terminal {
                    // A terminal cannot break like a pipe; its caller has hung up.
                    tree::send(-guest.as_raw_nonzero().get(), libc::SIGHUP);
                }
                drop(tell);
            };
            let thread = thread::Builder::new().name("output".into()).spawn(pump).ok();
            pumps.outputs.push(Output { drained, thread });
        }
        pumps
    }
}

/// Whether a guest's first process has ended.
#[derive(Default)]
pub(super) struct Ending {
    has_ended: Mutex<bool>,
    came: Condvar,
}

impl Ending {
    pub(super) fn tell(&self) {
        *self.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.came.notify_all();
    }

    /// Whether it has ended, or ends in this moment: its streams close a moment before that is known.
    fn comes(&self) -> bool {
        let has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.came.wait_timeout_while(has_ended, ENDING_TIME, |has_ended| !*has_ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The threads of a guest's streams.
#[derive(Default)]
pub(super) struct Pumps {
    pub(super) ending: Arc<Ending>,
    input: Option<JoinHandle<()>>,
    pub(super) outputs: Vec<Output>,
}

/// The thread of one output.
pub(super) struct Output {
    /// Disconnected when everything was delivered, or is refused.
    pub(super) drained: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Pumps {
    /// Waits for the threads that are about to end; false when one still has something to do.
    pub(super) fn join(self) -> bool {
        for output in self.outputs {
            if output.drained.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                return false;
            }
            let _ = output.thread.map(JoinHandle::join);
        }
        self.input.is_none_or(|input| input.is_finished())
    }
}

/// Tells a terminal its size.
pub(super) fn set_window(terminal: impl AsFd, window: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: window.rows, ws_col: window.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let ends = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Refused where the user's pipes take too much memory already; a small pipe works as well, only slower.
    let _ = rustix::pipe::fcntl_setpipe_size(&ends.0, PIPE_SIZE);
    Ok(ends)
}

/// A terminal's output that nobody reads.
struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _position: u64, _bytes: &[u8]) -> Result<(), Closed> {
        Ok(())
    }

    fn close(&mut self, _position: u64) {}
}
