//! `amoeba ls`: what is in directories.

use std::ffi::OsString;

use amoeba_stubs::directory::{RowFound, RowHead};
use amoeba_wire::Status;
use clap::Args;
use serde::Serialize;

use crate::graph::{Graph, Kind};
use crate::out::{Align, Out, printable};
use crate::place::{self, Place};
use crate::shown::{self, Name, Shown};
use crate::{Context, Standard, masks};

/// List directories
///
/// Without a PATH the working directory. What is no directory is listed by its own name.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Also information about each object, its server asked; masks, and time of the last change of the name
    #[arg(short, long)]
    long: bool,
    /// Also names that begin with a dot
    #[arg(short, long)]
    all: bool,
    /// Print JSON: an array with an element for each PATH
    #[arg(long)]
    json: bool,
    /// The directories
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
}

/// A directory, or one object that is none.
#[derive(Serialize)]
struct Listed {
    path: String,
    /// Of a directory; none for an object by itself.
    columns: Vec<String>,
    entries: Vec<Entry>,
    #[serde(skip)]
    is_directory: bool,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    name: Name,
    #[serde(skip)]
    bytes: Vec<u8>,
    masks: Option<String>,
    changed: Option<String>,
    info: Option<String>,
    capability: Option<Shown>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input(&self.paths)?;
        let graph = context.graph()?;
        let here = [OsString::from(".")];
        let paths = if self.paths.is_empty() { &here[..] } else { &self.paths[..] };
        let mut listed = Vec::new();
        let looked_at = context.for_each(paths, |_, path| {
            listed.push(self.list(&graph, &graph.place(path)?)?);
            Ok(())
        });
        if self.json {
            context.out.json(&listed)?;
        } else {
            let on_terminal = context.is_terminal(Standard::Output);
            print_all(&mut context.out, &listed, paths.len() > 1, self.long, on_terminal)?;
        }
        looked_at
    }

    fn list(&self, graph: &Graph, place: &Place) -> anyhow::Result<Listed> {
        let found = graph.lookup(place)?.capability;
        match graph.kind(&found) {
            Ok(Kind::Directory) => {}
            // Not a directory, or nobody who could say so: the name is all there is to list.
            Ok(_) => return Ok(self.alone(graph, place, &found)),
            Err(error) => return Err(error.context(place.shown())),
        }
        let listing = graph.list(place)?;
        let mut rows = listing.rows;
        rows.retain(|row| self.all || !row.name.starts_with(b"."));
        let known = if self.long { graph.look_at(&found, &rows)? } else { Vec::new() };
        let columns = listing.columns.len();
        let entries =
            rows.iter().enumerate().map(|(index, row)| entry(graph, row, known.get(index), columns));
        Ok(Listed {
            path: place.shown(),
            columns: listing
                .columns
                .iter()
                .map(|column| String::from_utf8_lossy(column).into_owned())
                .collect(),
            entries: entries.collect(),
            is_directory: true,
        })
    }

    fn alone(&self, graph: &Graph, place: &Place, object: &amoeba_cap::Capability) -> Listed {
        let shown = place.shown();
        let entry = Entry {
            name: Name::from(shown.as_bytes()),
            bytes: shown.clone().into_bytes(),
            masks: graph.masks(place).ok().map(|(row, columns)| masks::shown(row, columns)),
            changed: None,
            info: self.long.then(|| info(graph, object)),
            capability: self.long.then(|| object.into()),
        };
        Listed { path: shown, columns: Vec::new(), entries: vec![entry], is_directory: false }
    }
}

fn entry(graph: &Graph, row: &RowHead, known: Option<&RowFound>, columns: usize) -> Entry {
    let object = known.filter(|known| !Status(known.status).is_error()).and_then(|known| known.set.first());
    let why_not = known.map(|known| format!("? {}", Status(known.status)));
    Entry {
        name: Name::from(&row.name[..]),
        bytes: row.name.clone(),
        masks: Some(masks::shown(row.masks, columns)),
        changed: (row.time > 0).then(|| shown::time(row.time / 1_000_000_000)),
        info: object.map(|object| info(graph, object)).or(why_not),
        capability: object.map(Shown::from),
    }
}

/// What an object says of itself, or why it says nothing.
fn info(graph: &Graph, object: &amoeba_cap::Capability) -> String {
    match graph.info(object) {
        Ok(info) => info.trim_end().into(),
        Err(error) => format!("? {}", error.status()),
    }
}

fn print_all(
    out: &mut Out<'_>,
    listed: &[Listed],
    with_headings: bool,
    long: bool,
    on_terminal: bool,
) -> anyhow::Result<()> {
    for (index, one) in listed.iter().enumerate() {
        if with_headings && one.is_directory {
            let gap = if index > 0 { "\n" } else { "" };
            out.line(format!("{gap}{}:", one.path))?;
        }
        if long {
            print_long(out, &one.entries)?;
        } else {
            // For programs the bytes as they are; a terminal would obey some of them.
            one.entries.iter().try_for_each(|entry| match on_terminal {
                true => out.line(printable(&entry.bytes)),
                false => out.line(&entry.bytes),
            })?;
        }
    }
    Ok(())
}

