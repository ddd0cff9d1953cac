//! Rights by name, for `cap restrict`, `stat` and `ls -l`: their bits mean what the object's class says.

use amoeba_cap::Rights;
use amoeba_stubs::{bullet, directory, process};
use anyhow::anyhow;

use crate::failure::Advise;
use crate::graph::Kind;

const FILE: [(&str, u8); 5] = [
    ("create", bullet::CREATE.bits()),
    ("read", bullet::READ.bits()),
    ("modify", bullet::MODIFY.bits()),
    ("destroy", bullet::DESTROY.bits()),
    ("admin", bullet::ADMIN.bits()),
];

const DIRECTORY: [(&str, u8); 6] = [
    ("owner", directory::COLUMN_1.bits()),
    ("group", directory::COLUMN_2.bits()),
    ("other", directory::COLUMN_3.bits()),
    ("column4", directory::COLUMN_4.bits()),
    ("modify", directory::MODIFY.bits()),
    ("delete", directory::DELETE.bits()),
];

const PROCESS: [(&str, u8); 7] = [
    ("read", process::READ.bits()),
    ("write", process::WRITE.bits()),
    ("create", process::CREATE.bits()),
    ("delete", process::DELETE.bits()),
    ("exec", process::EXEC.bits()),
    ("kill", process::KILL.bits()),
    ("host", process::HOST.bits()),
];

fn names(kind: Kind) -> &'static [(&'static str, u8)] {
    match kind {
        Kind::File => &FILE,
        Kind::Directory => &DIRECTORY,
        Kind::Process => &PROCESS,
        Kind::Other => &[],
    }
}

/// The rights in `text`: names with commas between, `all`, `none`, or a mask of one or two hexadecimal digits.
///
/// `read` on a directory is its last column: looking, and reading what everybody may read. `columns` says how many
/// the directory has.
pub(crate) fn parse(text: &str, kind: Kind, columns: usize) -> anyhow::Result<Rights> {
    let mut bits = 0;
    for word in text.split(',') {
        let named = names(kind).iter().find(|(name, _)| *name == word).map(|(_, bits)| *bits);
        let bit = match word {
            "all" => Some(0xFF),
            "none" => Some(0),
            "read" if kind == Kind::Directory => Some(1 << columns.clamp(1, 4).saturating_sub(1)),
            _ => named.or_else(|| hexadecimal(word)),
        };
        bits |= bit.ok_or_else(|| anyhow!("`{word}` is no right of a {}", kind.name())).hint(known(kind))?;
    }
    Ok(Rights::from_bits_retain(bits))
}

fn hexadecimal(word: &str) -> Option<u8> {
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
    let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

fn known(kind: Kind) -> String {
    let mut words: Vec<&str> = names(kind).iter().map(|(name, _)| *name).collect();
    if kind == Kind::Directory {
        words.insert(0, "read");
    }
    words.extend(["all", "none"]);
    format!("it has {}, or a mask such as 0x0F; several with commas between", words.join(", "))
}

/// The names of rights; bits without a name in hexadecimal.
pub(crate) fn shown(rights: Rights, kind: Kind) -> String {
    if rights == Rights::ALL {
        return "all".into();
    }
    let (mut words, mut rest) = (Vec::new(), rights.bits());
    for (name, bits) in names(kind) {
        if rest & bits != 0 {
            words.push((*name).to_owned());
            rest &= !bits;
        }
    }
    if rest != 0 {
        words.push(format!("0x{rest:02X}"));
    }
    if words.is_empty() { "none".into() } else { words.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_have_names_or_are_masks() {
        let bits = |text, kind| parse(text, kind, 3).ok().map(|rights| rights.bits());
        assert_eq!(bits("read", Kind::File), Some(2));
        assert_eq!(bits("read,destroy", Kind::File), Some(0x0A));
        assert_eq!(bits("read", Kind::Directory), Some(4));
        assert_eq!(bits("read,modify", Kind::Directory), Some(0x44));
        assert_eq!(bits("0x0F", Kind::Other), Some(15));
        assert_eq!(bits("ff", Kind::File), Some(255));
        assert_eq!(bits("none", Kind::File), Some(0));
        for bad in ["", "red", "100", "0x", "read,", "+1"] {
            assert_eq!(bits(bad, Kind::File), None, "{bad}");
        }
    }

    #[test]
    fn every_right_is_shown() {
        assert_eq!(shown(Rights::ALL, Kind::File), "all");
        assert_eq!(shown(Rights::NONE, Kind::File), "none");
        assert_eq!(shown(Rights::from_bits_retain(0x12), Kind::File), "read,0x10");
        assert_eq!(shown(Rights::from_bits_retain(0x44), Kind::Directory), "other,modify");
    }

    #[test]
    fn an_unknown_right_names_the_known_ones() {
        let error = parse("fly", Kind::File, 0).unwrap_err();
        let text = crate::failure::report(&error, 1).text.unwrap();
        assert_eq!(
            text,
            "amoeba: `fly` is no right of a file\n\
             hint: it has create, read, modify, destroy, admin, all, none, or a mask such as 0x0F; several with commas between\n"
        );
    }
}
