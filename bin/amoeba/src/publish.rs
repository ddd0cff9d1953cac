//! The names every user expects in the directory graph: made once everything answers, kept if they are there.

use std::time::Duration;

use amoeba_cap::{Capability, Rights};
use amoeba_host::HostSeed;
use amoeba_name::{Masks, NameError, Names};
use amoeba_stubs::pool::{FINDHOST, STATUS};
use amoeba_stubs::{bullet, standard};
use amoeba_wire::Status;
use amoeba_world::World;
use anyhow::{Context, Result};

use crate::hosts::{Members, Table};
use crate::setup;
use crate::state::State;

/// The directories of a new graph, parents first.
const DIRECTORIES: [&str; 9] = [
    "/bin",
    "/home",
    "/tmp",
    "/profile",
    "/profile/hosts",
    "/profile/cap",
    "/profile/cap/bulletsvr",
    "/profile/cap/todsvr",
    "/profile/cap/randomsvr",
];

/// What the columns of a new directory let through: all to its owner, looking and changing to the group, looking to
/// others.
const MASKS: Masks = [0xFF, 0x06, 0x04, 0];

/// The first wait for a directory server elsewhere; doubles to at most [`WAIT_MAX`].
const WAIT: Duration = Duration::from_millis(50);
/// The longest wait for a directory server elsewhere.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Makes what is missing of the graph, on a host with a directory server.
pub(crate) fn ensure(world: &World, state: &State) -> Result<()> {
    let names = Names::new(world, state.capability("root.cap")?).with_masks(MASKS);
    for path in DIRECTORIES {
        if names.resolve(path.as_bytes()).is_ok() {
            continue; // on a full disk even a directory that is there cannot be made
        }
        match names.mkdir(path.as_bytes()) {
            Ok(_) => {}
            Err(error) if error.status() == Status::STD_EXISTS => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make the directory {path}")),
        }
    }
    let seed = state.host_seed()?;
    if state.has("bullet.cap") {
        let files = files(world, state)?;
        publish(&names, "/profile/cap/bulletsvr/default", files)?;
        publish(&names, &files_path(state)?, files)?;
    }
    publish_run_server(&names, state)?;
    publish(&names, "/profile/cap/todsvr/default", server(state, &seed, "tod")?)?;
    publish(&names, "/profile/cap/randomsvr/default", server(state, &seed, "random")?)?;
    Table::new(world, state)?.ensure(&Members::read(state)?)?;
    publish_host(&names, state)
}

/// Publishes a host whose directory server is elsewhere, as soon as that can be reached.
pub(crate) fn later(world: &World, state: &State) {
    let mut wait = WAIT;
    while let Err(error) = elsewhere(world, state) {
        if wait == WAIT_MAX {
            tracing::warn!("this host's name is not published yet: {error:#}");
        }
        std::thread::sleep(wait);
        wait = (wait * 2).min(WAIT_MAX);
    }
    tracing::info!("this host's name is published");
}

fn elsewhere(world: &World, state: &State) -> Result<()> {
    let names = Names::new(world, state.capability("root.cap")?);
    if state.has("bullet.cap") {
        publish(&names, &files_path(state)?, files(world, state)?)?;
    }
    publish_run_server(&names, state)?;
    publish_host(&names, state)
}

/// What everybody may do with the run server, if this host runs it. Several hosts may: their capabilities are the same.
fn publish_run_server(names: &Names, state: &State) -> Result<()> {
    if !state.has("pool.cap") {
        return Ok(());
    }
    match names.clone().with_masks(MASKS).mkdir(b"/profile/cap/runsvr") {
        Err(error) if error.status() != Status::STD_EXISTS => Err(error.into()),
        _ => publish(names, "/profile/cap/runsvr/default", setup::run_server(state, FINDHOST | STATUS)?),
    }
}

fn publish_host(names: &Names, state: &State) -> Result<()> {
    publish(names, &format!("/profile/hosts/{}", state.host_name()?), state.capability("host.cap")?)
}

/// Where this host's file server is named.
fn files_path(state: &State) -> Result<String> {
    Ok(format!("/profile/cap/bulletsvr/{}", state.host_name()?))
}

/// What everybody may do with this host's file server.
fn files(world: &World, state: &State) -> Result<Capability> {
    Ok(standard::restrict(world, &state.capability("bullet.cap")?, mask(bullet::CREATE | bullet::READ))?)
}

fn mask(rights: Rights) -> u32 {
    rights.bits().into()
}

fn server(state: &State, seed: &HostSeed, name: &str) -> Result<Capability> {
    Ok(seed.capability(&state.system_secret()?, name))
}

/// Lets a name stand for what it should; asks before it writes, so that a start changes nothing.
fn publish(names: &Names, path: &str, capability: Capability) -> Result<()> {
    let publish = || -> Result<(), NameError> {
        match names.resolve(path.as_bytes()) {
            Ok(there) if there == capability => Ok(()),
            _ => names.put(path.as_bytes(), capability),
        }
    };
    publish().with_context(|| format!("cannot publish {path}"))
}
