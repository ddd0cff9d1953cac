//! `amoeba invite`: lets one more host join.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use amoeba_cli::{Hint, Invitation, InvitationState, InviteOptions, Invited};
use amoeba_linux::link::admission::{Token, is_name};
use amoeba_linux::socket::{Admin, Administered};
use anyhow::{Context, Result, anyhow, bail};

use crate::config::{Config, resolve};
use crate::hosts::{Entry, Invites, Kept, administer, choose_listen, reachable, wanted_listen};
use crate::state::State;

/// The longest that an invitation may be open.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Refuses what no invitation can be.
pub(crate) fn check(options: &InviteOptions) -> Result<()> {
    if let Some(name) = options.name.as_ref().filter(|name| !is_name(name)) {
        bail!("{name:?} cannot be a host's name: it has 1 to 64 bytes, without '/' or control characters");
    }
    if options.time > TIME_MAX {
        bail!("an invitation is open for at most {} days", TIME_MAX.as_secs() / (24 * 3600));
    }
    Ok(())
}

/// Makes an invitation; the first one opens the way to other hosts.
pub(crate) fn make(state: &State, options: &InviteOptions) -> Result<Invited> {
    let listening = open_link(state, options.listen.as_deref())?;
    let mut changing = Invites::change(state)?;
    let invite = changing.invites.add(options.time, options.name.clone())?;
    changing.write(state)?;
    administer(state, &Admin::Invites(changing.invites.for_kernel()))?;
    let addresses = reachable(listening);
    let token = Token {
        id: invite.id,
        secret: invite.secret,
        key: state.identity()?.public(),
        addresses: addresses.clone(),
    };
    Ok(Invited {
        id: invite.id.to_string(),
        token: token.to_text(),
        name: options.name.clone(),
        time: options.time,
        addresses: addresses.iter().map(SocketAddr::to_string).collect(),
    })
}

/// All invitations of this host.
pub(crate) fn list(state: &State) -> Result<Vec<Invitation>> {
    let status = |(entry, left): (&Entry, Option<Duration>)| Invitation {
        id: entry.id.clone(),
        name: entry.name.clone(),
        state: match (&entry.state, left) {
            (Kept::Open, Some(left)) => InvitationState::Open { seconds: left.as_secs() },
            (Kept::Open, None) => InvitationState::Expired,
            (Kept::Taken { host, .. } | Kept::Used { host, .. }, _) => {
                InvitationState::Used { host: host.clone() }
            }
            (Kept::Revoked, _) => InvitationState::Revoked,
        },
    };
    Ok(Invites::read(state)?.iter().map(status).collect())
}

/// Takes an invitation back.
pub(crate) fn revoke(state: &State, id: &str) -> Result<()> {
    let mut changing = Invites::change(state)?;
    let list = "`amoeba invite --list` lists the invitations, `amoeba host remove` removes hosts";
    changing.invites.revoke(id).context(Hint(list.to_owned()))?;
    changing.write(state)?;
    match administer(state, &Admin::Invites(changing.invites.for_kernel())) {
        // A kernel that does not run reads what was written when it starts.
        Err(error) if error.downcast_ref::<amoeba_world::Error>().is_some() => Ok(()),
        answer => answer.map(drop),
    }
}

/// Where this host listens for others. Nobody could reach it before the first invitation: then the link is opened in the
/// kernel that runs, and is written into the configuration.
fn open_link(state: &State, listen: Option<&str>) -> Result<SocketAddr> {
    if let Some(link) = Config::read(state)?.link {
        let wanted = listen.map(resolve).transpose()?;
        if wanted.is_some_and(|wanted| wanted != link.listen) {
            return Err(anyhow!("this host listens on {} already", link.listen)).context(Hint(
                "another address is written into [link] of its config.toml, then `amoeba down`, `up`".into(),
            ));
        }
        return opened(administer(state, &Admin::OpenLink(link.listen))?);
    }
    let listen = listen.map_or_else(|| choose_listen(false), wanted_listen)?;
    let listening = opened(administer(state, &Admin::OpenLink(listen.address))?)?;
    write_link(state, listening).context("the link is open, but not written into the configuration")?;
    Ok(listening)
}

fn opened(answer: Administered) -> Result<SocketAddr> {
    match answer {
        Administered::Opened(address) => Ok(address),
        _ => bail!("the kernel answers something else than it was asked"),
    }
}

/// Adds the part of the link to the configuration, and leaves the rest of the file as its owner wrote it.
fn write_link(state: &State, listen: SocketAddr) -> Result<()> {
    let path = state.path("config.toml");
    let mut text =
        if path.exists() { fs::read_to_string(&path)?.trim_end().to_owned() } else { String::new() };
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(&format!("[link]\nlisten = \"{listen}\"\n"));
    toml::from_str::<Config>(&text).context("config.toml")?;
    state.write("config.toml", text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_added_and_the_rest_stays() {
        let directory = std::env::temp_dir().join(format!("amoeba-link-{}", std::process::id()));
        let state = State::at(directory.clone());
        state.create().unwrap();
        let listen: SocketAddr = "[::]:5321".parse().unwrap();
        write_link(&state, listen).unwrap();
        assert_eq!(
            fs::read_to_string(state.path("config.toml")).unwrap(),
            "[link]\nlisten = \"[::]:5321\"\n"
        );
        let mine = "# mine\nservices = [\"bullet\"]\n\n[bullet]\ncache = 1048576\n\n\n";
        fs::write(state.path("config.toml"), mine).unwrap();
        write_link(&state, listen).unwrap();
        let text = fs::read_to_string(state.path("config.toml")).unwrap();
        assert!(text.starts_with("# mine\nservices"), "{text}");
        let config = Config::read(&state).unwrap();
        assert_eq!((config.link.unwrap().listen, config.bullet.cache), (listen, 1_048_576));
        assert!(write_link(&state, listen).is_err(), "there is one already");
        fs::remove_dir_all(directory).unwrap();
    }
}
