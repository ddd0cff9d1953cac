//! Bullet: immutable, whole, contiguous files.
//!
//! A file is created, possibly piece by piece, committed at once, and from then on only read, copied or destroyed.
//! It has no name but its capability. [`store`] keeps files on a disk and in memory and knows nothing of
//! transactions; `serve` answers requests (`classic` has what is particular to the original's forms, `admin` what concerns the whole volume); [`start()`] joins
//! the two and sweeps.
//!
//! # Recovery
//! A file committed with safety is durable when its client hears so; a destroyed one stays destroyed. After a crash
//! the inode table is read, and of the files written since the last checkpoint the data is verified: what does not
//! verify was never acknowledged and is forgotten. Nothing is ever half there. `docs/bullet.md` has the bytes of an
//! image and the whole story.
#![forbid(unsafe_code)]

mod admin;
mod classic;
mod serve;
mod start;
pub mod store;

pub use serve::BulletServer;
pub use start::{RunningBullet, StartError, start};
pub use store::{FormatOptions, Formatted, Settings, StoreError, VolumeError, format};
