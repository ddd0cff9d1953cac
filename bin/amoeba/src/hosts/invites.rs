//! The invitations of this host: `invites.json` in its state directory, with the secrets of those that are open.
//!
//! Their time is that of the host's own clock that nobody sets. When the host starts anew, that clock does too: then it is
//! the time of day that says when they are over, but none is open for longer after that start than it was to be in all,
//! however the time of day was set.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use amoeba_linux::host;
use amoeba_linux::link::admission::{INVITES_MAX, Invite, InviteId, InviteState};
use amoeba_linux::lock::Lock;
use amoeba_seal::PublicKey;
use amoeba_world::random;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::state::State;

/// Where they lie.
const FILE: &str = "invites.json";
/// Held by whoever changes them.
const LOCK: &str = "run/invites.lock";
/// How long somebody else may take to change them.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// An invitation, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    secret: String,
    /// What the host must be called.
    pub(crate) name: Option<String>,
    /// The start of the host in which it was made.
    boot: String,
    /// When it is over, in milliseconds since that start.
    until: u64,
    /// The same by the time of day, in milliseconds since 1970.
    #[serde(default)]
    until_of_day: u64,
    /// How long it was to be open in all, in milliseconds.
    #[serde(default)]
    time: u64,
    pub(crate) state: Kept,
}

/// What was done with an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kept {
    /// Nothing yet.
    Open,
    /// A host of this name and key is told what it must know; it has no row yet. Good for that host alone.
    Taken { host: String, key: String },
    /// A host of this name and key has joined.
    Used { host: String, key: String },
    /// It was taken back.
    Revoked,
}

/// The host's clock that nobody sets, and the time of day.
struct Now {
    boot: String,
    millis: u64,
    of_day: u64,
}

impl Now {
    fn read() -> Result<Now> {
        let (boot, time) = host::boot_time().context("this host does not tell how long it has run")?;
        let of_day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Now { boot, millis: to_millis(time), of_day: to_millis(of_day) })
    }
}

impl Entry {
    /// What is left of its time; `None` when that is over.
    fn left(&self, now: &Now) -> Option<Duration> {
        let left = match self.boot == now.boot {
            true => self.until.checked_sub(now.millis)?,
            false => {
                let of_day = self.until_of_day.checked_sub(now.of_day)?;
                of_day.min(self.time.checked_sub(now.millis)?)
            }
        };
        (left > 0).then_some(Duration::from_millis(left))
    }

    fn id(&self) -> Option<InviteId> {
        self.id.parse().ok()
    }

    fn invite(&self, now: &Now) -> Option<Invite> {
        let state = match &self.state {
            Kept::Open => self.left(now).map_or(InviteState::Expired, InviteState::Open),
            Kept::Taken { key, .. } => match self.left(now) {
                Some(left) => InviteState::Taken(key.parse().ok()?, left),
                None => InviteState::Expired,
            },
            Kept::Used { key, .. } => InviteState::Used(key.parse().ok()?),
            Kept::Revoked => InviteState::Revoked,
        };
        Some(Invite { id: self.id()?, secret: from_hex(&self.secret)?, name: self.name.clone(), state })
    }
}

/// All of them, the oldest first.
pub(crate) struct Invites {
    entries: Vec<Entry>,
    now: Now,
}

/// The right to change them.
pub(crate) struct Changing {
    pub(crate) invites: Invites,
    _lock: Lock,
}

impl Invites {
    /// Those of a state directory.
    pub(crate) fn read(state: &State) -> Result<Invites> {
        let entries = state.read_json(FILE)?.unwrap_or_default();
        Ok(Invites { entries, now: Now::read()? })
    }

    /// The same, and nobody else changes them meanwhile.
    pub(crate) fn change(state: &State) -> Result<Changing> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let lock = loop {
            if let Some(lock) = state.lock(LOCK)? {
                break lock;
            }
            if Instant::now() > deadline {
                bail!("another process does not come to an end with its changes of invitations");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Ok(Changing { invites: Invites::read(state)?, _lock: lock })
    }

    /// What a kernel is told.
    pub(crate) fn for_kernel(&self) -> Vec<Invite> {
        self.entries.iter().filter_map(|entry| entry.invite(&self.now)).collect()
    }

    /// Each of them, and how much time it has; `None` when it is of no use any more.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Entry, Option<Duration>)> {
        self.entries.iter().map(|entry| (entry, entry.left(&self.now).filter(|_| entry.state == Kept::Open)))
    }

