//! Transactions between two processes of one host over memory that they share; no I/O.
#![forbid(unsafe_code)]
