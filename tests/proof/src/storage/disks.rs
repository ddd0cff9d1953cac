//! A disk that is full, and one that fails: errors are told, nothing is acknowledged that is not there afterwards.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use amoeba::{CapabilitySet, Error as Failure, Status, World, bullet, directory};
use rustix::process::{Pid, Signal, kill_process};

use super::client::Disk;
use super::{Error, Stage};
use crate::hosts;

const CLIENTS: u64 = 3;
/// How long clients work in each part.
const PART: Duration = Duration::from_millis(1500);
/// Until then the disk is full, or it never will be.
const PARTS_MAX: usize = 20;
/// What this program ends with when the machine lacks what the test needs.
pub const SKIPPED: i32 = 77;

/// Works until the disk under the servers is full, and on; then kills everything, and compares.
///
/// # Errors
/// Every promise that was broken.
pub fn full(seed: u64) -> Result<(), Error> {
    let mut stage = Stage::new(seed, CLIENTS, Disk::Full)?;
    let outcome = fill_up(&mut stage);
    told(stage, outcome, seed)
}

fn fill_up(stage: &mut Stage) -> Result<(), Error> {
    let ballast = stage.host.state.join("ballast");
    let world = stage.revive()?;
    stage.work_for(PART)?;
    // Whatever else is free on this disk goes to somebody else.
    let written = std::io::copy(&mut std::io::repeat(7), &mut std::fs::File::create(&ballast)?);
    if written.is_ok() {
        return Err("the disk has no end".into());
    }
    for part in 0.. {
        stage.work_for(PART)?;
        if stage.tally().refused > 20 {
            break;
        }
        if part > PARTS_MAX {
            return Err(format!("nothing is ever refused: {:?}", stage.tally()).into());
        }
    }
    if !hosts::report(std::slice::from_ref(&stage.host)).contains("nothing can be written") {
        return Err("the status does not tell that the disk is full".into());
    }
    for client in &mut stage.clients {
        client.destroy_some(&world, 5).map_err(|error| format!("on a full disk: {error}"))?;
    }
    stage.host.lose();
    let world = stage.revive().map_err(|error| format!("on a full disk: {error}"))?;
    stage.verify(&world)?;
    std::fs::remove_file(&ballast)?;
    // There is room, not plenty: Bullet writes its image ahead, and a compaction may still find none.
    let before = stage.tally();
    stage.clients.iter_mut().try_for_each(|client| client.destroy_some(&world, 50))?;
    stage.work_for(Duration::from_millis(300))?;
    if stage.tally().done < before.done + 200 {
        return Err("nothing works again with room on the disk".into());
    }
    stage.host.lose();
    let world = stage.revive()?;
    stage.verify(&world)
}

/// Lets system calls of a server fail as a disk makes them fail, looks at what clients hear, kills everything, and compares.
///
/// # Errors
/// Every promise that was broken.
pub fn failing(seed: u64) -> Result<(), Error> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("strace is not installed");
        std::process::exit(SKIPPED);
    }
    let mut stage = Stage::new(seed, CLIENTS, Disk::Failing)?;
    for role in ["bullet", "directory"] {
        for calls in ["fdatasync", "pwrite64"] {
            let outcome = let_fail(&mut stage, role, calls)
                .map_err(|error| format!("{calls} of {role}: {error}").into());
            if outcome.is_err() {
                return told(stage, outcome, seed);
            }
        }
    }
    told(stage, Ok(()), seed)
}

fn let_fail(stage: &mut Stage, role: &str, calls: &str) -> Result<(), Error> {
    stage.revive()?;
    stage.work_for(PART / 3)?;
    let daemons = stage.host.daemons();
    let (_, pid) = daemons.iter().find(|(name, _)| name == role).ok_or("no such daemon")?;
    let told = stage.host.state.join(format!("strace.{role}.{calls}"));
    let fault = Fault::attach(*pid, calls, &told)?;
    let before = stage.tally();
    let mut harmed = false;
    for _ in 0..PARTS_MAX {
        stage.work_for(PART / 3)?;
        harmed = std::fs::read_to_string(&told)?.contains("INJECTED");
        if harmed {
            break;
        }
    }
    drop(fault);
    if !harmed {
        return Err("no call was made to fail".into());
    }
    let world = amoeba::connect()?;
    // The next flush would succeed, and would say nothing of what was lost.
    if calls == "fdatasync" {
        refuses_commits(stage, &world, role)?;
    }
    if stage.tally().refused + stage.tally().unknown <= before.refused + before.unknown {
        return Err("a failure of the disk was told to nobody".into());
    }
    stage.host.lose();
    let world = stage.revive()?;
    stage.verify(&world)
}

fn refuses_commits(stage: &Stage, world: &World, role: &str) -> Result<(), Error> {
    for _ in 0..10 {
        let answer = match role {
            "bullet" => {
                bullet::create(world, &stage.servers.bullet, bullet::COMMIT | bullet::SAFETY, b"x").map(drop)
            }
            _ => directory::append(
                world,
                &stage.servers.root,
                b"x",
                &CapabilitySet::singleton(stage.servers.root),
                &[0xFF; 4],
                &[],
            ),
        };
        if answer != Err(Failure::Refused(Status::STD_WRITEPROT)) {
            return Err(format!("a commit after a failed flush gives {answer:?}").into());
        }
    }
    Ok(())
}

/// While it is there, the first such call of each thread of a process fails with EIO, and no other.
struct Fault(Child);

impl Fault {
    fn attach(pid: i32, calls: &str, told: &Path) -> Result<Fault, Error> {
        let child = Command::new("strace")
            .args(["-f", "-q", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:error=EIO:when=1"), "-p", &pid.to_string(), "-o"])
            .arg(told)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut fault = Fault(child);
        let traced = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        };
        for _ in 0..500 {
            if traced() && told.exists() {
                return Ok(fault);
            }
            if fault.0.try_wait()?.is_some() {
                eprintln!("strace may not look into processes here");
                std::process::exit(SKIPPED);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("strace does not begin".into())
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM)); // it lets go of what it traced
        let _ = self.0.wait();
    }
}

fn told(stage: Stage, outcome: Result<(), Error>, seed: u64) -> Result<(), Error> {
    println!("seed {seed}: {:?}", stage.tally());
    outcome.map_err(|error| {
        println!("{}", hosts::report(std::slice::from_ref(&stage.host)));
        format!("seed {seed}: {error}").into()
    })
}
