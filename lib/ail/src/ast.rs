//! A class file as written: names are not resolved, numbers not computed.

use crate::diagnostic::Position;

#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) at: Position,
}

#[derive(Debug)]
pub(crate) struct ClassFile {
    pub(crate) name: Name,
    pub(crate) first: Expr,
    pub(crate) last: Expr,
    pub(crate) client_only: bool,
    pub(crate) doc: String,
    pub(crate) items: Vec<Item>,
}

#[derive(Debug)]
pub(crate) enum Item {
    Inherits { class: Name, chosen: Vec<(Name, Vec<Name>)> },
    Right(Value),
    Limit(Value),
    Error(Value),
    Constant { ty: Name, value: Value },
    Record { name: Name, doc: String, fields: Vec<Field> },
    Operation(Operation),
}

/// A named number.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) name: Name,
    pub(crate) value: Expr,
    pub(crate) doc: String,
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) name: Name,
    pub(crate) attributes: Vec<Name>,
    pub(crate) number: Expr,
    pub(crate) params: Vec<Field>,
    pub(crate) results: Vec<Field>,
    pub(crate) doc: String,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: Name,
    pub(crate) ty: Type,
    pub(crate) place: Option<Name>,
    pub(crate) doc: String,
}

#[derive(Debug)]
pub(crate) enum Type {
    /// `u32`, `cap`, a record.
    Plain(Name),
    /// `string(max 255)`, `fixed(8)`.
    Sized { word: Name, size: Expr },
    /// `list(row, max 10)`, with or without `until end`.
    List { at: Position, element: Box<Type>, max: Expr, until_end: bool },
}

impl Type {
    pub(crate) fn at(&self) -> Position {
        match self {
            Type::Plain(name) | Type::Sized { word: name, .. } => name.at,
            Type::List { at, .. } => *at,
        }
    }
}

/// A sum of products, perhaps shifted; `terms` are computed left to right as `steps` say.
#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) at: Position,
    pub(crate) negative: bool,
    pub(crate) first: Atom,
    pub(crate) steps: Vec<(&'static str, Atom)>,
}

#[derive(Debug)]
pub(crate) enum Atom {
    Number(i64),
    Name(Name),
}
