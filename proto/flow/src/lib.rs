//! Many packets to one peer: numbered, acknowledged, paced; and the flow of transactions made of them; no I/O.
#![forbid(unsafe_code)]
