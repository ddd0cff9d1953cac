//! The class compiler, AIL: a class file declares a server's operations, rights, limits and errors; out of it come
//! the client stubs, the server trait and the reference page. The language is described in `docs/classes.md`.
//!
//! It is a library so that `cargo xtask gen` and any `build.rs` ([`build()`]) use the same compiler. It knows nothing of
//! transactions: generated code leans on the runtime module that [`RustOptions::runtime`] names.
//!
//! A class file goes through `token`, `parse` and `check` and comes out as a [`model::Class`]; each back end
//! ([`rust()`], [`markdown()`]) is a function from there to text. Start with [`Library`].
#![forbid(unsafe_code)]

mod ast;
mod build;
mod check;
mod diagnostic;
mod markdown;
pub mod model;
mod parse;
mod rust;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;

pub use build::{BuildError, build, compile_file, read_folder};
pub use diagnostic::{Diagnostic, Position};
pub use markdown::markdown;
pub use rust::{RustOptions, doc_comment, module_name, rust};
pub use token::FILE_SIZE_MAX;

/// The standard operations, which every library has.
const STD: (&str, &str) = ("idl/std.class", include_str!("../../../idl/std.class"));
/// How long a chain of inheriting classes may be.
const CHAIN_MAX: usize = 8;

/// Class files by the name of their class, so that one can inherit from another.
#[derive(Clone, Debug)]
pub struct Library {
    sources: BTreeMap<String, (String, String)>,
}

impl Default for Library {
    fn default() -> Library {
        Library::new()
    }
}

impl Library {
    /// A library that has `std` alone.
    pub fn new() -> Library {
        let mut library = Library { sources: BTreeMap::new() };
        library.add("std", STD.0, STD.1);
        library
    }

    /// Adds the class file `text` of `class`; complaints call it `file`.
    pub fn add(&mut self, class: &str, file: &str, text: &str) {
        self.sources.insert(class.to_owned(), (file.to_owned(), text.to_owned()));
    }

    /// The names of all classes.
    pub fn classes(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// Compiles one class.
    ///
    /// # Errors
    /// The first thing that is wrong, in this class file or one it inherits from.
    pub fn compile(&self, class: &str) -> Result<model::Class, Diagnostic> {
        self.compile_in(class, CHAIN_MAX)
    }

    fn compile_in(&self, class: &str, chain: usize) -> Result<model::Class, Diagnostic> {
        let start = Position { line: 1, column: 1 };
        let Some((file, text)) = self.sources.get(class) else {
            let message = format!("there is no class `{class}`");
            return Err(Diagnostic { file: class.to_owned(), at: start, message });
        };
        let parsed = parse::parse(text).map_err(|complaint| complaint.in_file(file))?;
        if parsed.name.text != class {
            let message =
                format!("this file is named for class `{class}`, but declares `{}`", parsed.name.text);
            return Err(Diagnostic { file: file.clone(), at: parsed.name.at, message });
        }
        let mut inherited = BTreeMap::new();
        for item in &parsed.items {
            let ast::Item::Inherits { class: parent, .. } = item else { continue };
            if chain == 0 {
                let message = format!("classes inherit from each other in a circle, or {CHAIN_MAX} deep");
                return Err(Diagnostic { file: file.clone(), at: parent.at, message });
            }
            if self.sources.contains_key(&parent.text) {
                inherited.insert(parent.text.clone(), self.compile_in(&parent.text, chain - 1)?);
            }
        }
        check::check(parsed, &inherited).map_err(|complaint| complaint.in_file(file))
    }
}
