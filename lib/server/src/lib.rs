//! The server skeleton: loop, capability check, standard operations.
#![forbid(unsafe_code)]
