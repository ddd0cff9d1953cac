//! The server trait of a class, and the glue between it and the skeleton.

use std::fmt::Write as _;

use super::client::{names, reply_name, result_type, used};
use super::fields::{self, Held};
use super::{ARGUMENTS_MAX, doc, emit, needs};
use crate::model::{ALL, Class, Field, On, Operation, Type, size_max};

pub(super) fn class(class: &Class, classes: &str, out: &mut String) {
    standard(class, out);
    let largest =
        class.operations.iter().chain(&class.standard).map(|operation| size_max(&operation.params)).max();
    emit!(out, "/// The most bytes of data in any request: what to listen with.");
    emit!(out, "pub const REQUEST_SIZE_MAX: usize = {};\n", largest.unwrap_or(0));
    serve_trait(class, classes, out);
    service(class, out);
    for operation in &class.operations {
        glue(operation, classes, out);
    }
}

fn standard(class: &Class, out: &mut String) {
    emit!(out, "/// The standard operations this class offers.");
    emit!(out, "pub const STANDARD: &[rt::Standard] = &[");
    for operation in &class.standard {
        emit!(
            out,
            "// {}\nrt::Standard {{ command: rt::Command({}), rights: rt::Rights::from_bits_retain({:#04x}), on: rt::On::{} }},",
            operation.name,
            operation.number,
            operation.rights_bits,
            on(operation)
        );
    }
    emit!(out, "];\n");
}

fn serve_trait(class: &Class, classes: &str, out: &mut String) {
    emit!(out, "/// A server of this class: one method an operation, on objects the skeleton has checked.");
    emit!(out, "pub trait Serve: rt::Objects {{");
    for operation in &class.operations {
        doc(&operation.doc, out);
        needs(operation, out);
        let receives = 2 + usize::from(operation.on != On::Unchecked) + usize::from(operation.deferred);
        if receives + operation.params.len() > ARGUMENTS_MAX {
            emit!(out, "#[allow(clippy::too_many_arguments)]");
        }
        emit!(out, "fn {}(&self, call: &rt::Call,", operation.name);
        if operation.on != On::Unchecked {
            emit!(out, "object: rt::Object<{}>,", need(operation));
        }
        for field in &operation.params {
            emit!(out, "{}: {},", field.name, fields::server_param(&field.ty, classes));
        }
        let result = served_type(operation, classes);
        if operation.deferred {
            emit!(out, "pending: rt::Pending<{result}>);");
        } else {
            emit!(out, ") -> Result<{result}, rt::Status>;");
        }
    }
    emit!(out, "}}\n");
}

/// The type of what a server gives.
fn served_type(operation: &Operation, classes: &str) -> String {
    if operation.shared { "rt::Bulk".to_owned() } else { result_type(operation, classes) }
}

/// The name of what the skeleton calls the objects of an operation; who is unchecked is not asked.
fn on(operation: &Operation) -> &'static str {
    match operation.on {
        On::Any | On::Unchecked => "Any",
        On::Super => "Super",
        On::Object => "Object",
    }
}

/// The rights as the parameter of `Object`.
fn need(operation: &Operation) -> String {
    match operation.rights.as_slice() {
        [] => "0".to_owned(),
        rights if rights.iter().any(|right| right == ALL) => "255".to_owned(),
        rights => {
            let bits: Vec<String> = rights.iter().map(|right| format!("{right}.bits()")).collect();
            format!("{{ {} }}", bits.join(" | "))
        }
    }
}

