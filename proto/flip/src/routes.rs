//! What is known of where addresses are: several ways to each, and how old that knowledge is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amoeba_threads::Instant;
use amoeba_wire::packet::Address;

use crate::{LinkId, Location};

/// Addresses the table may know (the original: 400). When it is full the one unconfirmed for longest goes.
pub const ROUTES_MAX: usize = if cfg!(test) { 64 } else { 16384 };
/// Ways the table keeps to one address; past it the one unconfirmed for longest goes.
pub const ROUTES_PER_ADDRESS_MAX: usize = 4;
/// A route that nothing confirmed for so long is forgotten (the original's addresses: 100 s).
pub const ROUTE_LIFE: Duration = Duration::from_secs(100);
/// How exactly the table knows when an address was confirmed last.
const GRAIN: Duration = Duration::from_secs(1);

/// One way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Over which link.
    pub link: LinkId,
    /// To whom on it.
    pub location: Location,
    /// How far the address is.
    pub hops: u16,
    /// Whether only trusted networks lie between.
    pub trusted: bool,
    /// How many destinations of the address are there: one, but for groups.
    pub count: u16,
}

/// Which routes will do.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Only over trusted networks.
    pub secure: bool,
    /// Not over this link: a packet never goes back to where it came from.
    pub not_over: Option<LinkId>,
    /// At most so far.
    pub hops_max: u16,
}

impl Wanted {
    /// For a message of this host.
    pub fn from_here(secure: bool) -> Wanted {
        Wanted { secure, not_over: None, hops_max: u16::MAX }
    }

    fn accepts(&self, route: &Route) -> bool {
        (route.trusted || !self.secure) && self.not_over != Some(route.link) && route.hops <= self.hops_max
    }
}

#[derive(Debug)]
struct Entry {
    /// Each with when it was confirmed last.
    routes: Vec<(Route, Instant)>,
    /// When any of them was, to the [`GRAIN`]; as in [`RouteTable::ages`].
    confirmed: Instant,
}

/// Routes by address, bounded.
#[derive(Debug, Default)]
pub struct RouteTable {
    entries: BTreeMap<Address, Entry>,
    ages: BTreeSet<(Instant, Address)>,
}

impl RouteTable {
    /// The nearest route that will do; a trusted one before others, so that nothing is told to an untrusted network that
    /// need not be.
    pub fn choose(&self, address: Address, wanted: Wanted) -> Option<&Route> {
        let acceptable = self.to(address).filter(|route| wanted.accepts(route));
        acceptable.min_by_key(|route| (!route.trusted, route.hops))
    }

    /// The nearest route, of the trusted ones if `secure`.
    pub fn best(&self, address: Address, secure: bool) -> Option<&Route> {
        self.choose(address, Wanted::from_here(secure))
    }

    /// All routes to an address.
    pub fn to(&self, address: Address) -> impl Iterator<Item = &Route> {
        let routes = self.entries.get(&address).map_or(&[][..], |entry| &entry.routes);
        routes.iter().map(|(route, _)| route)
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
        if !self.entries.contains_key(&address) {
            self.make_room();
            self.ages.insert((now, address));
            self.entries.insert(address, Entry { routes: Vec::new(), confirmed: now });
        }
        let entry = self.entries.get_mut(&address).expect("it is there now");
        if now.since(entry.confirmed) >= GRAIN {
            self.ages.remove(&(entry.confirmed, address));
            self.ages.insert((now, address));
            entry.confirmed = now;
        }
        let routes = &mut entry.routes;
        let place = |known: &Route| (known.link, known.location);
        match routes.iter_mut().find(|(known, _)| place(known) == place(&route)) {
            Some(known) => *known = (route, now),
            None => {
                routes.retain(|(_, confirmed)| now.since(*confirmed) < ROUTE_LIFE);
                if routes.len() >= ROUTES_PER_ADDRESS_MAX {
                    let oldest = routes.iter().enumerate().min_by_key(|(_, (_, confirmed))| *confirmed);
                    let oldest = oldest.map(|(index, _)| index).expect("it is full");
                    routes.remove(oldest);
                }
                routes.push((route, now));
            }
        }
    }

    /// Forgets the ways to an address for which `keep` is false; whether any is left.
    pub(crate) fn retain(&mut self, address: Address, keep: impl Fn(&Route) -> bool) -> bool {
        let Some(entry) = self.entries.get_mut(&address) else { return false };
        entry.routes.retain(|(route, _)| keep(route));
        let left = !entry.routes.is_empty();
        if !left {
            self.forget(address);
        }
        left
    }

    /// The address is not there.
    pub(crate) fn remove(&mut self, address: Address, link: LinkId, location: &Location) {
        self.retain(address, |route| route.link != link || route.location != *location);
    }

