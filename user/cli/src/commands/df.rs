//! `amoeba df`: how much room the servers have.

use amoeba_cap::Capability;
use amoeba_stubs::{bullet, directory};
use amoeba_world::Error as Refusal;
use clap::Args;
use serde::Serialize;

use crate::graph::Graph;
use crate::launch::pool::HOST_LOCATE_TIMEOUT;
use crate::out::{Align, Out, human_size};
use crate::{Context, everywhere, failure};

/// Percent in use past which somebody should look.
const FULL: u64 = 90;

/// Show how much room the file servers and the directory server have
///
/// Exits with 1 when a server does not answer.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print bytes
    #[arg(short, long)]
    bytes: bool,
}

/// A file server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Files {
    /// The host that it is named by.
    name: String,
    /// `None`: it does not answer, or says no.
    #[serde(flatten)]
    usage: Option<FilesUsage>,
    /// Why.
    error: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct FilesUsage {
    size: u64,
    free: u64,
    hole_count: u64,
    hole_size_max: u64,
    files: u64,
    files_max: u64,
    cache_size: u64,
    cached: u64,
    unwritten: u64,
    uncommitted: u64,
    uncommitted_files: u64,
    damaged_files: u64,
    write_protected: bool,
    compacting: bool,
}

/// The directory server of the user's root.
#[derive(Clone, Debug, Serialize)]
struct Directories {
    directories: Option<u64>,
    tables: Option<u64>,
    log: Option<u64>,
    log_used: Option<u64>,
    cache: Option<u64>,
    cache_used: Option<u64>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Everything<'a> {
    files: &'a [Files],
    directory: &'a Directories,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        let files = file_servers(&graph)?;
        let directory = directories(&graph);
        if self.json {
            context.out.json(&Everything { files: &files, directory: &directory })?;
        } else {
            let size = if self.bytes { |size: u64| size.to_string() } else { human_size };
            print(&mut context.out, &files, &directory, size)?;
        }
        let silent = files.iter().any(|server| server.usage.is_none()) || directory.error.is_some();
        if silent { Err(failure::Told(failure::FAILED).into()) } else { Ok(()) }
    }
}

/// What every file server that has a name says, all of them asked at once.
pub(super) fn file_servers(graph: &Graph) -> anyhow::Result<Vec<Files>> {
    let servers = graph.named_file_servers()?;
    let names: Vec<String> = servers.iter().map(|(name, _)| name.clone()).collect();
    let world = amoeba_place::hasty(graph.world(), HOST_LOCATE_TIMEOUT);
    let answers = everywhere::ask(graph.world(), &names, move |name| {
        let server = servers.iter().find(|(other, _)| other == name).map(|(_, server)| *server);
        server.map_or(Err(Refusal::BadReply), |server: Capability| bullet::usage(&world, &server))
    });
    let server = |(name, answer): (String, Option<Result<bullet::UsageReply, Refusal>>)| match answer {
        Some(Ok(usage)) => Files { name, usage: Some(FilesUsage::from(&usage)), error: None },
        Some(Err(error)) => Files { name, usage: None, error: Some(error.to_string()) },
        None => Files { name, usage: None, error: Some("does not answer".into()) },
    };
    Ok(names.into_iter().zip(answers).map(server).collect())
}

impl From<&bullet::UsageReply> for FilesUsage {
    fn from(usage: &bullet::UsageReply) -> FilesUsage {
        let block_size = u64::from(usage.block_size);
        FilesUsage {
            size: usage.blocks.saturating_mul(block_size),
            free: usage.blocks_free.saturating_mul(block_size),
            hole_count: usage.hole_count,
            hole_size_max: usage.hole_size_max,
            files: usage.files,
            files_max: usage.files_max,
            cache_size: usage.cache_size,
            cached: usage.cached,
            unwritten: usage.unwritten,
            uncommitted: usage.uncommitted,
            uncommitted_files: usage.uncommitted_files,
            damaged_files: usage.damaged_files,
            write_protected: usage.write_protected,
            compacting: usage.compacting,
        }
    }
}

fn directories(graph: &Graph) -> Directories {
    let world = amoeba_place::hasty(graph.world(), HOST_LOCATE_TIMEOUT);
    let usage = directory::usage(&world, &graph.session().root);
    let error = usage.as_ref().err().map(ToString::to_string);
    let usage = usage.ok();
    let part = |part: fn(&directory::UsageReply) -> u64| usage.as_ref().map(part);
    Directories {
        directories: part(|usage| usage.directories),
        tables: part(|usage| usage.tables),
        log: part(|usage| usage.log),
        log_used: part(|usage| usage.log_used),
        cache: part(|usage| usage.cache),
        cache_used: part(|usage| usage.cache_used),
        error,
    }
}

