//! `amoeba` (short: `am`): the one binary. The first word is a daemon's role, which only the supervisor uses, or a
//! subcommand.
//!
//! - [`boot`] supervises, [`setup`] and [`publish`] make what a new system needs, [`roles`] are the daemons.
//! - [`system`] and [`console`] are what the subcommands (`amoeba-cli`) see of this host.
//! - [`hosts`] knows the hosts of the system, [`invite`] and [`join`] make it larger.
//! - [`dev`] has throw-away hosts, [`mounting`] the mounts of this one, [`staying`] the commands that stay behind.
//! - [`logs`] keeps what the daemons say; [`inside`] is for commands in processes of the system.
//! - [`state`] is the state directory, [`config`] what its owner wrote into it.
#![forbid(unsafe_code)]

mod boot;
mod config;
mod console;
mod dev;
mod diagnosis;
mod hosts;
mod inside;
mod invite;
mod join;
mod keeping;
mod logs;
mod mounting;
mod publish;
mod roles;
mod setup;
mod state;
mod staying;
mod system;
mod turn;
mod viewer;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use state::State;

/// The program.
pub fn main() -> ExitCode {
    let role = std::env::args_os().nth(1).unwrap_or_default();
    let run: fn(&State) -> Result<()> = match role.to_str() {
        Some("boot") => boot::main,
        Some("kernel") => roles::kernel,
        Some("bullet") => roles::bullet,
        Some("directory") => roles::directory,
        Some("pool") => roles::pool,
        Some("viewer") => viewer::main,
        Some("shepherd") => {
            if let Err(error) = amoeba_linux::host::keep_descriptors() {
                eprintln!("amoeba: a guest may see descriptors of others: {error}");
            }
            let code = amoeba_linux::guest::shepherd::main();
            return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
        }
        Some(mounting::GUARD) => return mounting::stand_guard(),
        Some("dev-keeper") => return dev::keeper::main(std::env::args_os().skip(2)),
        _ => {
            let arguments: Vec<OsString> = std::env::args_os().collect();
            return amoeba_cli::main(arguments.into_iter(), &system::Local::new());
        }
    };
    logs::to_standard_error();
    let run = |state: State| {
        let role = role.to_str().filter(|role| *role != "boot");
        let _lock = role.map(|role| boot::be_the(&state, role)).transpose()?;
        run(&state)
    };
    match State::find().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", system::for_log(&error));
            ExitCode::FAILURE
        }
    }
}
