//! `amoeba ls`: what is in directories.

use std::cell::RefCell;
use std::ffi::OsString;

use amoeba_cap::Capability;
use amoeba_stubs::directory::{self, RowFound, RowHead};
use amoeba_wire::Status;
use anyhow::Context as _;
use clap::Args;
use serde::ser::{Error as _, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};

use crate::graph::{Graph, Kind};
use crate::out::{Align, Out, printable};
use crate::place::{self, Place};
use crate::shown::{self, Name, Shown};
use crate::{Context, Standard, masks};

/// Rows that are asked for at once.
const PAGE: u32 = 4096;

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
struct Listed<'a> {
    path: String,
    /// Of a directory; none for an object by itself.
    columns: Vec<String>,
    is_directory: bool,
    entries: RefCell<Pages<'a>>,
}

/// The entries of a directory, a page at a time: there may be more than memory has room for.
struct Pages<'a> {
    graph: &'a Graph,
    directory: Capability,
    long: bool,
    all: bool,
    /// The names of the directory's columns.
    columns: Vec<String>,
    /// The page at hand.
    page: Option<Vec<Entry>>,
    /// The name after which to go on.
    after: Option<Vec<u8>>,
}

impl Pages<'_> {
    /// The next page; `None` after the last one.
    fn next(&mut self) -> anyhow::Result<Option<Vec<Entry>>> {
        if let Some(page) = self.page.take() {
            return Ok(Some(page));
        }
        let Some(after) = self.after.take() else { return Ok(None) };
        self.fetch(&after).map(Some)
    }

    fn fetch(&mut self, after: &[u8]) -> anyhow::Result<Vec<Entry>> {
        let page = directory::list(self.graph.world(), &self.directory, after, PAGE)?;
        let column = |column: &Vec<u8>| String::from_utf8_lossy(column).into_owned();
        self.columns = page.columns.iter().map(column).collect();
        self.after = page.rows.last().filter(|_| page.more).map(|last| last.name.clone());
        let mut rows = page.rows;
        rows.retain(|row| self.all || !row.name.starts_with(b"."));
        let known = if self.long { self.graph.look_at(&self.directory, &rows)? } else { Vec::new() };
        let entry = |(index, row)| entry(self.graph, row, known.get(index), self.columns.len());
        Ok(rows.iter().enumerate().map(entry).collect())
    }
}

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("Listed", 3)?;
        fields.serialize_field("path", &self.path)?;
        fields.serialize_field("columns", &self.columns)?;
        fields.serialize_field("entries", &Entries(&self.entries))?;
        fields.end()
    }
}

/// The entries, fetched while they are printed.
struct Entries<'a, 'g>(&'a RefCell<Pages<'g>>);

