//! The Rust back end: one module a class, with its constants, records, client functions and server trait.

mod client;
mod fields;
mod server;

use std::fmt::Write as _;

use crate::model::{Class, Number, Operation, Record};

/// Arguments of a function that clippy finds too many; generated ones have as many as the class says.
const ARGUMENTS_MAX: usize = 7;

/// How generated Rust code finds what it needs.
#[derive(Clone, Debug)]
pub struct RustOptions {
    /// The path of the runtime module, such as `::amoeba_stubs::rt`.
    pub runtime: String,
    /// The path under which the modules of other classes are found, for records of inherited operations.
    pub classes: String,
    /// What the first line says the code was generated from and how.
    pub origin: String,
}

/// The Rust module of a class: its own name, but `standard` for `std`, so that Rust's `std` keeps its name.
pub fn module_name(class: &str) -> &str {
    if class == "std" { "standard" } else { class }
}

/// The Rust module of `class`, to be formatted by rustfmt if people are to read it.
///
/// It has no inner attributes, so that it can be `include!`d.
pub fn rust(class: &Class, options: &RustOptions) -> String {
    let mut out =
        format!("// Generated from {}; do not edit.\n\nuse {};\n\n", options.origin, options.runtime);
    constants(class, &mut out);
    for record in &class.records {
        self::record(record, &options.classes, &mut out);
    }
    for operation in class.operations.iter().filter(|operation| operation.origin.is_none()) {
        client::operation(operation, &options.classes, &mut out);
    }
    if !class.client_only {
        server::class(class, &options.classes, &mut out);
    }
    out
}

/// Writes formatted text to a `String`, which cannot fail.
macro_rules! emit {
    ($out:expr, $($argument:tt)*) => {
        writeln!($out, $($argument)*).expect("writing to a String does not fail")
    };
}
use emit;

fn constants(class: &Class, out: &mut String) {
    for right in &class.rights {
        doc(&right.doc, out);
        emit!(
            out,
            "pub const {}: rt::Rights = rt::Rights::from_bits_retain({:#04x});",
            right.name,
            right.bits
        );
    }
    for limit in &class.limits {
        doc(&limit.doc, out);
        emit!(out, "pub const {}: usize = {};", limit.name, limit.value);
    }
    for constant in &class.constants {
        doc(&constant.doc, out);
        emit!(out, "pub const {}: {} = {};", constant.name, constant_type(constant), constant.value);
    }
    for error in &class.errors {
        doc(&error.doc, out);
        emit!(out, "pub const {}: rt::Status = rt::Status({});", error.name, error.value);
    }
    for operation in class.operations.iter().filter(|operation| operation.origin.is_none()) {
        emit!(out, "/// The command of [`{}()`].", operation.name);
        emit!(out, "pub const {}: rt::Command = rt::Command({});", command(operation), operation.number);
    }
    emit!(out, "");
}

fn constant_type(constant: &Number) -> &'static str {
    constant.ty.expect("the checker gives every constant a type").name()
}

fn record(record: &Record, classes: &str, out: &mut String) {
    doc(&record.doc, out);
    emit!(out, "#[derive(Clone, Debug, PartialEq)]\npub struct {} {{", camel(&record.name));
    for field in &record.fields {
        field_doc(field, out);
        emit!(out, "pub {}: {},", field.name, fields::owned(&field.ty, classes));
    }
    emit!(out, "}}\n\nimpl rt::Marshal for {} {{", camel(&record.name));
    emit!(out, "fn put(&self, writer_: &mut rt::Writer) -> Result<(), rt::OverLimit> {{");
    for field in &record.fields {
        fields::put(&field.ty, &format!("self.{}", field.name), fields::Held::Owned, out);
    }
    emit!(out, "Ok(())\n}}\n\nfn get(reader_: &mut rt::Reader<'_>) -> Result<Self, rt::Malformed> {{");
    for field in &record.fields {
        emit!(out, "let {} = {}?;", field.name, fields::get(&field.ty, classes, fields::Held::Owned));
    }
    let names: Vec<&str> = record.fields.iter().map(|field| field.name.as_str()).collect();
    emit!(out, "Ok({} {{ {} }})\n}}\n}}\n", camel(&record.name), names.join(", "));
}

/// The name of an operation's command.
fn command(operation: &Operation) -> String {
    format!("CMD_{}", operation.name.to_uppercase())
}

/// `read_write` as `ReadWrite`.
fn camel(name: &str) -> String {
    let mut camel = String::new();
    for word in name.split('_') {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.extend(letters);
    }
    camel
}

/// `text` as a doc comment of Rust.
pub fn doc_comment(text: &str) -> String {
    let mut out = String::new();
    doc(text, &mut out);
    out
}

/// Appends a text as a doc comment, in lines of bearable length.
fn doc(text: &str, out: &mut String) {
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.len() + word.len() > 100 {
            emit!(out, "///{line}");
            line.clear();
        }
        line.push(' ');
        line.push_str(&escaped(word));
    }
    emit!(out, "///{line}");
}

/// Brackets and angles mean something in doc comments.
fn escaped(word: &str) -> String {
    let mut escaped = String::new();
    for letter in word.chars() {
        if matches!(letter, '[' | ']' | '<' | '>') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

fn field_doc(field: &crate::model::Field, out: &mut String) {
    if field.doc.is_empty() {
        doc(&format!("The {}.", field.name.replace('_', " ")), out);
    } else {
        doc(&field.doc, out);
    }
}

/// What an operation needs, for its documentation.
fn needs(operation: &Operation, out: &mut String) {
    emit!(out, "///\n/// # Rights");
    if operation.rights.is_empty() {
        emit!(out, "/// None.");
    } else {
        let rights: Vec<String> = operation.rights.iter().map(|right| format!("`{right}`")).collect();
        emit!(out, "/// {}.", rights.join(" and "));
    }
}
