//! Client stubs and server traits, generated from class files.
#![forbid(unsafe_code)]
