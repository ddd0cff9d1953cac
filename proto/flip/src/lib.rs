//! FLIP: addresses, locate, routing, fragments; no I/O.
#![forbid(unsafe_code)]
