//! The reference page of a class.

use std::fmt::Write as _;

use crate::model::{Class, Field, Int, Number, On, Operation, Place, Type};

/// Writes formatted text to a `String`, which cannot fail.
macro_rules! emit {
    ($out:expr, $($argument:tt)*) => {
        writeln!($out, $($argument)*).expect("writing to a String does not fail")
    };
}

/// The reference page of `class`, generated from `origin`.
pub fn markdown(class: &Class, origin: &str) -> String {
    let mut out =
        format!("<!-- Generated from {origin}; do not edit. -->\n\n# {}\n\n{}\n\n", class.name, class.doc);
    emit!(out, "Commands {} to {}.\n", class.first, class.last);
    rights(class, &mut out);
    numbers("Limits", &class.limits, &mut out);
    numbers("Constants", &class.constants, &mut out);
    numbers("Errors", &class.errors, &mut out);
    if !class.records.is_empty() {
        emit!(out, "## Records\n");
    }
    for record in &class.records {
        emit!(out, "### {}\n\n{}\n", record.name, record.doc);
        fields(&record.fields, &mut out);
    }
    emit!(out, "## Operations\n");
    for operation in &class.operations {
        self::operation(operation, &mut out);
    }
    standard(class, &mut out);
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn rights(class: &Class, out: &mut String) {
    if class.rights.is_empty() {
        return;
    }
    emit!(out, "## Rights\n\n| Right | Bits | Allows |\n|---|---|---|");
    for right in &class.rights {
        emit!(out, "| `{}` | {:#04x} | {} |", right.name, right.bits, cell(&right.doc));
    }
    emit!(out, "");
}

fn numbers(title: &str, numbers: &[Number], out: &mut String) {
    if numbers.is_empty() {
        return;
    }
    emit!(out, "## {title}\n\n| Name | Value | Meaning |\n|---|---|---|");
    for number in numbers {
        emit!(out, "| `{}` | {} | {} |", number.name, number.value, cell(&number.doc));
    }
    emit!(out, "");
}

fn operation(operation: &Operation, out: &mut String) {
    emit!(out, "### {}\n\n{}\n", operation.name, operation.doc);
    emit!(out, "- Command: {}", operation.number);
    emit!(out, "- Rights: {}", needs(operation));
    let on = match operation.on {
        On::Any => "any object, the server itself included",
        On::Super => "the server itself",
        On::Object => "any object but the server itself",
        On::Unchecked => "no object: the capability only says which server",
    };
    emit!(out, "- On: {on}");
    if operation.idempotent {
        emit!(out, "- Idempotent: sent again when it is not known whether it was executed");
    }
    if operation.deferred {
        emit!(out, "- The server may take its time to answer");
    }
    if let Some(class) = &operation.origin {
        emit!(out, "- Inherited from [{class}]({class}.md)");
    }
    emit!(out, "");
    if !operation.params.is_empty() {
        emit!(out, "Request:\n");
        fields(&operation.params, out);
    }
    if !operation.results.is_empty() {
        emit!(out, "Reply:\n");
        fields(&operation.results, out);
    }
}

fn needs(operation: &Operation) -> String {
    if operation.rights.is_empty() {
        return "none".to_owned();
    }
    operation.rights.iter().map(|right| format!("`{right}`")).collect::<Vec<_>>().join(" and ")
}

fn fields(fields: &[Field], out: &mut String) {
    emit!(out, "| Field | Type | Where | Meaning |\n|---|---|---|---|");
    for field in fields {
        let place = match field.place {
            Place::Data => "data",
            Place::Offset => "header, `offset`",
            Place::Size => "header, `size`",
            Place::Extra => "header, `extra`",
            Place::Header => "header, port and private part",
        };
        emit!(out, "| `{}` | {} | {place} | {} |", field.name, ty(&field.ty), cell(&field.doc));
    }
    emit!(out, "");
}

fn ty(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::Int(int) => int.name().to_owned(),
        Type::String { max } => format!("string, at most {max} bytes"),
        Type::Bytes { max } => format!("{} length and bytes, at most {max}", Int::U32.name()),
        Type::Rest { max } => format!("bytes to the end of the data, at most {max}"),
        Type::Fixed { size } => format!("{size} bytes"),
        Type::Cap => "capability".to_owned(),
        Type::Private => "private part".to_owned(),
        Type::Port => "port".to_owned(),
        Type::CapSet => "capability set".to_owned(),
        Type::Record { name, .. } => name.clone(),
        Type::List { element, max, until_end } => {
            let end = if *until_end { ", to the end of the data" } else { "" };
            format!("list of ({}), at most {max}{end}", self::ty(element))
        }
    }
}

fn standard(class: &Class, out: &mut String) {
    if class.standard.is_empty() {
        return;
    }
    emit!(
        out,
        "## Standard operations\n\nThose of [std](std.md) that the server provides, with the rights they need:\n"
    );
    for operation in &class.standard {
        emit!(out, "- {} ({}): {}", operation.name, operation.number, needs(operation));
    }
}

/// A text inside a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
