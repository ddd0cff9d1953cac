//! Names and numbers of this host's users and groups, as its files say.

use std::collections::HashMap;

/// Users or groups of this host.
#[derive(Default)]
pub(crate) struct Names {
    by_number: HashMap<u32, Vec<u8>>,
    by_name: HashMap<Vec<u8>, u32>,
}

/// Both.
pub(crate) struct Accounts {
    pub(crate) users: Names,
    pub(crate) groups: Names,
}

impl Accounts {
    /// Of this host. A file that cannot be read has no names in it.
    pub(crate) fn read() -> Accounts {
        let read = |path| Names::parse(&std::fs::read(path).unwrap_or_default());
        Accounts { users: read("/etc/passwd"), groups: read("/etc/group") }
    }
}

impl Names {
    /// Lines of `name:password:number:...`; of several with one number or name the first counts.
    fn parse(text: &[u8]) -> Names {
        let mut names = Names::default();
        for line in text.split(|byte| *byte == b'\n') {
            let mut parts = line.split(|byte| *byte == b':');
            let (Some(name), Some(_), Some(number)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            if let Some(number) = number.filter(|_| !name.is_empty()) {
                names.by_number.entry(number).or_insert_with(|| name.to_vec());
                names.by_name.entry(name.to_vec()).or_insert(number);
            }
        }
        names
    }

    /// The name of a number; empty for none.
    pub(crate) fn name(&self, number: u32) -> Vec<u8> {
        self.by_number.get(&number).cloned().unwrap_or_default()
    }

    /// The number of a name on this host; where it has no such name, the number that it had elsewhere.
    pub(crate) fn number(&self, account: &amoeba_name::Account) -> u32 {
        self.by_name.get(&account.name).copied().unwrap_or(account.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_before_numbers() {
        let names =
            Names::parse(b"root:x:0:0::/:/bin/sh\nann:x:1000:100::\nbob:x:1000:1\n# no\n:x:7:\nx:y:z:\n");
        assert_eq!(
            (names.name(0), names.name(1000), names.name(7)),
            (b"root".into(), b"ann".into(), Vec::new())
        );
        let account = |name: &[u8]| amoeba_name::Account { number: 7, name: name.into() };
        assert_eq!((names.number(&account(b"bob")), names.number(&account(b"eve"))), (1000, 7));
    }
}
