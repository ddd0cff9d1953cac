//! Bullet: immutable, whole, contiguous files.
#![forbid(unsafe_code)]
