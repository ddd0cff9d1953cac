//! Amoeba for Rust programs: capabilities, transactions, servers.
//!
//! A **capability** names and protects an object, a **transaction** operates on it, a **server** is a loop that takes
//! requests.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let world = amoeba::connect()?;
//! let clock: amoeba::Capability = std::env::args().nth(1).ok_or("a capability")?.parse()?;
//! let time = amoeba::tod::get_time(&world, &clock)?;
//! println!("{} seconds since 1970", time.seconds);
//! # Ok(())
//! # }
//! ```
//!
//! - [`connect`] gives a program its [`World`]: transactions, threads, clocks, randomness.
//! - Each class has a module with one function an operation: [`standard`], [`bullet`], [`directory`], [`process`] …
//! - [`environment`] is what whoever started this program gave it: capabilities under names like `ROOT` and `STDIN`.
//! - [`Service`] is a private service of this program: a secret port, and the key of its objects. A class file of your
//!   own and `ail::build` in a build script (feature `ail`) give the rest: see the example `mailbox`.
//! - [`Transactions::trans_posted`] has several transactions under way, each with a buffer for its reply: for who reads much.
//! - [`bullet_file`] reads whole files (on the server's host where they lie in memory, from elsewhere with several transactions
//!   under way), [`bullet_stream`] files of any size from and to what Rust reads and writes, and [`bullet_copies`] makes files
//!   that several servers keep:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let world = amoeba::connect()?;
//! let servers: Vec<amoeba::Capability> =
//!     std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
//! let copies = amoeba::bullet_copies::write_copies(&world, &servers, &mut std::io::stdin())?;
//! let first = copies.current().next().ok_or("no server")?;
//! let file = amoeba::bullet_file::open(&world, first)?;
//! match file.bytes() {
//!     Some(bytes) => println!("{} lines", bytes.iter().filter(|byte| **byte == b'\n').count()),
//!     None => file.write_to(&world, 0, &mut std::io::stdout())?,
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Transactions::send`] and [`Transactions::datagrams`] do without transactions: datagrams to an address or a port, no
//!   reply, no guarantee. See the example `datagram`.
//!
//! Everything reachable from here is promised; the crates behind it are not.
#![forbid(unsafe_code)]

mod service;

use std::path::PathBuf;

#[cfg(feature = "ail")]
pub use amoeba_ail as ail;
pub use amoeba_cap::{
    Capability, CapabilitySet, CheckField, GetPort, ObjectNumber, PutPort, Rights, ServerSecret,
};
pub use amoeba_linux::given_environment as environment;
pub use amoeba_name as name;
pub use amoeba_server::{AnyObject, Bulk, Call, Object, Objects, Pending};
pub use amoeba_stubs::*;
pub use amoeba_threads as threads;
pub use amoeba_wire::packet::Address;
pub use amoeba_wire::{Command, Header, Status};
pub use amoeba_world::{
    Caller, DATAGRAM_SIZE_MAX, Datagram, Datagrams, Destination, Endpoint, Error, ListenError, Message,
    Posted, Shared, TransOptions, Transactions, World, random as random_bytes,
};
pub use service::Service;

/// There is no system to connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing says where a system would be.
    #[error("none of AMOEBA_SOCKET, AMOEBA_STATE, XDG_STATE_HOME and HOME is set")]
    NoPlace,
    /// No kernel listens there; `amoeba up` starts one.
    #[error("no system runs at {}: start one with `amoeba up`", .0.display())]
    NotRunning(PathBuf),
}

/// The world of this program: the system that started it (`AMOEBA_SOCKET`), or the one of this user on this host.
///
/// # Errors
/// [`ConnectError`] when no kernel is there now.
pub fn connect() -> Result<World, ConnectError> {
    let told = std::env::var_os("AMOEBA_SOCKET").filter(|socket| !socket.is_empty()).map(PathBuf::from);
    let socket = told.or_else(|| Some(amoeba_linux::Place::find()?.socket())).ok_or(ConnectError::NoPlace)?;
    if !socket.exists() {
        return Err(ConnectError::NotRunning(socket));
    }
    Ok(amoeba_linux::connect(&socket))
}
