//! Groups of stations: which this one listens to because others have asked it, and which others listen to because it has
//! asked them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::Address;

use crate::Event;
use crate::frame::Mac;

/// Ethernet groups that a station listens to, past which it refuses; and FLIP addresses that it has asked others to listen
/// for, past which messages go to everybody.
pub const GROUPS_MAX: usize = 256;
/// Stations of one FLIP address; past it its messages go to everybody.
pub const STATIONS_MAX: usize = 256;
/// A group that nothing came for in so long is no longer listened to.
const GROUP_LIFE: Duration = Duration::from_secs(300);
/// Time between two questions to one station, and how many there are.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
const ASKS: u32 = 5;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Listens,
    Refuses,
    /// How often it was asked, and when it is asked again.
    None(u32, Instant),
}

/// Stations that this one has asked to listen, by FLIP address.
#[derive(Default)]
pub(crate) struct Spoken(BTreeMap<Address, BTreeMap<Mac, Answer>>);

impl Spoken {
    /// The stations of an address from now on; returns those to be asked. Without any, or with more than there is room
    /// for, the address is forgotten.
    pub(crate) fn set(&mut self, now: Instant, address: Address, stations: &[Mac]) -> Vec<Mac> {
        let known = self.0.remove(&address).unwrap_or_default();
        if stations.is_empty() || stations.len() > STATIONS_MAX || self.0.len() >= GROUPS_MAX {
            return Vec::new();
        }
        let mut asked = Vec::new();
        let answers = stations.iter().map(|&mac| {
            let answer = known.get(&mac).copied().unwrap_or_else(|| {
                asked.push(mac);
                Answer::None(1, now + ASK_INTERVAL)
            });
            (mac, answer)
        });
        self.0.insert(address, answers.collect());
        asked
    }

    /// Where frames for an address go: to its Ethernet group when all its stations listen there, else to each of them; to
    /// everybody when they are not known.
    pub(crate) fn stations(&self, address: Address) -> Vec<Mac> {
        let Some(stations) = self.0.get(&address) else { return vec![Mac::BROADCAST] };
        if stations.len() > 1 && stations.values().all(|answer| *answer == Answer::Listens) {
            return vec![Mac::of_group(address)];
        }
        stations.keys().copied().collect()
    }

    pub(crate) fn answered(&mut self, from: Mac, address: Address, listens: bool) {
        let answer = self.0.get_mut(&address).and_then(|stations| stations.get_mut(&from));
        if let Some(answer) = answer {
            *answer = if listens { Answer::Listens } else { Answer::Refuses };
        }
    }

    /// Who has not answered in time: those to be asked again.
    pub(crate) fn ask_again(&mut self, now: Instant) -> Vec<(Mac, Address)> {
        let mut again = Vec::new();
        for (address, stations) in &mut self.0 {
            for (mac, answer) in stations {
                let Answer::None(asks, at) = *answer else { continue };
                if at > now {
                    continue;
                }
                if asks >= ASKS {
                    *answer = Answer::Refuses;
                } else {
                    *answer = Answer::None(asks + 1, now + ASK_INTERVAL);
                    again.push((*mac, *address));
                }
            }
        }
        again
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let answers = self.0.values().flat_map(BTreeMap::values);
        answers
            .filter_map(|answer| match answer {
                Answer::None(_, at) => Some(*at),
                _ => None,
            })
            .min()
    }
}
