//! How each type is written in Rust, put into data and taken from it.

use std::fmt::Write as _;

use super::{camel, emit, module_name};
use crate::model::{Field, Int, Place, Type};

/// Whether an expression is the value itself or a reference to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Owned,
    Borrowed,
}

fn record(name: &str, origin: Option<&String>, classes: &str) -> String {
    match origin {
        Some(class) => format!("{classes}::{}::{}", module_name(class), camel(name)),
        None => camel(name),
    }
}

/// The type of a value of its own: in records, results and lists.
pub(super) fn owned(ty: &Type, classes: &str) -> String {
    match ty {
        Type::Bool => "bool".to_owned(),
        Type::Int(int) => int.name().to_owned(),
        Type::String { .. } | Type::Bytes { .. } | Type::Rest { .. } => "Vec<u8>".to_owned(),
        Type::Fixed { size } => format!("[u8; {size}]"),
        Type::Cap => "rt::Capability".to_owned(),
        Type::Private => "rt::Private".to_owned(),
        Type::Port => "rt::PutPort".to_owned(),
        Type::CapSet => "rt::CapabilitySet".to_owned(),
        Type::Record { name, origin, .. } => record(name, origin.as_ref(), classes),
        Type::List { element, .. } => format!("Vec<{}>", owned(element, classes)),
    }
}

/// The type of a client function's parameter.
pub(super) fn client_param(ty: &Type, classes: &str) -> String {
    match ty {
        Type::Rest { .. } => "impl Into<Vec<u8>>".to_owned(),
        Type::String { .. } | Type::Bytes { .. } => "&[u8]".to_owned(),
        Type::List { element, .. } => format!("&[{}]", owned(element, classes)),
        ty if is_small(ty) => owned(ty, classes),
        ty => format!("&{}", owned(ty, classes)),
    }
}

/// The type of a handler's parameter.
pub(super) fn server_param(ty: &Type, classes: &str) -> String {
    match ty {
        Type::String { .. } | Type::Bytes { .. } => "&[u8]".to_owned(),
        ty => owned(ty, classes),
    }
}

fn is_small(ty: &Type) -> bool {
    matches!(ty, Type::Bool | Type::Int(_) | Type::Port)
}

/// Statements that append `value` to `writer_`; they may `?` an `OverLimit`.
pub(super) fn put(ty: &Type, value: &str, held: Held, out: &mut String) {
    let by_value = if held == Held::Owned || is_small(ty) { value.to_owned() } else { format!("*{value}") };
    let by_ref = if held == Held::Owned { format!("&{value}") } else { value.to_owned() };
    match ty {
        Type::Bool => emit!(out, "writer_.put_bool({by_value});"),
        Type::Int(int) => emit!(out, "writer_.put_{}({by_value});", int.name()),
        Type::String { max } => emit!(out, "rt::put_string(writer_, {by_ref}, {max})?;"),
        Type::Bytes { max } => emit!(out, "rt::put_bytes(writer_, {by_ref}, {max})?;"),
        Type::Rest { .. } => unreachable!("the rest is put last, by whoever makes the message"),
        Type::Fixed { .. } => emit!(out, "writer_.raw({by_ref});"),
        Type::Cap => emit!(out, "writer_.put_cap({by_ref});"),
        Type::Private => emit!(out, "writer_.put_private({by_ref});"),
        Type::Port => emit!(out, "writer_.put_port(&{value});"),
        Type::CapSet => emit!(out, "writer_.put_capset({by_ref});"),
        Type::Record { .. } => emit!(out, "rt::Marshal::put({by_ref}, writer_)?;"),
        Type::List { element, max, until_end } => {
            let count = if *until_end { "check_count(" } else { "put_count(writer_, " };
            emit!(out, "rt::{count}{value}.len(), {max})?;");
            emit!(out, "for item_ in {by_ref} {{");
            put_element(element, out);
            emit!(out, "}}");
        }
    }
}

/// As [`put`], of the reference `item_`.
fn put_element(ty: &Type, out: &mut String) {
    match ty {
        Type::Bool | Type::Int(_) => put(ty, "*item_", Held::Owned, out),
        Type::Port => emit!(out, "writer_.put_port(item_);"),
        _ => put(ty, "item_", Held::Borrowed, out),
    }
}

/// An expression for the `Result` of taking a value from `reader_`.
pub(super) fn get(ty: &Type, classes: &str, held: Held) -> String {
    let bytes =
        |taken: String| if held == Held::Owned { format!("{taken}.map(<[u8]>::to_vec)") } else { taken };
    match ty {
        Type::Bool => "reader_.get_bool()".to_owned(),
        Type::Int(int) => format!("reader_.get_{}()", int.name()),
        Type::String { max } => bytes(format!("reader_.get_string({max})")),
        Type::Bytes { max } => bytes(format!("reader_.get_bytes({max})")),
        Type::Rest { .. } => unreachable!("the rest is taken last, by whoever has the data"),
        Type::Fixed { size } => format!("reader_.array::<{size}>()"),
        Type::Cap => "reader_.get_cap()".to_owned(),
        Type::Private => "reader_.get_private()".to_owned(),
        Type::Port => "reader_.get_port()".to_owned(),
        Type::CapSet => "reader_.get_capset()".to_owned(),
        Type::Record { .. } => format!("{}(reader_)", get_record(ty, classes)),
        Type::List { element, max, until_end } => {
            let list = if *until_end { "get_until_end" } else { "get_list" };
            let element = match &**element {
                record @ Type::Record { .. } => get_record(record, classes),
                other => format!("|reader_| {}", get(other, classes, Held::Owned)),
            };
            format!("rt::{list}(reader_, {max}, {element})")
        }
    }
}

