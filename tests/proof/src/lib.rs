//! At most once among real processes: the checkers of `tests/world`, over daemons, sockets and networks as they are.
//!
//! [`torment`] is the program that `amoeba dev` runs among its hosts: it starts servers and clients on them, kills and
//! moves them, kills kernels and whole hosts, cuts the wire, and at the end compares what was executed with what clients
//! were told. [`service`] is such a server and such a client. [`ledger`] is the files that both write and nobody loses,
//! whoever is killed, and the checker that reads them. [`flood`] is a stranger at the link. [`hosts`] are those of
//! `amoeba dev`, [`lot`] draws. [`storage`] proves the file server and the directory server.
#![forbid(unsafe_code)]

pub mod flood;
pub mod hosts;
pub mod ledger;
pub mod lot;
pub mod service;
pub mod storage;
pub mod torment;
