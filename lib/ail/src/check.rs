//! [`ClassFile`] to [`Class`]: names resolved, numbers computed, every rule of the language enforced.

use std::collections::{BTreeMap, BTreeSet};

use crate::ast::{self, Atom, ClassFile, Expr, Item, Name, Value};
use crate::diagnostic::{Complaint, Position};
use crate::model::{
    ALL, Class, DATA_SIZE_MAX, Field, Int, Number, On, Operation, Place, Record, Right, Type, size_max,
};

/// Names that generated code uses for itself, and words of Rust, C and Python that no name may be.
const RESERVED: &[&str] = &[
    "Self", "abstract", "and", "as", "assert", "async", "auto", "await", "become", "box", "break", "call",
    "case", "char", "class", "const", "continue", "crate", "def", "default", "del", "do", "double", "dyn",
    "elif", "else", "enum", "except", "extern", "false", "final", "finally", "float", "fn", "for", "from",
    "gen", "global", "goto", "if", "impl", "import", "in", "int", "is", "lambda", "let", "long", "loop",
    "macro", "match", "mod", "move", "mut", "nonlocal", "not", "object", "or", "override", "pass", "pending",
    "priv", "pub", "raise", "ref", "register", "return", "self", "short", "signed", "sizeof", "static",
    "struct", "super", "switch", "t", "trait", "true", "try", "type", "typedef", "typeof", "union", "unsafe",
    "unsigned", "unsized", "use", "virtual", "void", "volatile", "where", "while", "with", "yield",
];
/// What the generated module calls its own.
const RESERVED_OPERATIONS: &[&str] = &["serve", "start"];
const RESERVED_RECORDS: &[&str] = &[
    "clone", "err", "fn_once", "into", "none", "ok", "option", "result", "send", "serve", "service", "some",
    "vec",
];
const RESERVED_CONSTANTS: &[&str] = &["ALL", "NONE", "STANDARD", "REQUEST_SIZE_MAX"];

type Checked<T> = Result<T, Complaint>;

fn wrong<T>(at: Position, message: impl Into<String>) -> Checked<T> {
    Err(Complaint::new(at, message))
}

/// The class that `file` describes; `inherited` has every class it may inherit from.
pub(crate) fn check(file: ClassFile, inherited: &BTreeMap<String, Class>) -> Checked<Class> {
    let name = lower(&file.name)?;
    let mut checker =
        Checker { inherited, constants: BTreeMap::new(), names: BTreeMap::new(), class: empty(name) };
    checker.range(&file)?;
    checker.class.client_only = file.client_only;
    checker.class.doc = file.doc;
    let mut operations = Vec::new();
    let mut inherits = Vec::new();
    for item in file.items {
        match item {
            Item::Inherits { class, chosen } => inherits.push((class, chosen)),
            Item::Operation(operation) => operations.push(operation),
            Item::Right(value) => checker.right(value)?,
            Item::Limit(value) => checker.limit(value)?,
            Item::Error(value) => checker.error(value)?,
            Item::Constant { ty, value } => checker.constant(&ty, value)?,
            Item::Record { name, doc, fields } => checker.record(&name, doc, fields)?,
        }
    }
    for operation in operations {
        checker.operation(operation)?;
    }
    for (class, chosen) in inherits {
        checker.inherits(&class, chosen)?;
    }
    Ok(checker.class)
}

fn empty(name: String) -> Class {
    Class {
        name,
        first: 0,
        last: 0,
        client_only: false,
        doc: String::new(),
        standard: Vec::new(),
        rights: Vec::new(),
        limits: Vec::new(),
        constants: Vec::new(),
        errors: Vec::new(),
        records: Vec::new(),
        operations: Vec::new(),
    }
}

struct Checker<'a> {
    inherited: &'a BTreeMap<String, Class>,
    /// Limits and constants, for sizes.
    constants: BTreeMap<String, i64>,
    /// Where each name in capitals was declared.
    names: BTreeMap<String, Position>,
    class: Class,
}

