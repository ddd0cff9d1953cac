//! The directory server: names for capabilities.
#![forbid(unsafe_code)]
