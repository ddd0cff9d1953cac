//! The process server and the process descriptor.
#![forbid(unsafe_code)]

mod descriptor;

pub use descriptor::*;
