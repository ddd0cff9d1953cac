//! The bytes of a file in memory, with holes.

use std::collections::BTreeMap;

use crate::{Error, Seek};

/// Bytes of a piece: as much as a mount asks for at once.
const PIECE_SIZE: u64 = 1 << 20;

/// Contents in pieces, of which those that were never written are missing, and read as zeros.
///
/// A piece may be shorter than it could be: what lies behind its end reads as zeros too.
#[derive(Debug, Default)]
pub(super) struct Data {
    pieces: BTreeMap<u64, Vec<u8>>,
    size: u64,
    held: u64,
}

impl Data {
    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are kept for it.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Gives what lies in `size` bytes from `offset` on, before the end of the file.
    pub(super) fn read(&self, offset: u64, size: usize, give: &mut dyn FnMut(&[u8])) {
        let end = self.size.min(offset.saturating_add(size as u64));
        if offset >= end {
            return give(&[]);
        }
        let within = (offset % PIECE_SIZE) as usize;
        let count = (end - offset) as usize;
        if let Some(whole) =
            self.pieces.get(&(offset / PIECE_SIZE)).and_then(|piece| piece.get(within..within + count))
        {
            return give(whole);
        }
        let mut bytes = vec![0; count];
        for (piece, within, part) in spans(offset, count) {
            if let Some(kept) = self.pieces.get(&piece).and_then(|piece| piece.get(within..)) {
                let known = kept.len().min(part.len());
                bytes[part][..known].copy_from_slice(&kept[..known]);
            }
        }
        give(&bytes);
    }

    /// How many bytes more will be held after `size` bytes at `offset` are written.
    pub(super) fn growth(&self, offset: u64, size: usize) -> u64 {
        let more = |(piece, within, part): (u64, usize, std::ops::Range<usize>)| {
            let held = self.pieces.get(&piece).map_or(0, Vec::len);
            (within + part.len()).saturating_sub(held) as u64
        };
        spans(offset, size).map(more).sum()
    }

    /// Writes `data` at `offset`; the file ends behind it at the earliest.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        for (piece, within, part) in spans(offset, data.len()) {
            let kept = self.pieces.entry(piece).or_default();
            let (was, end) = (kept.len(), within + part.len());
            if was == within {
                kept.extend_from_slice(&data[part]);
            } else {
                kept.resize(was.max(end), 0);
                kept[within..end].copy_from_slice(&data[part]);
            }
            self.held += (kept.len() - was) as u64;
        }
        self.size = self.size.max(offset + data.len() as u64);
    }

    /// Cuts the file, or lengthens it by a hole.
    pub(super) fn set_size(&mut self, size: u64) {
        if size < self.size {
            self.clear(size, self.size);
        }
        self.size = size;
    }

    /// What was from `from` up to `to` is not held any more, and reads as zeros.
    pub(super) fn clear(&mut self, from: u64, to: u64) {
        let touched: Vec<u64> =
            self.pieces.range(from / PIECE_SIZE..=to / PIECE_SIZE).map(|(piece, _)| *piece).collect();
        for number in touched {
            let start = number * PIECE_SIZE;
            let piece = self.pieces.get_mut(&number).expect("a piece that was just seen");
            let was = piece.len();
            let first = (from.max(start) - start).min(was as u64) as usize;
            let last = (to.max(start) - start).min(was as u64) as usize;
            if last == was {
                piece.truncate(first);
            } else {
                piece[first..last].fill(0);
            }
            self.held -= (was - piece.len()) as u64;
            if piece.is_empty() {
                self.pieces.remove(&number);
            }
        }
    }

    /// The first byte of data, or of a hole, at or behind `offset`.
    pub(super) fn seek(&self, offset: u64, what: Seek) -> Result<u64, Error> {
        if offset >= self.size {
            return Err(Error::NothingThere);
        }
        match what {
            Seek::Data => {
                let mut pieces = self.pieces.range(offset / PIECE_SIZE..);
                let found = pieces.find_map(|(number, piece)| {
                    let start = number * PIECE_SIZE;
                    (start + piece.len() as u64 > offset).then(|| start.max(offset))
                });
                found.ok_or(Error::NothingThere)
            }
            Seek::Hole => {
                let mut at = offset;
                while let Some(piece) = self.pieces.get(&(at / PIECE_SIZE)) {
                    let end = at / PIECE_SIZE * PIECE_SIZE + piece.len() as u64;
                    if end <= at {
                        break;
                    }
                    at = end;
                }
                Ok(at.min(self.size))
            }
        }
    }
}

