//! What a command needs of the program it is part of when it stays behind in the background.

use std::path::PathBuf;
use std::process::Command;

/// Going on after the person has got the prompt back.
pub trait Staying {
    /// The folder for the logs of those who stay; only this user may look in. `None` where they cannot have any, inside a
    /// process of the system.
    ///
    /// # Errors
    /// There is no place for state.
    fn folder(&self) -> anyhow::Result<Option<PathBuf>>;
    /// This program, to be started in the background, with none of this one's descriptors.
    ///
    /// # Errors
    /// It cannot be found.
    fn command(&self) -> anyhow::Result<Command>;
    /// Leaves the terminal, as whoever started it with [`Staying::command`] expects.
    fn enter_background(&self);
}