fn get_record(ty: &Type, classes: &str) -> String {
    format!("<{} as rt::Marshal>::get", owned(ty, classes))
}

/// Statements that put a message's fields into `header_` and `data_`, from variables of the fields' names.
///
/// The names are references to what is not small when `held` says so; the rest is a `Vec<u8>` either way.
pub(super) fn put_message(fields: &[Field], held: Held, out: &mut String) {
    let (rest, marshalled): (Vec<&Field>, Vec<&Field>) =
        in_data(fields).partition(|field| matches!(field.ty, Type::Rest { .. }));
    if marshalled.is_empty() {
        match rest.first() {
            None => emit!(out, "let data_ = Vec::new();"),
            Some(field) => emit!(out, "let data_ = rt::within({}, {})?;", field.name, rest_max(field)),
        }
    } else {
        emit!(out, "let mut buffer_ = rt::Writer::new();\nlet writer_ = &mut buffer_;");
        for field in marshalled {
            put(&field.ty, &field.name, held, out);
        }
        if let Some(field) = rest.first() {
            emit!(out, "writer_.raw(&rt::within({}, {})?);", field.name, rest_max(field));
        }
        emit!(out, "let data_ = buffer_.finish();");
    }
    if !fields.iter().any(|field| field.place == Place::Size) {
        emit!(out, "header_.size = rt::header_size(&data_);");
    }
    for field in fields {
        put_header(field, out);
    }
}

fn put_header(field: &Field, out: &mut String) {
    let name = &field.name;
    let wide = match field.ty {
        Type::Int(Int::I32) => name.clone(),
        Type::Int(Int::U32) => format!("{name} as i32"),
        _ => format!("i32::from({name})"),
    };
    let narrow = match field.ty {
        Type::Int(Int::U16) => name.clone(),
        Type::Int(Int::I16) => format!("{name} as u16"),
        _ => format!("u16::from({name})"),
    };
    match field.place {
        Place::Data => {}
        Place::Offset => emit!(out, "header_.offset = {wide};"),
        Place::Size => emit!(out, "header_.size = {narrow};"),
        Place::Extra => emit!(out, "header_.extra = {narrow};"),
        Place::Header => emit!(out, "header_.set_capability(&{name});"),
    }
}

/// Statements that take a message's fields from `header_` and `data_` into variables of their names; they may `?` a
/// `Malformed`. Borrowed strings and bytes borrow from `data_`, unless it is taken apart for its rest.
pub(super) fn get_message(fields: &[Field], classes: &str, held: Held, out: &mut String) {
    for field in fields.iter().filter(|field| field.place != Place::Data) {
        emit!(out, "let {} = {};", field.name, get_header(field));
    }
    let (rest, marshalled): (Vec<&Field>, Vec<&Field>) =
        in_data(fields).partition(|field| matches!(field.ty, Type::Rest { .. }));
    if let ([], [field]) = (marshalled.as_slice(), rest.as_slice()) {
        emit!(out, "let {} = rt::rest(data_, 0, {})?;", field.name, rest_max(field));
        return;
    }
    if marshalled.is_empty() {
        emit!(out, "rt::Reader::new(&data_).end()?;");
        return;
    }
    emit!(out, "let mut whole_ = rt::Reader::new(&data_);\nlet reader_ = &mut whole_;");
    let held = if rest.is_empty() { held } else { Held::Owned };
    for field in marshalled {
        emit!(out, "let {} = {}?;", field.name, get(&field.ty, classes, held));
    }
    match rest.first() {
        None => emit!(out, "reader_.end()?;"),
        Some(field) => {
            emit!(out, "let taken_ = data_.len() - reader_.remaining();");
            emit!(out, "let {} = rt::rest(data_, taken_, {})?;", field.name, rest_max(field));
        }
    }
}

fn get_header(field: &Field) -> String {
    let place = match field.place {
        Place::Offset => "header_.offset",
        Place::Size => "header_.size",
        Place::Extra => "header_.extra",
        Place::Header => return "header_.capability()".to_owned(),
        Place::Data => unreachable!("only fields of the header come here"),
    };
    match (&field.ty, field.place) {
        (Type::Bool, _) => format!("{place} != 0"),
        (Type::Int(Int::I32), _) | (Type::Int(Int::U16), Place::Size | Place::Extra) => place.to_owned(),
        (Type::Int(Int::U32), _) => format!("{place} as u32"),
        (Type::Int(Int::I16), Place::Size | Place::Extra) => format!("{place} as i16"),
        (Type::Int(int), _) => format!("{}::try_from({place}).map_err(|_| rt::Malformed)?", int.name()),
        _ => unreachable!("the checker lets only bool and integers into the header's numbers"),
    }
}

/// Whether reading these fields with [`Held::Borrowed`] borrows from `data_`.
pub(super) fn has_rest(fields: &[Field]) -> bool {
    fields.iter().any(|field| matches!(field.ty, Type::Rest { .. }))
}

fn in_data(fields: &[Field]) -> impl Iterator<Item = &Field> {
    fields.iter().filter(|field| field.place == Place::Data)
}

fn rest_max(field: &Field) -> u64 {
    match field.ty {
        Type::Rest { max } => max,
        _ => unreachable!("only a rest is asked for its bound"),
    }
}
