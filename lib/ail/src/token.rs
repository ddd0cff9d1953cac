//! A class file as words, numbers, texts and signs.

use crate::diagnostic::{Complaint, Position};

/// The largest class file, in bytes.
pub const FILE_SIZE_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Word(String),
    Number(i64),
    Text(String),
    Sign(&'static str),
    End,
}

impl Token {
    /// How a complaint names this token.
    pub(crate) fn describe(&self) -> String {
        match self {
            Token::Word(word) => format!("`{word}`"),
            Token::Number(number) => format!("`{number}`"),
            Token::Text(_) => "a text".to_owned(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end of the file".to_owned(),
        }
    }
}

/// Longer signs come before their beginnings.
const SIGNS: &[&str] =
    &["->", "..", "<<", "{", "}", "[", "]", "(", ")", ":", ",", ";", "=", "@", "*", "+", "-"];

/// All tokens of `text`, the last of which is [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<(Token, Position)>, Complaint> {
    let mut scanner = Scanner { rest: text, at: Position { line: 1, column: 1 } };
    if text.len() > FILE_SIZE_MAX {
        let message = format!("the file has {} bytes; a class file has at most {FILE_SIZE_MAX}", text.len());
        return Err(Complaint::new(scanner.at, message));
    }
    let mut tokens = Vec::new();
    loop {
        scanner.skip_blanks();
        let at = scanner.at;
        let token = scanner.token()?;
        let end = token == Token::End;
        tokens.push((token, at));
        if end {
            return Ok(tokens);
        }
    }
}

struct Scanner<'a> {
    rest: &'a str,
    at: Position,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        if next == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(next)
    }

    fn skip_blanks(&mut self) {
        loop {
            if self.rest.starts_with("//") {
                while self.peek().is_some_and(|next| next != '\n') {
                    self.next();
                }
            } else if self.peek().is_some_and(char::is_whitespace) {
                self.next();
            } else {
                return;
            }
        }
    }

    fn token(&mut self) -> Result<Token, Complaint> {
        let at = self.at;
        let Some(first) = self.peek() else { return Ok(Token::End) };
        if first.is_ascii_alphabetic() {
            return Ok(Token::Word(self.word()));
        }
        if first.is_ascii_digit() {
            let word = self.word();
            let number = number(&word).ok_or_else(|| {
                Complaint::new(at, format!("`{word}` is no number: write 123, 1_000 or 0x1F, below 2^63"))
            })?;
            return Ok(Token::Number(number));
        }
        if first == '"' {
            return self.text();
        }
        let sign = SIGNS.iter().find(|sign| self.rest.starts_with(**sign));
        let Some(sign) = sign else {
            return Err(Complaint::new(
                at,
                format!("`{}` means nothing in a class file", first.escape_default()),
            ));
        };
        for _ in 0..sign.len() {
            self.next();
        }
        Ok(Token::Sign(sign))
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(next) = self.peek().filter(|next| next.is_ascii_alphanumeric() || *next == '_') {
            word.push(next);
            self.next();
        }
        word
    }

    /// A text may go over several lines; each line break and its blanks count as one space.
    fn text(&mut self) -> Result<Token, Complaint> {
        let at = self.at;
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(Token::Text(text.split_whitespace().collect::<Vec<_>>().join(" "))),
                Some('\\') => match self.next() {
                    Some(escaped @ ('"' | '\\')) => text.push(escaped),
                    _ => {
                        return Err(Complaint::new(
                            at,
                            "only \\\" and \\\\ may follow a backslash in a text",
                        ));
                    }
                },
                Some(next) => text.push(next),
                None => return Err(Complaint::new(at, "this text has no closing quote")),
            }
        }
    }
}

fn number(word: &str) -> Option<i64> {
    let digits = word.replace('_', "");
    match digits.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}
