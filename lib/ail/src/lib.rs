//! The class compiler: class files to stubs, server traits and reference pages.
#![forbid(unsafe_code)]
