//! What the attributes of a row say of a local file, and the other way round.

use amoeba_cap::Capability;
use amoeba_name::{Account, Attributes, Content, Time};
use amoeba_tree::{Facts, Kind};

use super::accounts::Accounts;

/// Bytes of the text of a symbolic link that is kept in the attributes too.
pub(super) const LINK_KEPT_MAX: usize = 3000;
/// Permissions that hold for whoever fetches a file, without those that lend its owner's rights.
const PERMISSIONS: u32 = 0o777;
/// All that a mode says but the type.
const MODE: u32 = 0o7777;
const TYPE: u32 = 0o170_000;

fn time(time: amoeba_tree::Time) -> Time {
    Time { seconds: time.seconds, nanoseconds: time.nanoseconds }
}

fn local_time(time: Time) -> amoeba_tree::Time {
    amoeba_tree::Time { seconds: time.seconds, nanoseconds: time.nanoseconds }
}

/// What a row is to say of a local file, without contents and extended attributes.
pub(super) fn attributes(facts: &Facts, accounts: &Accounts) -> Attributes {
    Attributes {
        mode: Some(facts.mode),
        owner: Some(Account { number: facts.user, name: accounts.users.name(facts.user) }),
        group: Some(Account { number: facts.group, name: accounts.groups.name(facts.group) }),
        modified: Some(time(facts.modified)),
        accessed: Some(time(facts.accessed)),
        changed: Some(time(facts.changed)),
        links: u32::try_from(facts.links).ok().filter(|links| *links > 1 && facts.kind == Kind::File),
        ..Attributes::default()
    }
}

/// Whether a row that says `attributes` need not be written for them: when a file was last read is no reason.
pub(super) fn say_the_same(one: &Attributes, other: &Attributes) -> bool {
    let without_access = |attributes: &Attributes| Attributes { accessed: None, ..attributes.clone() };
    without_access(one) == without_access(other)
}

/// What the contents of the file that a row stands for are, if its attributes are about that file.
pub(super) fn content(attributes: &Attributes, file: &Capability) -> Option<Content> {
    attributes.content.filter(|content| content.is_of(file))
}

/// What kind of local file the attributes say a row is.
pub(super) fn kind(attributes: &Attributes) -> Option<Kind> {
    Some(match attributes.mode? & TYPE {
        0o100_000 => Kind::File,
        0o040_000 => Kind::Folder,
        0o120_000 => Kind::Link,
        0o010_000 => Kind::Other("pipe"),
        0o140_000 => Kind::Other("socket"),
        0o020_000 | 0o060_000 => Kind::Other("device"),
        _ => return None,
    })
}

/// Whether a local file was last changed when the attributes say.
pub(super) fn same_time(attributes: &Attributes, facts: &Facts) -> bool {
    attributes.modified == Some(time(facts.modified))
}

/// The mode that a fetched file is to have; `owned`: it belongs to whom its row says.
pub(super) fn mode(attributes: &Attributes, owned: bool) -> Option<u32> {
    Some(attributes.mode? & if owned { MODE } else { PERMISSIONS })
}

/// When it was last read and changed.
pub(super) fn times(attributes: &Attributes) -> Option<(amoeba_tree::Time, amoeba_tree::Time)> {
    let modified = attributes.modified?;
    Some((local_time(attributes.accessed.unwrap_or(modified)), local_time(modified)))
}
