//! A directory in memory, with the check fields of its capabilities as far as they were asked for.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use amoeba_cap::{CheckField, ObjectNumber, Private, Rights, ServerSecret};

use crate::row::Directory;

/// Check fields that are remembered of a directory.
const CHECKS: usize = 4;
/// Set in the upper 16 bits of a word that holds something.
const HEAD: u64 = 1 << 15;

/// What is remembered of the check field for these rights.
fn word(rights: Rights, check: CheckField) -> u64 {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&check.to_bytes());
    (HEAD | u64::from(rights.bits())) << 48 | u64::from_be_bytes(bytes)
}

/// A directory and check fields of its capabilities.
///
/// A check field is a function of object, rights and random, so what is remembered here is right for as long as this
/// value lives: another random comes with another value.
#[derive(Debug)]
pub struct Guarded {
    directory: Directory,
    /// A check field (48 bits) and the rights it is for (8 bits) each.
    checks: [AtomicU64; CHECKS],
}

impl Deref for Guarded {
    type Target = Directory;
    fn deref(&self) -> &Directory {
        &self.directory
    }
}

impl Guarded {
    /// A directory of which no check field is known.
    pub(crate) fn new(directory: Directory) -> Guarded {
        Guarded { directory, checks: Default::default() }
    }

    /// The same directory after a change: as long as its random stays, so do its check fields.
    pub(crate) fn changed(&self, directory: Directory) -> Guarded {
        let same = directory.random == self.directory.random;
        let kept = |word: &AtomicU64| AtomicU64::new(if same { word.load(Ordering::Relaxed) } else { 0 });
        Guarded { checks: std::array::from_fn(|index| kept(&self.checks[index])), directory }
    }

    /// Changes it in place.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Directory)) {
        let random = self.directory.random;
        change(&mut self.directory);
        if self.directory.random != random {
            self.checks = Default::default();
        }
    }

    /// Bytes it takes in memory, about.
    pub(crate) fn size(&self) -> usize {
        let columns: usize = self.directory.columns.iter().map(|name| name.len() + 40).sum();
        size_of::<Guarded>() + columns
    }

    /// The check field of its capability with these rights.
    pub(crate) fn check(&self, secret: &ServerSecret, object: ObjectNumber, rights: Rights) -> CheckField {
        let [_, _, check @ ..] = self.word(secret, object, rights).to_be_bytes();
        CheckField::from_bytes(check)
    }

    /// Whether `private` is a capability of this directory, which has the number in it.
    pub(crate) fn verifies(&self, secret: &ServerSecret, private: &Private) -> bool {
        // One comparison of words takes the same time wherever they differ.
        self.word(secret, private.object, private.rights) == word(private.rights, private.check)
    }

    fn word(&self, secret: &ServerSecret, object: ObjectNumber, rights: Rights) -> u64 {
        let bits = rights.bits();
        let place = &self.checks[usize::from(bits ^ (bits >> 2) ^ (bits >> 6)) % CHECKS];
        let known = place.load(Ordering::Relaxed);
        if known >> 48 == HEAD | u64::from(bits) {
            return known;
        }
        let made = word(rights, secret.check_field(object, rights, self.directory.random));
        place.store(made, Ordering::Relaxed);
        made
    }
}

#[cfg(test)]
mod tests {
    use amoeba_cap::PutPort;

    use super::*;

    #[test]
    fn what_is_remembered_is_what_the_secret_makes() {
        let secret = ServerSecret::from_bytes([5; 32]);
        let object = ObjectNumber::new(7).expect("it is small");
        let directory = |random| Directory {
            random: CheckField::from_bytes([random; 6]),
            sequence: 1,
            time: 2,
            rows: 0,
            touched: 0,
            owner: PutPort::NULL,
            columns: vec![b"owner".to_vec()],
        };
        let (one, other) = (Guarded::new(directory(1)), directory(2));
        let right = |guarded: &Guarded| {
            (0..=255).chain(0..=255).all(|bits| {
                let rights = Rights::from_bits_retain(bits);
                let twice = [0; 2].map(|_: i32| guarded.check(&secret, object, rights));
                twice == [secret.check_field(object, rights, guarded.random); 2]
            })
        };
        assert!(right(&one));
        assert!(right(&one.changed(directory(1))));
        assert!(right(&one.changed(other)), "another random makes other check fields");
        let mut one = one;
        one.change(|directory| directory.rows += 1);
        assert!(right(&one));
        one.change(|directory| directory.random = CheckField::from_bytes([3; 6]));
        assert!(right(&one));
    }
}
