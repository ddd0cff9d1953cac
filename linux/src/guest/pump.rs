//! Pumps: bytes from the guest's pipes or terminal to the caller's stream objects, and back. One thread a stream.

use std::fs::File;
use std::io::{self, Read, Write};

/// The most bytes of one transaction.
pub(super) const PIECE_SIZE_MAX: usize = 256 * 1024;

/// The other end of a stream is gone or wants no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// Where a guest's output goes.
pub(super) trait Sink: Send {
    /// Takes the bytes at `position`; returns when there is room for more.
    fn write(&mut self, position: u64, bytes: &[u8]) -> Result<(), Closed>;
    /// There is no more; `position` bytes were sent.
    fn close(&mut self, position: u64);
}

/// Where a guest's input comes from.
pub(super) trait Source: Send {
    /// Waits for bytes at `position`; the flag says that none will follow.
    fn read(&mut self, position: u64) -> Result<(Vec<u8>, bool), Closed>;
    /// The guest wants no more; it took `position` bytes.
    fn close(&mut self, position: u64);
}

/// How an output pump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// The guest closed its end, and everything it wrote was taken.
    End,
    /// The caller takes no more.
    Refused,
}

/// Carries everything the guest writes into `sink`, and tells it the end unless `is_told` knows that it hears of that
/// otherwise. On return the reading end is closed: if the guest still writes, it hears of a broken pipe.
pub(super) fn pump_out(from: File, sink: &mut dyn Sink, is_told: impl FnOnce() -> bool) -> Drained {
    let mut from = from;
    let mut position = 0;
    let mut piece = vec![0; PIECE_SIZE_MAX];
    loop {
        let size = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A terminal whose last user has gone answers EIO.
            Err(_) => break,
        };
        if sink.write(position, &piece[..size]).is_err() {
            return Drained::Refused;
        }
        position += size as u64;
    }
    if !is_told() {
        sink.close(position);
    }
    Drained::End
}

/// Carries everything `source` has to the guest. `at_end` is written last: nothing for a pipe, which is closed on
/// return, the end-of-file character for a terminal.
pub(super) fn pump_in(source: &mut dyn Source, to: File, at_end: &[u8]) {
    let mut to = to;
    let mut position = 0;
    loop {
        let Ok((bytes, end)) = source.read(position) else { return };
        if to.write_all(&bytes).is_err() {
            source.close(position);
            return;
        }
        position += bytes.len() as u64;
        if end {
            let _ = to.write_all(at_end);
            source.close(position);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// A caller that keeps what it is sent, and closes after `room` bytes.
    struct Keeper {
        bytes: Vec<u8>,
        room: usize,
        closed_at: Option<u64>,
    }

    impl Sink for Keeper {
        fn write(&mut self, position: u64, bytes: &[u8]) -> Result<(), Closed> {
            assert_eq!(position, self.bytes.len() as u64);
            assert!(bytes.len() <= PIECE_SIZE_MAX);
            if self.bytes.len() + bytes.len() > self.room {
                return Err(Closed);
            }
            self.bytes.extend_from_slice(bytes);
            Ok(())
        }

        fn close(&mut self, position: u64) {
            self.closed_at = Some(position);
        }
    }

    /// A caller that sends these pieces.
    struct Pieces {
        pieces: Vec<Vec<u8>>,
        closed_at: Option<u64>,
    }

    impl Source for Pieces {
        fn read(&mut self, _position: u64) -> Result<(Vec<u8>, bool), Closed> {
            Ok((self.pieces.remove(0), self.pieces.is_empty()))
        }

        fn close(&mut self, position: u64) {
            self.closed_at = Some(position);
        }
    }

    fn pipe() -> (File, File) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn three_megabytes_pass_unchanged() {
        let bytes: Vec<u8> =
            (0..3_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let (input, to_guest) = pipe();
        let (from_guest, mut output) = pipe();
        let pieces = bytes.chunks(77_777).map(<[u8]>::to_vec).collect();
        let mut source = Pieces { pieces, closed_at: None };
        let guest = thread::spawn(move || io::copy(&mut { input }, &mut output).unwrap());
        let feeder = thread::spawn(move || {
            pump_in(&mut source, to_guest, b"");
            source
        });
        let mut keeper = Keeper { bytes: vec![], room: usize::MAX, closed_at: None };
        assert_eq!(pump_out(from_guest, &mut keeper, || false), Drained::End);
        assert!(keeper.bytes == bytes);
        assert_eq!(keeper.closed_at, Some(3_000_000));
        assert_eq!(guest.join().unwrap(), 3_000_000);
        assert_eq!(feeder.join().unwrap().closed_at, Some(3_000_000));
    }

    #[test]
    fn who_hears_of_the_end_otherwise_is_not_told() {
        let (from_guest, mut output) = pipe();
        output.write_all(b"all").unwrap();
        drop(output);
        let mut keeper = Keeper { bytes: vec![], room: usize::MAX, closed_at: None };
        assert_eq!(pump_out(from_guest, &mut keeper, || true), Drained::End);
        assert_eq!((&keeper.bytes[..], keeper.closed_at), (&b"all"[..], None));
    }

    #[test]
    fn a_caller_that_closes_breaks_the_pipe() {
        let (from_guest, mut output) = pipe();
        let guest = thread::spawn(move || {
            loop {
                if let Err(error) = output.write_all(&[1; 4096]) {
                    return error.kind();
                }
            }
        });
        let mut keeper = Keeper { bytes: vec![], room: 100_000, closed_at: None };
        assert_eq!(pump_out(from_guest, &mut keeper, || false), Drained::Refused);
        assert_eq!(guest.join().unwrap(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_guest_that_closes_its_input_is_told_to_the_caller() {
        let (input, to_guest) = pipe();
        drop(input);
        let mut source = Pieces { pieces: vec![vec![1], vec![2]], closed_at: None };
        pump_in(&mut source, to_guest, b"");
        assert_eq!(source.closed_at, Some(0));
    }
}
