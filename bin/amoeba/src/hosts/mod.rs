//! The hosts of the system as this host keeps them: who they are, who was invited, and the thread that keeps the kernel
//! told.
//!
//! The truth is `/system/hosts` in the system's own directory: a row for each host, which stands for a file that says what
//! [`Member`] says. Each supervisor reads it about each second ([`sync`]) and hands the list to its kernel; the list lies in
//! the state directory too ([`Members`]), for a start while the directory cannot be reached. Invitations ([`Invites`]) are
//! this host's own affair.

mod address;
mod invites;
mod members;
pub(crate) mod sync;
mod table;

pub(crate) use address::{Listening, choose_listen, reachable, wanted_listen};
pub(crate) use invites::{Entry, Invites, Kept};
pub(crate) use members::{Member, Members};
pub(crate) use table::Table;

use std::time::{SystemTime, UNIX_EPOCH};

use amoeba_linux::client::Client;
use amoeba_linux::socket::{Admin, Administered};
use anyhow::{Context, Result, bail};

use crate::state::State;

/// The time of day, in seconds since 1970: for people alone.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Asks the kernel of this host about other hosts.
///
/// # Errors
/// It does not answer, or refuses, and why.
pub(crate) fn administer(state: &State, request: &Admin) -> Result<Administered> {
    let client = Client::new(&state.socket());
    let answer = client.administer(&state.system_secret()?, request).context("the kernel of this host")?;
    match answer {
        Administered::Refused(reason) => bail!(reason),
        answer => Ok(answer),
    }
}
