//! Many packets to one peer: numbered, acknowledged, paced; and the flow of transactions made of them; no I/O.
//!
//! [`bulk`] is the lower half: packets that must arrive, over a network that drops what comes too fast. The link between
//! two kernels uses it, and so do flows.
#![forbid(unsafe_code)]

pub mod bulk;