impl Serialize for Entries<'_, '_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut entries = to.serialize_seq(None)?;
        loop {
            let page = self.0.borrow_mut().next().map_err(|error| S::Error::custom(format!("{error:#}")))?;
            let Some(page) = page else { return entries.end() };
            page.iter().try_for_each(|entry| entries.serialize_element(entry))?;
        }
    }
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
            context.out.json_streamed(&listed)?;
        } else {
            let on_terminal = context.is_terminal(Standard::Output);
            print_all(&mut context.out, &listed, paths.len() > 1, self.long, on_terminal)?;
        }
        looked_at
    }

    fn list<'a>(&self, graph: &'a Graph, place: &Place) -> anyhow::Result<Listed<'a>> {
        let found = graph.lookup(place)?.capability;
        let mut pages = Pages {
            graph,
            directory: found,
            long: self.long,
            all: self.all,
            columns: Vec::new(),
            page: None,
            after: None,
        };
        match graph.kind(&found) {
            Ok(Kind::Directory) => {}
            // Not a directory, or nobody who could say so: the name is all there is to list.
            Ok(_) => {
                pages.page = Some(vec![self.alone(graph, place, &found)]);
                let (path, entries) = (place.shown(), RefCell::new(pages));
                return Ok(Listed { path, columns: Vec::new(), is_directory: false, entries });
            }
            Err(error) => return Err(error.context(place.shown())),
        }
        pages.page = Some(pages.fetch(&[]).with_context(|| place.shown())?);
        let columns = pages.columns.clone();
        Ok(Listed { path: place.shown(), columns, is_directory: true, entries: RefCell::new(pages) })
    }

    fn alone(&self, graph: &Graph, place: &Place, object: &Capability) -> Entry {
        let shown = place.shown();
        Entry {
            name: Name::from(shown.as_bytes()),
            bytes: shown.clone().into_bytes(),
            masks: graph.masks(place).ok().map(|(row, columns)| masks::shown(row, columns)),
            changed: None,
            info: self.long.then(|| info(graph, object)),
            capability: self.long.then(|| object.into()),
        }
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
fn info(graph: &Graph, object: &Capability) -> String {
    match graph.info(object) {
        Ok(info) => info.trim_end().into(),
        Err(error) => format!("? {}", error.status()),
    }
}

fn print_all(
    out: &mut Out<'_>,
    listed: &[Listed<'_>],
    with_headings: bool,
    long: bool,
    on_terminal: bool,
) -> anyhow::Result<()> {
    for (index, one) in listed.iter().enumerate() {
        if with_headings && one.is_directory {
            let gap = if index > 0 { "\n" } else { "" };
            out.line(format!("{gap}{}:", one.path))?;
        }
        while let Some(page) = one.entries.borrow_mut().next()? {
            print_page(out, &page, long, on_terminal)?;
        }
    }
    Ok(())
}

fn print_page(out: &mut Out<'_>, entries: &[Entry], long: bool, on_terminal: bool) -> anyhow::Result<()> {
    if long {
        return print_long(out, entries);
    }
    // For programs the bytes as they are; a terminal would obey some of them.
    entries.iter().try_for_each(|entry| match on_terminal {
        true => out.line(printable(&entry.bytes)),
        false => out.line(&entry.bytes),
    })
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

    fn listed<'a>(graph: &'a Graph, path: &str, names: &[&str]) -> Listed<'a> {
        let entry = |name: &&str| Entry {
            name: Name::from(name.as_bytes()),
            bytes: name.as_bytes().to_vec(),
            masks: Some("ff:f:2".into()),
            changed: Some("2026-11-21T22:44:17Z".into()),
            info: Some("-     5 bytes".into()),
            capability: None,
        };
        let page = Some(names.iter().map(entry).collect());
        let (directory, columns) = (Capability::NULL, Vec::new());
        let pages = Pages { graph, directory, long: false, all: false, columns, page, after: None };
        let (columns, entries) = (vec!["owner".into()], RefCell::new(pages));
        Listed { path: path.into(), columns, entries, is_directory: true }
    }

    #[test]
    fn a_directory_of_several_pages_is_listed_whole() {
        const ROWS: usize = PAGE as usize + 500;
        let system = TestSystem::new();
        let graph = system.graph();
        let directory = system.names().mkdir(b"/home/many").expect("the name is free");
        let row = |number: usize| directory::InstallRow {
            directory: directory.private,
            name: format!("{number:06}").into_bytes(),
            set: directory.into(),
            old: Capability::NULL,
            keep: false,
            masks: [0xFF; 4],
            kind: Capability::NULL,
            attributes: Vec::new(),
        };
        let rows: Vec<_> = (0..ROWS).map(row).collect();
        for rows in rows.chunks(directory::INSTALL_MAX) {
            directory::install(graph.world(), &directory, rows).expect("the names are free");
        }
        let names: String = (0..ROWS).map(|number| format!("{number:06}\n")).collect();
        system.run(&["ls", "many"]).printed(&names);
        let json: serde_json::Value =
            serde_json::from_str(system.run(&["ls", "--json", "many"]).text()).expect("it is one document");
        let entries = json[0]["entries"].as_array().expect("an array");
        assert_eq!((entries.len(), &entries[ROWS - 1]["name"]), (ROWS, &format!("{:06}", ROWS - 1).into()));
    }

    #[test]
    fn names_stand_one_a_line() {
        let graph = TestSystem::new().graph();
        let listed = |path, names| listed(&graph, path, names);
        let text = printed(|out| print_all(out, &[listed("a", &["x", "y z"])], false, false, false));
        assert_eq!(text, "x\ny z\n");
        let both = [listed("a", &["x"]), listed("b", &["\u{1b}"])];
        assert_eq!(printed(|out| print_all(out, &both, true, false, true)), "a:\nx\n\nb:\n\\u{1b}\n");
    }

    #[test]
    fn the_long_form_has_information_masks_and_time() {
        let graph = TestSystem::new().graph();
        let text = printed(|out| print_all(out, &[listed(&graph, "a", &["x"])], false, true, false));
        assert_eq!(text, "-     5 bytes  ff:f:2  2026-11-21T22:44:17Z  x\n");
    }

    #[test]
    fn programs_get_columns_and_entries() {
        let value = serde_json::to_value(listed(&TestSystem::new().graph(), "a", &["x"])).unwrap();
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
