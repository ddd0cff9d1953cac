//! Memory files: bytes that never change again, and that other processes of the host may hold without a copy.
//!
//! A server that has something large in memory lends it to a client of its host: the client gets the memory itself, to
//! read. What is lent cannot be taken back, and whoever lends asks the world, never the borrower, whether anybody still
//! holds it; until then it is the lender's memory that is in use.

use std::sync::Arc;

use amoeba_wire::Status;
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

/// Notes that bytes are lent to a process, and gives the ticket.
type LendBytes = dyn Fn(Address, Arc<Vec<u8>>) -> Result<u64, Error> + Send + Sync;

/// The memory file of a world whose processes share one address space: for simulation and tests.
pub struct SharedFile {
    bytes: Arc<Vec<u8>>,
    lend: Option<Box<LendBytes>>,
}

impl SharedFile {
    /// One of this process, which `lend` lends: it keeps the bytes under a ticket until they are borrowed.
    pub fn own(
        bytes: Vec<u8>,
        lend: impl Fn(Address, Arc<Vec<u8>>) -> Result<u64, Error> + Send + Sync + 'static,
    ) -> Memory {
        Arc::new(SharedFile { bytes: Arc::new(bytes), lend: Some(Box::new(lend)) })
    }

    /// One of another process.
    pub fn borrowed(bytes: Arc<Vec<u8>>) -> Memory {
        Arc::new(SharedFile { bytes, lend: None })
    }
}

impl MemoryFile for SharedFile {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn is_lent(&self) -> bool {
        self.lend.is_some() && Arc::strong_count(&self.bytes) > 1
    }

    fn lend(&self, to: Address) -> Result<u64, Error> {
        match &self.lend {
            Some(lend) => lend(to, self.bytes.clone()),
            None => Err(Error::NotSent(Status::STD_DENIED)),
        }
    }
}
