//! Walking a path: as far as it stays within this service, at one moment.

use std::sync::Arc;

use amoeba_cap::{ObjectNumber, Private, Rights};

use crate::guarded::Guarded;
use crate::memory::{Look, SeenDirectory, Stop};
use crate::row::{Name, Row, RowBytes, has_column};
use crate::store::Store;
use crate::tables::TableError;
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

/// The directory that `private` names, if `private` is genuine and has a column of it.
pub fn admit<'a>(store: &Store, look: &'a Look<'_>, private: &Private) -> Result<Admitted<'a>, Stop> {
    let seen = look.directory(private.object)?;
    let directory = seen.as_ref().ok_or(Refusal::BadCapability)?;
    if !directory.verifies(&store.identity().secret, private) {
        return Err(Refusal::BadCapability.into());
    }
    if !has_column(private.rights, directory.column_rights()) {
        return Err(Refusal::Denied.into());
    }
    store.mark_used(private.object);
    Ok(Admitted(seen))
}

/// A directory that may be used.
pub struct Admitted<'a>(SeenDirectory<'a>);

impl std::ops::Deref for Admitted<'_> {
    type Target = Arc<Guarded>;
    fn deref(&self) -> &Arc<Guarded> {
        self.0.as_ref().expect("who is admitted is there")
    }
}

/// Walks `path` from `start`: each name is looked up in the directory that the one before stands for, as long as
/// that is a directory of this service. The rights obtained on each directory choose the columns in it.
///
/// Empty names (`a//b`) are skipped; `.` and `..` are the client's business and refused here. A path without any
/// name is refused: it stands for `start` itself.
pub fn walk(store: &Store, look: &Look<'_>, start: &Private, path: &[u8]) -> Result<Found, Stop> {
    let mut names = names(path).peekable();
    let mut at = *start;
    loop {
        let (name, end) = names.next().ok_or(Refusal::BadArgument)?;
        Name::check(name).map_err(|_| Refusal::BadArgument)?;
        admit(store, look, &at)?;
        let seen = look.row_bytes(at.object, name)?;
        let row = seen.bytes().ok_or(Refusal::NotFound)?;
        let mask = RowBytes(row).mask(at.rights);
        let next = names.peek().and_then(|_| RowBytes(row).member(store.port()));
        match next {
            Some(member) => at = lessen(store, look, &member.private, mask)?,
            None => {
                let used = names.peek().map_or(path.len(), |_| end);
                let row = Row::from_bytes(row).map_err(|_| Refusal::Damaged)?;
                return Ok(Found { row, mask, used });
            }
        }
    }
}

/// The capability of one of our own directories with at most the rights `mask`. A stale one stays stale.
pub fn lessen(store: &Store, look: &Look<'_>, private: &Private, mask: Rights) -> Result<Private, Stop> {
    let rights = private.rights & mask;
    if rights == private.rights {
        return Ok(*private);
    }
    let (secret, object) = (&store.identity().secret, private.object);
    let lessened = |check| Private { object, rights, check };
    if object == ObjectNumber::SUPER {
        let random = store.identity().super_random;
        let genuine = secret.verifies(private, random);
        return Ok(lessened(if genuine {
            secret.check_field(object, rights, random)
        } else {
            private.check
        }));
    }
    Ok(match look.directory(object)?.as_ref() {
        Some(directory) if directory.verifies(secret, private) => {
            lessened(directory.check(secret, object, rights))
        }
        _ => lessened(private.check),
    })
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
