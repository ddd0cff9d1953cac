//! World one: real processes on Linux.
