//! Commands that stay behind on this host, for the subcommands.

use std::path::PathBuf;
use std::process::Command;

use amoeba_cli::Staying;
use amoeba_linux::host;
use anyhow::{Context, Result};

use crate::inside;
use crate::state::State;

/// This host lets commands stay.
pub(crate) struct Background;

impl Staying for Background {
    fn folder(&self) -> Result<Option<PathBuf>> {
        if inside::find().is_some() { Ok(None) } else { Ok(Some(State::find()?.path("staying"))) }
    }

    fn command(&self) -> Result<Command> {
        // A process of the system has its capabilities in a descriptor.
        if inside::find().is_none() {
            host::keep_descriptors().context("cannot keep descriptors from what stays behind")?;
        }
        Ok(Command::new(std::env::current_exe().context("cannot find this program")?))
    }

    fn enter_background(&self) {
        // A process that leads a session is no further from the terminal than it was.
        drop(host::leave_session());
    }
}
