//! Standard input and output of the processes, served from here: bytes go through unchanged, both ways, at the pace of
//! who reads them. Between the commands of a pipeline they do not come here: there each process serves its own input.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Mutex;

use amoeba_cap::{Capability, GetPort};
use amoeba_name::Environment;
use amoeba_process::{ProcessDescriptor, ServedInput};
use amoeba_stream::{Sink, Source, StreamServer};
use amoeba_threads::JoinHandle;
use amoeba_world::World;
use anyhow::Context;

/// Threads in getreq where there is input, which goes one way while output comes the other. Each answers at once, or later from
/// elsewhere.
const THREADS: usize = 2;
/// And where there is none.
const THREADS_WITHOUT_INPUT: usize = 1;
/// Bytes read from standard input at once.
const PIECE_SIZE: usize = 64 * 1024;
/// The number of `/dev/null`: kind 1, the third of it.
const NULL_DEVICE: u64 = 0x103;

/// The input of the first process, if it has any, the output of the last one, and what each has to complain about.
pub(super) struct Streams {
    input: Option<(Capability, Source)>,
    output: (Capability, Sink),
    errors: Vec<(Capability, Sink)>,
    writers: Mutex<Vec<JoinHandle<io::Result<()>>>>,
}

impl Streams {
    /// Serves those of `processes` processes, the first of which may have a terminal, on a port that nobody knows but who gets their capabilities.
    pub(super) fn serve(world: &World, processes: usize, tty: bool) -> anyhow::Result<Streams> {
        let port = GetPort::from_bytes(amoeba_world::random(&*world.entropy));
        let listener = world.transactions.listen(&port, amoeba_stream::REQUEST_SIZE_MAX)?;
        let server = StreamServer::new(world, listener.put_port());
        let errors = (0..processes).map(|_| server.sink()).collect::<Result<Vec<_>, _>>()?;
        let input = (tty || !is_null(io::stdin())).then(|| server.source()).transpose()?;
        let threads = if input.is_some() { THREADS } else { THREADS_WITHOUT_INPUT };
        let streams = Streams { input, output: server.sink()?, errors, writers: Mutex::default() };
        amoeba_stream::start(world, listener, server, threads)?;
        Ok(streams)
    }

    /// Gives a process its streams: `number` counts from the left, `joints` are what lies between.
    pub(super) fn join(
        &self,
        number: usize,
        joints: &[Joint],
        tty: bool,
        descriptor: &mut ProcessDescriptor,
    ) {
        let mut add = |name: &str, capability| {
            descriptor.capabilities.push((name.as_bytes().to_vec(), capability));
        };
        let input = self.input.as_ref().filter(|_| number == 0);
        if let Some((capability, _)) = input {
            add(Environment::STDIN, *capability);
        }
        add(Environment::STDOUT, joints.get(number).map_or(self.output.0, |joint| joint.capability));
        add(Environment::STDERR, self.errors[number].0);
        if let (true, Some((capability, _))) = (tty, input) {
            add(Environment::TTY, *capability);
        }
        descriptor.served_input =
            number.checked_sub(1).and_then(|left| joints.get(left)).map(|joint| joint.input.clone());
    }

    /// Begins to carry bytes.
    pub(super) fn start(&self, world: &World) -> anyhow::Result<()> {
        if let Some((_, source)) = &self.input {
            let (source, from) = (source.clone(), duplicate(io::stdin().as_fd())?);
            // Nobody joins it: it may hang in a read of input that never comes.
            world.threads.spawn("stdin", move || bring(from, &source))?;
        }
        let mut outputs = vec![("stdout", duplicate(io::stdout().as_fd())?, &self.output.1)];
        for (_, errors) in &self.errors {
            outputs.push(("stderr", duplicate(io::stderr().as_fd())?, errors));
        }
        for (name, to, sink) in outputs {
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
        if let Some((_, source)) = &self.input {
            source.close();
        }
        self.output.1.end();
        self.errors.iter().for_each(|(_, errors)| errors.end());
        let writers = std::mem::take(&mut *self.writers.lock().expect("no holder of this lock panics"));
        // All are waited for, whatever the first one says.
        let written: Vec<io::Result<()>> = writers.into_iter().filter_map(JoinHandle::join).collect();
        written.into_iter().collect()
    }
}

/// A pipe between two processes. The one that reads serves it; its get-port is known to nobody else but us.
pub(super) struct Joint {
    input: ServedInput,
    /// What the one that writes has for its standard output.
    capability: Capability,
    closed: bool,
}

impl Joint {
    /// The pipes between `processes` processes, one less than these.
    pub(super) fn between(world: &World, processes: usize) -> anyhow::Result<Vec<Joint>> {
        let joint = |_| {
            let input = ServedInput {
                get_port: amoeba_world::random(&*world.entropy),
                secret: amoeba_world::random(&*world.entropy),
            };
            let port = world.transactions.put_port(&input.get_port())?;
            let capability = amoeba_stream::served_sink(port, &input.secret());
            Ok(Joint { input, capability, closed: false })
        };
        (1..processes).map(joint).collect()
    }

    /// The process `number` has ended: whoever still writes to it is to hear of a broken pipe, and not to look for
    /// somebody who is gone.
    pub(super) fn close(world: &World, joints: &mut [Joint], number: usize) {
        let Some(joint) = number.checked_sub(1).and_then(|left| joints.get_mut(left)) else { return };
        if std::mem::replace(&mut joint.closed, true) {
            return;
        }
        // If it fails, the writer gives up by itself, only later.
        if let Ok(listener) =
            world.transactions.listen(&joint.input.get_port(), amoeba_stream::REQUEST_SIZE_MAX)
        {
            let (server, sink) =
                StreamServer::with_one_sink(world, listener.put_port(), joint.input.secret());
            sink.refuse();
            let _ = amoeba_stream::start(world, listener, server, 1);
        }
    }
}

/// A descriptor of our own, without the buffer and the lock of the standard one.
fn duplicate(descriptor: BorrowedFd<'_>) -> anyhow::Result<File> {
    Ok(File::from(descriptor.try_clone_to_owned().context("a standard stream is closed")?))
}

/// Whether this is `/dev/null`: a process that has no STDIN reads nothing either, and its host need not ask here for that.
fn is_null(input: impl AsFd) -> bool {
    let metadata = input.as_fd().try_clone_to_owned().and_then(|input| File::from(input).metadata());
    metadata.is_ok_and(|metadata| metadata.file_type().is_char_device() && metadata.rdev() == NULL_DEVICE)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_null_device_is_empty_for_sure() {
        let open = |path: &str| File::open(path).expect("every host has it");
        assert!(is_null(open("/dev/null")));
        assert!(!is_null(open("/dev/zero")) && !is_null(open("/etc/passwd")));
    }
}