/// The pieces that `size` bytes at `offset` touch: number, offset in the piece, and which of the bytes.
fn spans(offset: u64, size: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == size {
            return None;
        }
        let at = offset + done as u64;
        let within = at % PIECE_SIZE;
        let count = ((PIECE_SIZE - within) as usize).min(size - done);
        done += count;
        Some((at / PIECE_SIZE, within as usize, done - count..done))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, usize, u8),
        SetSize(u64),
        Clear(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let place = 0..3 * PIECE_SIZE;
        let step = prop_oneof![
            (place.clone(), 0..200_000usize, any::<u8>())
                .prop_map(|(at, size, byte)| Step::Write(at, size, byte)),
            place.clone().prop_map(Step::SetSize),
            (place.clone(), place).prop_map(|(from, to)| Step::Clear(from.min(to), from.max(to))),
        ];
        prop::collection::vec(step, 1..12)
    }

    fn all_of(data: &Data, offset: u64, size: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        data.read(offset, size, &mut |bytes| seen.extend_from_slice(bytes));
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_vector_of_bytes(steps in steps(), from in 0..4 * PIECE_SIZE) {
            let (mut data, mut model) = (Data::default(), Vec::new());
            for step in steps {
                match step {
                    Step::Write(at, size, byte) => {
                        let (held, growth) = (data.held(), data.growth(at, size));
                        data.write(at, &vec![byte; size]);
                        prop_assert_eq!(data.held(), held + growth);
                        let end = at as usize + size;
                        if model.len() < end {
                            model.resize(end, 0);
                        }
                        model[at as usize..end].fill(byte);
                    }
                    Step::SetSize(size) => {
                        data.set_size(size);
                        model.resize(size as usize, 0);
                    }
                    Step::Clear(from, to) => {
                        data.clear(from, to);
                        let end = (to as usize).min(model.len());
                        if (from as usize) < end {
                            model[from as usize..end].fill(0);
                        }
                    }
                }
                prop_assert_eq!(data.held(), data.pieces.values().map(|piece| piece.len() as u64).sum::<u64>());
            }
            prop_assert_eq!(data.size(), model.len() as u64);
            prop_assert!(all_of(&data, 0, model.len()) == model);
            let rest = model.get(from as usize..).unwrap_or_default();
            prop_assert!(all_of(&data, from, usize::MAX) == rest);
            // Whatever lies before the next data is nothing but zeros.
            let next = data.seek(from, Seek::Data).unwrap_or(data.size()).max(from) - from;
            prop_assert!(rest.iter().take(next as usize).all(|byte| *byte == 0));
        }
    }

    #[test]
    fn holes_are_found() {
        let mut data = Data::default();
        data.write(2 * PIECE_SIZE, b"here");
        data.set_size(4 * PIECE_SIZE);
        assert_eq!(data.seek(5, Seek::Data), Ok(2 * PIECE_SIZE));
        assert_eq!(data.seek(5, Seek::Hole), Ok(5));
        assert_eq!(data.seek(2 * PIECE_SIZE + 1, Seek::Hole), Ok(2 * PIECE_SIZE + 4));
        assert_eq!(data.seek(3 * PIECE_SIZE, Seek::Data), Err(Error::NothingThere));
        assert_eq!(data.seek(4 * PIECE_SIZE, Seek::Hole), Err(Error::NothingThere));
    }
}