fn print_long(out: &mut Out<'_>, entries: &[Entry]) -> anyhow::Result<()> {
    let cell = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let rows = entries.iter().map(|entry| {
        vec![cell(&entry.info), cell(&entry.masks), cell(&entry.changed), printable(&entry.bytes)]
    });
    let left = ("", Align::Left);
    out.table(&[left, left, left, left], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out::printed;
    use crate::testing::TestSystem;

    fn listed(path: &str, names: &[&str]) -> Listed {
        let entry = |name: &&str| Entry {
            name: Name::from(name.as_bytes()),
            bytes: name.as_bytes().to_vec(),
            masks: Some("ff:f:2".into()),
            changed: Some("2026-11-21T22:44:17Z".into()),
            info: Some("-     5 bytes".into()),
            capability: None,
        };
        let entries = names.iter().map(entry).collect();
        Listed { path: path.into(), columns: vec!["owner".into()], entries, is_directory: true }
    }

    #[test]
    fn names_stand_one_a_line() {
        let text = printed(|out| print_all(out, &[listed("a", &["x", "y z"])], false, false, false));
        assert_eq!(text, "x\ny z\n");
        let both = [listed("a", &["x"]), listed("b", &["\u{1b}"])];
        assert_eq!(printed(|out| print_all(out, &both, true, false, true)), "a:\nx\n\nb:\n\\u{1b}\n");
    }

    #[test]
    fn the_long_form_has_information_masks_and_time() {
        let text = printed(|out| print_all(out, &[listed("a", &["x"])], false, true, false));
        assert_eq!(text, "-     5 bytes  ff:f:2  2026-11-21T22:44:17Z  x\n");
    }

    #[test]
    fn programs_get_columns_and_entries() {
        let value = serde_json::to_value(listed("a", &["x"])).unwrap();
        assert_eq!(value["columns"][0], "owner");
        assert_eq!(value["entries"][0]["name"], "x");
        assert_eq!(value["entries"][0]["masks"], "ff:f:2");
    }

    #[test]
    fn what_is_there_is_listed_although_something_is_not() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        let ran = format!("{:?}", system.run(&["ls", "none", "a", "fd:x"]));
        assert!(ran.contains("stdout: \"a\\n\"") && ran.contains("none: no such name"), "{ran}");
        assert!(ran.contains("fd: wants") && ran.contains("(1)"), "{ran}");
        let ran = format!("{:?}", system.run(&["stat", "none", "a"]));
        assert!(
            ran.contains("path  a") && ran.contains("none: no such name") && ran.contains("(1)"),
            "{ran}"
        );
    }

    #[test]
    fn programs_get_one_shape_and_one_form_of_masks() {
        let system = TestSystem::new();
        system.run(&["put", "/dev/null", "a"]).printed("");
        let json = |line: &[&str]| -> serde_json::Value {
            serde_json::from_str(system.run(line).text()).expect("--json prints JSON")
        };
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().expect("an object").keys().cloned().collect()
        };
        let listings =
            [&["ls", "--json"][..], &["ls", "--json", "-l"], &["ls", "--json", "a", "."]].map(json);
        for listing in &listings {
            let one = &listing[0];
            assert_eq!(keys(one), ["columns", "entries", "path"]);
            let expected = ["capability", "changed", "info", "masks", "name"];
            assert_eq!(keys(&one["entries"][0]), expected);
            assert_eq!(one["entries"][0]["masks"], "ff:f:2");
        }
        assert_eq!(json(&["stat", "--json", "a"])[0]["masks"], "ff:f:2");
    }

    #[test]
    fn directories_and_files_are_listed_without_secrets() {
        let system = TestSystem::new();
        system.file("/home/b", b"beta");
        system.file("/home/a", b"alpha");
        system.file("/home/.hidden", b"");
        system.run(&["ls"]).printed("a\nb\n");
        system.run(&["ls", "-a", "."]).printed(".hidden\na\nb\n");
        system.run(&["ls", "a"]).printed("a\n");
        system.run(&["ls", "nothing"]).failed(1, "amoeba: nothing: no such name (STD_NOTFOUND)\n");
        let shown = system.run(&["cap", "show", "a"]);
        let check = shown.text().rsplit('/').next().expect("a split has a last part").to_owned();
        for line in [&["ls", "-l"][..], &["ls", "-l", "--json"], &["stat", "a"], &["stat", "--json", "a"]] {
            let ran = system.run(line);
            assert!(ran.text().contains("5 bytes") && !ran.text().contains(&check), "{ran:?}");
        }
    }
}
