//! The invitations of this host, as its kernel knows them. The supervisor keeps them and hands them over.

use std::collections::BTreeMap;
use std::time::Duration;

use amoeba_seal::PublicKey;
use amoeba_threads::Instant;

use super::token::{InviteId, SECRET_SIZE};
use super::wire::Why;

/// Invitations that are kept, those that are over among them; past it the oldest that is over goes, and when none is over
/// nobody more is invited.
pub const INVITES_MAX: usize = 64;

/// One invitation.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// Its number.
    pub id: InviteId,
    /// Its secret.
    pub secret: [u8; SECRET_SIZE],
    /// What the host must be called, where the inviter has said so.
    pub name: Option<String>,
    /// What it is good for.
    pub state: InviteState,
}

/// What an invitation is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviteState {
    /// To join with, for so long.
    Open(Duration),
    /// To join with for this host alone, for so long: it is told what a host of the system must know.
    Taken(PublicKey, Duration),
    /// Nothing: this host has joined with it. That one may ask again, should it not have heard, while it is a member.
    Used(PublicKey),
    /// Nothing: its time is over.
    Expired,
    /// Nothing: it was taken back.
    Revoked,
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

/// All invitations; time is the kernel's own.
#[derive(Default)]
pub(super) struct Invites(BTreeMap<InviteId, (Invite, Instant)>);

impl Invites {
    /// There are these and no others.
    pub(super) fn replace(&mut self, now: Instant, invites: &[Invite]) {
        let until = |invite: &Invite| match invite.state {
            InviteState::Open(time) | InviteState::Taken(_, time) => now + time,
            _ => now,
        };
        let entries =
            invites.iter().take(INVITES_MAX).map(|invite| (invite.id, (invite.clone(), until(invite))));
        self.0 = entries.collect();
    }

    /// The secret of an invitation, whatever it is good for.
    pub(super) fn secret(&self, id: InviteId) -> Option<&[u8; SECRET_SIZE]> {
        self.0.get(&id).map(|(invite, _)| &invite.secret)
    }

    /// The name that a host must have that joins with it.
    pub(super) fn name(&self, id: InviteId) -> Option<&str> {
        self.0.get(&id)?.0.name.as_deref()
    }

    /// Whether a host may join with it; `who` where that is known already. One that was used is good for its host: whether
    /// that is a member still, the desk knows.
    pub(super) fn check(&self, now: Instant, id: InviteId, who: Option<PublicKey>) -> Result<(), Why> {
        let (invite, until) = self.0.get(&id).ok_or(Why::Unknown)?;
        match &invite.state {
            InviteState::Open(_) if now < *until => Ok(()),
            InviteState::Taken(by, _) | InviteState::Used(by) if who.is_some_and(|who| who != *by) => {
                Err(Why::Used)
            }
            InviteState::Taken(..) if now < *until => Ok(()),
            InviteState::Open(_) | InviteState::Taken(..) | InviteState::Expired => Err(Why::Expired),
            InviteState::Used(_) => Ok(()),
            InviteState::Revoked => Err(Why::Revoked),
        }
    }

    /// The host that it is kept for, or that has joined with it.
    pub(super) fn owner(&self, id: InviteId) -> Option<PublicKey> {
        match self.0.get(&id)?.0.state {
            InviteState::Taken(by, _) | InviteState::Used(by) => Some(by),
            _ => None,
        }
    }

    /// The host that has joined with it.
    pub(super) fn joined(&self, id: InviteId) -> Option<PublicKey> {
        self.owner(id).filter(|_| matches!(self.0[&id].0.state, InviteState::Used(_)))
    }

    /// It is kept for this host, unless another was faster.
    pub(super) fn take(&mut self, id: InviteId, by: PublicKey) -> Result<(), Why> {
        let (invite, _) = self.0.get_mut(&id).ok_or(Why::Unknown)?;
        match invite.state {
            InviteState::Open(time) => invite.state = InviteState::Taken(by, time),
            InviteState::Taken(owner, _) | InviteState::Used(owner) if owner == by => {}
            InviteState::Taken(..) | InviteState::Used(_) => return Err(Why::Used),
            InviteState::Expired => return Err(Why::Expired),
            InviteState::Revoked => return Err(Why::Revoked),
        }
        Ok(())
    }

    /// A host has joined with it.
    pub(super) fn used(&mut self, id: InviteId, by: PublicKey) {
        if let Some((invite, _)) = self.0.get_mut(&id) {
            invite.state = InviteState::Used(by);
        }
    }

    /// Whether somebody may join now.
    pub(super) fn any_open(&self, now: Instant) -> bool {
        self.0.values().any(|(invite, until)| matches!(invite.state, InviteState::Open(_)) && now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_epoch(Duration::from_secs(seconds))
    }

    fn invite(id: u8, state: InviteState) -> Invite {
        Invite { id: InviteId([id; 8]), secret: [id; SECRET_SIZE], name: None, state }
    }

    #[test]
    fn what_is_over_is_told_apart() {
        let (bolt, chisel) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let mut invites = Invites::default();
        let open = InviteState::Open(Duration::from_secs(60));
        invites.replace(
            at(100),
            &[
                invite(1, open),
                invite(2, InviteState::Used(bolt)),
                invite(3, InviteState::Revoked),
                invite(4, InviteState::Expired),
            ],
        );
        let check =
            |invites: &Invites, seconds, id: u8, who| invites.check(at(seconds), InviteId([id; 8]), who);
        assert_eq!(check(&invites, 159, 1, None), Ok(()));
        assert_eq!(check(&invites, 160, 1, None), Err(Why::Expired), "the moment counts as after it");
        assert_eq!(check(&invites, 100, 2, Some(bolt)), Ok(()), "it may not have heard that it is in");
        assert_eq!(check(&invites, 100, 2, Some(chisel)), Err(Why::Used));
        assert_eq!(check(&invites, 100, 3, None), Err(Why::Revoked));
        assert_eq!(check(&invites, 100, 4, None), Err(Why::Expired));
        assert_eq!(check(&invites, 100, 5, None), Err(Why::Unknown));
        assert!(invites.any_open(at(159)) && !invites.any_open(at(160)));
        assert_eq!(invites.take(InviteId([1; 8]), chisel), Ok(()));
        assert_eq!(invites.take(InviteId([1; 8]), bolt), Err(Why::Used));
        assert_eq!(check(&invites, 159, 1, Some(chisel)), Ok(()));
        assert_eq!(check(&invites, 159, 1, Some(bolt)), Err(Why::Used));
        assert_eq!(
            check(&invites, 160, 1, Some(chisel)),
            Err(Why::Expired),
            "what was not completed in time"
        );
        assert!(
            invites.take(InviteId([3; 8]), bolt).is_err() && invites.take(InviteId([4; 8]), bolt).is_err()
        );
        invites.used(InviteId([1; 8]), chisel);
        assert_eq!(check(&invites, 110, 1, Some(bolt)), Err(Why::Used));
    }
}
