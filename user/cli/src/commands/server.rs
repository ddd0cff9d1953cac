//! The file server that an argument names, with the rights that only its own host has.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use amoeba_cap::{Capability, ObjectNumber};
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::anyhow;

use crate::Context;
use crate::failure::Advise;
use crate::graph::{Graph, same_object};

/// What to do about a capability without all rights.
const NEEDS_ALL: &str = "all rights to the server are needed: ask on the host that runs it, or use its own capability (@bullet.cap)";

/// The server that `argument` names by its host, by path or by capability, without one that of this host; and what people
/// call it.
///
/// # Errors
/// There is none of that name, or none at all.
pub(super) fn of_files(
    context: &Context<'_>,
    graph: &Graph,
    argument: Option<&OsStr>,
) -> anyhow::Result<(Capability, String)> {
    // Who may not read the state has the rights that names give.
    let own = context.system.secrets().ok().and_then(|secrets| secrets.files);
    let named = graph.named_file_servers()?;
    let name_of = |server: &Capability| named.iter().find(|(_, other)| same_object(other, server));
    let Some(argument) = argument else {
        let server = own.ok_or_else(|| anyhow!("this host has no file server of its own"));
        let server = server.hint("say which: `amoeba df` lists them")?;
        return Ok((server, name_of(&server).map_or_else(|| "this host".into(), |(name, _)| name.clone())));
    };
    let by_name = named.iter().find(|(name, _)| name.as_bytes() == argument.as_bytes());
    let (server, shown) = match by_name {
        Some((name, server)) => (*server, name.clone()),
        None => {
            let place = graph.place(argument)?;
            let found = graph.lookup_if_there(&place)?;
            let found = found.filter(|found| found.capability.object() == ObjectNumber::SUPER);
            let server = found.ok_or_else(|| anyhow!("{} is no file server", place.shown()));
            (server.hint("`amoeba df` lists them")?.capability, place.shown())
        }
    };
    Ok((own.filter(|own| same_object(own, &server)).unwrap_or(server), shown))
}

/// Says what a refusal means where the object is a server.
pub(super) fn told<T>(result: Result<T, Refusal>) -> anyhow::Result<T> {
    match result {
        Err(error @ Refusal::Refused(Status::STD_NOTNOW)) => {
            Err(error).hint("somebody does it already; `amoeba df` tells when it has ended")
        }
        Err(error @ Refusal::Refused(Status::STD_COMBAD)) => {
            Err(anyhow::Error::from(error).context("is no file server")).hint("`amoeba df` lists them")
        }
        Err(error @ Refusal::Refused(Status::STD_DENIED)) => Err(error).hint(NEEDS_ALL),
        Err(error @ Refusal::Refused(Status::STD_WRITEPROT)) => Err(error).hint(
            "its disk has failed before: look at the host's log, restart the server to read what is there",
        ),
        result => Ok(result?),
    }
}
