//! Whole systems in the simulated world, and the checkers that look at them from outside.
//!
//! `counter` is a service made for being watched: its log lies outside every host and knows what was executed.
//! `files` and `names` are clients of the real Bullet and directory servers that remember what was acknowledged to them;
//! `servers` puts such a system together. `processes` has the real process servers with guests that only pretend. The tests
//! are in `tests/`.
#![forbid(unsafe_code)]

pub mod counter;
pub mod files;
pub mod names;
pub mod processes;
pub mod servers;

use std::time::Duration;

use amoeba_wire::Status;
use amoeba_world::Error;

/// Within this a transaction with a server that does not think for long ends, whatever happens.
pub const TRANSACTION_MAX: Duration = Duration::from_secs(30);

/// What a client knows of an update after its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was done.
    Done(T),
    /// It was not done and never will be; with the server's reason, if it gave one.
    NotDone(Option<Status>),
    /// It was done, or will be, or never.
    Unknown,
}

/// Sorts what a stub gave.
pub fn outcome<T>(result: Result<T, Error>) -> Outcome<T> {
    match result {
        Ok(value) => Outcome::Done(value),
        Err(Error::NotSent(_)) => Outcome::NotDone(None),
        Err(Error::Refused(status)) => Outcome::NotDone(Some(status)),
        Err(Error::MaybeExecuted(_)) => Outcome::Unknown,
        Err(error) => panic!("no honest server makes a client hear: {error}"),
    }
}