    /// Whether somebody may come now, for the first time or to complete what was begun.
    pub(crate) fn any_expected(&self) -> bool {
        let may_come = |entry: &Entry| matches!(entry.state, Kept::Open | Kept::Taken { .. });
        self.entries.iter().any(|entry| may_come(entry) && entry.left(&self.now).is_some())
    }

    /// One more invitation.
    ///
    /// # Errors
    /// There are [`INVITES_MAX`], and all are open.
    pub(crate) fn add(&mut self, time: Duration, name: Option<String>) -> Result<Invite> {
        if self.entries.len() >= INVITES_MAX {
            let may_come = |entry: &Entry| matches!(entry.state, Kept::Open | Kept::Taken { .. });
            let is_over = |entry: &Entry| !may_come(entry) || entry.left(&self.now).is_none();
            let over = self.entries.iter().position(is_over);
            let over = over.with_context(|| {
                format!("{INVITES_MAX} invitations are open, which is as many as there may be")
            })?;
            self.entries.remove(over);
        }
        let entropy = amoeba_linux::entropy();
        let (id, secret) = (InviteId(random(&*entropy)), random::<16>(&*entropy));
        let millis = to_millis(time);
        let until = self.now.millis.saturating_add(millis);
        let until_of_day = self.now.of_day.saturating_add(millis);
        let entry = Entry {
            id: id.to_string(),
            secret: to_hex(&secret),
            name,
            boot: self.now.boot.clone(),
            until,
            until_of_day,
            time: millis,
            state: Kept::Open,
        };
        let invite = entry.invite(&self.now).context("an invitation lasts at least a millisecond")?;
        self.entries.push(entry);
        Ok(invite)
    }

    /// Keeps an invitation for the host of this key alone; false when it is not good for that one.
    pub(crate) fn take(&mut self, id: InviteId, host: &str, by: PublicKey) -> bool {
        let now = &self.now;
        let entry = self.entries.iter_mut().find(|entry| entry.id() == Some(id));
        let Some(entry) = entry.filter(|entry| entry.left(now).is_some()) else { return false };
        match &entry.state {
            Kept::Open => {}
            Kept::Taken { key, .. } if *key == by.to_string() => {}
            _ => return false,
        }
        entry.state = Kept::Taken { host: host.to_owned(), key: by.to_string() };
        true
    }

    /// Whether an invitation is kept for the host of this key. One that was used is good for nobody: a host that was
    /// removed does not come back with it.
    pub(crate) fn admits(&self, id: InviteId, by: PublicKey) -> bool {
        let entry = self.entries.iter().find(|entry| entry.id() == Some(id));
        entry.is_some_and(|entry| match &entry.state {
            Kept::Taken { key, .. } => *key == by.to_string() && entry.left(&self.now).is_some(),
            _ => false,
        })
    }

    /// A host has joined with it.
    pub(crate) fn used(&mut self, id: InviteId, host: &str, key: PublicKey) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id() == Some(id)) {
            entry.state = Kept::Used { host: host.to_owned(), key: key.to_string() };
        }
    }

    /// Takes one back.
    ///
    /// # Errors
    /// There is none of this number, or it was used.
    pub(crate) fn revoke(&mut self, id: &str) -> Result<()> {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id);
        let entry = entry.with_context(|| format!("there is no invitation {id}"))?;
        if let Kept::Used { host, .. } = &entry.state {
            bail!("the invitation {id} was used by {host}, which is a host of the system now");
        }
        entry.state = Kept::Revoked;
        Ok(())
    }
}

impl Changing {
    /// Keeps what was changed.
    pub(crate) fn write(&self, state: &State) -> Result<()> {
        state.write_json(FILE, &self.invites.entries)
    }
}

