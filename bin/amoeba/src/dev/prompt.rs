//! The shell that `amoeba dev` gives a prompt in, when no command is named.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// What a shell without a name is.
const SHELL_DEFAULT: &str = "/bin/sh";

/// The user's shell. Its prompt says where one is.
pub(super) fn shell(directory: &Path, hosts: usize) -> Result<Command> {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let shell = shell.unwrap_or_else(|| OsString::from(SHELL_DEFAULT));
    let mut command = Command::new(&shell);
    let hint = format!("[dev {hosts}] ");
    if Path::new(&shell).file_name().is_some_and(|name| name == "bash") {
        // Bash takes its prompt from the user's own file, whatever the environment says.
        let path = directory.join("bashrc");
        let text = format!("[ -r ~/.bashrc ] && . ~/.bashrc\nPS1='{hint}'\"$PS1\"\n");
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        command.arg("--rcfile").arg(path);
    } else {
        command.env("PS1", format!("{hint}$ "));
    }
    Ok(command)
}
