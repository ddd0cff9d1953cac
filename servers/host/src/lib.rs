//! The host's own directory and its small servers: time of day, randomness, the kernel itself.
//!
//! Every kernel daemon runs these beside the process server. They keep nothing: their capabilities come from the
//! [`HostSeed`], so that a restarted daemon answers to the old ones.
#![forbid(unsafe_code)]

mod directory;
mod seed;
mod small;
mod system;

pub use directory::{Column, HOST, HostDirectory, PS, Processes, Row};
pub use seed::{HostSeed, Keys, PERMANENT, SEED_SIZE};
pub use small::{Random, Single, Tod};
pub use system::{About, Kernel, System};
