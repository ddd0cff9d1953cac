//! Path names over directories, and a process's capability environment.
//!
//! [`Names`] is what a program uses: a root and a working directory, and operations on paths that follow a path from
//! one directory service to the next. [`path`] has the lexical part: `.` and `..` are resolved in the text alone,
//! since directories form any graph and know no parent. [`Environment`] is the list of named capabilities that a
//! process starts with. [`Attributes`] is what the attribute bytes of a row mean to programs of Linux.
//!
//! It keeps no cache: every lookup asks the servers.
#![forbid(unsafe_code)]

mod attributes;
mod environment;
mod masks;
mod names;
pub mod path;

pub use attributes::{
    ATTRIBUTE_NAME_MAX, ATTRIBUTES_VERSION, Account, Attributes, AttributesError, Content, Time,
};
pub use environment::{ENTRIES_MAX, ENTRY_NAME_SIZE_MAX, Environment, EnvironmentError};
pub use masks::{BadMasks, COLUMNS_MAX, CONFINED_ROOT, MASKS_OPEN, Masks, parse_masks};
pub use names::{Found, HOPS_MAX, Listing, NameError, Names};
