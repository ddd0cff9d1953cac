//! Transactions, at most once; no I/O.
#![forbid(unsafe_code)]
