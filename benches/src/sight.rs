//! Processes that see the files of their caller, on another host: what a program does that serves them, and what the command
//! line takes for a program of a megabyte.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_process::{Mine, ProcessDescriptor, View};
use amoeba_stubs::process;
use amoeba_view::home::{self, Shown};
use amoeba_world::World;
use anyhow::{Context, Result, ensure};

use crate::dispatch::true_descriptor;
use crate::harness::Figures;
use crate::ours::System;

/// A dynamic program of about a megabyte that every host has, and what lets it end at once.
const PROGRAM: &str = "/bin/bash";
const AND_END: [&str; 2] = ["-c", ":"];

/// A project of this host, and its files served together with the system's.
pub(crate) struct Sight {
    directory: PathBuf,
    server: Arc<home::Server>,
}

impl Sight {
    /// Serves a project that holds one program.
    pub(crate) fn serve(world: &World) -> Result<Sight> {
        let directory = std::env::temp_dir().join(format!("amoeba-bench-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        fs::copy(PROGRAM, directory.join("program")).with_context(|| format!("copying {PROGRAM}"))?;
        let mut shown = home::system();
        shown.push(Shown { path: directory.clone(), writable: true, public: false });
        let server = home::Server::start(world, &shown, &[])?;
        Ok(Sight { directory, server })
    }

    /// What a program does that has `true` run in its directory and waits: two transactions, and those of the view.
    pub(crate) fn exec_and_wait(&self, world: &World, server: &Capability) -> Result<()> {
        let files = self.server.admit()?;
        let view = View::Mine(Mine { files, identity: [1; 32], trees: self.server.trees() });
        let working_directory = self.directory.clone().into_os_string().into_encoded_bytes();
        let descriptor = ProcessDescriptor { view, working_directory, ..true_descriptor() };
        let process = process::exec(world, server, descriptor.encode().context("the descriptor")?)?;
        let end = process::wait(world, &process)?;
        self.server.dismiss(&files);
        ensure!(end.code == 0, "`true` ended with {}: {}", end.code, String::from_utf8_lossy(&end.reason));
        Ok(())
    }

    /// The program by the command line, on `host`.
    pub(crate) fn command(&self, system: &System, host: &str) -> Result<()> {
        let program = ["./program"].into_iter().chain(AND_END);
        let arguments: Vec<&str> =
            ["run", "--on", host, "--view", "mine", "--"].into_iter().chain(program).collect();
        let status = system.amoeba(&arguments).current_dir(&self.directory).status()?;
        ensure!(status.success(), "`amoeba run --view mine` ended with {status}");
        Ok(())
    }

    /// The program in its directory, as a line for a shell.
    pub(crate) fn line(&self) -> String {
        let [option, script] = AND_END;
        format!("cd '{}' && ./program {option} '{script}'", self.directory.display())
    }

    /// The program with no Amoeba.
    pub(crate) fn here(&self) -> Result<()> {
        let mut command = Command::new("./program");
        let status = command.args(AND_END).current_dir(&self.directory).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "the program ended with {status}");
        Ok(())
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A bound that was stated beforehand.
pub(crate) fn bound(bound: Duration) -> Figures {
    Figures { p50: bound.as_secs_f64() * 1e6, ..Figures::default() }
}
