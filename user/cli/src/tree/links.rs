//! Files with several names: the first one is carried, the others wait for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, PoisonError};

use super::held;

/// Files with several names that are remembered. Past it each name is a file of its own.
const LINKED_MAX: usize = 1 << 20;

/// By `K`, which file it is: what has become of it.
pub(super) struct Linked<K, T> {
    known: Mutex<HashMap<K, State<T>>>,
    done: Condvar,
}

#[derive(Clone)]
enum State<T> {
    UnderWay,
    /// `None`: it failed.
    Done(Option<T>),
}

/// What to do with a name.
pub(super) enum Turn<T> {
    /// Carry the file, and tell with [`Linked::done`].
    First,
    /// It is there; or it failed, and that has been told.
    Done(Option<T>),
    /// Carry it, and tell nobody: too many are remembered.
    Alone,
}

impl<K: Eq + Hash + Copy, T: Clone> Linked<K, T> {
    pub(super) fn new() -> Linked<K, T> {
        Linked { known: Mutex::new(HashMap::new()), done: Condvar::new() }
    }

    /// Whose turn it is when another name of `file` comes; waits while somebody carries it, who waits for nobody.
    pub(super) fn turn(&self, file: K) -> Turn<T> {
        let mut known = held(&self.known);
        loop {
            match known.get(&file) {
                Some(State::UnderWay) => {
                    known = self.done.wait(known).unwrap_or_else(PoisonError::into_inner);
                }
                Some(State::Done(done)) => return Turn::Done(done.clone()),
                None if known.len() == LINKED_MAX => return Turn::Alone,
                None => {
                    known.insert(file, State::UnderWay);
                    return Turn::First;
                }
            }
        }
    }

    /// The file is there, or failed.
    pub(super) fn done(&self, file: K, done: Option<T>) {
        held(&self.known).insert(file, State::Done(done));
        self.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_carries_and_all_others_get_what_it_made() {
        let (linked, carried) = (Linked::new(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| match linked.turn(7) {
                    Turn::First => {
                        carried.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        linked.done(7, Some("made"));
                    }
                    Turn::Done(made) => assert_eq!(made, Some("made")),
                    Turn::Alone => panic!("nothing else is remembered"),
                });
            }
        });
        assert_eq!(carried.into_inner(), 1);
    }
}
