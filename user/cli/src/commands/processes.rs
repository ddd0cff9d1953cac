//! What the commands on processes have in common: from a number or a place to a process, and its states.

use std::ffi::{OsStr, OsString};

use amoeba_cap::Capability;
use amoeba_stubs::Client;
use amoeba_stubs::process::{self, STATE_EXITED, STATE_RUNNING, STATE_STARTING, STATE_STUNNED};
use amoeba_wire::Status;
use amoeba_world::{Error as Refusal, TransOptions};
use anyhow::{Context, anyhow};

use crate::failure::{Advise, FAILED, report};
use crate::graph::Graph;
use crate::launch::pool::{HOST_LOCATE_TIMEOUT, Pool};

/// The entry of a host's directory that is its process server.
pub(super) const SERVER: &str = "proc";

/// The process server of this host.
pub(super) fn server(graph: &Graph) -> anyhow::Result<Capability> {
    graph.at_host(SERVER).context("the process server of this host")
}

/// How transactions with the process server of whatever host are to be done.
pub(super) fn options() -> TransOptions {
    TransOptions { locate_timeout: HOST_LOCATE_TIMEOUT, ..TransOptions::default() }
}

/// What an argument says about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named<'a> {
    /// Its number, and its host unless that is this one.
    Number(Option<&'a str>, &'a str),
    /// A place in the graph, or a capability.
    Place,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Named<'a> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.rsplit_once(':') {
            None if is_number(text) => Named::Number(None, text),
            // fd:3 is an open descriptor with a capability in it.
            Some((host, number)) if is_number(number) && host != "fd" && !host.contains([':', '/']) => {
                Named::Number(Some(host), number)
            }
            _ => Named::Place,
        }
    }
}

/// The process that an argument names: its number, as `amoeba ps` shows it, with HOST: in front if it runs on another
/// host; or a place.
pub(super) fn find(graph: &Graph, argument: &OsStr) -> anyhow::Result<Capability> {
    let text = argument.to_string_lossy();
    let Named::Number(host, number) = Named::parse(&text) else {
        return Ok(graph.lookup(&graph.place(argument)?)?.capability);
    };
    let missing = || anyhow!("{text}: no such process");
    let hint = "`amoeba ps -a` lists them, on all hosts, those that have ended too";
    let Ok(index) = number.parse::<u16>() else { return Err(missing()).hint(hint) };
    let server = match host {
        None => server(graph)?,
        Some(host) => Pool::new(graph)?.entry(host, SERVER)?,
    };
    let options = options();
    match process::lookup_process(Client::new(&*graph.world().transactions, &options), &server, index) {
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
    let text = argument.to_string_lossy();
    if Named::parse(&text) == Named::Place { "the process".into() } else { text.into_owned() }
}

fn ended(error: Refusal) -> anyhow::Error {
    match error {
        Refusal::Refused(Status::STD_NOTNOW) => anyhow!("it has ended, or is in that state already"),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_hosts_and_places_are_told_apart() {
        let named = Named::parse;
        assert_eq!(named("12"), Named::Number(None, "12"));
        assert_eq!(named("bolt:12"), Named::Number(Some("bolt"), "12"));
        assert_eq!(named("a b:1"), Named::Number(Some("a b"), "1"));
        for place in ["", "a", "fd:3", "./a:5", "a:", "x/y:1", "1:2:3:4:5:6", "1:2:3:4:5:6/7(FF)/A:B:C:D:E:F"]
        {
            assert_eq!(named(place), Named::Place, "{place}");
        }
        assert_eq!(shown(OsStr::new("bolt:12")), "bolt:12");
        assert_eq!(shown(OsStr::new("cap:1:2:3:4:5:6/7(FF)/A:B:C:D:E:F")), "the process");
    }
}
