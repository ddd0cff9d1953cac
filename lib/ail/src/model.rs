//! A class as it means: everything resolved and checked. What every back end reads.

/// The name of a right that stands for all eight.
pub const ALL: &str = "ALL";
/// The most bytes of data in a request or a reply.
pub const DATA_SIZE_MAX: u64 = 1 << 30;

/// One class.
#[derive(Clone, Debug)]
pub struct Class {
    /// Its name, also of its file.
    pub name: String,
    /// The first command number of its range.
    pub first: u16,
    /// The last command number of its range.
    pub last: u16,
    /// Whether only client stubs are wanted.
    pub client_only: bool,
    /// What it is.
    pub doc: String,
    /// The standard operations it offers with the rights they need; empty when it does not inherit `std`.
    pub standard: Vec<Operation>,
    /// Its rights.
    pub rights: Vec<Right>,
    /// Its limits.
    pub limits: Vec<Number>,
    /// Its other constants.
    pub constants: Vec<Number>,
    /// Its errors, negative.
    pub errors: Vec<Number>,
    /// Its records, each before its first use.
    pub records: Vec<Record>,
    /// Its operations, its own first, then those inherited from classes other than `std`.
    pub operations: Vec<Operation>,
}

/// A right.
#[derive(Clone, Debug)]
pub struct Right {
    /// Its name.
    pub name: String,
    /// Its bit or bits.
    pub bits: u8,
    /// What it lets its holder do.
    pub doc: String,
}

/// A named number.
#[derive(Clone, Debug)]
pub struct Number {
    /// Its name.
    pub name: String,
    /// Its type, of a constant; `None` for a limit or an error.
    pub ty: Option<Int>,
    /// Its value.
    pub value: i64,
    /// What it means.
    pub doc: String,
}

/// Fields that travel together.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its name, in lower case with underscores.
    pub name: String,
    /// What it is.
    pub doc: String,
    /// Its fields, in the order of the wire.
    pub fields: Vec<Field>,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its name.
    pub name: String,
    /// Its command number.
    pub number: u16,
    /// The rights it needs, by name; all of them.
    pub rights: Vec<String>,
    /// The rights it needs, as bits.
    pub rights_bits: u8,
    /// On which objects it works.
    pub on: On,
    /// Whether it may be sent again when nobody knows whether it was executed.
    pub idempotent: bool,
    /// Whether the server may answer later, from another thread.
    pub deferred: bool,
    /// Whether others may hold the bytes of the reply too, so that the server need not copy them.
    pub shared: bool,
    /// What the request carries.
    pub params: Vec<Field>,
    /// What the reply carries.
    pub results: Vec<Field>,
    /// What it does.
    pub doc: String,
    /// The class it is inherited from.
    pub origin: Option<String>,
}

/// On which objects an operation works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// On any object, the server itself included.
    Any,
    /// On the server itself (object 0).
    Super,
    /// On any object but the server itself.
    Object,
    /// The capability only says which server: it is not checked, and the operation receives no object.
    Unchecked,
}

/// A parameter, a result or a part of a record.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Where it travels.
    pub place: Place,
    /// What it means; may be empty.
    pub doc: String,
}

/// Where a field travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the data, in order.
    Data,
    /// In the header's 32-bit `offset`.
    Offset,
    /// In the header's 16-bit `size`.
    Size,
    /// In the header's 16-bit `extra`.
    Extra,
    /// In the reply header's port and private part.
    Header,
}

/// An integer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Int {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
    /// Two bytes, signed.
    I16,
    /// Four bytes, signed.
    I32,
    /// Eight bytes, signed.
    I64,
}

impl Int {
    /// The integer type of this name.
    pub fn named(name: &str) -> Option<Int> {
        [Int::U8, Int::U16, Int::U32, Int::U64, Int::I16, Int::I32, Int::I64]
            .into_iter()
            .find(|int| int.name() == name)
    }

    /// Its name, the same in class files and in Rust.
    pub fn name(self) -> &'static str {
        match self {
            Int::U8 => "u8",
            Int::U16 => "u16",
            Int::U32 => "u32",
            Int::U64 => "u64",
            Int::I16 => "i16",
            Int::I32 => "i32",
            Int::I64 => "i64",
        }
    }

    /// Its bytes.
    pub fn size(self) -> u64 {
        match self {
            Int::U8 => 1,
            Int::U16 | Int::I16 => 2,
            Int::U32 | Int::I32 => 4,
            Int::U64 | Int::I64 => 8,
        }
    }

    /// Its smallest and its largest value; of u64 the largest that a class file can write.
    pub fn range(self) -> (i64, i64) {
        match self {
            Int::U8 => (0, u8::MAX.into()),
            Int::U16 => (0, u16::MAX.into()),
            Int::U32 => (0, u32::MAX.into()),
            Int::U64 => (0, i64::MAX),
            Int::I16 => (i16::MIN.into(), i16::MAX.into()),
            Int::I32 => (i32::MIN.into(), i32::MAX.into()),
            Int::I64 => (i64::MIN, i64::MAX),
        }
    }
}

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// One byte, 0 or 1.
    Bool,
    /// A little-endian integer.
    Int(Int),
    /// Bytes without NUL, ended by one.
    String {
        /// The most bytes, the NUL not counted.
        max: u64,
    },
    /// A length and bytes.
    Bytes {
        /// The most bytes.
        max: u64,
    },
    /// Bytes up to the end of the data.
    Rest {
        /// The most bytes.
        max: u64,
    },
    /// Exactly so many bytes.
    Fixed {
        /// How many.
        size: u64,
    },
    /// A capability.
    Cap,
    /// A private part.
    Private,
    /// A put-port.
    Port,
    /// A capability set.
    CapSet,
    /// A record of this class, or of the class it was inherited from.
    Record {
        /// Its name.
        name: String,
        /// The most bytes it takes.
        size_max: u64,
        /// The class that declares it, when that is another one.
        origin: Option<String>,
    },
    /// Several elements.
    List {
        /// What each of them is.
        element: Box<Type>,
        /// How many at most.
        max: u64,
        /// Whether they go on to the end of the data, without a count before them.
        until_end: bool,
    },
}

impl Type {
    /// Whether nothing can follow it in the data.
    pub fn takes_the_rest(&self) -> bool {
        matches!(self, Type::Rest { .. } | Type::List { until_end: true, .. })
    }

    /// The most bytes it takes in the data, at most [`DATA_SIZE_MAX`].
    pub fn size_max(&self) -> u64 {
        let size = match self {
            Type::Bool => 1,
            Type::Int(int) => int.size(),
            Type::String { max } => max + 1,
            Type::Bytes { max } => max + 4,
            Type::Rest { max } => *max,
            Type::Fixed { size } => *size,
            Type::Cap => 16,
            Type::Private => 10,
            Type::Port => 6,
            Type::CapSet => 4 + 8 * 18,
            Type::Record { size_max, .. } => *size_max,
            Type::List { element, max, until_end } => {
                max.saturating_mul(element.size_max()).saturating_add(if *until_end { 0 } else { 4 })
            }
        };
        size.min(DATA_SIZE_MAX)
    }
}

/// The most bytes of data that these fields take together, at most [`DATA_SIZE_MAX`].
pub fn size_max(fields: &[Field]) -> u64 {
    let in_data = fields.iter().filter(|field| field.place == Place::Data);
    in_data.fold(0, |sum, field| sum + field.ty.size_max()).min(DATA_SIZE_MAX)
}
