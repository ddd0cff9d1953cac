//! `amoeba cap`: capabilities as text.

use std::ffi::OsString;

use amoeba_cap::{Capability, Rights};
use amoeba_stubs::{directory, standard};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::graph::{Graph, Kind};
use crate::{Context, rights};

/// Show capabilities, and make weaker ones
///
/// Whoever has the text of a capability has what it gives: keep it in a file of your own and pass it on as @FILE.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: CapCommand,
}

#[derive(Subcommand)]
enum CapCommand {
    /// Print the capability of an object, check field included: a secret
    Show(Show),
    /// Print a capability for the same object with fewer rights: a secret too
    ///
    /// The server of the object makes it. Who has it can do what these rights say and nothing more, and cannot make a
    /// stronger one of it.
    Restrict(Restrict),
}

#[derive(Args)]
struct Show {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The object
    path: OsString,
}

#[derive(Args)]
struct Restrict {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The object
    path: OsString,
    /// The rights to keep: names with commas between (read, modify, destroy ...), or a mask such as 0x0F
    rights: String,
}

#[derive(Serialize)]
struct Printed {
    capability: String,
    kind: &'static str,
    rights: String,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        match self.command {
            CapCommand::Show(arguments) => {
                let found = graph.lookup(&graph.place(&arguments.path)?)?;
                print(context, &graph, &found.capability, arguments.json)
            }
            CapCommand::Restrict(arguments) => {
                let place = graph.place(&arguments.path)?;
                let found = graph.lookup(&place)?.capability;
                let keep = wanted(&graph, &found, &arguments.rights)?;
                let restricted = standard::restrict(graph.world(), &found, u32::from(keep.bits()));
                print(context, &graph, &restricted.with_context(|| place.shown())?, arguments.json)
            }
        }
    }
}

fn wanted(graph: &Graph, object: &Capability, text: &str) -> anyhow::Result<Rights> {
    let kind = graph.kind(object)?;
    let columns = match kind {
        Kind::Directory => {
            directory::list(graph.world(), object, b"", 1).map_or(0, |page| page.columns.len())
        }
        _ => 0,
    };
    rights::parse(text, kind, columns)
}

fn print(
    context: &mut Context<'_>,
    graph: &Graph,
    capability: &Capability,
    json: bool,
) -> anyhow::Result<()> {
    if !json {
        return context.out.line(capability.to_text());
    }
    // The kind is a help; an object that does not answer has a capability all the same.
    let kind = graph.kind(capability).unwrap_or(Kind::Other);
    context.out.json(&Printed {
        capability: capability.to_text(),
        kind: kind.name(),
        rights: rights::shown(capability.rights(), kind),
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn a_reader_of_a_directory_reads_and_changes_nothing() {
        let system = TestSystem::new();
        system.run(&["mkdir", "-p", "shared/inner"]).printed("");
        system.run(&["put", "/dev/null", "shared/inner/file"]).printed("");
        let ran = system.run(&["cap", "restrict", "shared", "read"]);
        let reader = ran.text();
        system.run(&["ls", reader]).printed("inner\n");
        system.run(&["cat", &format!("{reader}/inner/file")]).printed("");
        for line in [
            &["rm", "inner/file"][..],
            &["rm", "--destroy", "inner/file"],
            &["mkdir", "new"],
            &["mkdir", "inner/new"],
            &["put", "/dev/null", "inner/new"],
        ] {
            let (path, command) = line.split_last().expect("each has a path");
            let path = format!("{reader}/{path}");
            let ran = system.run(&[command, &[path.as_str()]].concat());
            assert!(format!("{ran:?}").contains("STD_DENIED"), "{ran:?}");
        }
    }

    #[test]
    fn programs_are_told_kind_and_rights() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        let ran = system.run(&["cap", "restrict", "--json", "a", "read,destroy"]);
        let value: serde_json::Value = serde_json::from_str(ran.text()).expect("--json prints JSON");
        assert_eq!((value["kind"].as_str(), value["rights"].as_str()), (Some("file"), Some("read,destroy")));
        let capability: amoeba_cap::Capability =
            value["capability"].as_str().expect("a text").parse().expect("a capability");
        assert_eq!(capability.rights().bits(), 0x0A);
    }
}
