//! Live tests: the built binary `amoeba`, real processes, this machine; no code of ours is linked in here.
//!
//! - [`system`]: a private system for each test, and nobody left behind.
//! - [`run`]: a command runs as if there were no Amoeba between.
//! - [`jobs`]: detached processes: `ps`, `wait`, `logs`, `kill`.
//! - [`files`]: names and files through the command line.
//! - [`crash`]: daemons are killed, and nothing acknowledged is lost.
//! - [`dev`]: throw-away hosts, and nothing left of them.
//! - [`hosts`]: commands on several hosts, pipelines between them, and hosts that are lost.
//! - [`map`]: one command for many arguments, over all hosts.
//! - [`join`]: a host becomes one of a system that is there.
//! - [`state`]: what is lost is not made anew, several starts make one system, and why a start fails.
//! - [`unprivileged`]: all of it without root.
//! - [`hostile`]: bad names, forged capabilities, garbage on the socket.
#![forbid(unsafe_code)]

mod crash;
mod dev;
mod files;
mod hosts;
mod hostile;
mod jobs;
mod join;
mod map;
mod run;
mod state;
mod system;
mod unprivileged;
