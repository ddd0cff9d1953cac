//! What the commands on processes have in common: from a number or a place to a process, and its states.

use std::ffi::{OsStr, OsString};

use amoeba_cap::Capability;
use amoeba_stubs::process::{self, STATE_EXITED, STATE_RUNNING, STATE_STARTING, STATE_STUNNED};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::{Context, anyhow};

use crate::failure::{Advise, FAILED, report};
use crate::graph::Graph;

/// The entry of a host's directory that is its process server.
const SERVER: &str = "proc";

/// The process server of this host.
pub(super) fn server(graph: &Graph) -> anyhow::Result<Capability> {
    graph.at_host(SERVER).context("the process server of this host")
}

/// The process that an argument names: its number, as `amoeba ps` shows it, or a place.
pub(super) fn find(graph: &Graph, argument: &OsStr) -> anyhow::Result<Capability> {
    let text = argument.to_string_lossy();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(graph.lookup(&graph.place(argument)?)?.capability);
    }
    let missing = || anyhow!("{text}: no such process");
    let hint = "`amoeba ps -a` lists them, those that have ended too";
    let Ok(index) = text.parse::<u16>() else { return Err(missing()).hint(hint) };
    match process::lookup_process(graph.world(), &server(graph)?, index) {
        Ok(process) => Ok(process),
        Err(Refusal::Refused(Status::STD_NOTFOUND | Status::STD_CAPBAD)) => Err(missing()).hint(hint),
        Err(error) => Err(error).context(text.into_owned()),
    }
}

/// The state of a process in a word.
pub(super) fn state_name(state: u8) -> &'static str {
    match state {
        STATE_STARTING => "starting",
        STATE_RUNNING => "running",
        STATE_STUNNED => "stunned",
        STATE_EXITED => "exited",
        _ => "unknown",
    }
}

/// Does something to each process that `arguments` name; goes on after an error. All errors but the last are told here,
/// the last one is the result.
pub(super) fn for_each(
    graph: &Graph,
    arguments: &[OsString],
    operation: impl Fn(&Capability) -> Result<(), Refusal>,
) -> anyhow::Result<()> {
    let mut result = Ok(());
    for argument in arguments {
        let done = find(graph, argument)
            .and_then(|process| operation(&process).map_err(ended).with_context(|| shown(argument)));
        if let Err(error) = done
            && let Err(earlier) = std::mem::replace(&mut result, Err(error))
        {
            eprint!("{}", report(&earlier, FAILED).text.unwrap_or_default());
        }
    }
    result
}

/// An argument for people: what may be a secret is not repeated.
fn shown(argument: &OsStr) -> String {
    let number = argument.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    if number { argument.to_string_lossy().into_owned() } else { "the process".into() }
}

fn ended(error: Refusal) -> anyhow::Error {
    match error {
        Refusal::Refused(Status::STD_NOTNOW) => anyhow!("it has ended, or is in that state already"),
        error => error.into(),
    }
}
