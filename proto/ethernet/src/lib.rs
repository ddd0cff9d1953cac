//! FLIP on raw Ethernet: frames, credits, multicast; no I/O.
#![forbid(unsafe_code)]
