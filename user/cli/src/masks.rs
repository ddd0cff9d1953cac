//! Which rights the columns of a new row let through.

use amoeba_name::Masks;
use anyhow::Context;

/// The environment string with masks for new rows, as in `0xff:0xf:2`.
const VARIABLE: &str = "SPMASK";
/// Masks of a new file, the original's: all for its owner, the first four rights for the group, reading for others.
const FILE: Masks = [0xFF, 0x0F, 0x02, 0];
/// Masks of a new directory: a group sees the group's and the others' columns in it, others theirs; neither changes it.
const DIRECTORY: Masks = [0xFF, 0x06, 0x04, 0];

/// Masks for a row of something that is no directory.
pub(crate) fn of_object() -> anyhow::Result<Masks> {
    from_environment(FILE)
}

/// Masks for the row of a directory.
pub(crate) fn of_directory() -> anyhow::Result<Masks> {
    from_environment(DIRECTORY)
}

fn from_environment(default: Masks) -> anyhow::Result<Masks> {
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => amoeba_name::parse_masks(&text).context(VARIABLE),
        _ => Ok(default),
    }
}

/// Masks of as many columns as there are, as in `ff:f:2`.
pub(crate) fn shown(masks: Masks, columns: usize) -> String {
    masks.iter().take(columns).map(|mask| format!("{mask:x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_shown_for_as_many_columns_as_there_are() {
        assert_eq!(shown([0xFF, 0x0F, 2, 0], 3), "ff:f:2");
    }
}
