//! The benchmark `run`: starting `true`, on this host and on the other, by the command and by what a program calls, beside
//! starting it here with no Amoeba: one at a time, and many in flight; with the files of that host, and with the caller's.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amoeba_cap::Capability;
use amoeba_process::{ProcessDescriptor, Program};
use amoeba_stubs::process;
use amoeba_world::World;
use anyhow::{Context, Result, anyhow, ensure};

use crate::harness::Figures;
use crate::ours::System;
use crate::report::{Report, Unit, micros};
use crate::rounds::{Beside, Group, Measure, Scope, rounds};
use crate::sight::{Sight, bound};
use crate::ssh::{self, Ssh};

/// Tasks that are under way at once.
const IN_FLIGHT: usize = 32;
/// What ours is measured beside.
const LIMIT: &str = "fork, exec and wait, here";
/// One at a time, on another host.
const TARGET_ONE: f64 = 2.0;
/// The same with the caller's files.
const TARGET_SEEING: f64 = 3.0;
/// How much longer than here a program with its caller's files may take by the command line.
const BOUND_SEEING: Duration = Duration::from_millis(10);
/// Many in flight, on one host: this many times fewer.
const TARGET_MANY: f64 = 2.0;

/// Measures everything that `scope` asks for.
pub(crate) fn run(scope: &Scope) -> Result<Report> {
    let system = System::of_environment()?;
    let world = amoeba_linux::connect(&system.socket(0)?);
    let servers = [server(&system, 0)?, server(&system, 1)?];
    let sight = Sight::serve(&world)?;
    let ssh = Ssh::start(&system);
    let ssh = ssh.inspect_err(|error| eprintln!("SKIPPED: what stands beside ssh: {error:#}")).ok();
    let mut rows = Vec::new();
    let seeing = groups_seeing(&system, &world, &servers[1], &sight, scope);
    let beside_ssh = ssh.iter().flat_map(|ssh| ssh::groups(&system, &sight, ssh, scope));
    for group in groups(&system, &world, &servers, scope).into_iter().chain(seeing).chain(beside_ssh) {
        if group.name.contains(&scope.pattern) {
            rows.extend(rounds(&system, &group, scope.rounds)?);
        }
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let method = format!(
        "medians of {} rounds, in which all take turns, on {cores} cores; ratio 1 is as good as the limit, 2 half as good; {}",
        scope.rounds,
        system.place()
    );
    Ok(Report { name: "run", method, rows })
}

/// The process server of a host.
fn server(system: &System, host: usize) -> Result<Capability> {
    let path = format!("/profile/hosts/{}/proc", system.name(host));
    let shown = system.amoeba(&["cap", "show", &path]).stdout(Stdio::piped()).output()?;
    let text = String::from_utf8(shown.stdout)?;
    text.trim().parse().map_err(|error| anyhow!("`amoeba cap show {path}`: {error}"))
}

fn groups<'a>(
    system: &'a System,
    world: &'a World,
    servers: &[Capability; 2],
    scope: &Scope,
) -> Vec<Group<'a>> {
    let (time, path) = (scope.time, &["requests"][..]);
    let mut groups = Vec::new();
    let mut group = |name: String, unit, value, target, ours: Measure<'a>, limit: Measure<'a>| {
        let besides = vec![Beside { name: LIMIT, target, measure: limit }];
        groups.push(Group { name, unit, value, ours, path, besides });
    };
    let one = |figures: &Figures| figures.p50;
    let many = |figures: &Figures| figures.rate;
    for (host, place) in [(0, "this host"), (1, "the other")] {
        let (server, name) = (servers[host], system.name(host).to_owned());
        let target = (host == 1).then_some(TARGET_ONE);
        let ours = move || one_at_a_time(time, || run_true(world, &server));
        let limit = move || one_at_a_time(time, fork_true);
        group(format!("run, {place}"), Unit::Micros, one, target, Box::new(ours), Box::new(limit));
        let ours = move || one_at_a_time(time, || exec_and_wait(world, &server));
        group(format!("exec and wait, {place}"), Unit::Micros, one, target, Box::new(ours), Box::new(limit));
        let ours = move || one_at_a_time(time, || command(system, &name));
        group(format!("amoeba run --on {place}"), Unit::Micros, one, None, Box::new(ours), Box::new(limit));
        let ours = move || in_flight(time, || run_true(world, &server));
        let limit = move || in_flight(time, fork_true);
        let name = format!("run, {IN_FLIGHT} in flight, {place}");
        group(name, Unit::PerSecond, many, Some(TARGET_MANY), Box::new(ours), Box::new(limit));
    }
    groups
}

