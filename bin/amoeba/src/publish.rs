//! The names every user expects in the directory graph: made once everything answers, kept if they are there.

use amoeba_cap::{Capability, Rights};
use amoeba_host::HostSeed;
use amoeba_name::{Masks, NameError, Names};
use amoeba_stubs::{bullet, standard};
use amoeba_wire::Status;
use amoeba_world::World;
use anyhow::{Context, Result};

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

/// Makes what is missing of the graph.
pub(crate) fn ensure(world: &World, state: &State) -> Result<()> {
    let names = Names::new(world, state.capability("root.cap")?).with_masks(MASKS);
    for path in DIRECTORIES {
        match names.mkdir(path.as_bytes()) {
            Ok(_) => {}
            Err(error) if error.status() == Status::STD_EXISTS => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make the directory {path}")),
        }
    }
    let seed = state.host_seed()?;
    let files =
        standard::restrict(world, &state.capability("bullet.cap")?, mask(bullet::CREATE | bullet::READ))?;
    publish(&names, "/profile/cap/bulletsvr/default", files)?;
    publish(&names, "/profile/cap/todsvr/default", server(state, &seed, "tod")?)?;
    publish(&names, "/profile/cap/randomsvr/default", server(state, &seed, "random")?)?;
    publish(&names, &format!("/profile/hosts/{}", state.host_name()?), state.capability("host.cap")?)
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
