//! `amoeba join`: this host becomes one of a system that is there already.
//!
//! What it gets is written before it says so to the inviter, and it is a member when that has made its row. Whatever
//! interrupts this, the same token completes it: the identity stays, and [`PENDING`] says that something is left to do.

use std::net::SocketAddr;

use amoeba_cli::{Hint, JoinOptions, JoinedSystem};
use amoeba_linux::link::admission::{AskConfig, JoinError, Joined, Row, Token, TokenError, ask};
use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::config::{Link, Service};
use crate::hosts::sync::REMOVED;
use crate::hosts::{Listening, Member, Members, choose_listen, reachable, wanted_listen};
use crate::setup;
use crate::state::State;

/// There while a host has what it needs and is no member yet.
pub(crate) const PENDING: &str = "join.pending";

/// The configuration of a host that has joined.
#[derive(Serialize)]
struct Config {
    services: Vec<Service>,
    link: Link,
}

/// Asks to be taken in, and lays out the state directory. What it returns beside the outcome is kept until the system
/// listens.
pub(crate) fn main(state: &State, options: &JoinOptions) -> Result<(JoinedSystem, Listening)> {
    if state.has("system.secret") && !state.has(PENDING) {
        return Err(belongs_already(state));
    }
    let token = parse(&options.token)?;
    state.create()?;
    setup::ensure_identity(state)?;
    let listen = match &options.listen {
        Some(listen) => wanted_listen(listen)?, // before the token is spent
        None => choose_listen(token.addresses.iter().all(|address| address.ip().is_loopback()))?,
    };
    let identity = state.identity()?;
    let name = options.name.clone().unwrap_or_else(amoeba_linux::host::name);
    let addresses = reachable(listen.address);
    let config = AskConfig {
        token: &token,
        identity: &identity,
        name: &name,
        chosen: options.name.is_some(),
        addresses: &addresses,
        entropy: amoeba_linux::entropy(),
    };
    let (joined, pending) = ask(&config).map_err(explain)?;
    let own = Member { inviter: Some(joined.inviter.clone()), ..Member::from(row(&joined, &config)) };
    keep(state, &joined, own, listen.address, &token)?;
    match pending.confirm() {
        Ok(()) => {
            state.remove(PENDING)?;
            let (name, inviter) = (joined.name.clone(), joined.inviter.clone());
            Ok((JoinedSystem { name, inviter, listen: listen.address.to_string() }, listen))
        }
        Err(error) => {
            if matches!(error, JoinError::Refused { .. } | JoinError::Token(_)) {
                forget(state)?;
            }
            Err(explain(error))
        }
    }
}

fn row(joined: &Joined, config: &AskConfig<'_>) -> Row {
    Row { name: joined.name.clone(), key: config.identity.public(), addresses: config.addresses.to_vec() }
}

/// Writes all that makes a host one of the system; the secret last, for without it there is no system here.
///
/// A host that has just opened its link for its first invitation may not have written down where it listens: its token says
/// it.
fn keep(state: &State, joined: &Joined, own: Member, listen: SocketAddr, token: &Token) -> Result<()> {
    let config = Config { services: Vec::new(), link: Link { listen } };
    let key = own.key;
    let others = joined.members.iter().filter(|row| row.key != key).cloned().map(|mut row| {
        if row.key == token.key && row.addresses.is_empty() {
            row.addresses.clone_from(&token.addresses);
        }
        Member::from(row)
    });
    state.write(PENDING, b"the host that invites has not confirmed yet that this one is a member\n")?;
    state.remove(REMOVED)?;
    state.write("config.toml", toml::to_string(&config)?.as_bytes())?;
    state.write("host.name", joined.name.as_bytes())?;
    state.write("root.cap", format!("{}\n", joined.root_capability).as_bytes())?;
    Members::new(others.chain([own])).write(state)?;
    state.write("system.secret", &joined.secret.to_bytes())
}

/// Removes what was kept of a system that does not take this host in; the secret first. The identity stays.
fn forget(state: &State) -> Result<()> {
    let kept = ["system.secret", "root.cap", "members.json", "host.name", "config.toml", PENDING];
    kept.into_iter().try_for_each(|name| state.remove(name))
}

fn belongs_already(state: &State) -> anyhow::Error {
    let dir = state.dir().display();
    if state.has(REMOVED) {
        return anyhow!("this host was removed from its system, whose state is still in {dir}")
            .context(Hint(format!("move {dir} away, then join again")));
    }
    anyhow!("this host belongs to a system already (state in {dir})")
        .context(Hint("set AMOEBA_STATE to an empty directory to have another host here".to_owned()))
}

fn parse(text: &str) -> Result<Token> {
    let hint = match text.parse() {
        Ok(token) => return Ok(token),
        Err(TokenError::Other) => "`amoeba invite` on a host of the system prints one",
        Err(_) => "copy the whole line that `amoeba invite` has printed",
    };
    let error = text.parse::<Token>().map(drop).unwrap_err();
    Err(anyhow!(error).context(Hint(hint.to_owned())))
}

/// An error with its next step.
fn explain(error: JoinError) -> anyhow::Error {
    let hint = match &error {
        JoinError::Name(_) => "choose a name with --name",
        JoinError::Silent(_) => {
            "is the system up there, and does a firewall let UDP through to this port? Addresses that have changed need \
             a new token: `amoeba invite` there"
        }
        JoinError::Token(_) | JoinError::Unknown(_) | JoinError::Stranger(_) => {
            "ask for a new one: `amoeba invite` on a host of the system"
        }
        JoinError::Unconfirmed(_) => "`amoeba join` again, with the same token, completes it",
        _ => return anyhow!(error),
    };
    anyhow!(error).context(Hint(hint.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_a_configuration() {
        let link = Link { listen: "127.0.0.2:5321".parse().unwrap() };
        let text = toml::to_string(&Config { services: Vec::new(), link }).unwrap();
        let config: crate::config::Config = toml::from_str(&text).unwrap();
        assert!(config.services.is_empty());
        assert_eq!(config.link.unwrap().listen.to_string(), "127.0.0.2:5321");
    }

    #[test]
    fn what_is_no_token_is_told_with_the_next_step() {
        for (text, expected) in [("127.0.0.1:5321", "no token"), ("am1abc", "not copied whole")] {
            let error = parse(text).map(drop).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
            assert!(error.downcast_ref::<Hint>().is_some());
        }
    }
}
