//! Path names over directories; the capability environment.
#![forbid(unsafe_code)]