fn print(
    out: &mut Out<'_>,
    files: &[Files],
    directory: &Directories,
    size: fn(u64) -> String,
) -> anyhow::Result<()> {
    let headings = [
        ("SERVER", Align::Left),
        ("SIZE", Align::Right),
        ("USED", Align::Right),
        ("FREE", Align::Right),
        ("USE%", Align::Right),
        ("OBJECTS", Align::Right),
        ("CACHED", Align::Right),
        ("", Align::Left),
    ];
    let mut rows: Vec<Vec<String>> = files.iter().map(|server| server.row(size)).collect();
    let dash = || "-".to_owned();
    rows.push(vec![
        "directory".into(),
        dash(),
        directory.tables.zip(directory.log).map_or_else(dash, |(tables, log)| size(tables + log)),
        dash(),
        dash(),
        directory.directories.map_or_else(dash, |count| count.to_string()),
        directory.cache_used.map_or_else(dash, size),
        directory.error.clone().unwrap_or_default(),
    ]);
    out.table(&headings, rows)
}

impl Files {
    /// How much of it is used, in a few words.
    pub(super) fn room(&self) -> Option<String> {
        let usage = self.usage.as_ref()?;
        let used = usage.size.saturating_sub(usage.free);
        let (name, percent) = (&self.name, percent(used, usage.size));
        Some(format!("{name} {} of {} ({percent}%)", human_size(used), human_size(usage.size)))
    }

    /// What somebody should look at.
    pub(super) fn attention(&self) -> Vec<String> {
        let Some(usage) = &self.usage else { return Vec::new() };
        let used = usage.size.saturating_sub(usage.free);
        let full = (percent(used, usage.size) > FULL)
            .then(|| format!("nearly full, {} are free: `amoeba df`", human_size(usage.free)));
        usage
            .notes()
            .into_iter()
            .chain(full)
            .map(|note| format!("file server {}: {note}", self.name))
            .collect()
    }

    fn row(&self, size: fn(u64) -> String) -> Vec<String> {
        let Some(usage) = &self.usage else {
            let mut row = vec!["-".to_owned(); 8];
            row[0].clone_from(&self.name);
            row[7] = self.error.clone().unwrap_or_default();
            return row;
        };
        let used = usage.size.saturating_sub(usage.free);
        vec![
            self.name.clone(),
            size(usage.size),
            size(used),
            size(usage.free),
            format!("{}%", percent(used, usage.size)),
            usage.files.to_string(),
            size(usage.cached),
            usage.notes().join(", "),
        ]
    }
}

impl FilesUsage {
    /// What somebody should know besides.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.write_protected {
            notes.push("write-protected: its disk has failed".to_owned());
        }
        if self.damaged_files > 0 {
            notes.push(format!("{} damaged: see `amoeba fsck`", self.damaged_files));
        }
        if self.compacting {
            notes.push("compacting".to_owned());
        }
        notes
    }
}

/// Rounded up: what is used a little is not unused.
fn percent(part: u64, all: u64) -> u64 {
    u64::try_from((u128::from(part) * 100).div_ceil(u128::from(all.max(1)))).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestSystem;

    #[test]
    fn every_server_is_shown_once() {
        let system = TestSystem::new();
        system.add_file_server("bolt");
        system.file("/home/a", &[7; 100_000]);
        let text = system.run(&["df"]).text().to_owned();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..6], ["SERVER", "SIZE", "USED", "FREE", "USE%", "OBJECTS"]);
        let names: Vec<&str> = lines[1..].iter().map(|line| line[0]).collect();
        assert_eq!(names, ["bolt", "default", "directory"]);
        let json: serde_json::Value = serde_json::from_str(system.run(&["df", "--json"]).text()).unwrap();
        let used = |index: usize| {
            let server = &json["files"][index];
            server["size"].as_u64().unwrap() - server["free"].as_u64().unwrap()
        };
        assert_eq!((used(0), used(1) >= 100_000), (0, true), "{json}");
        assert_eq!(json["files"][1]["files"], 1);
        assert!(json["directory"]["directories"].as_u64().unwrap() >= 5, "{json}");
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let system = TestSystem::new();
        let nobody = "1:2:3:4:5:6/0(FF)/A:B:C:D:E:F".parse::<Capability>().unwrap();
        system.names().append(b"/profile/cap/bulletsvr/gone", nobody).unwrap();
        let ran = format!("{:?}", system.run(&["df"]));
        assert!(ran.contains("default") && ran.contains("gone") && ran.contains("(1)"), "{ran}");
    }

    #[test]
    fn percents_are_rounded_up() {
        assert_eq!(
            [(0, 9), (1, 1000), (500, 1000), (1000, 1000), (0, 0)].map(|(a, b)| percent(a, b)),
            [0, 1, 50, 100, 0]
        );
    }
}
