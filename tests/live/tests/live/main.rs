//! Live tests: the built binary `amoeba`, real processes, this machine; no code of ours is linked in here.
//!
//! - [`system`]: a private system for each test, and nobody left behind.
//! - [`run`]: a command runs as if there were no Amoeba between.
//! - [`jobs`]: detached processes: `ps`, `wait`, `logs`, `kill`.
//! - [`files`]: names and files through the command line.
//! - [`trees`]: whole trees in and out, also when who carries them is killed.
//! - [`backup`]: a service is saved while it is used, and is the same elsewhere; df, fsck, compact.
//! - [`crash`]: daemons are killed, and nothing acknowledged is lost.
//! - [`dev`]: throw-away hosts, and nothing left of them.
//! - [`diagnosis`]: ping, doctor and trace find out what is.
//! - [`hosts`]: several hosts are one computer, also when one is lost.
//! - [`placing`]: commands on the host that is best, pipelines between hosts, files along.
//! - [`map`]: one command for many arguments, over all hosts.
//! - [`compile`]: compilers on other hosts make what this one would have made.
//! - [`mount`]: the graph as files, and its bad days.
//! - [`join`]: a host becomes one of a system that is there.
//! - [`state`]: what is lost is not made anew, several starts make one system, and why a start fails.
//! - [`views`]: a command sees the files of who typed it. [`graph_view`]: or those of the graph.
//! - [`wire`]: hosts on a bad wire, and on a raw Ethernet.
//! - [`unprivileged`]: all of it without root.
//! - [`confined`]: guests that mean no good.
//! - [`hostile`]: bad names, forged capabilities, garbage on the socket.
#![forbid(unsafe_code)]

mod backup;
mod compile;
mod confined;
mod crash;
mod dev;
mod diagnosis;
mod files;
mod graph_view;
mod hostile;
mod hosts;
mod jobs;
mod join;
mod map;
mod mount;
mod placing;
mod run;
mod state;
mod system;
mod trees;
mod unprivileged;
mod views;
mod wire;
