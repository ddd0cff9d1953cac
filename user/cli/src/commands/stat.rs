//! `amoeba stat`: what there is to know of an object.

use std::ffi::OsString;

use amoeba_stubs::{bullet, directory};
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use crate::graph::{Found, Graph, Kind};
use crate::out::Out;
use crate::place::{self, Place};
use crate::shown::{self, Shown};
use crate::{Context, masks, rights};

/// Show what an object is
///
/// Kind, size, server, the rights that the way to it gives, the masks of its name. Shows no secret.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON: an array with an element for each PATH
    #[arg(long)]
    json: bool,
    /// The objects
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

#[derive(Serialize)]
struct Facts {
    path: String,
    kind: &'static str,
    info: String,
    size: Option<u64>,
    rights: String,
    capability: Shown,
    replicas: Vec<Shown>,
    masks: Option<String>,
    changed: Option<String>,
    columns: Option<Vec<String>>,
    rows: Option<u64>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input(&self.paths)?;
        let graph = context.graph()?;
        let mut all = Vec::new();
        let looked_at = context.for_each(&self.paths, |_, path| {
            all.push(facts(&graph, &graph.place(path)?)?);
            Ok(())
        });
        if self.json {
            context.out.json(&all)?;
        } else {
            for (index, facts) in all.iter().enumerate() {
                if index > 0 {
                    context.out.line("")?;
                }
                print(&mut context.out, facts)?;
            }
        }
        looked_at
    }
}

fn facts(graph: &Graph, place: &Place) -> anyhow::Result<Facts> {
    let found: Found = graph.lookup(place)?;
    let (capability, _) = &graph.answering(&found.set).with_context(|| place.shown())?;
    let info = graph.info(capability).with_context(|| place.shown())?;
    let kind = Kind::of(&info);
    // What cannot be asked with these rights is left out.
    let described =
        (kind == Kind::Directory).then(|| directory::describe(graph.world(), capability).ok()).flatten();
    let size = (kind == Kind::File).then(|| bullet::size(graph.world(), capability).ok()).flatten();
    let row_masks = if place.last_name().is_empty() { None } else { graph.masks(place).ok() };
    Ok(Facts {
        path: place.shown(),
        kind: kind.name(),
        info,
        size,
        rights: rights::shown(capability.rights(), kind),
        capability: capability.into(),
        replicas: found.set.current().filter(|replica| *replica != capability).map(Shown::from).collect(),
        masks: row_masks.map(|(row_masks, columns)| masks::shown(row_masks, columns)),
        changed: (found.time > 0).then(|| shown::time(found.time / 1_000_000_000)),
        rows: described.as_ref().map(|described| described.rows),
        columns: described.map(|described| {
            described.columns.iter().map(|column| String::from_utf8_lossy(column).into_owned()).collect()
        }),
    })
}

fn print(out: &mut Out<'_>, facts: &Facts) -> anyhow::Result<()> {
    let shown = &facts.capability;
    let mut lines = vec![
        ("path", facts.path.clone()),
        ("kind", facts.kind.into()),
        ("info", facts.info.trim_end().into()),
        ("object", format!("{} of server {}", shown.object, shown.port)),
        ("rights", format!("{} ({})", facts.rights, shown.rights)),
    ];
    if !facts.replicas.is_empty() {
        lines.push(("replicas", (facts.replicas.len() + 1).to_string()));
        let replica = |shown: &Shown| ("also", format!("{} of server {}", shown.object, shown.port));
        lines.extend(facts.replicas.iter().map(replica));
    }
    let optional = [
        ("size", facts.size.map(|size| format!("{size} bytes ({})", crate::out::human_size(size)))),
        ("rows", facts.rows.map(|rows| rows.to_string())),
        ("columns", facts.columns.as_ref().map(|columns| columns.join(", "))),
        ("masks", facts.masks.clone()),
        ("changed", facts.changed.clone()),
    ];
    lines.extend(optional.into_iter().filter_map(|(label, value)| Some((label, value?))));
    lines.iter().try_for_each(|(label, value)| {
        out.line(format!("{label:>8}  {}", crate::out::printable(value.as_bytes())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use amoeba_cap::{Capability, Rights};

    #[test]
    fn people_see_lines_without_a_check_field() {
        let mut capability: Capability = "1:2:3:4:5:6/12(FF)/A:B:C:D:E:F".parse().unwrap();
        capability.private.rights = Rights::from_bits_retain(2);
        let facts = Facts {
            path: "docs/a".into(),
            kind: "file",
            info: "-     5 bytes".into(),
            size: Some(5),
            rights: "read".into(),
            capability: (&capability).into(),
            replicas: Vec::new(),
            masks: Some("ff:f:2:0".into()),
            changed: None,
            columns: None,
            rows: None,
        };
        let expected = "    path  docs/a\n    kind  file\n    info  -     5 bytes\n  object  12 of server 1:2:3:4:5:6\n  \
                        rights  read (02)\n    size  5 bytes (5 B)\n   masks  ff:f:2:0\n";
        assert_eq!(crate::out::printed(|out| print(out, &facts)), expected);
    }
}
