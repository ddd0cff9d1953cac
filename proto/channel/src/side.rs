//! One side's two regions, its bell and its sleep.

use crate::memory::{Own, Peer, Word};

pub(crate) struct Side<O, P> {
    pub(crate) own: O,
    pub(crate) peer: P,
    /// Something was published since the peer's flag was last looked at.
    published: bool,
    /// The peer's sleep that its bell was last rung for.
    rung: u64,
    /// How often this side has said that it sleeps.
    sleeps: u64,
}

impl<O: Own, P: Peer> Side<O, P> {
    pub(crate) fn new(own: O, peer: P) -> Side<O, P> {
        Side { own, peer, published: false, rung: 0, sleeps: 0 }
    }

    /// Lets the peer see a word, and whatever was written before it.
    pub(crate) fn publish(&mut self, word: Word, value: u64) {
        self.own.store(word, value);
        self.published = true;
    }

    /// Whether the peer's bell must be rung: it sleeps, and there is something it has not been woken for.
    pub(crate) fn bell(&mut self) -> bool {
        if !self.published {
            return false;
        }
        self.published = false;
        // What was published comes before this look; the peer's flag comes before its last look. One sees the other.
        self.own.fence();
        let sleep = self.peer.load(Word::Sleeping);
        if sleep == 0 || sleep == self.rung {
            return false;
        }
        self.rung = sleep;
        true
    }

    /// Says that this side sleeps; then it must look once more.
    pub(crate) fn say_asleep(&mut self) {
        debug_assert!(!self.published, "the peer is woken before this side sleeps");
        self.sleeps += 1;
        self.own.store(Word::Sleeping, self.sleeps);
        self.own.fence();
    }

    /// Says that this side is awake.
    pub(crate) fn say_awake(&mut self) {
        if self.own.load(Word::Sleeping) != 0 {
            self.own.store(Word::Sleeping, 0);
        }
    }
}
