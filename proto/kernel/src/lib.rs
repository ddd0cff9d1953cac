//! The transaction kernel of a host: F-box, port table, FLIP box and RPC joined; no I/O.
#![forbid(unsafe_code)]