impl Checker<'_> {
    fn range(&mut self, file: &ClassFile) -> Checked<()> {
        let number = |expr: &Expr, value: i64| match u16::try_from(value) {
            Ok(value) if (1000..=i16::MAX as u16).contains(&value) => Ok(value),
            _ => wrong(expr.at, format!("{value} is no command number: they go from 1000 to {}", i16::MAX)),
        };
        self.class.first = number(&file.first, self.value(&file.first)?)?;
        self.class.last = number(&file.last, self.value(&file.last)?)?;
        if self.class.first > self.class.last {
            return wrong(file.first.at, "the range ends before it begins");
        }
        Ok(())
    }

    fn value(&self, expr: &Expr) -> Checked<i64> {
        let first = self.atom(&expr.first)?;
        let mut value = if expr.negative { first.checked_neg() } else { Some(first) };
        // `*` binds tighter than `+`: the sum so far waits while a product grows.
        let mut sum = Some(0i64);
        for (sign, atom) in &expr.steps {
            let atom = self.atom(atom)?;
            match *sign {
                "*" => value = value.and_then(|value| value.checked_mul(atom)),
                "<<" => value = value.and_then(|value| shifted(value, atom)),
                sign => {
                    sum = sum.zip(value).and_then(|(sum, value)| sum.checked_add(value));
                    value = if sign == "-" { atom.checked_neg() } else { Some(atom) };
                }
            }
        }
        match sum.zip(value).and_then(|(sum, value)| sum.checked_add(value)) {
            Some(value) => Ok(value),
            None => wrong(expr.at, "this number does not fit 63 bits"),
        }
    }

    fn atom(&self, atom: &Atom) -> Checked<i64> {
        match atom {
            Atom::Number(number) => Ok(*number),
            Atom::Name(name) => match self.constants.get(&name.text) {
                Some(value) => Ok(*value),
                None => wrong(name.at, format!("no limit or constant `{}` was declared above", name.text)),
            },
        }
    }

    fn size(&self, expr: &Expr) -> Checked<u64> {
        let value = self.value(expr)?;
        match u64::try_from(value) {
            Ok(size) if (1..=DATA_SIZE_MAX).contains(&size) => Ok(size),
            _ => wrong(expr.at, format!("{value} is no size: sizes go from 1 to {DATA_SIZE_MAX}")),
        }
    }

    /// Declares a name in capitals.
    fn upper(&mut self, name: &Name) -> Checked<String> {
        let legal = name.text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if !legal || name.text.starts_with("CMD_") || RESERVED_CONSTANTS.contains(&name.text.as_str()) {
            return wrong(
                name.at,
                format!("`{}` cannot be its name: write capitals, not CMD_… or a reserved name", name.text),
            );
        }
        self.declare(name)?;
        Ok(name.text.clone())
    }

    fn declare(&mut self, name: &Name) -> Checked<()> {
        match self.names.insert(name.text.clone(), name.at) {
            None => Ok(()),
            Some(earlier) => {
                wrong(name.at, format!("`{}` was declared before, in line {}", name.text, earlier.line))
            }
        }
    }

    fn right(&mut self, right: Value) -> Checked<()> {
        let name = self.upper(&right.name)?;
        let value = self.value(&right.value)?;
        let bits = u8::try_from(value).ok().filter(|bits| *bits != 0);
        let Some(bits) = bits else {
            return wrong(right.value.at, format!("{value} is no right: rights are bits of one byte"));
        };
        self.class.rights.push(Right { name, bits, doc: right.doc });
        Ok(())
    }

    fn limit(&mut self, limit: Value) -> Checked<()> {
        let name = self.upper(&limit.name)?;
        let value = self.size(&limit.value)? as i64;
        self.constants.insert(name.clone(), value);
        self.class.limits.push(Number { name, ty: None, value, doc: limit.doc });
        Ok(())
    }

    fn error(&mut self, error: Value) -> Checked<()> {
        let name = self.upper(&error.name)?;
        let value = self.value(&error.value)?;
        if !(i64::from(self.class.first)..=i64::from(self.class.last)).contains(&-value) {
            let (first, last) = (self.class.first, self.class.last);
            return wrong(
                error.value.at,
                format!("{value} is not an error of this class: they are -{first} to -{last}"),
            );
        }
        if let Some(other) = self.class.errors.iter().find(|other| other.value == value) {
            return wrong(error.value.at, format!("{value} is already the error `{}`", other.name));
        }
        self.class.errors.push(Number { name, ty: None, value, doc: error.doc });
        Ok(())
    }

    fn constant(&mut self, ty: &Name, constant: Value) -> Checked<()> {
        let name = self.upper(&constant.name)?;
        let Some(int) = Int::named(&ty.text) else {
            return wrong(ty.at, format!("`{}` is no integer type; constants are integers", ty.text));
        };
        let value = self.value(&constant.value)?;
        let (least, most) = int.range();
        if !(least..=most).contains(&value) {
            return wrong(constant.value.at, format!("{value} does not fit {}", int.name()));
        }
        self.constants.insert(name.clone(), value);
        self.class.constants.push(Number { name, ty: Some(int), value, doc: constant.doc });
        Ok(())
    }

    fn record(&mut self, name: &Name, doc: String, fields: Vec<ast::Field>) -> Checked<()> {
        let record = lower(name)?;
        if is_built_in(&record) || RESERVED_RECORDS.contains(&record.as_str()) {
            return wrong(
                name.at,
                format!("`{record}` is the name of a type of the language, or of generated code"),
            );
        }
        if record.ends_with("_reply") {
            return wrong(name.at, "names that end in `_reply` are for the results of operations");
        }
        self.declare(name)?;
        if fields.is_empty() {
            return wrong(name.at, "a record has at least one field");
        }
        let fields = self.fields(fields, &[])?;
        if let Some(field) = fields.iter().find(|field| field.ty.takes_the_rest()) {
            let message = format!(
                "`{}` goes on to the end of the data, which only an operation's last field may",
                field.name
            );
            return wrong(name.at, message);
        }
        self.class.records.push(Record { name: record, doc, fields });
        Ok(())
    }

    /// `places`: the header fields that are free here.
    fn fields(&self, fields: Vec<ast::Field>, places: &[Place]) -> Checked<Vec<Field>> {
        let mut names = BTreeSet::new();
        let mut taken = Vec::new();
        let mut rest: Option<String> = None;
        let mut checked = Vec::new();
        for field in fields {
            let name = lower(&field.name)?;
            if !names.insert(name.clone()) {
                return wrong(field.name.at, format!("there are two fields `{name}`"));
            }
            let ty = self.ty(&field.ty)?;
            let place = self.place(field.place.as_ref(), &ty, places)?;
            if place == Place::Data {
                if let Some(rest) = &rest {
                    let message =
                        format!("nothing can follow `{rest}`, which goes on to the end of the data");
                    return wrong(field.name.at, message);
                }
                rest = ty.takes_the_rest().then(|| name.clone());
            } else if taken.contains(&place) {
                return wrong(field.name.at, "two fields in one place of the header");
            } else {
                taken.push(place);
            }
            checked.push(Field { name, ty, place, doc: field.doc });
        }
        Ok(checked)
    }

    fn place(&self, place: Option<&Name>, ty: &Type, places: &[Place]) -> Checked<Place> {
        let Some(name) = place else { return Ok(Place::Data) };
        let place = match name.text.as_str() {
            "offset" => Place::Offset,
            "size" => Place::Size,
            "extra" => Place::Extra,
            "header" => Place::Header,
            other => {
                return wrong(name.at, format!("`@{other}`? Places are @offset, @size, @extra and @header"));
            }
        };
        if !places.contains(&place) {
            return wrong(name.at, format!("`@{}` is not possible here", name.text));
        }
        let fits = match (place, ty) {
            (Place::Header, Type::Cap) | (Place::Offset | Place::Size | Place::Extra, Type::Bool) => true,
            (Place::Offset, Type::Int(int)) => int.size() <= 4,
            (Place::Size | Place::Extra, Type::Int(int)) => int.size() <= 2,
            _ => false,
        };
        if !fits {
            let why = "@offset takes a bool or integers of 32 bits, @size and @extra of 16, @header a cap";
            return wrong(name.at, format!("this type does not fit `@{}`: {why}", name.text));
        }
        Ok(place)
    }

    fn ty(&self, ty: &ast::Type) -> Checked<Type> {
        match ty {
            ast::Type::Plain(name) => self.plain(name),
            ast::Type::Sized { word, size } => {
                let size = self.size(size)?;
                Ok(match word.text.as_str() {
                    "string" => Type::String { max: size },
                    "bytes" => Type::Bytes { max: size },
                    "rest" => Type::Rest { max: size },
                    "fixed" => Type::Fixed { size },
                    other => {
                        let why = "string(max N), bytes(max N), rest(max N), fixed(N) and list(T, max N) have sizes";
                        return wrong(word.at, format!("`{other}` takes no size; {why}"));
                    }
                })
            }
            ast::Type::List { element, max, until_end, .. } => {
                let at = element.at();
                let element = self.ty(element)?;
                if element.takes_the_rest() {
                    return wrong(at, "only the last element could go on to the end of the data");
                }
                Ok(Type::List { element: Box::new(element), max: self.size(max)?, until_end: *until_end })
            }
        }
    }

    fn plain(&self, name: &Name) -> Checked<Type> {
        if let Some(int) = Int::named(&name.text) {
            return Ok(Type::Int(int));
        }
        Ok(match name.text.as_str() {
            "bool" => Type::Bool,
            "cap" => Type::Cap,
            "private" => Type::Private,
            "port" => Type::Port,
            "capset" => Type::CapSet,
            "string" | "bytes" | "rest" | "fixed" | "list" => {
                return wrong(name.at, format!("`{}` needs a bound: every size has one", name.text));
            }
            other => match self.class.records.iter().find(|record| record.name == other) {
                Some(record) => {
                    let size_max = size_max(&record.fields);
                    Type::Record { name: other.to_owned(), size_max, origin: None }
                }
                None => return wrong(name.at, format!("no type or record `{other}` was declared above")),
            },
        })
    }

    fn operation(&mut self, operation: ast::Operation) -> Checked<()> {
        let name = lower(&operation.name)?;
        if RESERVED_OPERATIONS.contains(&name.as_str()) {
            return wrong(
                operation.name.at,
                format!("the generated module calls a function of its own `{name}`"),
            );
        }
        if self.class.operations.iter().any(|other| other.name == name) {
            return wrong(operation.name.at, format!("there are two operations `{name}`"));
        }
        let number = self.command(&operation.number)?;
        let attributes = self.attributes(operation.attributes)?;
        let params = self.fields(operation.params, &[Place::Offset, Place::Size, Place::Extra])?;
        let results =
            self.fields(operation.results, &[Place::Offset, Place::Size, Place::Extra, Place::Header])?;
        if attributes.shared {
            let is_bulk = matches!(results.as_slice(), [Field { ty: Type::Rest { .. }, .. }]);
            if !is_bulk || attributes.deferred {
                return wrong(
                    operation.name.at,
                    "only the reply of an operation that gives one rest, and at once, can be shared",
                );
            }
        }
        self.class.operations.push(Operation {
            name,
            number,
            rights: attributes.rights,
            rights_bits: attributes.bits,
            on: attributes.on.unwrap_or(On::Any),
            idempotent: attributes.idempotent,
            deferred: attributes.deferred,
            shared: attributes.shared,
            params,
            results,
            doc: operation.doc,
            origin: None,
        });
        Ok(())
    }

    fn command(&self, expr: &Expr) -> Checked<u16> {
        let value = self.value(expr)?;
        let (first, last) = (self.class.first, self.class.last);
        let Some(number) = u16::try_from(value).ok().filter(|number| (first..=last).contains(number)) else {
            return wrong(expr.at, format!("{value} is outside the range of this class, {first}..{last}"));
        };
        match self.class.operations.iter().find(|other| other.number == number) {
            Some(other) => wrong(expr.at, format!("{number} is already the number of `{}`", other.name)),
            None => Ok(number),
        }
    }

    fn attributes(&self, names: Vec<Name>) -> Checked<Attributes> {
        let mut attributes = Attributes::default();
        let mut unchecked_at = None;
        for name in names {
            let on = match name.text.as_str() {
                "idempotent" => {
                    attributes.idempotent = true;
                    continue;
                }
                "deferred" => {
                    attributes.deferred = true;
                    continue;
                }
                "shared" => {
                    attributes.shared = true;
                    continue;
                }
                "super" => On::Super,
                "object" => On::Object,
                "unchecked" => On::Unchecked,
                _ => {
                    attributes.bits |= self.right_bits(&name)?;
                    attributes.rights.push(name.text);
                    continue;
                }
            };
            if attributes.on.replace(on).is_some() {
                return wrong(name.at, "only one of super, object and unchecked is possible");
            }
            unchecked_at = (on == On::Unchecked).then_some(name.at);
        }
        if let Some(at) = unchecked_at.filter(|_| attributes.bits != 0) {
            return wrong(at, "an unchecked operation cannot need rights: nobody checks them");
        }
        Ok(attributes)
    }

    fn right_bits(&self, name: &Name) -> Checked<u8> {
        if name.text == ALL {
            return Ok(0xFF);
        }
        match self.class.rights.iter().find(|right| right.name == name.text) {
            Some(right) => Ok(right.bits),
            None => {
                let why = "attributes are idempotent, deferred, shared, super, object and unchecked";
                wrong(name.at, format!("no right `{}` was declared above; {why}", name.text))
            }
        }
    }

    fn inherits(&mut self, class: &Name, chosen: Vec<(Name, Vec<Name>)>) -> Checked<()> {
        let inherited = self.inherited;
        let Some(parent) = inherited.get(&class.text) else {
            return wrong(class.at, format!("there is no class `{}`", class.text));
        };
        let mut operations = Vec::new();
        for (name, attributes) in chosen {
            let Some(operation) = parent.operations.iter().find(|operation| operation.name == name.text)
            else {
                return wrong(name.at, format!("class `{}` has no operation `{}`", class.text, name.text));
            };
            if operations.iter().any(|other: &Operation| other.name == name.text) {
                return wrong(name.at, format!("`{}` is chosen twice", name.text));
            }
            operations.push(self.inherit(operation, &class.text, attributes, name.at)?);
        }
        if class.text != "std" {
            for operation in operations {
                if self.class.operations.iter().any(|other| other.name == operation.name) {
                    return wrong(class.at, format!("there are two operations `{}`", operation.name));
                }
                self.class.operations.push(operation);
            }
            return Ok(());
        }
        if !self.class.standard.is_empty() {
            return wrong(class.at, "std is inherited twice");
        }
        for operation in &parent.operations {
            let own = operations.iter().position(|own| own.name == operation.name);
            self.class
                .standard
                .push(own.map_or_else(|| operation.clone(), |index| operations[index].clone()));
        }
        Ok(())
    }

    fn inherit(
        &self,
        operation: &Operation,
        class: &str,
        attributes: Vec<Name>,
        at: Position,
    ) -> Checked<Operation> {
        let attributes = self.attributes(attributes)?;
        if attributes.idempotent || attributes.shared || operation.origin.is_some() {
            return wrong(
                at,
                "what is idempotent or shared is said where the operation is declared, and inherited from there",
            );
        }
        if operation.on == On::Unchecked && (attributes.bits != 0 || attributes.on.is_some()) {
            return wrong(at, "this operation looks at no object, so nobody could check what it needs");
        }
        if class == "std" && (attributes.deferred || attributes.on == Some(On::Unchecked)) {
            return wrong(
                at,
                "the skeleton carries out the standard operations: neither deferred nor unchecked",
            );
        }
        if operation.shared && attributes.deferred {
            return wrong(at, "a shared reply cannot be deferred");
        }
        let mut operation = operation.clone();
        operation.origin = Some(class.to_owned());
        operation.rights = attributes.rights;
        operation.rights_bits = attributes.bits;
        operation.on = attributes.on.unwrap_or(operation.on);
        operation.deferred = attributes.deferred;
        for field in operation.params.iter_mut().chain(&mut operation.results) {
            set_origin(&mut field.ty, class);
        }
        Ok(operation)
    }
}

