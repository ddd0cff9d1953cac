//! The subcommands of `amoeba`: what people type, and what it does with capabilities and transactions.
//!
//! One module a subcommand under `commands/` holds its arguments, its help, what it does and its tests. The binary
//! implements [`System`] over a world and calls [`main`]. Data goes to stdout, everything else to stderr.
#![forbid(unsafe_code)]

mod system;

pub use system::{
    Console, DaemonStatus, Session, Signals, Standard, Start, System, SystemKind, SystemStatus, UpOptions,
};
