//! The supervisor's thread that keeps this host's idea of the system true: about each second it reads /system/hosts, keeps
//! the list, and tells the kernel; and while somebody is invited it looks ten times a second who has come.
//!
//! A host whose row has gone is spoken with until the directory was read without it a second time: within that second it has
//! read itself that it was removed. One that was down hears it from the others, who refuse it.

use std::collections::BTreeSet;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use amoeba_linux::client::Client;
use amoeba_linux::link::admission::Candidate;
use amoeba_linux::socket::{Admin, Administered};
use amoeba_world::World;
use anyhow::{Context, Result, bail, ensure};

use super::invites::Invites;
use super::members::{Member, Members};
use super::{Table, administer};
use crate::boot::Event;
use crate::config::Config;
use crate::state::State;

/// Time between two looks at the directory of hosts.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks for hosts that join, while somebody is invited.
const GUEST_INTERVAL: Duration = Duration::from_millis(100);
/// The directory could not be read so often, and others refuse this host: it was removed. A host that has just joined is
/// refused by those that have not read its row yet, which takes them a second.
const REFUSED_LOOKS: u32 = 4;
/// What the kernel's status says where others refuse this host.
const REFUSED_LINE: &str = "removed: ";
/// How long the directory server is searched for.
const LOCATE_TIMEOUT: Duration = Duration::from_millis(900);

/// What is said of a token that is not good for whoever has come with it.
const USELESS: &str = "the time of this token is over, or it was used or revoked";

/// What a host notes that was removed; it is there until the host belongs to a system again.
pub(crate) const REMOVED: &str = "removed";

/// Starts the thread.
pub(crate) fn start(world: &World, state: &State, events: Sender<Event>) -> Result<()> {
    let world = amoeba_place::hasty(world, LOCATE_TIMEOUT);
    let table = Table::new(&world, state)?;
    let told = Members::read(state)?;
    let linked = Config::read(state)?.link.is_some();
    let gone = state.has(REMOVED);
    if gone {
        let _ = events.send(Event::Removed); // nobody listens who is stopping
    }
    let kernel = Client::new(&state.socket());
    let (state, missing) = (state.clone(), BTreeSet::new());
    let mut sync = Sync { state, kernel, table, told, missing, unread: 0, linked, gone, events };
    std::thread::Builder::new().name("hosts".to_owned()).spawn(move || sync.run())?;
    Ok(())
}

struct Sync {
    state: State,
    kernel: Client,
    table: Table,
    /// What the kernel knows.
    told: Members,
    /// Hosts that the directory did not have when it was last read.
    missing: BTreeSet<String>,
    /// How often in a row the directory could not be read.
    unread: u32,
    /// Whether there is a way to other hosts.
    linked: bool,
    /// Whether this host was removed.
    gone: bool,
    events: Sender<Event>,
}

impl Sync {
    fn run(&mut self) {
        let mut look = Instant::now();
        let (mut failing, mut told) = (String::new(), false);
        loop {
            if look <= Instant::now() {
                look = Instant::now() + INTERVAL;
                let result = self.look();
                let failed = result.err().map(|error| format!("{error:#}")).unwrap_or_default();
                // What happens once is a start that is not over yet, or a server that is started again.
                if failed.is_empty() || failed != failing {
                    told = false;
                } else if !told {
                    tracing::info!("the list of hosts is as it was: {failed}");
                    told = true;
                }
                failing = failed;
            }
            let guests =
                self.linked && Invites::read(&self.state).is_ok_and(|invites| invites.any_expected());
            if guests && let Err(error) = self.admit() {
                tracing::warn!("nobody can be taken in: {error:#}");
            }
            let wait = if guests { GUEST_INTERVAL } else { INTERVAL };
            std::thread::sleep(wait.min(look.saturating_duration_since(Instant::now())));
        }
    }

    /// Reads the directory and carries out what has changed.
    fn look(&mut self) -> Result<()> {
        let own = Member::of_this_host(&self.state)?;
        if !self.linked && !own.addresses.is_empty() {
            self.linked = true;
            let _ = self.events.send(Event::Linked); // nobody listens who is stopping
        }
        let there = match self.table.read() {
            Ok(there) => there,
            Err(error) => return self.unreadable(&own.name, error),
        };
        self.unread = 0;
        if there.is_empty() {
            bail!("it is empty, which no system's is");
        }
        match there.find(&own.name) {
            Some(row) if row.key == own.key => {
                self.found()?;
                self.correct(row, &own)?;
            }
            _ if self.told.find(&own.name).is_some() || self.gone => return self.removed(&own.name),
            _ => bail!("this host has no row in it yet"),
        }
        let stays = self.still_there(&there);
        if stays != self.told {
            self.tell(stays)?;
        }
        Ok(())
    }