#[derive(Default)]
struct Attributes {
    rights: Vec<String>,
    bits: u8,
    on: Option<On>,
    idempotent: bool,
    deferred: bool,
    shared: bool,
}

fn set_origin(ty: &mut Type, class: &str) {
    match ty {
        Type::Record { origin, .. } => *origin = Some(class.to_owned()),
        Type::List { element, .. } => set_origin(element, class),
        _ => {}
    }
}

fn shifted(value: i64, by: i64) -> Option<i64> {
    let by = u32::try_from(by).ok().filter(|by| *by < 63)?;
    value.checked_mul(1 << by)
}

fn is_built_in(name: &str) -> bool {
    Int::named(name).is_some()
        || ["bool", "string", "bytes", "rest", "fixed", "list", "cap", "private", "port", "capset"]
            .contains(&name)
}

/// A name in lower case: letters, digits and single underscores inside.
fn lower(name: &Name) -> Checked<String> {
    let legal = name.text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !legal || name.text.ends_with('_') || name.text.contains("__") {
        return wrong(name.at, format!("`{}` should be lower case with underscores inside", name.text));
    }
    if RESERVED.contains(&name.text.as_str()) {
        return wrong(
            name.at,
            format!("`{}` is a word of a language we generate, or of generated code", name.text),
        );
    }
    Ok(name.text.clone())
}
