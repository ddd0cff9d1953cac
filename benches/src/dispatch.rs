//! The benchmark `run`: `true` on this host and on the other, by the command and by the stubs, beside starting it here
//! with no Amoeba.

use amoeba_cap::Capability;
use amoeba_process::{ProcessDescriptor, Program};
use amoeba_stubs::process;
use amoeba_world::World;
use anyhow::{Context, Result, anyhow, ensure};

use crate::limits;
use crate::ours::System;
use crate::report::{Report, Row, Unit, median_of_runs, median_time, micros};

/// Calls in a run.
const COUNT: usize = 40;

/// Measures everything.
pub(crate) fn run() -> Result<Report> {
    let system = System::of_environment()?;
    let world = amoeba_linux::connect(&system.socket(0)?);
    let servers = [server(&system, 0)?, server(&system, 1)?];
    let (rows, method) = median_of_runs(|| rows(&system, &world, &servers))?;
    Ok(Report { name: "run", method: format!("{method}; {}", system.place()), rows })
}

/// The process server of a host.
fn server(system: &System, host: usize) -> Result<Capability> {
    let path = format!("/profile/hosts/{}/proc", system.name(host));
    let shown = system.amoeba(&["cap", "show", &path]).stdout(std::process::Stdio::piped()).output()?;
    let text = String::from_utf8(shown.stdout)?;
    text.trim().parse().map_err(|error| anyhow!("`amoeba cap show {path}`: {error}"))
}

fn rows(system: &System, world: &World, servers: &[Capability; 2]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let limit = micros(limits::start_true(COUNT)?);
    let mut row = |row, ours| {
        rows.push(Row::new(row, Unit::Micros, micros(ours), "fork, exec and wait", limit));
    };
    for (host, by_command, by_stub) in [
        (0, "run --on this host -- true", "exec and wait, this host"),
        (1, "run --on the other -- true", "exec and wait, the other"),
    ] {
        let name = system.name(host).to_owned();
        row(
            by_command,
            median_time(COUNT, || {
                let status = system.amoeba(&["run", "--on", &name, "--", "true"]).status()?;
                ensure!(status.success(), "`amoeba run --on {name} -- true` ended with {status}");
                Ok(())
            })?,
        );
        row(by_stub, median_time(COUNT, || start_true(world, &servers[host]))?);
    }
    Ok(rows)
}

/// What a program does that starts another one and waits: two transactions.
fn start_true(world: &World, server: &Capability) -> Result<()> {
    let program = Program::HostPath(b"true".to_vec());
    let mut descriptor =
        ProcessDescriptor::new(amoeba_linux::guest::architecture(), program, vec![b"true".to_vec()]);
    descriptor.environment = vec![b"PATH=/usr/bin:/bin".to_vec()];
    descriptor.working_directory = b"/".to_vec();
    descriptor.detached = true;
    let bytes = descriptor.encode().context("the descriptor")?;
    let process = process::exec(world, server, bytes)?;
    let end = process::wait(world, &process)?;
    ensure!(end.code == 0, "`true` ended with {}", end.code);
    Ok(())
}
