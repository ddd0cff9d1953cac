//! A process that writes into the memory of its own channels what it likes.

use std::sync::Arc;

use amoeba_channel::memory::Plain;
use amoeba_channel::{HEAD_OFFSET, HEAD_SIZE, Own, RING_OFFSET, Word};

use crate::core::State;
use crate::host::ProcessId;
use crate::random::Prng;

const WORDS: [Word; Word::COUNT] =
    [Word::Produced, Word::Consumed, Word::Sleeping, Word::Taken, Word::Withdrawn];

impl State {
    /// Scribbles over the region of the process in one of its channels, and wakes the peer as often as not.
    pub(crate) fn scribble_memory(&mut self, process: ProcessId) {
        self.channels.hostile.insert(process);
        let ids = self.channels.ids(|channel| channel.client == process || channel.server == process);
        if ids.is_empty() {
            return;
        }
        let id = *self.channels.random.pick(&ids);
        let rings = self.channels.random.chance(500);
        let channel = self.channels.open.get_mut(&id).expect("picked among those that are open");
        let is_client = channel.client == process;
        let region = if is_client { &channel.requests } else { &channel.replies };
        scribble(region, &mut self.channels.random);
        let (server, port, thread) = (channel.server, channel.key.port, channel.thread);
        match (is_client, thread) {
            (true, _) if rings => self.wake_one(server, port),
            (false, Some(thread)) if rings => self.table.unpark(thread),
            _ => {}
        }
    }
}

fn scribble(region: &Arc<Plain>, random: &mut Prng) {
    let word = *random.pick(&WORDS);
    let old = Own::load(region, word);
    match random.below(8) {
        0 => region.store(word, random.word()),
        1 => region.store(word, old ^ 1 << random.below(64)),
        2 => region.store(word, old.wrapping_add(random.below(100))),
        3 => region.store(word, old.wrapping_add(1 << 32)),
        4 => region.store(word, old & !0xffff_ffff),
        5 => region.write(HEAD_OFFSET, &random.bytes(HEAD_SIZE)),
        6 => region.write(HEAD_OFFSET + 4, &random.bytes(4)),
        _ => {
            let size = random.below(Own::ring_size(region) as u64 / 2) as usize;
            let at = random.below((Own::ring_size(region) - size) as u64) as usize;
            region.write(RING_OFFSET + at, &random.bytes(size));
        }
    }
}