fn service(class: &Class, out: &mut String) {
    emit!(
        out,
        "/// A server of this class as the skeleton sees it.
        pub struct Service<S>(pub std::sync::Arc<S>);

        impl<S> Clone for Service<S> {{
            fn clone(&self) -> Self {{ Service(self.0.clone()) }}
        }}

        impl<S: Serve> rt::Service for Service<S> {{
            fn objects(&self) -> &dyn rt::Objects {{ &*self.0 }}

            fn standard(&self, command: rt::Command) -> Option<rt::Standard> {{
                rt::Standard::find(STANDARD, command)
            }}

            fn dispatch(&self, request: rt::Request) -> Option<rt::Request> {{"
    );
    if class.operations.is_empty() {
        emit!(out, "Some(request)\n}}\n}}\n");
    } else {
        emit!(out, "let server = &*self.0;\nmatch request.command().0 {{");
        for operation in &class.operations {
            dispatch(operation, out);
        }
        emit!(out, "_ => return Some(request),\n}}\nNone\n}}\n}}\n");
    }
    emit!(
        out,
        "/// Serves requests for `server` on `threads` threads until the listener is closed.
        ///
        /// # Errors
        /// The world has no room for the threads; nothing is served.
        pub fn serve<S: Serve + 'static>(world: &rt::World, listener: rt::Listener, server: std::sync::Arc<S>, threads: usize)
            -> Result<(), rt::SpawnError>
        {{
            start(world, listener, server, threads).map(rt::Running::join)
        }}

        /// As [`serve`], but returns at once.
        ///
        /// # Errors
        /// As [`serve`].
        pub fn start<S: Serve + 'static>(world: &rt::World, listener: rt::Listener, server: std::sync::Arc<S>, threads: usize)
            -> Result<rt::Running, rt::SpawnError>
        {{
            rt::start(world, listener, std::sync::Arc::new(Service(server)), threads)
        }}
        "
    );
}

fn dispatch(operation: &Operation, out: &mut String) {
    let name = &operation.name;
    if operation.deferred {
        emit!(out, "{} => request.defer(reply_{name}, |call, header, data| {{", operation.number);
    } else {
        let answer = if operation.shared { "answer_bulk" } else { "answer" };
        emit!(out, "{} => request.{answer}(|call, header, data| {{", operation.number);
    }
    emit!(out, "serve_{name}(server, call, header, data)\n}}),");
}

fn glue(operation: &Operation, classes: &str, out: &mut String) {
    let name = &operation.name;
    let result = result_type(operation, classes);
    let (header, data) = used(&operation.params);
    // What a deferred handler is given outlives this function's data.
    let held = if operation.deferred { Held::Owned } else { Held::Borrowed };
    let gives = if operation.deferred {
        format!("impl FnOnce(rt::Pending<{result}>)")
    } else {
        message_type(operation).to_owned()
    };
    let life = if operation.deferred { "<'s, S: Serve>" } else { "<S: Serve>" };
    let (server_ref, gives) =
        if operation.deferred { ("&'s S", format!("{gives} + use<'s, S>")) } else { ("&S", gives) };
    let call = if operation.deferred { "rt::Call" } else { "&rt::Call" };
    emit!(
        out,
        "fn serve_{name}{life}(server_: {server_ref}, call: {call}, {header}: rt::Header, {data}: Vec<u8>)"
    );
    emit!(out, "-> Result<{gives}, rt::Failure> {{");
    if operation.on != On::Unchecked {
        emit!(out, "let object = call.object(server_, rt::On::{})?;", on(operation));
    }
    fields::get_message(&operation.params, classes, held, out);
    let mut arguments = vec![if operation.deferred { "&call" } else { "call" }.to_owned()];
    arguments.extend((operation.on != On::Unchecked).then(|| "object".to_owned()));
    let owned = operation.deferred || fields::has_rest(&operation.params);
    arguments.extend(operation.params.iter().map(|field| argument(field, owned)));
    if operation.deferred {
        emit!(out, "Ok(move |pending| server_.{name}({}, pending))\n}}\n", arguments.join(", "));
    } else {
        let result = if operation.results.is_empty() { "" } else { "let result = " };
        let value = if operation.results.is_empty() { "()" } else { "result" };
        emit!(out, "{result}server_.{name}({})?;\nreply_{name}({value})\n}}\n", arguments.join(", "));
    }
    reply(operation, classes, out);
}

fn argument(field: &Field, owned: bool) -> String {
    match field.ty {
        Type::String { .. } | Type::Bytes { .. } if owned => format!("&{}", field.name),
        _ => field.name.clone(),
    }
}

/// The function that makes the reply of an operation.
fn reply(operation: &Operation, classes: &str, out: &mut String) {
    let name = &operation.name;
    let result = served_type(operation, classes);
    let (pattern, opened) = match operation.results.as_slice() {
        [] => ("(): ()".to_owned(), String::new()),
        [one] => (format!("{}: {result}", one.name), String::new()),
        several => {
            let shape = if operation.origin.is_some() { result.clone() } else { reply_name(operation) };
            (format!("result: {result}"), format!("let {shape} {{ {} }} = result;", names(several)))
        }
    };
    let message = message_type(operation);
    emit!(out, "fn reply_{name}({pattern}) -> Result<{message}, rt::Failure> {{\n{opened}");
    emit!(out, "let mut header_ = rt::Header::reply(rt::Status::STD_OK);");
    fields::put_message(&operation.results, Held::Owned, out);
    let made =
        if operation.shared { "(header_, data_)" } else { "rt::Message { header: header_, data: data_ }" };
    emit!(out, "Ok({made})\n}}\n");
}

/// The type of a whole reply.
fn message_type(operation: &Operation) -> &'static str {
    if operation.shared { "(rt::Header, rt::Bulk)" } else { "rt::Message" }
}
