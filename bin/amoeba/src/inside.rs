//! Being inside a process of the system. Process numbers and locks may lie there, so commands ask nobody but the kernel
//! whose socket the process was given, with the capabilities it was given.

use std::env;
use std::path::PathBuf;

use amoeba_cli::{Hint, Session, SystemKind, SystemStatus};
use amoeba_name::{Environment, Names};
use anyhow::{Context, Result, anyhow};

use crate::boot;
use crate::config::Config;
use crate::state::State;
use crate::system::is_own;

/// The system that this process belongs to.
pub(crate) struct Inside {
    socket: PathBuf,
    /// Its state directory on this host, where the socket lies. Other users cannot look into it.
    state: State,
}

/// The system that this process belongs to, if it is a process of one; but whoever names another state directory in
/// `AMOEBA_STATE` means that one.
pub(crate) fn find() -> Option<Inside> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    inside(variable("AMOEBA_SOCKET")?, variable("AMOEBA_STATE"))
}

fn inside(socket: PathBuf, named: Option<PathBuf>) -> Option<Inside> {
    let state = State::at(socket.parent()?.parent()?.to_owned());
    let other =
        named.and_then(|named| std::path::absolute(named).ok()).is_some_and(|named| named != state.dir());
    (!other).then_some(Inside { socket, state })
}

impl Inside {
    /// A connection with what this process was given.
    ///
    /// # Errors
    /// It was not given enough.
    pub(crate) fn session(&self) -> Result<Session> {
        let given = amoeba_linux::given_environment();
        let given = |name: &str| given.as_ref().and_then(|given| given.get(name).copied());
        let world = amoeba_linux::connect(&self.socket);
        let root =
            given(Environment::ROOT).context("this process of the system was given no directory (ROOT)")?;
        let host_name = self.host_name();
        let host = match given("HOST") {
            Some(host) => host,
            None => Names::new(&world, root)
                .resolve(format!("/profile/hosts/{host_name}").as_bytes())
                .with_context(|| {
                    format!("host {host_name}, on which this process runs, cannot be found by its name")
                })?,
        };
        Ok(Session {
            world,
            root,
            confined_root: None,
            host,
            host_name,
            is_own: is_own(&self.socket),
            alone: Config::read(&self.state).is_ok_and(|config| config.is_alone()),
        })
    }

    /// The name of the host that the process runs on.
    pub(crate) fn host_name(&self) -> String {
        self.state.host_name().unwrap_or_else(|_| amoeba_linux::host::name())
    }

    /// What can be told from here.
    pub(crate) fn status(&self) -> Result<SystemStatus> {
        let session = self.session()?;
        let running = boot::answers_now(&session.world, &session.host).is_ok();
        let attention = format!(
            "this is inside a process of host {}: its daemons are seen, started and stopped from outside",
            session.host_name
        );
        let kind = if amoeba_linux::host::is_root() { SystemKind::Root } else { SystemKind::Private };
        Ok(SystemStatus {
            running,
            kind,
            state_directory: self.state.dir().to_owned(),
            host: session.host_name,
            daemons: Vec::new(),
            attention: vec![attention],
        })
    }

    /// The refusal of what can only be done from outside.
    pub(crate) fn refuse(&self, command: &str) -> anyhow::Error {
        anyhow!(
            "this is inside a process of host {}: `amoeba {command}` works outside of it",
            self.host_name()
        )
        .context(Hint("name another state directory in AMOEBA_STATE to have another system here".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_names_another_state_directory_means_that_one() {
        let inside = |named: Option<&str>| {
            inside("/state/run/kernel.sock".into(), named.map(PathBuf::from))
                .map(|inside| inside.state.dir().to_owned())
        };
        assert_eq!(inside(None), Some("/state".into()));
        assert_eq!(inside(Some("/state")), Some("/state".into()));
        assert_eq!(inside(Some("/other")), None);
    }
}
