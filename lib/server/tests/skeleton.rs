//! The skeleton, driven over transactions within one process.
