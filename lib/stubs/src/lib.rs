//! Typed access to every class: one module a class, generated from `idl/*.class` by `cargo xtask gen`.
//!
//! A client calls `bullet::read(transactions, &file, …)`; a server implements `bullet::Serve` and calls
//! `bullet::serve`. What the generated modules have in common is in [`rt`]; [`Client`] says how a client's transactions
//! are done. Class files are explained in `docs/classes.md`.
#![forbid(unsafe_code)]

pub mod bullet_copies;
pub mod bullet_file;
pub mod bullet_stream;
mod client;
// `standard` is seen through the module of that name below.
#[allow(unreachable_pub)]
mod generated;
#[doc(hidden)]
pub mod rt;
mod texts;

pub use client::Client;
pub use generated::*;

/// Operations that every object understands, whatever its class.
pub mod standard {
    pub use crate::generated::standard::*;
    pub use crate::texts::{info_text, status_text, touch_all};
}
