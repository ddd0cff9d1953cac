//! Which datagrams of a session were there already.

/// How far a datagram may be overtaken and still be taken.
pub const WINDOW_SIZE: u64 = WORDS * 64 - 64;

const WORDS: u64 = 64;

/// A sliding window over counters: it remembers each of the last [`WINDOW_SIZE`] below the largest. Older ones count as
/// seen.
#[derive(Clone)]
pub(crate) struct Window {
    /// Counters below it count as seen.
    first: u64,
    /// All counters below it, as far as the window reaches, have a bit that says whether they were there.
    next: u64,
    bits: [u64; WORDS as usize],
}

impl Window {
    /// A window that begins at `first`: what is below it counts as seen.
    pub(crate) fn new(first: u64) -> Window {
        Window { first, next: first, bits: [0; WORDS as usize] }
    }

    /// Whether this counter was there already, or is too old to say.
    pub(crate) fn has(&self, counter: u64) -> bool {
        if counter >= self.next {
            return false;
        }
        counter < self.first
            || self.next - counter > WINDOW_SIZE
            || self.bits[word(counter)] >> (counter % 64) & 1 == 1
    }

    /// Whether the counter is larger than all before it.
    pub(crate) fn is_newest(&self, counter: u64) -> bool {
        counter >= self.next
    }

    /// This counter was there. The window moves up to it.
    pub(crate) fn insert(&mut self, counter: u64) {
        if counter >= self.next {
            // The words that the window has not reached yet hold bits of a round ago.
            let (reached, wanted) = (self.next.div_ceil(64), counter / 64);
            let stale = (wanted + 1).saturating_sub(reached).min(WORDS);
            for index in 0..stale {
                self.bits[((wanted - index) % WORDS) as usize] = 0;
            }
            self.next = counter + 1;
        }
        self.bits[word(counter)] |= 1 << (counter % 64);
    }
}

fn word(counter: u64) -> usize {
    (counter / 64 % WORDS) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set that forgets nothing: what the window takes was never there, and within reach it takes all
        /// that was not.
        #[test]
        fn it_takes_each_counter_once(first in 0u64..200, steps in prop::collection::vec((0u64..10_000, 0u64..3), 1..300)) {
            let (mut window, mut seen, mut largest) = (Window::new(first), BTreeSet::new(), first);
            for (step, kind) in steps {
                let counter = match kind {
                    0 => largest + step % 100,
                    1 => largest + step,
                    _ => largest.saturating_sub(step),
                };
                let within = counter >= first && (counter >= largest || largest - counter <= WINDOW_SIZE);
                prop_assert_eq!(!window.has(counter), within && !seen.contains(&counter), "{}", counter);
                if !window.has(counter) {
                    prop_assert_eq!(window.is_newest(counter), counter >= largest);
                    window.insert(counter);
                    seen.insert(counter);
                    largest = largest.max(counter + 1);
                }
            }
        }
    }
}
