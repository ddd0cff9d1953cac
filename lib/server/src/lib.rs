//! The skeleton of every server: the loop, the check of the capability, the standard operations.
//!
//! An author implements [`Objects`] (which objects exist, and what protects them) and the `Serve` trait of a class
//! (generated, in `amoeba-stubs`), then calls the class module's `serve`. Every operation receives an [`Object`]
//! that only this crate can make, and makes only after it has checked capability and rights.
//!
//! - `call`: what an operation is told of its request, and the check.
//! - `guard`: counts bad capabilities and slows who sends them.
//! - `objects`: what an author provides.
//! - `running`: the loop, its threads, its statistics.
//! - `standard`: info, restrict, status, touch, destroy, age, copy, parameters.
//!
//! It knows no class and contains no operation but the standard ones.
#![forbid(unsafe_code)]

mod call;
mod guard;
mod objects;
mod request;
mod running;
mod standard;

pub use call::{AnyObject, Call, Object, On};
pub use guard::{
    CALLERS_MAX, FAILURES_FREE, FAILURES_FREE_ALL, FORGIVE_INTERVAL, FORGIVE_INTERVAL_ALL, GuardReport,
    PENALTY_MAX, PENALTY_STEP, Worst,
};
pub use objects::{Objects, Parameter};
pub use request::{Bulk, Failure, Pending, Request};
pub use running::{Both, Running, Service, serve, start};
pub use standard::{NTOUCH_MAX, PARAMETERS_MAX, Standard, TEXT_SIZE_MAX};
