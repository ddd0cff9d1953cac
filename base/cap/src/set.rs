//! Capability sets: up to eight capabilities for replicas of one object.

use crate::{CAPABILITY_SIZE, Capability};

/// The most members a set may have.
pub const SET_MEMBERS_MAX: usize = 8;

/// One member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// The capability of one replica.
    pub capability: Capability,
    /// Whether the replica is up to date; a member that is not is a dead slot.
    pub current: bool,
}

/// The set already has [`SET_MEMBERS_MAX`] members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a capability set has at most {SET_MEMBERS_MAX} members")]
pub struct SetFull;

/// Capabilities of replicas of one object, at most [`SET_MEMBERS_MAX`].
///
/// # Source
/// Amoeba 5.3, capset(L). `initial` is obsolete there too, but kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySet {
    initial: u8,
    suites: Vec<Suite>,
}

impl CapabilitySet {
    /// The set of this one capability.
    pub fn singleton(capability: Capability) -> CapabilitySet {
        CapabilitySet { initial: 1, suites: vec![Suite { capability, current: true }] }
    }

    /// The set of these suites; `initial` is clipped to their count.
    pub fn from_suites(initial: usize, suites: Vec<Suite>) -> Result<CapabilitySet, SetFull> {
        if suites.len() > SET_MEMBERS_MAX {
            return Err(SetFull);
        }
        Ok(CapabilitySet { initial: initial.min(suites.len()) as u8, suites })
    }

    /// All slots, dead ones too.
    pub fn suites(&self) -> &[Suite] {
        &self.suites
    }

    /// The obsolete count of initial members.
    pub fn initial(&self) -> usize {
        usize::from(self.initial)
    }

    /// The capabilities of the members that are current.
    pub fn current(&self) -> impl Iterator<Item = &Capability> {
        self.suites.iter().filter(|suite| suite.current).map(|suite| &suite.capability)
    }

    /// The first current member, the one to try first.
    pub fn first(&self) -> Option<&Capability> {
        self.current().next()
    }

    /// Whether a current member equals `capability`.
    pub fn contains(&self, capability: &Capability) -> bool {
        self.current().any(|member| member == capability)
    }

    /// Whether there is no current member.
    pub fn is_empty(&self) -> bool {
        self.current().next().is_none()
    }

    /// Adds a current member.
    pub fn push(&mut self, capability: Capability) -> Result<(), SetFull> {
        if self.suites.len() == SET_MEMBERS_MAX {
            return Err(SetFull);
        }
        self.suites.push(Suite { capability, current: true });
        Ok(())
    }

    /// The same set with every capability replaced by what `change` makes of it.
    pub fn map(&self, mut change: impl FnMut(&Capability) -> Capability) -> CapabilitySet {
        let suites = self
            .suites
            .iter()
            .map(|suite| Suite { capability: change(&suite.capability), current: suite.current })
            .collect();
        CapabilitySet { initial: self.initial, suites }
    }

    /// Bytes of this set when marshalled.
    pub fn encoded_size(&self) -> usize {
        4 + self.suites.len() * (CAPABILITY_SIZE + 2)
    }
}

impl From<Capability> for CapabilitySet {
    fn from(capability: Capability) -> CapabilitySet {
        CapabilitySet::singleton(capability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ninth_member_is_refused_and_dead_slots_do_not_count() {
        let mut set = CapabilitySet::default();
        for byte in 1..=8 {
            set.push(Capability::from_bytes([byte; 16])).unwrap();
        }
        assert_eq!(set.push(Capability::from_bytes([9; 16])), Err(SetFull));
        let dead = vec![Suite { capability: Capability::from_bytes([1; 16]), current: false }];
        let dead = CapabilitySet::from_suites(1, dead).unwrap();
        assert!(dead.is_empty() && dead.first().is_none());
        assert!(!dead.contains(&Capability::from_bytes([1; 16])));
    }
}
