//! Whole systems in the simulated world, and the checkers that look at them from outside.
//!
//! `counter` is a service made for being watched: its log lies outside every host and knows what was executed.
//! The tests are in `tests/`.
#![forbid(unsafe_code)]

pub mod counter;
