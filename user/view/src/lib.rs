//! A process sees its caller's files, on whatever host it runs: design and threats are in `docs/views.md`.
//!
//! Two ends of the class `view`:
//!
//! - [`home`]: the end of the caller. A [`home::Server`] serves some trees of this host, and makes changes in those that
//!   may be written.
//! - [`away`]: the end of the host where the process runs. An [`away::Visible`] is a file system for a mount; what it has
//!   learnt and fetched outlives the process.
//!
//! It is no server of the system and not part of both worlds: what it serves is people's own files on a real host.
#![forbid(unsafe_code)]

pub mod away;
pub mod home;
