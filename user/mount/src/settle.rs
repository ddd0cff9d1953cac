//! What was done so far gets to the servers, while the mount goes on; and what an earlier mount has left does, without a
//! new one.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_stubs::Client;
use amoeba_world::World;

use crate::{GraphFileSystem, Unfinished, journal, trans_options};

impl GraphFileSystem {
    /// Waits until everything that was closed and done before is at the servers, for at most `wait`.
    ///
    /// # Errors
    /// So many updates wait still; they stay queued.
    pub fn settle(&self, wait: Duration) -> Result<(), Unfinished> {
        let shared = &self.shared;
        shared.take_closed();
        let deadline = shared.world.threads.now() + wait;
        let mut tree = shared.tree.lock();
        let last = tree.queued;
        shared.await_all(&mut tree);
        while tree.done < last && shared.world.threads.now() < deadline {
            tree = shared.progress.wait_until(tree, Some(deadline)).0;
        }
        if tree.done >= last {
            return Ok(());
        }
        Err(Unfinished(tree.queue.iter().filter(|update| update.number <= last).count().max(1)))
    }

    /// Changes of names that the servers have refused since the mount was made; what was written is kept in the folder's `lost`.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

/// Commits what a killed mount has left in `folder` of what was synced: the lines say what became of it. No mount must use the
/// folder. There may be none.
///
/// # Errors
/// The folder cannot be used.
pub fn redo(world: &World, folder: &Path, file_server: &Capability) -> io::Result<Vec<String>> {
    let client_options = trans_options();
    let client = Client::new(&*world.transactions, &client_options);
    match journal::redo(folder, client, file_server) {
        Ok((_, lines)) => Ok(lines),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Removes the folder of a mount that has ended, unless something is left in it for the next one or for a person: whether it
/// is gone.
///
/// # Errors
/// The system's.
pub fn clear(folder: &Path) -> io::Result<bool> {
    journal::remove_if_done(folder)
}
