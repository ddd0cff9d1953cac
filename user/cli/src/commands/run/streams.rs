//! Standard input and output of the process, served from here: bytes go through unchanged, both ways, at the pace of
//! who reads them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use amoeba_cap::{Capability, GetPort};
use amoeba_name::Environment;
use amoeba_stream::{Sink, Source, StreamServer};
use amoeba_threads::JoinHandle;
use amoeba_world::World;
use anyhow::Context;

/// Threads in getreq: each of the three streams has one request at a time.
const THREADS: usize = 3;
/// Bytes read from standard input at once.
const PIECE_SIZE: usize = 64 * 1024;

/// The three streams.
pub(super) struct Streams {
    input: (Capability, Source),
    output: (Capability, Sink),
    errors: (Capability, Sink),
    writers: Mutex<Vec<JoinHandle<io::Result<()>>>>,
}

impl Streams {
    /// Serves them on a port that nobody knows but who gets their capabilities.
    pub(super) fn serve(world: &World) -> anyhow::Result<Streams> {
        let port = GetPort::from_bytes(amoeba_world::random(&*world.entropy));
        let listener = world.transactions.listen(&port, amoeba_stream::REQUEST_SIZE_MAX)?;
        let server = StreamServer::new(world, listener.put_port());
        let streams = Streams {
            input: server.source()?,
            output: server.sink()?,
            errors: server.sink()?,
            writers: Mutex::default(),
        };
        amoeba_stream::start(world, listener, server, THREADS)?;
        Ok(streams)
    }

    /// The entries of the capability environment.
    pub(super) fn capabilities(&self, tty: bool) -> Vec<(Vec<u8>, Capability)> {
        let mut entries = vec![
            (Environment::STDIN, self.input.0),
            (Environment::STDOUT, self.output.0),
            (Environment::STDERR, self.errors.0),
        ];
        if tty {
            entries.push((Environment::TTY, self.input.0));
        }
        entries.into_iter().map(|(name, capability)| (name.as_bytes().to_vec(), capability)).collect()
    }

    /// Begins to carry bytes.
    pub(super) fn start(&self, world: &World) -> anyhow::Result<()> {
        let source = self.input.1.clone();
        let from = duplicate(io::stdin().as_fd())?;
        // Nobody joins it: it may hang in a read of input that never comes.
        world.threads.spawn("stdin", move || bring(from, &source))?;
        for (name, to, sink) in [
            ("stdout", duplicate(io::stdout().as_fd())?, &self.output.1),
            ("stderr", duplicate(io::stderr().as_fd())?, &self.errors.1),
        ] {
            let sink = sink.clone();
            let writer = world.threads.spawn(name, move || take(&sink, to))?;
            self.writers.lock().expect("no holder of this lock panics").push(writer);
        }
        Ok(())
    }

    /// The process has ended: writes what it has left, and returns when that is done.
    ///
    /// # Errors
    /// Output could not be written, and not because nobody reads it any more.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.input.1.close();
        self.output.1.end();
        self.errors.1.end();
        let writers = std::mem::take(&mut *self.writers.lock().expect("no holder of this lock panics"));
        // All are waited for, whatever the first one says.
        let written: Vec<io::Result<()>> = writers.into_iter().filter_map(JoinHandle::join).collect();
        written.into_iter().collect()
    }
}

/// A descriptor of our own, without the buffer and the lock of the standard one.
fn duplicate(descriptor: BorrowedFd<'_>) -> anyhow::Result<File> {
    Ok(File::from(descriptor.try_clone_to_owned().context("a standard stream is closed")?))
}

fn bring(mut from: impl Read, source: &Source) {
    let mut piece = vec![0; PIECE_SIZE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => break,
            Ok(size) => {
                if source.push(&piece[..size]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Closed, or a terminal that went away: for the process it is the end.
            Err(_) => break,
        }
    }
    source.end();
}

fn take(sink: &Sink, mut to: impl Write) -> io::Result<()> {
    while let Some(piece) = sink.take() {
        if let Err(error) = to.write_all(&piece) {
            // The process hears of a broken pipe at its next write, as it would here.
            sink.refuse();
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}
