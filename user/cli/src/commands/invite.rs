//! `amoeba invite`: let another host join.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::out::{Align, Out};
use crate::{Context, Invitation, InvitationState, InviteOptions, Invited, Standard, duration};

/// How long an invitation is open unless somebody says so.
const TIME_DEFAULT: &str = "1h";

/// Let another host join: prints one line to paste there
///
/// The line has a token in it, which is good for one host, and for an hour unless --for says otherwise: a secret until it
/// was used. The first invitation opens the way to other hosts, the first free UDP port from 5321 on, and writes it into
/// config.toml; before it no port is open. A system that does not run is started.
#[derive(Args)]
pub(crate) struct Arguments {
    /// How long the token is good
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse, default_value = TIME_DEFAULT)]
    time: Duration,
    /// What the new host is to be called, instead of the name of its machine
    #[arg(long)]
    name: Option<String>,
    /// Where to listen for other hosts, if this is the first invitation
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// List the invitations instead, and what has become of them
    #[arg(long, conflicts_with_all = ["time", "name", "listen", "revoke"])]
    list: bool,
    /// Take an invitation back instead; its number is that of --list
    #[arg(long, value_name = "ID", conflicts_with_all = ["time", "name", "listen"])]
    revoke: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// An invitation, as programs see it.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    name: Option<&'a str>,
    token: &'a str,
    command: String,
    seconds: u64,
    addresses: &'a [String],
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        if let Some(id) = &self.revoke {
            return context.system.revoke(id);
        }
        if self.list {
            let list = context.system.invitations()?;
            return if self.json { context.out.json(&list) } else { print_list(&mut context.out, &list) };
        }
        let Arguments { time, name, listen, json, .. } = self;
        let invited = context.system.invite(&InviteOptions { time, name, listen })?;
        if json {
            return context.out.json(&shown(&invited));
        }
        context.out.line(command(&invited))?;
        if context.is_terminal(Standard::Error) {
            let time = duration::human(invited.time);
            // Standard error may be closed; the line is there.
            let _ = writeln!(
                context.errors,
                "Paste this line on the other host. It is good for one host and {time}."
            );
        }
        Ok(())
    }
}

fn command(invited: &Invited) -> String {
    format!("amoeba join {}", invited.token)
}

fn shown(invited: &Invited) -> Shown<'_> {
    Shown {
        id: &invited.id,
        name: invited.name.as_deref(),
        token: &invited.token,
        command: command(invited),
        seconds: invited.time.as_secs(),
        addresses: &invited.addresses,
    }
}

fn print_list(out: &mut Out<'_>, list: &[Invitation]) -> anyhow::Result<()> {
    let row = |invitation: &Invitation| {
        let state = match &invitation.state {
            InvitationState::Open { seconds } => {
                format!("open for {}", duration::human(Duration::from_secs(*seconds)))
            }
            InvitationState::Used { host } => format!("used by {host}"),
            InvitationState::Expired => "expired".to_owned(),
            InvitationState::Revoked => "revoked".to_owned(),
        };
        vec![invitation.id.clone(), invitation.name.clone().unwrap_or_else(|| "-".to_owned()), state]
    };
    let headings = [("ID", Align::Left), ("NAME", Align::Left), ("STATE", Align::Left)];
    out.table(&headings, list.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::printed;
    use crate::testing::TestSystem;

    #[test]
    fn what_is_printed_is_a_line_to_paste() {
        TestSystem::new().run(&["invite"]).printed("amoeba join am1test\n");
        let json = TestSystem::new();
        let json = json.run(&["invite", "--json", "--for", "10m", "--name", "bolt"]);
        let value: serde_json::Value = serde_json::from_str(json.text()).expect("JSON");
        assert_eq!(
            (value["command"].as_str(), value["seconds"].as_u64()),
            (Some("amoeba join am1test"), Some(600))
        );
        assert_eq!(value["name"], "bolt");
    }

    #[test]
    fn people_see_what_has_become_of_invitations() {
        let invitation = |id: &str, name: Option<&str>, state| Invitation {
            id: id.into(),
            name: name.map(str::to_owned),
            state,
        };
        let list = [
            invitation("0a", None, InvitationState::Open { seconds: 65 }),
            invitation("0b", Some("bolt"), InvitationState::Used { host: "bolt".into() }),
            invitation("0c", None, InvitationState::Expired),
            invitation("0d", None, InvitationState::Revoked),
        ];
        let expected = "\
ID  NAME  STATE
0a  -     open for 1m05s
0b  bolt  used by bolt
0c  -     expired
0d  -     revoked
";
        assert_eq!(printed(|out| print_list(out, &list)), expected);
        let value = serde_json::to_value(&list).expect("JSON");
        assert_eq!((value[0]["state"].as_str(), value[0]["seconds"].as_u64()), (Some("open"), Some(65)));
        assert_eq!((value[1]["state"].as_str(), value[1]["host"].as_str()), (Some("used"), Some("bolt")));
    }
}
