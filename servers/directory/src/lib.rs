//! The directory server: names for capabilities.
//!
//! A directory is an object: rows (a name and a capability set, with one mask of rights a column) and one to four
//! columns. Which columns a directory's capability has decides what a lookup through it may bring out. Directories
//! form any graph; there is no parent and no `..` here (`amoeba-name` resolves that from the text alone).
//!
//! The modules, from the disk up: [`log`] keeps entries and flushes them for groups; [`backend`] is redb's file;
//! [`tables`] holds directories and rows in redb and has the one function that changes them, `apply(entry)`;
//! [`update`] makes an entry of a request or refuses it; [`store`] puts these together: group commit, checkpoints,
//! recovery. `walk` looks paths up, `restrict` takes rights from what was found, `serve` answers requests.
//!
//! # Recovery
//! The durable thing is the log. An update is answered once its entry is flushed; the tables follow without a flush
//! and are made durable now and then (a checkpoint), which frees the log. At start the tables are as of some
//! checkpoint, and the entries after it are applied again. `docs/directory.md` has the formats and the whole story.
#![forbid(unsafe_code)]

pub mod backend;
mod cache;
pub mod checkpoint;
mod classic;
pub mod commit;
pub mod draft;
pub mod entry;
pub mod export;
mod filter;
pub mod guarded;
pub mod import;
pub mod kept;
mod listing;
pub mod log;
pub mod memory;
mod merged;
mod moves;
pub mod restrict;
pub mod row;
mod serve;
pub mod store;
pub mod tables;
pub mod update;
pub mod walk;

pub use import::{ImportError, Importer};
pub use row::{Directory, Name, Row};
pub use serve::{DirectoryServer, StartError, start};
pub use store::{Format, Identity, Options, Store, StoreError, format};
pub use update::{Outcome, Refusal, Update};
