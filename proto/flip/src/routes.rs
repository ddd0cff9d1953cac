//! What is known of where addresses are.

use std::collections::BTreeMap;
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::Address;

use crate::{LinkId, Location};

/// Addresses the table may know. When it is full the one unused for longest goes.
pub(crate) const ROUTES_MAX: usize = 16384;
/// Ways the table keeps to one address.
pub(crate) const ROUTES_PER_ADDRESS_MAX: usize = 4;
/// A route that nothing confirmed for so long is forgotten.
pub(crate) const ROUTE_LIFE: Duration = Duration::from_secs(100);

/// One way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Over which link.
    pub link: LinkId,
    /// To whom on it.
    pub location: Location,
    /// How far the address is.
    pub hops: u16,
    /// Whether only trusted networks lie between.
    pub trusted: bool,
}

#[derive(Debug)]
struct Entry {
    routes: Vec<Route>,
    confirmed: Instant,
}

/// Routes by address, bounded.
#[derive(Debug, Default)]
pub struct RouteTable {
    entries: BTreeMap<Address, Entry>,
    sweep: Option<Instant>,
}

impl RouteTable {
    /// The nearest route, of the trusted ones if `secure`.
    pub fn best(&self, address: Address, secure: bool) -> Option<&Route> {
        let routes = &self.entries.get(&address)?.routes;
        routes.iter().filter(|route| route.trusted || !secure).min_by_key(|route| route.hops)
    }

    /// Whether any route to the address is known.
    pub fn knows(&self, address: Address) -> bool {
        self.entries.contains_key(&address)
    }

    /// Addresses known now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a route, or confirms one.
    pub(crate) fn learn(&mut self, now: Instant, address: Address, route: Route) {
        if !self.entries.contains_key(&address) && self.entries.len() >= ROUTES_MAX {
            let oldest =
                self.entries.iter().min_by_key(|(_, entry)| entry.confirmed).map(|(oldest, _)| *oldest);
            if let Some(oldest) = oldest {
                self.entries.remove(&oldest);
            }
        }
        self.sweep.get_or_insert(now + ROUTE_LIFE);
        let entry =
            self.entries.entry(address).or_insert_with(|| Entry { routes: Vec::new(), confirmed: now });
        entry.confirmed = now;
        let same = |known: &&mut Route| known.link == route.link && known.location == route.location;
        match entry.routes.iter_mut().find(same) {
            Some(known) => *known = route,
            None => {
                if entry.routes.len() >= ROUTES_PER_ADDRESS_MAX {
                    entry.routes.remove(0);
                }
                entry.routes.push(route);
            }
        }
    }

    /// The address is not there.
    pub(crate) fn remove(&mut self, address: Address, link: LinkId, location: &Location) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.routes.retain(|route| route.link != link || route.location != *location);
            if entry.routes.is_empty() {
                self.entries.remove(&address);
            }
        }
    }

    /// The way there is not trusted.
    pub(crate) fn distrust(&mut self, address: Address, link: LinkId, location: &Location) {
        if let Some(entry) = self.entries.get_mut(&address) {
            for route in &mut entry.routes {
                if route.link == link && route.location == *location {
                    route.trusted = false;
                }
            }
        }
    }

    pub(crate) fn forget(&mut self, address: Address) {
        self.entries.remove(&address);
    }

    /// Forgets every way through a location; the addresses to which none is left.
    pub(crate) fn forget_location(&mut self, link: LinkId, location: &Location) -> Vec<Address> {
        let mut lost = Vec::new();
        self.entries.retain(|address, entry| {
            entry.routes.retain(|route| route.link != link || route.location != *location);
            if entry.routes.is_empty() {
                lost.push(*address);
            }
            !entry.routes.is_empty()
        });
        lost
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        if self.sweep.is_some_and(|sweep| sweep <= now) {
            self.entries.retain(|_, entry| now.since(entry.confirmed) < ROUTE_LIFE);
            self.sweep = if self.entries.is_empty() { None } else { Some(now + ROUTE_LIFE) };
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.sweep
    }
}
