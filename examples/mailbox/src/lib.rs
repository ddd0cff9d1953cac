//! The class `mailbox`, as the class compiler makes it from `mailbox.class`: what server and client share.
#![forbid(unsafe_code)]

include!(concat!(env!("OUT_DIR"), "/mailbox.rs"));
