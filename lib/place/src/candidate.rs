//! A host as a choice sees it.

use std::sync::Arc;
use std::time::Duration;

/// What a host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPU type and system of what it executes, as in `x86_64-linux`.
    pub architecture: String,
    /// Options of its CPU; `None` when it does not tell: then its process server refuses what it cannot run.
    pub options: Option<Vec<String>>,
    /// Its processors.
    pub cpus: u32,
    /// Thousands of instructions a second of one processor; 0 when it cannot tell.
    pub kips: u32,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Limits that it enforces, as the bits of class `process`.
    pub enforces: u8,
}

/// Whether a host can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It answered when it was last asked.
    Up,
    /// It was not asked yet.
    New,
    /// It was asked this long ago and did not answer yet; perhaps it is only slow.
    Silent(Duration),
    /// Somebody could not reach it, and it has not answered since.
    Doubted,
    /// It does not answer.
    Down {
        /// For how long it has not.
        time: Duration,
        /// A sentence.
        why: String,
    },
}

/// A host as it is at the moment of a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name in the pool directory.
    pub name: Arc<str>,
    /// Whether it can be reached.
    pub state: State,
    /// What it is.
    pub machine: Arc<Machine>,
    /// Runnable processes, as it last said.
    pub load: f64,
    /// What the chooser itself has placed there and the load does not show yet.
    pub placed: f64,
    /// Bytes of memory it can still give, as it last said.
    pub memory_free: u64,
    /// Bytes of memory that processes placed there since are going to use.
    pub memory_promised: u64,
    /// Bytes of the program in question that it is believed to have.
    pub cached: u64,
}

#[cfg(test)]
impl Candidate {
    /// An idle host of four processors with 8 GiB free.
    pub(crate) fn idle(name: &str) -> Candidate {
        let machine = Machine {
            architecture: "x86_64-linux".into(),
            options: None,
            cpus: 4,
            kips: 4_000_000,
            memory_total: 16 << 30,
            enforces: u8::MAX,
        };
        Candidate {
            name: name.into(),
            state: State::Up,
            machine: Arc::new(machine),
            load: 0.0,
            placed: 0.0,
            memory_free: 8 << 30,
            memory_promised: 0,
            cached: 0,
        }
    }
}