    /// The way there is not trusted.
    pub(crate) fn distrust(&mut self, address: Address, link: LinkId, location: &Location) {
        let entry = self.entries.get_mut(&address);
        for (route, _) in entry.into_iter().flat_map(|entry| &mut entry.routes) {
            if route.link == link && route.location == *location {
                route.trusted = false;
            }
        }
    }

    pub(crate) fn forget(&mut self, address: Address) {
        if let Some(entry) = self.entries.remove(&address) {
            self.ages.remove(&(entry.confirmed, address));
        }
    }

    /// Forgets everything.
    pub(crate) fn purge(&mut self) {
        *self = RouteTable::default();
    }

    /// Forgets every way through a location; the addresses that were there, no more than `weight` away, and to which no
    /// other way is left. What lies behind it may be found on another way.
    pub(crate) fn forget_location(&mut self, link: LinkId, location: &Location, weight: u16) -> Vec<Address> {
        let through = |route: &Route| route.link == link && route.location == *location;
        let of = |(address, entry): (&Address, &Entry)| {
            let route = entry.routes.iter().find(|(route, _)| through(route));
            route.map(|(route, _)| (*address, route.hops <= weight))
        };
        let concerned: Vec<(Address, bool)> = self.entries.iter().filter_map(of).collect();
        let mut lost = Vec::new();
        for (address, there) in concerned {
            if !self.retain(address, |route| !through(route)) && there {
                lost.push(address);
            }
        }
        lost
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(confirmed, address)) = self.ages.first()
            && now.since(confirmed) >= ROUTE_LIFE
        {
            self.forget(address);
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.ages.first().map(|(confirmed, _)| *confirmed + ROUTE_LIFE)
    }

    fn make_room(&mut self) {
        while self.entries.len() >= ROUTES_MAX
            && let Some(&(_, oldest)) = self.ages.first()
        {
            self.forget(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_epoch(Duration::from_secs(seconds))
    }

    fn route(link: u16, place: u8, hops: u16) -> Route {
        Route { link: LinkId(link), location: Location::new(&[place]), hops, trusted: true, count: 1 }
    }

    fn address(number: u64) -> Address {
        Address(number.to_be_bytes())
    }

    #[test]
    fn the_nearest_route_that_will_do_is_taken() {
        let mut table = RouteTable::default();
        table.learn(at(0), address(1), Route { trusted: false, ..route(0, 1, 3) });
        table.learn(at(0), address(1), route(1, 1, 6));
        table.learn(at(0), address(1), route(2, 1, 9));
        let mut wanted = Wanted::from_here(false);
        let hops = |wanted| table.choose(address(1), wanted).map(|route| route.hops);
        assert_eq!(hops(wanted), Some(6), "the nearest is not trusted");
        wanted.secure = true;
        assert_eq!(hops(wanted), Some(6));
        wanted.not_over = Some(LinkId(1));
        assert_eq!(hops(wanted), Some(9));
        wanted.hops_max = 8;
        assert_eq!(hops(wanted), None);
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes() {
        let mut table = RouteTable::default();
        for number in 0..ROUTES_MAX as u64 {
            table.learn(at(0), address(number), route(0, 1, 3));
        }
        table.learn(at(2), address(0), route(0, 1, 3)); // confirmed
        table.learn(at(2), address(1 << 40), route(0, 1, 3));
        assert_eq!(table.len(), ROUTES_MAX);
        assert!(table.knows(address(0)) && !table.knows(address(1)));
        assert_eq!(table.next_timeout(), Some(at(100)));
        table.expire(at(101));
        assert_eq!(table.len(), 2);
        table.expire(at(102));
        assert!(table.is_empty() && table.ages.is_empty() && table.next_timeout().is_none());
    }

    #[test]
    fn ways_to_one_address_are_bounded_and_age_one_by_one() {
        let mut table = RouteTable::default();
        for place in 0..10 {
            table.learn(at(u64::from(place) * 30), address(1), route(0, place, 3));
        }
        let places: Vec<u8> = table.to(address(1)).map(|route| route.location.as_bytes()[0]).collect();
        assert_eq!(places, [6, 7, 8, 9]);
    }

    #[test]
    fn who_is_behind_a_lost_host_is_not_lost_with_it() {
        let mut table = RouteTable::default();
        table.learn(at(0), address(1), route(0, 1, 3));
        table.learn(at(0), address(2), route(0, 1, 6));
        table.learn(at(0), address(3), route(0, 1, 3));
        table.learn(at(0), address(3), route(1, 9, 3));
        assert_eq!(table.forget_location(LinkId(0), &Location::new(&[1]), 3), [address(1)]);
        assert_eq!((table.len(), table.knows(address(3))), (1, true));
    }
}
