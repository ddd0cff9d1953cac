//! Who a host is, and datagrams that only the other end can read; no I/O.
#![forbid(unsafe_code)]
