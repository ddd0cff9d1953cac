//! The search for addresses: LOCATEs in widening rings, and messages that wait for the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, FlipHeader, PacketKind};

use crate::{
    FlipBox, HOPS_MAX, LOCATE_INTERVAL, LOCATE_INTERVAL_MAX, LOCATE_QUEUE_MAX, LOCATE_QUEUE_SIZE_MAX,
    LOCATES_MAX, LinkId, Outgoing, Undelivered,
};

/// A search for one address.
pub(crate) struct Locating {
    hops: u16,
    interval: Duration,
    next: Instant,
    deadline: Instant,
    pub(crate) waiting: Vec<Outgoing>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Searches {
    table: BTreeMap<Address, Locating>,
    due: BTreeSet<(Instant, Address)>,
    /// Bytes of the messages that wait.
    pub(crate) size: usize,
}

impl Searches {
    /// The messages that wait for an address.
    pub(crate) fn waiting(&self, to: Address) -> impl Iterator<Item = &Outgoing> {
        self.table.get(&to).into_iter().flat_map(|search| &search.waiting)
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Ends a search; what waited for it.
    fn end(&mut self, to: Address) -> Vec<Outgoing> {
        let Some(search) = self.table.remove(&to) else { return Vec::new() };
        self.due.remove(&(search.next, to));
        self.size -= search.waiting.iter().map(|message| message.payload.len()).sum::<usize>();
        search.waiting
    }
}

impl FlipBox {
    /// Searches for the destination of a message, unless that is going on already.
    pub(crate) fn locate(&mut self, now: Instant, message: Outgoing, timeout: Duration) {
        let (searches, address) = (&mut self.searches, message.to);
        let size = searches.size + message.payload.len();
        let full = searches.table.len() >= LOCATES_MAX && !searches.table.contains_key(&address)
            || searches.size > 0 && size > LOCATE_QUEUE_SIZE_MAX;
        if self.links.is_empty() || timeout.is_zero() || full {
            return self.undelivered(message, Undelivered::NotHere);
        }
        let new = !searches.table.contains_key(&address);
        let search = searches.table.entry(address).or_insert_with(|| Locating {
            hops: 0,
            interval: LOCATE_INTERVAL,
            next: now,
            deadline: now,
            waiting: Vec::new(),
        });
        search.deadline = search.deadline.max(now + timeout);
        if search.waiting.len() >= LOCATE_QUEUE_MAX {
            return self.undelivered(message, Undelivered::NotHere);
        }
        search.waiting.push(message);
        searches.size = size;
        if new {
            self.locate_again(now, address);
        }
    }

    /// Continues the searches that are due.
    pub(crate) fn searches_timeout(&mut self, now: Instant) {
        while let Some(&(due, address)) = self.searches.due.first()
            && due <= now
        {
            self.searches.due.pop_first();
            self.locate_again(now, address);
        }
    }

    /// The address was found: what waits for it leaves.
    pub(crate) fn located(&mut self, now: Instant, address: Address) {
        for message in self.searches.end(address) {
            self.send_to(now, message, Duration::ZERO);
        }
    }

    /// One more LOCATE, a step wider; or the end of the search.
    fn locate_again(&mut self, now: Instant, address: Address) {
        let nearest = self.links.iter().map(|link| link.config.weight).min().unwrap_or(HOPS_MAX);
        let Some(search) = self.searches.table.get_mut(&address) else { return };
        if now >= search.deadline {
            for message in self.searches.end(address) {
                self.undelivered(message, Undelivered::NotHere);
            }
            return;
        }
        if search.hops >= HOPS_MAX {
            search.interval = (search.interval * 2).min(LOCATE_INTERVAL_MAX);
        }
        search.hops = (search.hops + 1).max(nearest).min(HOPS_MAX);
        search.next = (now + search.interval).min(search.deadline);
        self.searches.due.insert((search.next, address));
        let (hops_max, from) = (search.hops, search.waiting[0].from);
        self.counters.locates += 1;
        let header = FlipHeader {
            kind: PacketKind::Locate,
            flags: 0,
            hops: 0,
            hops_max,
            to: address,
            from,
            message_id: self.next_message_id(),
            length: 0,
            offset: 0,
            total: 0,
        };
        self.spread(None, &header, &[]);
    }

    /// Sends a packet to everybody on every link but one that it may still cross; how many links those are.
    pub(crate) fn spread(&mut self, not_over: Option<LinkId>, header: &FlipHeader, payload: &[u8]) -> usize {
        let mut count = 0;
        for index in 0..self.links.len() {
            let (link, config) = (LinkId(index as u16), self.links[index].config);
            let hops = header.hops.saturating_add(config.weight);
            if not_over == Some(link) || hops > header.hops_max || !config.carries(payload.len()) {
                continue;
            }
            self.transmit(link, None, &FlipHeader { hops, ..*header }, payload);
            count += 1;
        }
        count
    }
}
