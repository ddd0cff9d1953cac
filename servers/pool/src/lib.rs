//! The run server: polls the hosts of a pool and chooses among them.
//!
//! A pool is a directory of hosts. The server asks each for its load every second, refuses hosts that cannot run a
//! program, scores the others (`amoeba-place` has the formula) and remembers its decisions, so that they can be explained.
//! It gives hints and is no master: a client that does not reach it places by itself, and a host decides what it runs.
//!
//! - `start`: keys, options, the server at work.
//! - `pollers`: the threads that read the pool directory and ask hosts.
//! - `serve`: the operations of class `pool`.
//! - `confined`: what clients are given that may not have processes see a host's files.
//! - `decisions`: what was decided, and which processes came of it.
//!
//! # Recovery
//! It keeps nothing on disk. Its capabilities come from keys that whoever starts it keeps, so a restarted one, or a copy on
//! another host with the same keys, answers to the old ones, and has asked all hosts a moment after it started. What is
//! lost with it is the memory of its decisions, parameters that were set, and what it added to loads for processes on
//! their way. Copies know nothing of each other; each sees in the loads what the others placed.
#![forbid(unsafe_code)]

mod confined;
mod decisions;
mod pollers;
mod serve;
mod start;

pub use decisions::{DECISIONS_MAX, NOTES_MAX, ROWS_MAX};
pub use start::{Keys, Options, RunningPool, StartError, start};
