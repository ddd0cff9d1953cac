//! Servers and clients on all hosts, and harm to them, their kernels, their hosts and the wire.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use crate::hosts::{self, Host, Wire, ends_well};
use crate::ledger;
use crate::lot::Lot;
use crate::service::STOP;

type Error = Box<dyn std::error::Error>;

/// Services; each is on one host at a time, and moves.
const SERVICES: usize = 2;
/// Client processes; in turn on the hosts.
const CLIENTS: usize = 4;
/// Within this a transaction ends that is under way when all harm is undone, with room for a machine that is busy.
pub const ENDS_WITHIN: Duration = Duration::from_secs(60);

struct Program {
    host: usize,
    child: Child,
}

/// The programs, and where they are.
struct Troupe {
    hosts: Vec<Host>,
    folder: PathBuf,
    seed: u64,
    servers: Vec<Program>,
    clients: Vec<(usize, Program)>,
    /// Clients started so far: each has numbers of its own.
    client_count: u64,
    /// Harm done, for people.
    done: Vec<String>,
}

/// Torments for `time`, undoes all harm, and checks.
///
/// # Errors
/// Every promise that was broken.
pub fn run(seed: u64, time: Duration, folder: &Path) -> Result<(), Error> {
    let mut troupe = Troupe {
        hosts: hosts::all()?,
        folder: folder.to_owned(),
        seed,
        servers: Vec::new(),
        clients: Vec::new(),
        client_count: 0,
        done: Vec::new(),
    };
    let result = troupe.play(time);
    if result.is_err() {
        println!("{}", hosts::report(&troupe.hosts));
    }
    for program in troupe.servers.iter_mut().chain(troupe.clients.iter_mut().map(|(_, program)| program)) {
        let _ = program.child.kill();
        let _ = program.child.wait();
    }
    let checked = ledger::check(folder);
    println!("seed {seed}: {}", troupe.done.join(", "));
    let tally = match (checked, result) {
        (Ok(tally), Ok(())) => tally,
        (Ok(tally), Err(error)) => return Err(format!("seed {seed}: {error}; {tally:?}").into()),
        (Err(broken), Ok(())) => return Err(format!("seed {seed}: {broken}").into()),
        (Err(broken), Err(error)) => return Err(format!("seed {seed}: {error}\n{broken}").into()),
    };
    println!("seed {seed}: {tally:?}");
    if tally.answered < 100 {
        return Err(format!("seed {seed}: too little was answered to prove anything: {tally:?}").into());
    }
    Ok(())
}

