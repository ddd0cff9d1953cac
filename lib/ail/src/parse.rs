//! Tokens to [`ClassFile`]. One function per rule of the grammar in `docs/classes.md`.

use crate::ast::{Atom, ClassFile, Expr, Field, Item, Name, Operation, Type, Value};
use crate::diagnostic::{Complaint, Position};
use crate::token::{Token, tokens};

/// How deep lists of lists may be.
const DEPTH_MAX: usize = 4;

pub(crate) fn parse(text: &str) -> Result<ClassFile, Complaint> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0 };
    let file = parser.class_file()?;
    parser.finish()?;
    Ok(file)
}

struct Parser {
    tokens: Vec<(Token, Position)>,
    next: usize,
}

type Parsed<T> = Result<T, Complaint>;

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn at(&self) -> Position {
        self.tokens[self.next].1
    }

    fn advance(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1; // the End stays, so `next` is always in range
        }
        token
    }

    fn wanted<T>(&self, what: &str) -> Parsed<T> {
        Err(Complaint::new(self.at(), format!("expected {what}, found {}", self.peek().describe())))
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found == word)
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.advance();
        }
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn sign(&mut self, sign: &str) -> Parsed<()> {
        if self.take_sign(sign) { Ok(()) } else { self.wanted(&format!("`{sign}`")) }
    }

    fn word(&mut self, word: &str) -> Parsed<()> {
        if self.take_word(word) { Ok(()) } else { self.wanted(&format!("`{word}`")) }
    }

    fn name(&mut self, what: &str) -> Parsed<Name> {
        let at = self.at();
        if !matches!(self.peek(), Token::Word(_)) {
            return self.wanted(what);
        }
        match self.advance() {
            Token::Word(text) => Ok(Name { text, at }),
            _ => unreachable!("peeked at a word"),
        }
    }

    fn doc(&mut self, of: &str) -> Parsed<String> {
        if !matches!(self.peek(), Token::Text(_)) {
            return self.wanted(&format!("the documentation of {of}, a text in quotes"));
        }
        Ok(self.optional_doc())
    }

    fn optional_doc(&mut self) -> String {
        if !matches!(self.peek(), Token::Text(_)) {
            return String::new();
        }
        match self.advance() {
            Token::Text(text) => text,
            _ => unreachable!("peeked at a text"),
        }
    }

    fn finish(&self) -> Parsed<()> {
        if *self.peek() == Token::End { Ok(()) } else { self.wanted("the end of the file") }
    }

    fn class_file(&mut self) -> Parsed<ClassFile> {
        self.word("class")?;
        let name = self.name("the name of the class")?;
        self.sign("=")?;
        let first = self.expr()?;
        self.sign("..")?;
        let last = self.expr()?;
        let client_only = self.take_word("client");
        let doc = self.doc("the class")?;
        let mut items = Vec::new();
        while *self.peek() != Token::End {
            items.push(self.item()?);
        }
        Ok(ClassFile { name, first, last, client_only, doc, items })
    }

    fn item(&mut self) -> Parsed<Item> {
        match self.peek() {
            Token::Word(word) => match word.as_str() {
                "inherits" => self.inherits(),
                "right" => Ok(Item::Right(self.value("the right")?)),
                "limit" => Ok(Item::Limit(self.value("the limit")?)),
                "error" => Ok(Item::Error(self.value("the error")?)),
                "constant" => self.constant(),
                "record" => self.record(),
                "op" => self.operation(),
                _ => self.wanted("inherits, right, limit, error, constant, record or op"),
            },
            _ => self.wanted("inherits, right, limit, error, constant, record or op"),
        }
    }

    fn inherits(&mut self) -> Parsed<Item> {
        self.advance();
        let class = self.name("the name of a class")?;
        let mut chosen = Vec::new();
        if self.take_sign("{") {
            while !self.take_sign("}") {
                let name = self.name("the name of an inherited operation, or `}`")?;
                chosen.push((name, self.attributes()?));
                self.take_sign(";");
            }
        }
        Ok(Item::Inherits { class, chosen })
    }

    fn attributes(&mut self) -> Parsed<Vec<Name>> {
        if !self.take_sign("[") {
            return self.wanted("`[` and the rights this needs (`[]` when it needs none)");
        }
        let mut names = Vec::new();
        while !self.take_sign("]") {
            names.push(self.name("a right or an attribute, or `]`")?);
            if !self.is_sign("]") {
                self.sign(",")?;
            }
        }
        Ok(names)
    }

    fn value(&mut self, of: &str) -> Parsed<Value> {
        self.advance();
        let name = self.name(&format!("the name of {of}"))?;
        self.sign("=")?;
        Ok(Value { name, value: self.expr()?, doc: self.doc(of)? })
    }

    fn constant(&mut self) -> Parsed<Item> {
        self.advance();
        let name = self.name("the name of the constant")?;
        self.sign(":")?;
        let ty = self.name("the type of the constant")?;
        self.sign("=")?;
        let value = Value { name, value: self.expr()?, doc: self.doc("the constant")? };
        Ok(Item::Constant { ty, value })
    }

    fn record(&mut self) -> Parsed<Item> {
        self.advance();
        let name = self.name("the name of the record")?;
        let doc = self.doc("the record")?;
        self.sign("{")?;
        Ok(Item::Record { name, doc, fields: self.fields("}")? })
    }

    /// Fields up to and including `close`.
    fn fields(&mut self, close: &str) -> Parsed<Vec<Field>> {
        let mut fields = Vec::new();
        while !self.take_sign(close) {
            fields.push(self.field()?);
            if !self.is_sign(close) {
                self.sign(",")?;
            }
        }
        Ok(fields)
    }

    fn field(&mut self) -> Parsed<Field> {
        let name = self.name("the name of a field")?;
        self.sign(":")?;
        let ty = self.ty(0)?;
        let place =
            if self.take_sign("@") { Some(self.name("offset, size, extra or header")?) } else { None };
        Ok(Field { name, ty, place, doc: self.optional_doc() })
    }

    fn ty(&mut self, depth: usize) -> Parsed<Type> {
        let word = self.name("a type")?;
        if !self.take_sign("(") {
            return Ok(Type::Plain(word));
        }
        if word.text != "list" {
            self.take_word("max");
            let size = self.expr()?;
            self.sign(")")?;
            return Ok(Type::Sized { word, size });
        }
        if depth == DEPTH_MAX {
            return Err(Complaint::new(word.at, format!("lists may be nested {DEPTH_MAX} deep at most")));
        }
        let element = Box::new(self.ty(depth + 1)?);
        self.sign(",")?;
        self.word("max")?;
        let max = self.expr()?;
        self.sign(")")?;
        let until_end = self.take_word("until");
        if until_end {
            self.word("end")?;
        }
        Ok(Type::List { at: word.at, element, max, until_end })
    }

    fn operation(&mut self) -> Parsed<Item> {
        self.advance();
        let name = self.name("the name of the operation")?;
        let attributes = self.attributes()?;
        self.sign("=")?;
        let number = self.expr()?;
        self.sign("(")?;
        let params = self.fields(")")?;
        let mut results = Vec::new();
        if self.take_sign("->") {
            results = if self.take_sign("(") { self.fields(")")? } else { vec![self.bare_result()?] };
        }
        let doc = self.doc("the operation")?;
        Ok(Item::Operation(Operation { name, attributes, number, params, results, doc }))
    }

    /// A single result without parentheses: the text behind it belongs to the operation.
    fn bare_result(&mut self) -> Parsed<Field> {
        let name = self.name("the name of the result")?;
        self.sign(":")?;
        let ty = self.ty(0)?;
        let place =
            if self.take_sign("@") { Some(self.name("offset, size, extra or header")?) } else { None };
        Ok(Field { name, ty, place, doc: String::new() })
    }

    fn expr(&mut self) -> Parsed<Expr> {
        let at = self.at();
        let negative = self.take_sign("-");
        let first = self.atom()?;
        let mut steps = Vec::new();
        while let Some(sign) = ["<<", "*", "+", "-"].into_iter().find(|sign| self.is_sign(sign)) {
            self.advance();
            steps.push((sign, self.atom()?));
        }
        Ok(Expr { at, negative, first, steps })
    }

    fn atom(&mut self) -> Parsed<Atom> {
        match self.peek() {
            Token::Number(number) => {
                let number = *number;
                self.advance();
                Ok(Atom::Number(number))
            }
            Token::Word(_) => Ok(Atom::Name(self.name("a limit")?)),
            _ => self.wanted("a number or the name of a limit"),
        }
    }
}
