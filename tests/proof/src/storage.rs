//! The servers that everybody's data depends on, over the real binary, under harm: what they acknowledged is there.
//!
//! [`client`] does everything the two servers offer and remembers what it was promised. [`killed`] kills servers, kernels and
//! everything at once under its load. [`disks`] fills the disk, and lets it fail. [`soak`] lets it work for long and looks at
//! memory and descriptors.

pub mod client;
pub mod disks;
pub mod killed;
pub mod soak;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amoeba::{Capability, TransOptions, World, bullet, standard};

use crate::hosts::{self, Host};
use client::{Client, Disk, Servers, Tally};

type Error = Box<dyn std::error::Error>;

/// A server that does not answer within this is not coming back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Clients at work on the first host.
pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) servers: Servers,
    pub(crate) clients: Vec<Client>,
}

impl Stage {
    /// The first host, and clients that have done nothing yet.
    pub(crate) fn new(seed: u64, clients: u64, disk: Disk) -> Result<Stage, Error> {
        let host = hosts::all()?.into_iter().next().ok_or("a host is needed")?;
        let servers = Servers {
            bullet: capability(&host.state.join("bullet.cap"))?,
            root: capability(&host.state.join("root.cap"))?,
        };
        let clients = (0..clients).map(|number| Client::new(number, seed, servers, disk)).collect();
        Ok(Stage { host, servers, clients })
    }

    /// Lets all clients work while `meanwhile` runs, then ends them.
    ///
    /// # Errors
    /// Of a client or of `meanwhile`.
    pub(crate) fn work(&mut self, meanwhile: impl FnOnce(&Host) -> Result<(), Error>) -> Result<(), Error> {
        let stop = AtomicBool::new(false);
        let world = amoeba::connect()?;
        let host = &self.host;
        std::thread::scope(|scope| {
            let (world, stop) = (&world, &stop);
            let clients: Vec<_> =
                self.clients.iter_mut().map(|client| scope.spawn(move || client.work(world, stop))).collect();
            let done = meanwhile(host);
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().map_err(|_| "a client panicked")??;
            }
            done
        })
    }

    /// Lets all clients work for this long.
    ///
    /// # Errors
    /// Of a client.
    pub(crate) fn work_for(&mut self, time: Duration) -> Result<(), Error> {
        self.work(|_| {
            std::thread::sleep(time);
            Ok(())
        })
    }

    /// Brings everything up and waits until both servers answer.
    pub(crate) fn revive(&self) -> Result<World, Error> {
        self.host.up(PATIENCE)?;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(world) = amoeba::connect()
                && [self.servers.bullet, self.servers.root].iter().all(|server| answers(&world, server))
            {
                return Ok(world);
            }
            if Instant::now() > end {
                return Err("a server does not come back".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Every client compares what there is with what it was promised.
    pub(crate) fn verify(&mut self, world: &World) -> Result<(), Error> {
        let there = &self.files(world)?;
        std::thread::scope(|scope| {
            let checks: Vec<_> =
                self.clients.iter_mut().map(|client| scope.spawn(|| client.verify(world, there))).collect();
            checks.into_iter().try_for_each(|check| Ok(check.join().map_err(|_| "a checker panicked")??))
        })
    }

    /// The numbers of all files there are.
    fn files(&self, world: &World) -> Result<BTreeSet<u32>, Error> {
        let (mut there, mut after) = (BTreeSet::new(), 0);
        loop {
            let page = bullet::list(world, &self.servers.bullet, after)?;
            there.extend(page.files.iter().map(|file| file.number));
            if page.next == 0 {
                return Ok(there);
            }
            after = page.next;
        }
    }

    /// What all clients have done.
    pub(crate) fn tally(&self) -> Tally {
        let mut all = Tally::default();
        self.clients.iter().for_each(|client| all.add(&client.tally));
        all
    }

    /// What happened, for who has to find out why.
    pub(crate) fn report(&self) -> String {
        hosts::report(std::slice::from_ref(&self.host))
    }
}

fn answers(world: &World, server: &Capability) -> bool {
    let options = TransOptions { locate_timeout: Duration::from_millis(200), ..TransOptions::default() };
    standard::info(amoeba::Client::new(&*world.transactions, &options), server, 0).is_ok()
}

fn capability(path: &Path) -> Result<Capability, Error> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.trim().parse().map_err(|error| format!("{}: {error}", path.display()))?)
}
