//! The token of an invitation: one word to paste.
//!
//! ```text
//! am1 + base32, small letters, of | id 8 | secret 16 | key of the inviter 32 | count 1 | addresses | sum 4 |
//! address = | 4 or 6 | port 2 | 4 or 16 bytes |
//! ```
//! Integers are little-endian. The sum finds what was not copied whole; it protects nothing. Whoever has the text can join:
//! it is a secret until it was used.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use amoeba_cap::SystemSecret;
use amoeba_seal::PublicKey;
use amoeba_wire::{Malformed, Reader, Writer};

use super::wire::{get_addresses, put_addresses};

/// Bytes of an invitation's number.
pub const ID_SIZE: usize = 8;
/// Bytes of an invitation's secret.
pub const SECRET_SIZE: usize = 16;
/// Addresses in a token; past it the rest is left out.
pub const TOKEN_ADDRESSES_MAX: usize = 8;
/// The most characters that are looked at.
const TOKEN_TEXT_MAX: usize = 600;

const PREFIX: &str = "am1";
const SUM_SIZE: usize = 4;
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The number of an invitation, which is no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId(pub [u8; ID_SIZE]);

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteId({self})")
    }
}

impl FromStr for InviteId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<InviteId, Malformed> {
        if text.len() != 2 * ID_SIZE || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Malformed);
        }
        u64::from_str_radix(text, 16).map(|id| InviteId(id.to_be_bytes())).map_err(|_| Malformed)
    }
}

/// What a host needs to join a system.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Which invitation it is.
    pub id: InviteId,
    /// What proves that its owner was invited.
    pub secret: [u8; SECRET_SIZE],
    /// The public key of the host that invites.
    pub key: PublicKey,
    /// Where that host may be reached, at most [`TOKEN_ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is something else.
    #[error("this is no token: a token begins with `{PREFIX}`")]
    Other,
    /// A part is missing, or a letter is wrong.
    #[error("the token was not copied whole, or a letter of it is wrong")]
    Damaged,
}

impl Token {
    /// The text to paste.
    pub fn to_text(&self) -> String {
        let mut writer = Writer::new();
        writer.raw(&self.id.0).raw(&self.secret).raw(&self.key.to_bytes());
        put_addresses(&mut writer, &self.addresses[..self.addresses.len().min(TOKEN_ADDRESSES_MAX)]);
        let mut bytes = writer.finish();
        let sum = sum(&bytes);
        bytes.extend_from_slice(&sum);
        format!("{PREFIX}{}", to_letters(&bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        let letters = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Other)?;
        if letters.len() > TOKEN_TEXT_MAX {
            return Err(TokenError::Damaged);
        }
        let bytes = from_letters(letters).ok_or(TokenError::Damaged)?;
        parse(&bytes).map_err(|Malformed| TokenError::Damaged)
    }
}

fn parse(bytes: &[u8]) -> Result<Token, Malformed> {
    let (bytes, end) = bytes.split_at_checked(bytes.len().saturating_sub(SUM_SIZE)).ok_or(Malformed)?;
    if end != sum(bytes) {
        return Err(Malformed);
    }
    let mut reader = Reader::new(bytes);
    let token = Token {
        id: InviteId(reader.array()?),
        secret: reader.array()?,
        key: PublicKey::from_bytes(reader.array()?),
        addresses: get_addresses(&mut reader, TOKEN_ADDRESSES_MAX)?,
    };
    reader.end()?;
    Ok(token)
}

/// Under a key that everybody knows a tag is a sum.
fn sum(bytes: &[u8]) -> [u8; SUM_SIZE] {
    let tag = SystemSecret::from_bytes([0; 32]).tag(b"am1token", bytes);
    std::array::from_fn(|index| tag[index])
}

fn to_letters(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(5) {
        let mut block = [0; 8];
        block[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(block);
        let letters = (chunk.len() * 8).div_ceil(5);
        text.extend((0..letters).map(|index| LETTERS[(bits >> (35 - 5 * index) & 31) as usize] as char));
    }
    text
}

/// `None` for a letter that is none, and for text that no bytes give.
fn from_letters(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(8) {
        let mut bits = 0u64;
        for (index, letter) in chunk.iter().enumerate() {
            let value = LETTERS.iter().position(|known| *known == letter.to_ascii_lowercase())?;
            bits |= (value as u64) << (35 - 5 * index);
        }
        let count = chunk.len() * 5 / 8;
        let whole = bits.to_be_bytes();
        if (count * 8).div_ceil(5) != chunk.len() || whole[3 + count..].iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(&whole[3..3 + count]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(addresses: &[&str]) -> Token {
        Token {
            id: InviteId([1, 2, 3, 4, 5, 6, 7, 8]),
            secret: [9; SECRET_SIZE],
            key: PublicKey::from_bytes([0xA5; 32]),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn what_is_printed_is_read() {
        for addresses in [&[][..], &["192.0.2.7:5321"], &["192.0.2.7:5321", "[2001:db8::7]:5322"]] {
            let token = token(addresses);
            let text = token.to_text();
            assert_eq!(text.parse(), Ok(token.clone()));
            assert_eq!(format!(" {}\n", text.to_uppercase().replacen("AM1", "am1", 1)).parse(), Ok(token));
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "a double click takes it whole");
        }
    }

    #[test]
    fn a_token_that_was_cut_or_mistyped_is_known_as_such() {
        let text = token(&["192.0.2.7:5321"]).to_text();
        for end in 3..text.len() {
            assert_eq!(text[..end].parse::<Token>(), Err(TokenError::Damaged), "{end}");
        }
        for at in 3..text.len() {
            let other = if text.as_bytes()[at] == b'a' { "b" } else { "a" };
            let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(wrong.parse::<Token>(), Err(TokenError::Damaged), "{at}");
        }
        assert_eq!("127.0.0.1:5321".parse::<Token>(), Err(TokenError::Other));
    }

    #[test]
    fn numbers_of_invitations_are_read_back_and_secrets_are_not_shown() {
        let token = token(&[]);
        assert_eq!(token.id.to_string(), "0102030405060708");
        assert_eq!("0102030405060708".parse(), Ok(token.id));
        assert!("+102030405060708".parse::<InviteId>().is_err() && "01".parse::<InviteId>().is_err());
        assert!(!format!("{token:?}").contains('9'), "{token:?}");
    }

    #[test]
    fn no_text_panics() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let _ = format!("{PREFIX}{text}").parse::<Token>();
            let _ = text.parse::<InviteId>();
            let letters = to_letters(bytes);
            assert_eq!(from_letters(&letters).as_deref(), Some(bytes));
        });
    }
}