fn to_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let number = (text.len() == 2 * N && N <= 16).then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    number.to_be_bytes()[16 - N..].try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Invites {
        Invites { entries: Vec::new(), now: Now { boot: "one".into(), millis: 1000, of_day: 50_000 } }
    }

    fn open(invites: &Invites) -> Vec<bool> {
        invites.iter().map(|(_, left)| left.is_some()).collect()
    }

    #[test]
    fn an_invitation_is_open_until_its_time_is_over() {
        let mut invites = empty();
        let first = invites.add(Duration::from_secs(10), None).unwrap();
        assert_eq!(first.state, InviteState::Open(Duration::from_secs(10)));
        invites.now.millis = 10_999;
        assert_eq!(open(&invites), [true]);
        invites.now.millis = 11_000;
        assert_eq!(open(&invites), [false]);
        assert_eq!(invites.for_kernel()[0].state, InviteState::Expired);
    }

    #[test]
    fn a_start_of_the_host_ends_no_invitation_and_prolongs_none() {
        let mut invites = empty();
        invites.add(Duration::from_secs(10), None).unwrap();
        let left = |millis, of_day| {
            let now = Now { boot: "two".into(), millis, of_day };
            invites.entries[0].left(&now).map(|left| left.as_millis())
        };
        assert_eq!(left(1000, 53_000), Some(7000));
        assert_eq!(left(5000, 60_000), None, "its time is over");
        assert_eq!(left(4000, 20_000), Some(6000), "the time of day was set back");
        assert_eq!(left(10_000, 0), None);
        let old = r#"[{"id":"0a","secret":"","name":null,"boot":"one","until":99,"state":"open"}]"#;
        let old: Vec<Entry> = serde_json::from_str(old).unwrap();
        assert_eq!(old[0].left(&Now { boot: "two".into(), millis: 0, of_day: 0 }), None, "as it was made");
    }

    #[test]
    fn what_was_used_is_used_and_what_was_revoked_is_revoked() {
        let (bolt, chisel) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let mut invites = empty();
        let one = invites.add(Duration::from_secs(10), None).unwrap().id;
        let other = invites.add(Duration::from_secs(10), None).unwrap().id;
        assert!(!invites.admits(one, bolt), "nobody is a member who was not told what it must know");
        assert!(invites.take(one, "bolt", bolt) && !invites.take(one, "chisel", chisel));
        assert!(invites.take(one, "bolt2", bolt), "the same host may come again");
        assert!(invites.admits(one, bolt) && !invites.admits(one, chisel) && invites.any_expected());
        assert_eq!(
            invites.for_kernel()[0].state,
            InviteState::Taken(bolt, Duration::from_secs(10)),
            "it is not more than the time that it had"
        );
        invites.used(one, "bolt", bolt);
        assert!(!invites.admits(one, bolt) && !invites.take(one, "bolt", bolt), "it is of no use any more");
        assert!(invites.revoke(&one.to_string()).is_err());
        invites.revoke(&other.to_string()).unwrap();
        assert!(!invites.take(other, "bolt", bolt) && !invites.admits(other, bolt));
        assert!(!invites.any_expected());
        assert!(invites.revoke("none").is_err());
        let states: Vec<InviteState> = invites.for_kernel().into_iter().map(|invite| invite.state).collect();
        assert_eq!(states, [InviteState::Used(bolt), InviteState::Revoked]);
    }

    #[test]
    fn there_is_a_bound_and_what_is_over_makes_room() {
        let mut invites = empty();
        for _ in 0..INVITES_MAX {
            invites.add(Duration::from_secs(10), None).unwrap();
        }
        assert!(invites.add(Duration::from_secs(10), None).is_err());
        let third = invites.entries[2].id.clone();
        invites.revoke(&third).unwrap();
        invites.add(Duration::from_secs(10), None).unwrap();
        assert!(
            invites.entries.len() == INVITES_MAX && !invites.entries.iter().any(|entry| entry.id == third)
        );
    }

    #[test]
    fn secrets_are_kept_as_they_are() {
        let mut invites = empty();
        let made = invites.add(Duration::from_secs(10), Some("bolt".into())).unwrap();
        let text = serde_json::to_vec(&invites.entries).unwrap();
        let kept = Invites { entries: serde_json::from_slice(&text).unwrap(), ..empty() };
        assert!(kept.for_kernel() == [made]);
        assert_eq!(from_hex::<16>("zz"), None);
    }
}
