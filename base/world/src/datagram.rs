//! Datagrams, for programs that want no transactions: no reply, no guarantee, no order.

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_wire::packet::Address;

use crate::{Error, ListenError};

/// The most bytes of a datagram.
pub const DATAGRAM_SIZE_MAX: usize = 32 << 10;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// One endpoint, wherever it is.
    Address(Address),
    /// One of the endpoints of this port, in turn.
    Port(PutPort),
}

/// A datagram that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it, as the kernels know: an endpoint, which hears an answer, or a process, which hears none.
    pub from: Address,
    /// At most [`DATAGRAM_SIZE_MAX`] bytes.
    pub data: Vec<u8>,
}

/// See [`Datagrams`].
pub type Endpoint = Arc<dyn Datagrams>;

/// An endpoint of datagrams: a FLIP address of its own, so that nothing which arrives there can be taken for a part of
/// a transaction. It ends with its process, its kernel, or [`Datagrams::close`].
///
/// A kernel keeps a bounded number of datagrams until they are received; past it the oldest is dropped.
pub trait Datagrams: Send + Sync {
    /// Where this endpoint is reached.
    fn address(&self) -> Address;

    /// The public image of its port, if it was opened with one.
    fn put_port(&self) -> Option<PutPort>;

    /// Sends a datagram whose receiver can answer to this endpoint. See [`crate::Transactions::send`].
    ///
    /// # Errors
    /// Those of [`crate::Transactions::send`].
    fn send(&self, to: Destination, data: Vec<u8>) -> Result<(), Error>;

    /// The next datagram, after waiting for it; `Ok(None)` when none has come within `timeout` (`None`: for ever). Of
    /// several threads that receive, one waits for its datagram and the others for their turn.
    ///
    /// # Errors
    /// The endpoint was closed, or its kernel is gone and the address with it.
    fn receive(&self, timeout: Option<Duration>) -> Result<Option<Datagram>, ListenError>;

    /// Gives the address up: every thread in [`Datagrams::receive`] returns.
    fn close(&self);
}
