//! What two processes of one host share: memory that each maps, and bells.
//!
//! The protocol over it is `amoeba_channel`, which makes no system call; here are the regions and the bells. How an end
//! waits is [`crate::look`].

pub(crate) mod bell;
pub(crate) mod region;