    /// The directory cannot be read; perhaps because nobody speaks with this host any more.
    fn unreadable(&mut self, name: &str, error: anyhow::Error) -> Result<()> {
        self.unread = self.unread.saturating_add(1);
        let refused = || {
            let status = self.kernel.kernel_status().unwrap_or_default();
            status.lines().any(|line| line.starts_with(REFUSED_LINE))
        };
        if self.unread >= REFUSED_LOOKS && refused() {
            return self.removed(name);
        }
        Err(error)
    }

    /// What the directory says, and whoever is missing in it for the first time.
    fn still_there(&mut self, there: &Members) -> Members {
        let missing: Vec<&Member> =
            self.told.iter().filter(|known| there.find(&known.name).is_none()).collect();
        let grace: Vec<Member> = missing
            .iter()
            .filter(|known| !self.missing.contains(&known.name))
            .map(|known| (*known).clone())
            .collect();
        let missing = missing.iter().map(|known| known.name.clone()).collect();
        for name in self.told.iter().map(|known| &known.name).filter(|name| self.missing.contains(*name)) {
            if there.find(name).is_none() {
                tracing::warn!(host = name, "a host was removed from the system");
            }
        }
        self.missing = missing;
        Members::new(there.iter().cloned().chain(grace))
    }

    /// Lets this host's own row say what is true now.
    fn correct(&self, row: &Member, own: &Member) -> Result<()> {
        if row.addresses == own.addresses && row.services == own.services {
            return Ok(());
        }
        let (addresses, services) = (own.addresses.clone(), own.services.clone());
        tracing::info!(?addresses, ?services, "this host's row is changed");
        self.table.change(&Member { addresses, services, ..row.clone() })
    }

    fn tell(&mut self, members: Members) -> Result<()> {
        members.write(&self.state)?;
        administer(&self.state, &Admin::Members(members.rows()))?;
        self.told = members;
        Ok(())
    }

    /// This host has a row.
    fn found(&mut self) -> Result<()> {
        if self.gone {
            self.gone = false;
            self.state.remove(REMOVED)?;
            tracing::info!("this host is one of the system again");
        }
        Ok(())
    }

    /// This host was removed: it speaks with nobody any more.
    fn removed(&mut self, name: &str) -> Result<()> {
        if !self.gone {
            tracing::error!("this host, {name}, was removed from the system: others refuse it");
            self.state.write(REMOVED, b"this host was removed from the system\n")?;
            self.gone = true;
            let _ = self.events.send(Event::Removed); // nobody listens who is stopping
        }
        Ok(())
    }

    /// Keeps tokens for the hosts that have come, and makes members of those that have kept everything.
    fn admit(&mut self) -> Result<()> {
        let Administered::Candidates(candidates) = administer(&self.state, &Admin::Candidates)? else {
            bail!("the kernel answers something else than it was asked");
        };
        for candidate in candidates {
            let done = if candidate.confirmed { self.enter(&candidate) } else { self.expect(&candidate) };
            let result = done.map_err(|error| format!("{error:#}"));
            match &result {
                Ok(()) if candidate.confirmed => {
                    tracing::info!(host = candidate.row.name, key = %candidate.row.key, "a host has joined")
                }
                Ok(()) => {}
                Err(reason) => tracing::warn!(host = candidate.row.name, "refused a host: {reason}"),
            }
            administer(&self.state, &Admin::Settle { visit: candidate.visit, result })?;
        }
        Ok(())
    }

    /// Keeps the token of one for it, before it is told anything: so two hosts never are with one token.
    fn expect(&self, Candidate { row, invite, .. }: &Candidate) -> Result<()> {
        self.change_invites(|invites| {
            ensure!(invites.take(*invite, &row.name, row.key), USELESS);
            Ok(())
        })
    }

    /// Makes a member of one. Should the token not be noted as used after that, it is good for the same host alone, and
    /// for no longer than it was.
    fn enter(&mut self, Candidate { row, invite, .. }: &Candidate) -> Result<()> {
        let own = self.state.host_name()?;
        let member = Member::that_joined(row, &own);
        ensure!(Invites::read(&self.state)?.admits(*invite, row.key), USELESS);
        if !self.table.enter(&member).context("the new host's row")? {
            bail!("a host called {} is there already; choose another name with --name", row.name);
        }
        // In this order: a token that was used is good for a member alone.
        let all = self.told.iter().cloned().chain([member]);
        self.tell(Members::new(all))?;
        self.change_invites(|invites| {
            invites.used(*invite, &row.name, row.key);
            Ok(())
        })
    }

    /// Changes the invitations, and tells the kernel.
    fn change_invites(&self, change: impl FnOnce(&mut Invites) -> Result<()>) -> Result<()> {
        let mut changing = Invites::change(&self.state)?;
        change(&mut changing.invites)?;
        changing.write(&self.state)?;
        administer(&self.state, &Admin::Invites(changing.invites.for_kernel())).map(drop)
    }
}
