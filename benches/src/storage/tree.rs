//! The directories that lookups walk: three names, and below them one directory of very many rows.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use amoeba_cap::{Capability, CapabilitySet};
use amoeba_stubs::directory::{self, InstallRow};
use amoeba_world::World;
use anyhow::{Context, Result};

/// Rows installed at once.
pub(crate) const INSTALL_MAX: usize = directory::INSTALL_MAX;
/// Threads that fill.
const THREADS: usize = 4;
/// In the state directory: how many rows there are.
const COUNT: &str = "bench.rows";

const NAMES: [&str; 3] = ["bench", "of", "storage"];

/// The path of one of the rows, four names.
pub(crate) fn path(number: usize) -> String {
    format!("{}/{}", NAMES.join("/"), name(number))
}

fn name(number: usize) -> String {
    format!("entry-{number:0DIGITS$}")
}

/// Digits at the end of each name.
const DIGITS: usize = 8;

/// Makes a path that of another row, without the cost of making it anew, which is not the server's.
pub(crate) fn number(path: &mut [u8], number: usize) {
    let mut left = number;
    for digit in path.iter_mut().rev().take(DIGITS) {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// How many rows [`fill`] has made.
pub(crate) fn count(state: &Path) -> Result<usize> {
    std::fs::read_to_string(state.join(COUNT))?.trim().parse().context("the count of rows")
}

/// A row to install that lets everything through.
pub(crate) fn row(parent: &Capability, name: Vec<u8>, set: CapabilitySet, old: Capability) -> InstallRow {
    InstallRow {
        directory: parent.private,
        name,
        set,
        old,
        keep: false,
        masks: [0xFF; 4],
        kind: Capability::NULL,
        attributes: Vec::new(),
    }
}

/// Makes the directories and `count` rows in the last of them.
pub(crate) fn fill(world: &World, root: &Capability, state: &Path, count: usize) -> Result<()> {
    let mut parent = *root;
    for name in NAMES {
        let child = directory::create(world, root, &[b"owner".to_vec()])?;
        let set = CapabilitySet::singleton(child);
        directory::append(world, &parent, name.as_bytes(), &set, &[0xFF; 4], &[])?;
        parent = child;
    }
    let set = CapabilitySet::singleton(parent);
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        loop {
            let first = next.fetch_add(INSTALL_MAX, Ordering::Relaxed);
            if first >= count {
                return Ok(());
            }
            let numbers = first..(first + INSTALL_MAX).min(count);
            let rows =
                numbers.map(|number| row(&parent, name(number).into_bytes(), set.clone(), Capability::NULL));
            directory::install(world, &parent, &rows.collect::<Vec<_>>())?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread that fills does not panic"))
    })?;
    Ok(std::fs::write(state.join(COUNT), count.to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_was_numbered_is_the_path_of_that_number() {
        let mut bytes = path(99_999_999).into_bytes();
        for row in [0, 7, 1_234_567, 99_999_999] {
            number(&mut bytes, row);
            assert_eq!(bytes, path(row).into_bytes());
        }
    }
}
