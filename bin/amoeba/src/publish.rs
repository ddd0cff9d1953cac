//! The names every user expects in the directory graph: made once everything answers, kept if they are there.

use std::time::Duration;

use amoeba_cap::{Capability, Rights};
use amoeba_host::HostSeed;
use amoeba_name::{CONFINED_ROOT, Masks, NameError, Names};
use amoeba_stubs::hostdir::COLUMN_2;
use amoeba_stubs::pool::{FINDHOST, HOST, STATUS};
use amoeba_stubs::{bullet, standard};
use amoeba_wire::Status;
use amoeba_world::World;
use anyhow::{Context, Result};

use crate::hosts::{Members, Table};
use crate::setup;
use crate::state::State;

/// The directories of a new graph in which programs work: those that see no host's files, and so see the root through the
/// group's column, can do what all others can.
const WORKPLACES: [&str; 3] = ["/bin", "/home", "/tmp"];
/// Those that lead to servers, parents first.
const DIRECTORIES: [&str; 6] = [
    "/profile",
    "/profile/hosts",
    "/profile/cap",
    "/profile/cap/bulletsvr",
    "/profile/cap/todsvr",
    "/profile/cap/randomsvr",
];

/// What the columns of a directory let through: all to its owner, looking to the group and to others.
const MASKS: Masks = [0xFF, 0x06, 0x04, 0];
/// What those of a workplace let through, and of a server that does nothing for its owner which it does not for the group: to
/// the group as to the owner.
const SHARED_MASKS: Masks = [0xFF, 0xFF, 0x04, 0];
/// Those of the run server: what it gives the group leads to no host's files.
const RUN_SERVER_MASKS: Masks = [0xFF, !HOST.bits(), 0x04, 0];
/// Those of a host's directory: to the group its group's column.
const HOST_MASKS: Masks = [0xFF, COLUMN_2.bits(), 0, 0];
/// The file with the root directory as processes get it that see no host's files.
pub(crate) const CONFINED: &str = "confined.cap";

/// The first wait for a directory server elsewhere; doubles to at most [`WAIT_MAX`].
const WAIT: Duration = Duration::from_millis(50);
/// The longest wait for a directory server elsewhere.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Makes what is missing of the graph, on a host with a directory server.
pub(crate) fn ensure(world: &World, state: &State) -> Result<()> {
    let names = Names::new(world, state.capability("root.cap")?).with_masks(MASKS);
    let workplaces = WORKPLACES.map(|path| (path, SHARED_MASKS));
    for (path, masks) in workplaces.into_iter().chain(DIRECTORIES.map(|path| (path, MASKS))) {
        make(&names, path, masks).with_context(|| format!("cannot make the directory {path}"))?;
    }
    keep_confined_root(world, state)?;
    let seed = state.host_seed()?;
    if state.has("bullet.cap") {
        let files = files(world, state)?;
        publish(&names, "/profile/cap/bulletsvr/default", files, SHARED_MASKS)?;
        publish(&names, &files_path(state)?, files, SHARED_MASKS)?;
    }
    publish_run_server(&names, state)?;
    publish(&names, "/profile/cap/todsvr/default", server(state, &seed, "tod")?, SHARED_MASKS)?;
    publish(&names, "/profile/cap/randomsvr/default", server(state, &seed, "random")?, SHARED_MASKS)?;
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
    keep_confined_root(world, state)?;
    if state.has("bullet.cap") {
        publish(&names, &files_path(state)?, files(world, state)?, SHARED_MASKS)?;
    }
    publish_run_server(&names, state)?;
    publish_host(&names, state)
}

/// What everybody may do with the run server, if this host runs it. Several hosts may: their capabilities are the same.
fn publish_run_server(names: &Names, state: &State) -> Result<()> {
    if !state.has("pool.cap") {
        return Ok(());
    }
    make(names, "/profile/cap/runsvr", MASKS)?;
    let run_server = setup::run_server(state, FINDHOST | STATUS | HOST)?;
    publish(names, "/profile/cap/runsvr/default", run_server, RUN_SERVER_MASKS)
}

fn publish_host(names: &Names, state: &State) -> Result<()> {
    let path = format!("/profile/hosts/{}", state.host_name()?);
    publish(names, &path, state.capability("host.cap")?, HOST_MASKS)
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

/// Makes one of our directories unless it is there, and sees to it that its group cannot go where only its owner may.
fn make(names: &Names, path: &str, masks: Masks) -> Result<(), NameError> {
    if names.resolve(path.as_bytes()).is_err() {
        match names.clone().with_masks(masks).mkdir(path.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(error) if error.status() == Status::STD_EXISTS => {}
            Err(error) => return Err(error),
        }
    }
    // On a full disk nothing is written that is there: so we look first.
    let there = names.getmasks(path.as_bytes())?;
    let is_right = match masks {
        // Somebody may have closed it on purpose; but earlier systems made it as they made all others.
        SHARED_MASKS => there != MASKS,
        // Somebody may have closed more, but nobody may have opened it.
        _ => there[1..].iter().zip(&masks[1..]).all(|(there, mask)| there & !mask == 0),
    };
    if is_right { Ok(()) } else { names.chmod(path.as_bytes(), masks) }
}

/// Keeps the root directory as processes get it that see no host's files, so that not every command need ask for it.
fn keep_confined_root(world: &World, state: &State) -> Result<()> {
    let root = state.capability("root.cap")?;
    let confined = standard::restrict(world, &root, mask(CONFINED_ROOT)).context("the root directory")?;
    if matches!(state.capability(CONFINED), Ok(there) if there == confined) {
        return Ok(());
    }
    setup::write_capability(state, CONFINED, &confined)
}

/// Lets a name stand for what it should, and its columns let through what they should; asks before it writes, so that a
/// start changes nothing.
fn publish(names: &Names, path: &str, capability: Capability, masks: Masks) -> Result<()> {
    let publish = || -> Result<(), NameError> {
        match names.resolve(path.as_bytes()) {
            Ok(there) if there == capability => {}
            _ => names.clone().with_masks(masks).put(path.as_bytes(), capability)?,
        }
        if names.getmasks(path.as_bytes())? == masks {
            return Ok(());
        }
        names.chmod(path.as_bytes(), masks)
    };
    publish().with_context(|| format!("cannot publish {path}"))
}
