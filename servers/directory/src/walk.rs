//! Walking a path: as far as it stays within this service, in one view of the tables.

use amoeba_cap::{Capability, CapabilitySet, ObjectNumber, Private, Rights};

use crate::row::{Directory, Name, Row, has_column};
use crate::store::Store;
use crate::tables::{TableError, View};
use crate::update::Refusal;

/// What was found, before rights are taken from it. The capabilities are as they lie in the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The row at which the walk ended.
    pub row: Row,
    /// What the columns that the walk arrived with let through.
    pub mask: Rights,
    /// How many bytes of the path were used; the rest is for the server of what was found.
    pub used: usize,
}

/// The directory that `private` names in `view`, if `private` is genuine and has a column of it.
pub fn admit(store: &Store, view: &View, private: &Private) -> Result<Directory, Refusal> {
    let directory = view.directory(private.object).map_err(damaged)?.ok_or(Refusal::BadCapability)?;
    if !store.identity().secret.verifies(private, directory.random) {
        return Err(Refusal::BadCapability);
    }
    if !has_column(private.rights, directory.column_rights()) {
        return Err(Refusal::Denied);
    }
    store.mark_used(private.object);
    Ok(directory)
}

/// Walks `path` from `start`: each name is looked up in the directory that the one before stands for, as long as
/// that is a directory of this service. The rights obtained on each directory choose the columns in it.
///
/// Empty names (`a//b`) are skipped; `.` and `..` are the client's business and refused here. A path without any
/// name is refused: it stands for `start` itself.
pub fn walk(store: &Store, view: &View, start: &Private, path: &[u8]) -> Result<Found, Refusal> {
    let mut names = names(path).peekable();
    let mut at = *start;
    loop {
        let (name, end) = names.next().ok_or(Refusal::BadArgument)?;
        let name = Name::new(name).map_err(|_| Refusal::BadArgument)?;
        admit(store, view, &at)?;
        let row = view.row(at.object, &name).map_err(damaged)?.ok_or(Refusal::NotFound)?;
        let mask = row.mask(at.rights);
        let next = names.peek().and_then(|_| own_member(store, &row.set));
        match next {
            Some(member) => at = lessen(store, view, &member, mask)?,
            None => return Ok(Found { row, mask, used: names.peek().map_or(path.len(), |_| end) }),
        }
    }
}

/// The capability of one of our own directories with at most the rights `mask`. A stale one stays stale.
pub fn lessen(store: &Store, view: &View, private: &Private, mask: Rights) -> Result<Private, Refusal> {
    let rights = private.rights & mask;
    if rights == private.rights {
        return Ok(*private);
    }
    let random = match view.directory(private.object).map_err(damaged)? {
        Some(directory) => Some(directory.random),
        None if private.object == ObjectNumber::SUPER => Some(store.identity().super_random),
        None => None,
    };
    let secret = &store.identity().secret;
    Ok(match random {
        Some(random) if secret.verifies(private, random) => Private {
            rights,
            check: secret.check_field(private.object, rights, random),
            object: private.object,
        },
        _ => Private { rights, ..*private },
    })
}

fn own_member(store: &Store, set: &CapabilitySet) -> Option<Private> {
    let own = |member: &&Capability| member.port == store.port();
    set.current().find(own).map(|member| member.private)
}

/// The names of a path, each with the place where it ends.
fn names(path: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while path.get(at) == Some(&b'/') {
            at += 1;
        }
        let rest = path.get(at..).filter(|rest| !rest.is_empty())?;
        let length = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        at += length;
        Some((&rest[..length], at))
    })
}

/// Damage found by a lookup.
pub(crate) fn damaged(_: TableError) -> Refusal {
    Refusal::Damaged
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_path_is_its_names() {
        let all = |path: &'static [u8]| names(path).collect::<Vec<_>>();
        assert_eq!(all(b"a/bc"), [(&b"a"[..], 1), (b"bc", 4)]);
        assert_eq!(all(b"//a//b/"), [(&b"a"[..], 3), (b"b", 6)]);
        assert!(all(b"").is_empty() && all(b"///").is_empty());
    }
}
