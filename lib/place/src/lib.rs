//! Which host of a pool a process is to run on, and why.
//!
//! A pool is a directory of hosts. What is known of them is a [`Roster`]; what is known of a process before it runs is a
//! [`Need`]; [`choose`] makes a [`Decision`] of the two, whose text is what `amoeba why` shows. A run server
//! (`servers/pool`) keeps a roster and answers clients; a [`Placer`] is the same inside one client, so that nobody depends
//! on a run server. [`find()`] asks the one and falls back to the other.
//!
//! - `need`, `candidate`: plain data.
//! - `parameters`: what an administrator may set.
//! - `score`: which hosts cannot take a process, and how good the others are.
//! - `decision`: the choice and its explanation.
//! - `roster`, `account`: what is known of each host, when to ask it again, what was placed on it since; no I/O.
//! - `ask`: the transactions: reading the pool directory, asking a host.
//! - `placer`, `find`: the client's side.
//!
//! The formula is in `docs/placement.md`. Placement is a hint: the process server of the chosen host decides.
#![forbid(unsafe_code)]

mod account;
mod ask;
mod candidate;
mod decision;
mod find;
mod need;
mod parameters;
mod placer;
mod roster;
mod score;
mod units;

pub use ask::{Answer, CONFINED_RIGHTS, SERVER_RIGHTS, Survey, hasty};
pub use candidate::{Candidate, Machine, State};
pub use decision::{Choice, Decision, Scored, choose};
pub use find::{By, FindError, Found, find, find_by_run_server};
pub use need::{Bad, FIND_MAX, Need, OPTIONS_MAX, WISHES_MAX};
pub use parameters::{Described, ENABLE, Parameters, Refused};
pub use placer::{POOL_DEFAULT, Place, Placer};
pub use roster::{Ask, HOSTS_MAX, Kind, NAME_SIZE_MAX, Record, Roster};
pub use score::{Factors, Reason, refuse, score};
