//! A server that was killed, from the start of its next process to its first answer, with nothing of its files in memory.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use amoeba_cap::Capability;
use amoeba_stubs::{Client, standard};
use amoeba_world::{TransOptions, World};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::limits;
use crate::ours::System;

/// A search for a server that may not be there yet.
const LOCATE_TIMEOUT: Duration = Duration::from_millis(20);
/// Longer than any start: then it does not start at all.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// What the supervisor of the first host tells.
fn report(system: &System) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(system.directory(0).join("run/boot.json"))?)?)
}

/// The process of a daemon of the first host; 0 while there is none.
pub(crate) fn daemon(system: &System, role: &str) -> Result<u32> {
    let report = report(system)?;
    let daemons = report["daemons"].as_array().cloned().unwrap_or_default();
    let pid = daemons.iter().find(|daemon| daemon["role"] == role).and_then(|daemon| daemon["pid"].as_u64());
    u32::try_from(pid.with_context(|| format!("no daemon `{role}`"))?).context("the number of a process")
}

fn supervisor(system: &System) -> Result<u32> {
    let report = report(system)?;
    u32::try_from(report["pid"].as_u64().context("no supervisor")?).context("the number of a process")
}

fn signal(process: u32, signal: Signal) -> Result<()> {
    let process = Pid::from_raw(process.cast_signed()).context("the number of a process")?;
    kill_process(process, signal).context("a signal")
}

/// Kills the daemon, lets the operating system forget `files`, and says how long the next process takes until it answers.
pub(crate) fn after_kill(
    system: &System,
    world: &World,
    role: &str,
    server: &Capability,
    files: &[&Path],
) -> Result<Duration> {
    let (old, above) = (daemon(system, role)?, supervisor(system)?);
    ensure!(old != 0, "{role} does not run");
    signal(above, Signal::STOP)?; // it is to start nothing before the files are forgotten
    let forgotten = signal(old, Signal::KILL).and_then(|()| {
        let gone = || std::fs::read_dir(format!("/proc/{old}/task")).map_or(0, Iterator::count) <= 1;
        let start = Instant::now();
        while !gone() && start.elapsed() < PATIENCE {
            std::thread::sleep(LOOK_INTERVAL);
        }
        files.iter().try_for_each(|file| limits::forget(&File::open(file)?))
    });
    signal(above, Signal::CONT)?;
    forgotten?;
    let waiting = Instant::now();
    let new = loop {
        match daemon(system, role) {
            Ok(new) if new != 0 && new != old => break new,
            _ => ensure!(waiting.elapsed() < PATIENCE, "{role} is not started again"),
        }
        std::thread::sleep(LOOK_INTERVAL);
    };
    let options = TransOptions { locate_timeout: LOCATE_TIMEOUT, ..TransOptions::default() };
    let ask = || standard::info(Client::new(&*world.transactions, &options), server, 0);
    while ask().is_err() {
        ensure!(waiting.elapsed() < PATIENCE, "{role} does not answer");
        std::thread::sleep(LOOK_INTERVAL);
    }
    age(new)
}

/// How long a process has been there, to a hundredth of a second.
fn age(process: u32) -> Result<Duration> {
    const TICKS_A_SECOND: f64 = 100.0; // USER_HZ, the same on every Linux
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let started: f64 = fields.into_iter().nth(19).context("no start in stat")?.parse()?;
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let now: f64 = uptime.split_whitespace().next().context("no uptime")?.parse()?;
    Ok(Duration::from_secs_f64((now - started / TICKS_A_SECOND).max(0.005)))
}

/// Bytes of memory that are this process's alone: its share of what it shares with others, files left out.
pub(crate) fn memory(process: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    Ok((field("Pss_Anon:") + field("Pss_Shmem:")) * 1024)
}