impl Troupe {
    fn play(&mut self, time: Duration) -> Result<(), Error> {
        let mut lot = Lot::new(self.seed, 1);
        for service in 0..SERVICES {
            let server = self.start_server(service, service % self.hosts.len())?;
            self.servers.push(server);
        }
        for client in 0..CLIENTS {
            let program = self.start_client(client % SERVICES, client % self.hosts.len())?;
            self.clients.push((client % SERVICES, program));
        }
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(lot.between(100, 900)));
            self.harm(&mut lot)?;
            self.revive()?;
        }
        self.undo()?;
        self.everything_works()
    }

    fn harm(&mut self, lot: &mut Lot) -> Result<(), Error> {
        let host = lot.below(self.hosts.len() as u64) as usize;
        let name = self.hosts[host].name.clone();
        match lot.below(16) {
            0..5 => {
                let service = lot.below(SERVICES as u64) as usize;
                let moved = if lot.below(2) == 0 { host } else { self.servers[service].host };
                self.done.push(format!("server {service} to {}", self.hosts[moved].name));
                self.end(service)?;
                self.servers[service] = self.start_server(service, moved)?;
            }
            5..7 => {
                let client = lot.below(CLIENTS as u64) as usize;
                self.done.push(format!("client {client}"));
                let (service, program) = &mut self.clients[client];
                let service = *service;
                program.child.kill()?;
                program.child.wait()?;
                self.clients[client].1 = self.start_client(service, host)?;
            }
            7..9 => {
                self.done.push(format!("kernel of {name}"));
                self.hosts[host].kernel().into_iter().for_each(hosts::kill);
            }
            9 => {
                self.done.push(format!("host {name}"));
                self.hosts[host].lose();
                std::thread::sleep(Duration::from_millis(lot.below(1500)));
                self.hosts[host].up(ENDS_WITHIN)?;
            }
            10..13 => {
                if let Some(wire) = Wire::find() {
                    self.done.push(format!("cut {name}"));
                    wire.order(&format!("cut {name}"))?;
                    std::thread::sleep(Duration::from_millis(lot.below(3000)));
                    wire.order("heal")?;
                }
            }
            _ => {
                if let Some(wire) = Wire::find() {
                    let [loss, duplicate, reorder, delay] = [12, 8, 25, 15].map(|most| lot.below(most));
                    let faults = format!(
                        "faults loss={loss}%,duplicate={duplicate}%,reorder={reorder}%,corrupt=1%,delay=0.1ms..{}ms,seed={}",
                        delay + 1,
                        self.seed
                    );
                    self.done.push(faults.clone());
                    wire.order(&faults)?;
                }
            }
        }
        Ok(())
    }

    /// Starts again what has ended because its kernel has.
    fn revive(&mut self) -> Result<(), Error> {
        for service in 0..SERVICES {
            if let Some(status) = self.servers[service].child.try_wait()? {
                if status.code() == Some(101) {
                    return Err(format!("server {service} panicked").into());
                }
                self.servers[service] = self.start_server(service, self.servers[service].host)?;
            }
        }
        for client in 0..CLIENTS {
            let (service, program) = &mut self.clients[client];
            let (service, host) = (*service, program.host);
            if let Some(status) = program.child.try_wait()? {
                if status.code() == Some(101) {
                    return Err(format!("client {client} panicked").into());
                }
                self.clients[client].1 = self.start_client(service, host)?;
            }
        }
        Ok(())
    }

    fn undo(&mut self) -> Result<(), Error> {
        if let Some(wire) = Wire::find() {
            wire.order("heal")?;
            wire.order("faults none")?;
        }
        for host in &self.hosts {
            host.up(ENDS_WITHIN)?;
        }
        std::thread::sleep(Duration::from_millis(300));
        self.revive()
    }

    /// From every host every service answers, and no client hangs.
    fn everything_works(&mut self) -> Result<(), Error> {
        let patience = ENDS_WITHIN.as_secs().to_string();
        let folder = self.folder.display().to_string();
        for service in 0..SERVICES {
            for host in 0..self.hosts.len() {
                self.client_count += 1;
                let (service, client) = (service.to_string(), self.client_count.to_string());
                let words = ["visit", folder.as_str(), &service, &client, &patience];
                let mut visitor = self.hosts[host].start(&words)?;
                let what = format!("a visitor of service {service} on {}", self.hosts[host].name);
                // A server may have ended late with its kernel.
                while visitor.try_wait()?.is_none() {
                    self.revive()?;
                    std::thread::sleep(Duration::from_millis(20));
                }
                ends_well(&mut visitor, &what, Instant::now() + ENDS_WITHIN * 2)?;
            }
        }
        std::fs::write(self.folder.join(STOP), "")?;
        let end = Instant::now() + ENDS_WITHIN;
        for (index, (_, client)) in self.clients.iter_mut().enumerate() {
            let what = format!("client {index} on {}", self.hosts[client.host].name);
            ends_well(&mut client.child, &what, end)?;
        }
        Ok(())
    }

    fn end(&mut self, service: usize) -> Result<(), Error> {
        let child = &mut self.servers[service].child;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn start_server(&self, service: usize, host: usize) -> Result<Program, Error> {
        let (folder, service, seed) =
            (self.folder.display().to_string(), service.to_string(), self.seed.to_string());
        let child = self.hosts[host].start(&["serve", folder.as_str(), &service, &seed])?;
        Ok(Program { host, child })
    }

    fn start_client(&mut self, service: usize, host: usize) -> Result<Program, Error> {
        self.client_count += 1;
        let (folder, service, seed) =
            (self.folder.display().to_string(), service.to_string(), self.seed.to_string());
        let client = self.client_count.to_string();
        let child = self.hosts[host].start(&["ask", folder.as_str(), &service, &client, &seed])?;
        Ok(Program { host, child })
    }
}
