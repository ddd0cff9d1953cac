//! `amoeba host remove`: a host is none of the system any more.

use std::io::BufRead;

use amoeba_name::{NameError, Names};
use amoeba_wire::Status;
use anyhow::{Context as _, anyhow};

use crate::failure::Advise;
use crate::graph::Graph;
use crate::members::{self, HOSTS, Member};
use crate::{Context, Standard};

/// Names that a host has beside its row, without its own name.
const NAMES: [&str; 2] = ["/profile/hosts", "/profile/cap/bulletsvr"];

/// Takes the host out: its row first, for that is what counts.
pub(super) fn run(
    context: &mut Context<'_>,
    graph: &Graph,
    host: &str,
    yes: bool,
    force: bool,
) -> anyhow::Result<()> {
    let members = members::members(graph).context("the list of hosts")?;
    let Some(member) = members.iter().find(|member| member.name == host) else {
        return Err(anyhow!("there is no host {host}")).hint("`amoeba host ls` lists them");
    };
    refuse_the_last(&members, member, force)?;
    if !yes && !confirmed(context, member)? {
        return Err(anyhow!("{host} was not removed"));
    }
    let names = Names::new(graph.world(), graph.session().root);
    let row = [HOSTS, b"/", host.as_bytes()].concat();
    deleted(names.delete(&row)).with_context(|| format!("the row of {host}"))?;
    for directory in NAMES {
        let path = format!("{directory}/{host}");
        deleted(names.delete(path.as_bytes()))
            .with_context(|| format!("{host} is removed, but its name {path} is not"))?;
    }
    Ok(())
}

/// A name that has gone already is as good.
fn deleted(result: Result<(), NameError>) -> Result<(), NameError> {
    match result {
        Err(error) if error.status() == Status::STD_NOTFOUND => Ok(()),
        result => result,
    }
}

/// Without a directory server no name reaches anything.
fn refuse_the_last(members: &[Member], member: &Member, force: bool) -> anyhow::Result<()> {
    let servers = members::with_directory(members);
    let last = servers.len() == 1 && servers.contains(member.name.as_str());
    if last && !force {
        let why =
            format!("{} runs the only directory server: without it no name reaches anything", member.name);
        return Err(anyhow!(why))
            .hint("remove the other hosts, and keep this one; --force does it all the same");
    }
    Ok(())
}

/// Asks whoever sits at the terminal.
fn confirmed(context: &mut Context<'_>, member: &Member) -> anyhow::Result<bool> {
    if !context.is_terminal(Standard::Input) {
        return Err(anyhow!("nobody can be asked whether {} is to be removed", member.name))
            .hint("--yes says so");
    }
    let files = if member.services.iter().any(|service| service == "bullet") {
        ", with the files that only its file server has"
    } else {
        ""
    };
    write!(context.errors, "Remove {} from the system{files}? [y/N] ", member.name)?;
    context.errors.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    fn system() -> TestSystem {
        let system = TestSystem::new();
        for path in ["/system", "/system/hosts", "/profile/hosts"] {
            system.names().mkdir(path.as_bytes()).expect("the name is free");
        }
        for (name, services) in [("anvil", r#""bullet", "directory""#), ("bolt", "")] {
            let file =
                format!(r#"{{"name": "{name}", "key": "00", "addresses": [], "services": [{services}]}}"#);
            system.file(&format!("/system/hosts/{name}"), file.as_bytes());
            system.file(&format!("/profile/hosts/{name}"), b"its directory");
        }
        system
    }

    #[test]
    fn a_host_is_removed_with_its_names() {
        let system = system();
        system.run(&["host", "remove", "--yes", "bolt"]).printed("");
        system.run(&["ls", "/system/hosts"]).printed("anvil\n");
        system.run(&["ls", "/profile/hosts"]).printed("anvil\n");
        let gone = "amoeba: there is no host bolt\nhint: `amoeba host ls` lists them\n";
        system.run(&["host", "remove", "--yes", "bolt"]).failed(1, gone);
    }

    #[test]
    fn the_only_directory_server_stays_unless_forced() {
        let system = system();
        let refused = "amoeba: anvil runs the only directory server: without it no name reaches anything\n\
                       hint: remove the other hosts, and keep this one; --force does it all the same\n";
        system.run(&["host", "remove", "--yes", "anvil"]).failed(1, refused);
        system.run(&["host", "remove", "--yes", "--force", "anvil"]).printed("");
    }

    #[test]
    fn nobody_is_removed_without_a_word() {
        let refused = "amoeba: nobody can be asked whether bolt is to be removed\nhint: --yes says so\n";
        system().run(&["host", "remove", "bolt"]).failed(1, refused);
    }
}
