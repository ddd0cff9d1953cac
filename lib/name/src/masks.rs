//! The masks of new rows: environment string SPMASK.

use amoeba_cap::Rights;
use amoeba_stubs::directory;

/// Columns a directory may have.
pub const COLUMNS_MAX: usize = 4;

/// One mask of rights a column.
pub type Masks = [u8; COLUMNS_MAX];

/// Every column lets everything through: what holds when SPMASK is not set.
pub const MASKS_OPEN: Masks = [0xFF; COLUMNS_MAX];

/// What a process that sees no host's files gets of its caller's root directory: the group's and the others' columns. The
/// owner's lead to process servers that start processes with their host's files, and who may change rows may open it.
pub const CONFINED_ROOT: Rights = directory::COLUMN_2.union(directory::COLUMN_3);

/// The text is not one to four masks with colons between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("masks are one to four numbers from 0 to 255, 0x before hexadecimal ones, as in 0xff:0xf:2")]
pub struct BadMasks;

/// The masks in a text such as `0xff:0xf:2`: decimal, or hexadecimal after `0x`. Columns not named get 0: nothing.
pub fn parse_masks(text: &str) -> Result<Masks, BadMasks> {
    let mut masks = [0; COLUMNS_MAX];
    let mut parts = text.split(':');
    for mask in &mut masks {
        match parts.next() {
            Some(part) => *mask = parse_mask(part).ok_or(BadMasks)?,
            None => break,
        }
    }
    if parts.next().is_some() { Err(BadMasks) } else { Ok(masks) }
}

fn parse_mask(text: &str) -> Option<u8> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
    let good = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if good { u8::from_str_radix(digits, radix).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_read_as_the_manual_says() {
        assert_eq!(parse_masks("0xff:0xf:2"), Ok([0xFF, 0x0F, 2, 0]));
        assert_eq!(parse_masks("255:0:0:1"), Ok([255, 0, 0, 1]));
        for bad in ["", "1:", "256", "0x", "+1", "1:2:3:4:5", "0x100", "ff", "-1", " 1"] {
            assert_eq!(parse_masks(bad), Err(BadMasks), "{bad}");
        }
    }
}
