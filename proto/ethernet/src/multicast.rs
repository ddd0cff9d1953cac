//! Groups of stations: which this one listens to because others have asked it. It asks nobody: searches go to everybody, as
//! the original's do, and nothing else of ours is for many.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::Address;

use crate::Event;
use crate::frame::Mac;

/// Ethernet groups that a station listens to; past it, it refuses.
pub const GROUPS_MAX: usize = 256;
/// A group that nothing came for in so long is no longer listened to.
const GROUP_LIFE: Duration = Duration::from_secs(300);

/// Groups that this station listens to, by when they were last used.
#[derive(Default)]
pub(crate) struct Heard(BTreeMap<Mac, Instant>);

impl Heard {
    /// Somebody wants this station to listen to a group. Only to the one that stands for the address.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        group: Mac,
        address: Address,
        events: &mut VecDeque<Event>,
    ) -> bool {
        let known = self.0.contains_key(&group);
        if group != Mac::of_group(address) || !known && self.0.len() >= GROUPS_MAX {
            return false;
        }
        if !known {
            events.push_back(Event::Listen(group));
        }
        self.0.insert(group, now);
        true
    }

    pub(crate) fn listens_to(&self, group: Mac) -> bool {
        self.0.contains_key(&group)
    }

    pub(crate) fn used(&mut self, now: Instant, group: Mac) {
        if let Some(used) = self.0.get_mut(&group) {
            *used = now;
        }
    }

    pub(crate) fn expire(&mut self, now: Instant, events: &mut VecDeque<Event>) {
        self.0.retain(|group, used| {
            let keep = now.since(*used) < GROUP_LIFE;
            if !keep {
                events.push_back(Event::Ignore(*group));
            }
            keep
        });
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.0.values().min().map(|used| *used + GROUP_LIFE)
    }
}
