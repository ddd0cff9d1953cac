//! kill -9 of one server, of both, of the kernel, of everything, in a loop under load.

use std::time::Duration;

use super::client::Disk;
use super::{Error, Stage};
use crate::hosts::{self, Host};
use crate::lot::Lot;

const CLIENTS: u64 = 4;

/// Kills in rounds; after each everything is killed, started again and compared.
///
/// # Errors
/// Every promise that was broken.
pub fn run(seed: u64, rounds: u64) -> Result<(), Error> {
    let mut stage = Stage::new(seed, CLIENTS, Disk::Sound)?;
    let mut lot = Lot::new(seed, 77);
    for round in 1..=rounds {
        let outcome = one(&mut stage, &mut lot);
        if let Err(error) = outcome {
            println!("{}", stage.report());
            return Err(format!("seed {seed}, round {round}: {error}").into());
        }
    }
    let tally = stage.tally();
    println!("seed {seed}, {rounds} rounds: {tally:?}");
    if tally.done < 50 * rounds || tally.verified < 50 * rounds {
        return Err(format!("too little was done to prove anything: {tally:?}").into());
    }
    Ok(())
}

fn one(stage: &mut Stage, lot: &mut Lot) -> Result<(), Error> {
    let world = stage.revive()?;
    drop(world);
    stage.work(|host| {
        pause(lot, 500);
        match lot.below(6) {
            0 => kill(host, &["bullet"]),
            1 => kill(host, &["directory"]),
            2 => kill(host, &["bullet", "directory"]),
            3 => kill(host, &["kernel"]),
            _ => {}
        }
        pause(lot, 600); // they are back before the end, or not
        host.lose();
        Ok(())
    })?;
    let world = stage.revive()?;
    stage.verify(&world)
}

fn pause(lot: &mut Lot, most: u64) {
    std::thread::sleep(Duration::from_millis(lot.between(most / 5, most)));
}

fn kill(host: &Host, roles: &[&str]) {
    let wanted = |role: &String| roles.contains(&role.as_str());
    host.daemons().iter().filter(|(role, _)| wanted(role)).for_each(|(_, pid)| hosts::kill(*pid));
}