/// With the files of the caller, on the other host.
fn groups_seeing<'a>(
    system: &'a System,
    world: &'a World,
    server: &Capability,
    sight: &'a Sight,
    scope: &Scope,
) -> Vec<Group<'a>> {
    let (server, time) = (*server, scope.time);
    let mut groups = Vec::new();
    let mut group = |name: &str, unit, value, ours: Measure<'a>, beside: Beside<'a>| {
        groups.push(Group {
            name: name.into(),
            unit,
            value,
            ours,
            path: &["requests"],
            besides: vec![beside],
        });
    };
    let ours = move || one_at_a_time(time, || sight.exec_and_wait(world, &server));
    let measure = Box::new(move || one_at_a_time(time, fork_true));
    let beside = Beside { name: LIMIT, target: Some(TARGET_SEEING), measure };
    group("exec and wait, view mine, the other", Unit::Micros, |figures| figures.p50, Box::new(ours), beside);
    let millis = |figures: &Figures| figures.p50 / 1e3;
    let command = move || one_at_a_time(time, || sight.command(system, system.name(1)));
    let here = move || one_at_a_time(time, || sight.here());
    let beside = Beside { name: "the same program, here", target: None, measure: Box::new(here) };
    group("amoeba run --view mine, 1 MB", Unit::Millis, millis, Box::new(command), beside);
    let ours = move || {
        let (ours, here) = (command()?, here()?);
        Ok(Figures { p50: ours.p50 - here.p50, ..ours })
    };
    let measure = Box::new(|| Ok(bound(BOUND_SEEING)));
    let beside = Beside { name: "the bound", target: Some(1.0), measure };
    group("the same, more than here", Unit::Millis, millis, Box::new(ours), beside);
    groups
}

/// How long a call takes, one after the other.
pub(crate) fn one_at_a_time(time: Duration, call: impl Fn() -> Result<()>) -> Result<Figures> {
    call()?;
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed() < time || times.len() < 10 {
        let start = Instant::now();
        call()?;
        times.push(micros(start.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    Ok(Figures { p50: at(0.5), p99: at(0.99), rate: 1e6 / at(0.5), ..Figures::default() })
}

/// How many calls end in a second when [`IN_FLIGHT`] callers each make one after the other.
fn in_flight(time: Duration, call: impl Fn() -> Result<()> + Sync) -> Result<Figures> {
    let time = time * 3;
    let caller = |until: Instant, ended: &AtomicU64| -> Result<()> {
        while Instant::now() < until {
            call()?;
            ended.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let round = |time: Duration| -> Result<f64> {
        let (ended, begin) = (AtomicU64::new(0), Instant::now());
        std::thread::scope(|scope| {
            let spawn = || scope.spawn(|| caller(begin + time, &ended));
            let callers: Vec<_> = (0..IN_FLIGHT).map(|_| spawn()).collect();
            callers.into_iter().try_for_each(|caller| caller.join().expect("a caller does not panic"))
        })?;
        Ok(ended.into_inner() as f64 / begin.elapsed().as_secs_f64())
    };
    // As many callers as there will be, so that whatever is made at their first call is there.
    round(time / 4)?;
    Ok(Figures { rate: round(time)?, ..Figures::default() })
}

/// Without Amoeba.
fn fork_true() -> Result<()> {
    let status = Command::new("true").stdin(Stdio::null()).status()?;
    ensure!(status.success(), "`true` ended with {status}");
    Ok(())
}

/// By the command line: a process of its own.
pub(crate) fn command(system: &System, host: &str) -> Result<()> {
    let status = system.amoeba(&["run", "--view", "host", "--on", host, "--", "true"]).status()?;
    ensure!(status.success(), "`amoeba run --view host --on {host} -- true` ended with {status}");
    Ok(())
}

/// `true`, with the files of its host.
pub(crate) fn true_descriptor() -> ProcessDescriptor {
    let program = Program::HostPath(b"true".to_vec());
    let mut descriptor =
        ProcessDescriptor::new(amoeba_linux::guest::architecture(), program, vec![b"true".to_vec()]);
    descriptor.environment = vec![b"PATH=/usr/bin:/bin".to_vec()];
    descriptor.working_directory = b"/".to_vec();
    descriptor
}

fn descriptor() -> Result<Vec<u8>> {
    true_descriptor().encode().context("the descriptor")
}

/// What a program does that wants something done and waits: one transaction.
fn run_true(world: &World, server: &Capability) -> Result<()> {
    let end = process::run(world, server, descriptor()?)?.result;
    ensure!(end.code == 0, "`true` ended with {}", end.code);
    Ok(())
}

/// What a program does that starts a process, which it could signal, and waits: two transactions.
fn exec_and_wait(world: &World, server: &Capability) -> Result<()> {
    let process = process::exec(world, server, descriptor()?)?;
    let end = process::wait(world, &process)?;
    ensure!(end.code == 0, "`true` ended with {}", end.code);
    Ok(())
}
