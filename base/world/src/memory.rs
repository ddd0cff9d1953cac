//! Memory files: bytes that never change again, and that other processes of the host may hold without a copy.
//!
//! A server that has something large in memory lends it to a client of its host: the client gets the memory itself, to
//! read. What is lent cannot be taken back, and whoever lends asks the world, never the borrower, whether anybody still
//! holds it; until then it is the lender's memory that is in use.

use std::sync::Arc;

use amoeba_wire::packet::Address;

use crate::Error;

/// See [`MemoryFile`].
pub type Memory = Arc<dyn MemoryFile>;

/// A memory file: made, and from then on only read. Dropping it gives this process's hold on it back.
pub trait MemoryFile: Send + Sync {
    /// What is in it.
    fn bytes(&self) -> &[u8];

    /// Whether another process holds it, or a ticket for it is not used up. The world knows, whatever those processes
    /// say or do.
    fn is_lent(&self) -> bool;

    /// Lends it to a process of this host: the ticket, not 0, with which that process, and no other, gets it by
    /// [`crate::Transactions::borrow_memory`], once. A process has a bounded number of tickets; past it the oldest is void.
    ///
    /// # Errors
    /// [`Error::NotSent`]: no such process on this host (RPC_NOTFOUND), no kernel, no room (RPC_TRYAGAIN), or this one
    /// was borrowed itself (STD_DENIED).
    fn lend(&self, to: Address) -> Result<u64, Error>;
}

impl AsRef<[u8]> for dyn MemoryFile {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
