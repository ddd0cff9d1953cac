//! The one text form of ports and capabilities: `port/object(rights)/check`, as in `E:D:F:5:F:9/12(FF)/0:0:0:0:0:A`.
//!
//! # Source
//! Amoeba 5.3, ar(L): bytes in hexadecimal without leading zeros, upper case; the object number in decimal, the
//! rights in hexadecimal. Either case, and one or two digits a byte, are read.

use std::str::FromStr;

use crate::{Capability, CheckField, ObjectNumber, PORT_SIZE, Private, PutPort, Rights};

/// Why a text is not a port or a capability. The text itself is left out: it may be most of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A port or check field is not six hexadecimal bytes with colons between.
    #[error("a port is six hexadecimal bytes, as in 1:2:3:A:B:C")]
    Port,
    /// The object number is not a decimal number of at most 24 bits.
    #[error("an object number is a decimal number up to 16777215")]
    Object,
    /// The rights are not one or two hexadecimal digits in parentheses.
    #[error("rights are one or two hexadecimal digits in parentheses")]
    Rights,
    /// A part is missing, or something follows.
    #[error("a capability is port/object(rights)/check, as in 1:2:3:4:5:6/12(FF)/A:B:C:D:E:F")]
    Shape,
}

impl Capability {
    /// The whole capability as text, check field included: a secret.
    pub fn to_text(&self) -> String {
        let check = PutPort::from_bytes(self.private.check.to_bytes());
        format!("{}/{}({:X})/{check}", self.port, self.object(), self.rights().bits())
    }
}

impl FromStr for Capability {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Capability, ParseError> {
        let mut parts = text.split('/');
        let (Some(port), Some(object), Some(check), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ParseError::Shape);
        };
        let (object, rights) = object.split_once('(').ok_or(ParseError::Shape)?;
        let rights = rights.strip_suffix(')').ok_or(ParseError::Rights)?;
        Ok(Capability {
            port: port.parse()?,
            private: Private {
                object: parse_object(object)?,
                rights: Rights::from_bits_retain(hex_byte(rights).ok_or(ParseError::Rights)?),
                check: CheckField::from_bytes(parse_bytes(check)?),
            },
        })
    }
}

impl FromStr for PutPort {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<PutPort, ParseError> {
        Ok(PutPort::from_bytes(parse_bytes(text)?))
    }
}

/// The text without the check fields of capabilities anywhere in it: what may be shown of somebody's words.
pub fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(end_of_rights) = rest.find(")/") {
        let (head, tail) = rest.split_at(end_of_rights + 2);
        shown.push_str(head);
        let length = port_length(tail);
        if length > 0 {
            shown.push('*');
        }
        rest = &tail[length..];
    }
    shown.push_str(rest);
    shown
}

/// Bytes of the port that `text` begins with, 0 when it does not.
fn port_length(text: &str) -> usize {
    let mut length = 0;
    for index in 0..PORT_SIZE {
        let part = &text[length..];
        let digits = part.bytes().take(2).take_while(u8::is_ascii_hexdigit).count();
        let colon = usize::from(index + 1 < PORT_SIZE);
        if digits == 0 || colon == 1 && part.as_bytes().get(digits) != Some(&b':') {
            return 0;
        }
        length += digits + colon;
    }
    length
}

fn parse_object(text: &str) -> Result<ObjectNumber, ParseError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseError::Object);
    }
    text.parse().ok().and_then(ObjectNumber::new).ok_or(ParseError::Object)
}

fn parse_bytes(text: &str) -> Result<[u8; PORT_SIZE], ParseError> {
    let mut bytes = [0; PORT_SIZE];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = parts.next().and_then(hex_byte).ok_or(ParseError::Port)?;
    }
    if parts.next().is_some() { Err(ParseError::Port) } else { Ok(bytes) }
}

fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && (1..=2).contains(&text.len()) { u8::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_manuals_example_reads_and_prints() {
        let text = "E:D:F:5:F:9/0(0)/0:0:0:0:0:0";
        let cap: Capability = text.parse().unwrap();
        assert_eq!(cap.port.to_bytes(), [0xE, 0xD, 0xF, 5, 0xF, 9]);
        assert_eq!(cap.to_text(), text);
        assert_eq!("0e:0d:0f:05:0f:09/0(00)/00:00:00:00:00:00".parse(), Ok(cap));
    }

    #[test]
    fn bad_texts_say_which_part_is_bad() {
        let parse = |text: &str| text.parse::<Capability>().unwrap_err();
        assert_eq!(parse(""), ParseError::Shape);
        assert_eq!(parse("1:2:3:4:5/0(0)/0:0:0:0:0:0"), ParseError::Port);
        assert_eq!(parse("1:2:3:4:5:6:7/0(0)/0:0:0:0:0:0"), ParseError::Port);
        assert_eq!(parse("1:2:3:4:5:+6/0(0)/0:0:0:0:0:0"), ParseError::Port);
        assert_eq!(parse("1:2:3:4:5:6/16777216(0)/0:0:0:0:0:0"), ParseError::Object);
        assert_eq!(parse("1:2:3:4:5:6/+1(0)/0:0:0:0:0:0"), ParseError::Object);
        assert_eq!(parse("1:2:3:4:5:6/1(123)/0:0:0:0:0:0"), ParseError::Rights);
        assert_eq!(parse("1:2:3:4:5:6/1(1)/0:0:0:0:0:0/"), ParseError::Shape);
    }

    #[test]
    fn secrets_inside_words_are_left_out() {
        let secret = "cap:E:D:F:5:F:9/12(FF)/1:22:3:44:5:66/etc and 1(2)/3, (x)/1:2:3:4:5";
        assert_eq!(without_secrets(secret), "cap:E:D:F:5:F:9/12(FF)/*/etc and 1(2)/3, (x)/1:2:3:4:5");
    }

    proptest! {
        #[test]
        fn no_check_field_survives(bytes: [u8; 16], before: String, after: String) {
            let cap = Capability::from_bytes(bytes);
            let check = PutPort::from_bytes(cap.private.check.to_bytes()).to_string();
            let shown = without_secrets(&format!("{before}{}{after}", cap.to_text()));
            let secret = format!(")/{}", check);
            prop_assert!(!shown.contains(&secret));
        }

        #[test]
        fn text_comes_back(bytes: [u8; 16]) {
            let cap = Capability::from_bytes(bytes);
            prop_assert_eq!(cap.to_text().parse(), Ok(cap));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Capability>();
        }
    }
}
