//! What the commands on processes have in common: from a number or a place to a process, and its states.

use std::ffi::{OsStr, OsString};

use amoeba_cap::Capability;
use amoeba_stubs::process::{
    self, STATE_EXITED, STATE_RUNNING, STATE_STARTING, STATE_STUNNED, VIEW_GRAPH, VIEW_HOST, VIEW_MINE,
};
use amoeba_stubs::{Client, standard};
use amoeba_wire::Status;
use amoeba_world::{Error as Refusal, TransOptions};
use anyhow::{Context as _, anyhow};

use crate::Context;
use crate::failure::{Advise, Code, Hint, MAY_HAVE_RUN};
use crate::graph::Graph;
use crate::launch::pool::{HOST_LOCATE_TIMEOUT, Pool};
use crate::place::Place;

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
            // fd:3 is an open descriptor with a capability in it, ps:3 a place.
            Some((host, number))
                if is_number(number) && !matches!(host, "fd" | "ps") && !host.contains([':', '/']) =>
            {
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
    match Named::parse(&text) {
        Named::Number(..) => find_by_number(graph, &text),
        Named::Place => Ok(graph.lookup(&graph.place(argument)?)?.capability),
    }
}

/// The process with a number, with HOST: in front if it runs on another host.
pub(super) fn find_by_number(graph: &Graph, text: &str) -> anyhow::Result<Capability> {
    let missing = || anyhow!("{text}: no such process");
    let hint = "`amoeba ps -a` lists them, on all hosts, those that have ended too";
    let Named::Number(host, number) = Named::parse(text) else { return Err(missing()).hint(hint) };
    let Ok(index) = number.parse::<u16>() else { return Err(missing()).hint(hint) };
    let server = match host {
        None => server(graph)?,
        Some(host) => Pool::new(graph)?.entry(host, SERVER)?,
    };
    let options = options();
    match process::lookup_process(Client::new(&*graph.world().transactions, &options), &server, index) {
        Ok(process) => Ok(process),
        Err(Refusal::Refused(Status::STD_NOTFOUND | Status::STD_CAPBAD)) => Err(missing()).hint(hint),
        Err(Refusal::Refused(Status::STD_DENIED)) => Err(anyhow!(
            "{text} sees its host's own files, and this process may see none"
        ))
        .hint("it was started with `--view mine` or `graph`; it has to do with others of its kind only"),
        Err(error) => Err(error).context(text.to_owned()),
    }
}

/// As [`find`], for who asks it again later: its process server knows it now, so if it does not then, it has forgotten it.
pub(super) fn find_known(graph: &Graph, argument: &OsStr) -> anyhow::Result<Capability> {
    let process = find(graph, argument)?;
    if Named::parse(&argument.to_string_lossy()) == Named::Place {
        let options = options();
        standard::info(Client::new(&*graph.world().transactions, &options), &process, 0)?;
    }
    Ok(process)
}

/// What it means that a process which was known a moment ago cannot be asked any more.
pub(super) fn lost(error: Refusal) -> anyhow::Error {
    let why = match error {
        Refusal::NotSent(_) | Refusal::MaybeExecuted(_) => "its host does not answer any more",
        Refusal::Refused(Status::STD_CAPBAD) => {
            "it is lost: the kernel of its host was started again, or somebody removed it"
        }
        error => return error.into(),
    };
    anyhow!(why).context(Code(MAY_HAVE_RUN))
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

/// What a process sees as its file tree, as `amoeba run --view` says it.
pub(super) fn view_name(view: u8) -> &'static str {
    match view {
        VIEW_HOST => "host",
        VIEW_MINE => "mine",
        VIEW_GRAPH => "graph",
        _ => "unknown",
    }
}

/// Does something to each process that `arguments` name; goes on after an error, which is told at once.
pub(super) fn for_each(
    context: &mut Context<'_>,
    arguments: &[OsString],
    operation: impl Fn(&Graph, &Capability) -> Result<(), Refusal>,
) -> anyhow::Result<()> {
    let graph = context.graph()?;
    context.for_each(arguments, |_, argument| {
        let process = find(&graph, argument)?;
        let shown = Place::argument_shown(argument);
        let done = operation(&graph, &process).map_err(|error| match error {
            Refusal::Refused(Status::STD_NOTNOW) => not_now(&state_of(&graph, &process), &shown),
            error => error.into(),
        });
        done.context(shown)
    })
}

/// The state of a process in its server's word; empty when it does not say.
fn state_of(graph: &Graph, process: &Capability) -> String {
    let options = options();
    let status = standard::status_text(Client::new(&*graph.world().transactions, &options), process);
    status.ok().and_then(|text| text.lines().nth(1).map(str::to_owned)).unwrap_or_default()
}

/// Why a process in this state cannot be stunned, resumed or signalled.
fn not_now(state: &str, shown: &str) -> anyhow::Error {
    match state {
        "ended" => anyhow!("it has ended"),
        "stunned" => {
            anyhow!("it is stunned").context(Hint(format!("`amoeba resume {shown}` lets it run on")))
        }
        "running" => anyhow!("it runs, and is not stunned"),
        "starting" => anyhow!("it is being started").context(Hint("try again in a moment".into())),
        _ => anyhow!("it has ended, or is in that state already"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{FAILED, report};

    #[test]
    fn a_process_of_a_kernel_that_was_started_again_is_lost() {
        let code = |error| report(&lost(error), FAILED).code;
        let maybe = Refusal::MaybeExecuted(Status::RPC_FAILURE);
        assert_eq!((code(Refusal::Refused(Status::STD_CAPBAD)), code(maybe)), (MAY_HAVE_RUN, MAY_HAVE_RUN));
        assert_eq!(code(Refusal::Refused(Status::STD_DENIED)), FAILED);
    }

    #[test]
    fn numbers_hosts_and_places_are_told_apart() {
        let named = Named::parse;
        assert_eq!(named("12"), Named::Number(None, "12"));
        assert_eq!(named("bolt:12"), Named::Number(Some("bolt"), "12"));
        assert_eq!(named("a b:1"), Named::Number(Some("a b"), "1"));
        for place in [
            "",
            "a",
            "fd:3",
            "ps:3",
            "ps:bolt:3",
            "./a:5",
            "a:",
            "x/y:1",
            "1:2:3:4:5:6",
            "1:2:3:4:5:6/7(FF)/A:B:C:D:E:F",
        ] {
            assert_eq!(named(place), Named::Place, "{place}");
        }
    }

    #[test]
    fn what_cannot_be_done_now_is_said_with_its_reason() {
        let told = |state: &str| {
            let error = anyhow::Result::<()>::Err(not_now(state, "57")).context("57").unwrap_err();
            report(&error, FAILED).text.expect("there is somebody to tell")
        };
        let stunned = "amoeba: 57: it is stunned\nhint: `amoeba resume 57` lets it run on\n";
        assert_eq!(told("stunned"), stunned);
        assert_eq!(told("ended"), "amoeba: 57: it has ended\n");
        assert_eq!(told("running"), "amoeba: 57: it runs, and is not stunned\n");
    }
}
