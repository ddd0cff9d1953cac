//! `amoeba` (short: `am`): the one binary. The first word is a daemon's role, which only the supervisor uses, or a
//! subcommand.
//!
//! - [`boot`] supervises, [`setup`] and [`publish`] make what a new system needs, [`roles`] are the daemons.
//! - [`system`] and [`console`] are what the subcommands (`amoeba-cli`) see of this host.
//! - [`dev`] has throw-away hosts, [`join`] makes this host one of a system that is there.
//! - [`state`] is the state directory, [`config`] what its owner wrote into it.
#![forbid(unsafe_code)]

mod boot;
mod config;
mod console;
mod dev;
mod join;
mod publish;
mod roles;
mod setup;
mod state;
mod system;

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
        Some("shepherd") => {
            let code = amoeba_linux::guest::shepherd::main();
            return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX));
        }
        Some("dev-keeper") => return dev::keeper::main(std::env::args_os().skip(2)),
        _ => {
            let arguments: Vec<OsString> = std::env::args_os().collect();
            return amoeba_cli::main(arguments.into_iter(), &system::Local::new());
        }
    };
    log_to_standard_error();
    match State::find().and_then(|state| run(&state)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Daemons write their log to standard error, which the supervisor keeps; `AMOEBA_LOG` chooses how much.
fn log_to_standard_error() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("AMOEBA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}
