//! Bullet: immutable, whole, contiguous files.
//!
//! A file is created, possibly piece by piece, committed at once, and from then on only read, copied or destroyed.
//! It has no name but its capability. [`store`] keeps files on a disk and in memory and knows nothing of
//! transactions. `docs/bullet.md` has the bytes of an image and the recovery story.
#![forbid(unsafe_code)]

pub mod store;
