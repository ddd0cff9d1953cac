//! Client functions: one a operation.

use std::fmt::Write as _;

use super::fields::{self, Held};
use super::{ARGUMENTS_MAX, camel, command, doc, emit, field_doc, needs};
use crate::model::{Field, Operation, size_max};

/// The type of what an operation gives: nothing, its one result, or a structure of its results.
pub(super) fn result_type(operation: &Operation, classes: &str) -> String {
    match operation.results.as_slice() {
        [] => "()".to_owned(),
        [one] => fields::owned(&one.ty, classes),
        _ => match &operation.origin {
            Some(class) => format!("{classes}::{}::{}", super::module_name(class), reply_name(operation)),
            None => reply_name(operation),
        },
    }
}

/// The structure of the results of an operation that has several.
pub(super) fn reply_name(operation: &Operation) -> String {
    format!("{}Reply", camel(&operation.name))
}

pub(super) fn names(fields: &[Field]) -> String {
    fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ")
}

pub(super) fn operation(operation: &Operation, classes: &str, out: &mut String) {
    if operation.results.len() > 1 {
        reply_struct(operation, classes, out);
    }
    doc(&operation.doc, out);
    params_doc(operation, out);
    needs(operation, out);
    if 2 + operation.params.len() > ARGUMENTS_MAX {
        emit!(out, "#[allow(clippy::too_many_arguments)]");
    }
    emit!(out, "pub fn {}<'t>(t: impl Into<rt::Client<'t>>, object: &rt::Capability,", operation.name);
    for field in &operation.params {
        emit!(out, "{}: {},", field.name, fields::client_param(&field.ty, classes));
    }
    emit!(out, ") -> Result<{}, rt::Error> {{", result_type(operation, classes));
    emit!(out, "let mut header_ = rt::Header::request(object, {});", command(operation));
    for field in operation.params.iter().filter(|field| fields::has_rest(std::slice::from_ref(field))) {
        emit!(out, "let {0} = {0}.into();", field.name);
    }
    fields::put_message(&operation.params, Held::Borrowed, out);
    let (header, data) = used(&operation.results);
    let reply_max = size_max(&operation.results);
    emit!(
        out,
        "let ({header}, {data}) = t.into().trans(header_, data_, {reply_max}, {})?;",
        operation.idempotent
    );
    fields::get_message(&operation.results, classes, Held::Owned, out);
    match operation.results.as_slice() {
        [] => emit!(out, "Ok(())"),
        [one] => emit!(out, "Ok({})", one.name),
        several => emit!(out, "Ok({} {{ {} }})", reply_name(operation), names(several)),
    }
    emit!(out, "}}\n");
}

/// The names under which a message's header and data are bound, so that nothing is unused.
pub(super) fn used(fields: &[Field]) -> (&'static str, &'static str) {
    let header = fields.iter().any(|field| field.place != crate::model::Place::Data);
    (if header { "header_" } else { "_" }, "data_")
}

fn params_doc(operation: &Operation, out: &mut String) {
    let described: Vec<&Field> = operation.params.iter().filter(|field| !field.doc.is_empty()).collect();
    if !described.is_empty() {
        emit!(out, "///");
    }
    for field in described {
        doc(&format!("- `{}`: {}", field.name, field.doc), out);
    }
}

fn reply_struct(operation: &Operation, classes: &str, out: &mut String) {
    emit!(out, "/// What [`{}()`] gives.", operation.name);
    emit!(out, "#[derive(Clone, Debug, PartialEq)]\npub struct {} {{", reply_name(operation));
    for field in &operation.results {
        field_doc(field, out);
        emit!(out, "pub {}: {},", field.name, fields::owned(&field.ty, classes));
    }
    emit!(out, "}}\n");
}
