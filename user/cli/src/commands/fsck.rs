//! `amoeba fsck`: whether a file server's disk holds what it should, and whether names stand for what is there.

mod names;

use std::ffi::OsString;
use std::process::ExitCode;

use amoeba_stubs::bullet;
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::server;
use crate::Context;
use crate::failure::FAILED;
use crate::out::{counted, human_size, printable};
use crate::place::Place;

/// Check every record and every byte of a file server's disk, or every name
///
/// Files go on being served meanwhile, and none is changed. With --names every name of the graph is looked at, from the root or
/// PATH on: those whose object is gone, or a file that an earlier check or read found damaged, are problems. Exits with 1
/// when something is wrong, or a server does not answer.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Clear records that are no records, so that their numbers can be used again; no file is touched
    #[arg(long)]
    repair: bool,
    /// Look at names, and whether what they stand for is there
    #[arg(long, conflicts_with = "repair")]
    names: bool,
    /// The server: its host's name or its capability, with all rights; without it the one of this host. With --names: the
    /// directory to begin with
    #[arg(value_name = "SERVER|PATH")]
    what: Option<OsString>,
}

#[derive(Serialize)]
struct Checked {
    files: u64,
    bytes: u64,
    problem_count: u64,
    /// The first of them.
    problems: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        if self.names {
            return self.check_names(context);
        }
        let graph = context.graph()?;
        let (server, shown) = server::of_files(context, &graph, self.what.as_deref())?;
        // So that what was just stored is looked at too; a disk that takes nothing more is checked all the same.
        let _ = bullet::sync(graph.world(), &server);
        let checked = bullet::fsck(graph.world(), &server, self.repair);
        let checked = server::told(checked).with_context(|| shown.clone())?;
        let checked = Checked {
            files: checked.file_count,
            bytes: checked.size,
            problem_count: checked.problem_count,
            problems: checked.problems.iter().map(|problem| printable(problem)).collect(),
        };
        if self.json {
            context.out.json(&checked)?;
        } else {
            list(context, &checked.problems, checked.problem_count)?;
            let files = counted(checked.files, "file", "files");
            let (size, problems) = (human_size(checked.bytes), problems(checked.problem_count));
            context.out.line(format!("{shown}: {files}, {size}, {problems}"))?;
        }
        Ok(if checked.problem_count == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }

    fn check_names(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let graph = context.graph()?;
        let from = match &self.what {
            Some(what) => graph.place(what)?,
            None => Place::Path(b"/".to_vec()),
        };
        let checked = names::check(&graph, &from)?;
        if self.json {
            context.out.json(&checked)?;
        } else {
            list(context, &checked.problems, checked.problem_count)?;
            let directories = counted(checked.directories, "directory", "directories");
            let names = counted(checked.names, "name", "names");
            let problems = problems(checked.problem_count);
            context.out.line(format!("{}: {directories}, {names}, {problems}", from.shown()))?;
            if checked.unanswered > 0 {
                let names = counted(checked.unanswered, "name is of an object", "names are of objects");
                context.out.line(format!("{names} whose server does not answer"))?;
            }
        }
        let is_good = checked.problem_count == 0 && checked.unanswered == 0;
        Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }
}

fn problems(count: u64) -> String {
    counted(count, "problem", "problems")
}

/// Prints the problems that are told, and how many more there are.
fn list(context: &mut Context<'_>, problems: &[String], count: u64) -> anyhow::Result<()> {
    for problem in problems {
        context.out.line(problem)?;
    }
    let more = count.saturating_sub(problems.len() as u64);
    if more > 0 {
        context.out.line(format!("and {more} more"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn a_good_disk_has_no_problems() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.run(&["fsck"]).printed("default: 1 file, 5 B, 0 problems\n");
        system.run(&["fsck", "default"]).printed("default: 1 file, 5 B, 0 problems\n");
        let json: serde_json::Value = serde_json::from_str(system.run(&["fsck", "--json"]).text()).unwrap();
        assert_eq!((json["files"].as_u64(), json["problem_count"].as_u64()), (Some(1), Some(0)));
        for other in ["a", "nosuch"] {
            let refused = format!("amoeba: {other} is no file server\nhint: `amoeba df` lists them\n");
            system.run(&["fsck", other]).failed(1, &refused);
        }
    }

    #[test]
    fn names_whose_objects_are_gone_are_told() {
        let system = TestSystem::new();
        system.run(&["mkdir", "d"]).printed("");
        system.file("/home/d/a", b"alpha");
        system.file("/home/d/b", b"beta");
        system.run(&["ln", "/home", "d/circle"]).printed("");
        system.run(&["fsck", "--names"]).printed("/: 7 directories, 10 names, 0 problems\n");
        let copies = system.graph();
        system.add_file_server("bolt");
        let file = system.names().find(b"/home/d/b").expect("it was made").set;
        let bolt = system.names().resolve(b"/profile/cap/bulletsvr/bolt").expect("it was added");
        let copy = crate::files::copy(&copies, &bolt, &file).expect("there is room");
        let mut both = file.clone();
        both.push(copy).expect("two are few");
        system.names().replace(b"/home/d/b", both).expect("it is there");
        let original = file.first().copied().expect("it has one member");
        amoeba_stubs::standard::destroy(copies.world(), &original).expect("it is ours");
        system.run(&["ln", "d/a", "d/c"]).printed("");
        system.run(&["rm", "--destroy", "d/c"]).printed("");
        let said = system.run(&["fsck", "--names", "d"]);
        let expected = "d/a: what it stands for is gone\nd/b: 1 of 2 replicas is gone\n\
                        d: 2 directories, 4 names, 2 problems\n";
        assert_eq!(said.failed_with(1), expected);
        let unknown = amoeba_cap::Capability { port: amoeba_cap::PutPort::from_bytes([9; 6]), ..original };
        system.names().append(b"/bin/x", unknown).expect("the name is free");
        let said = system.run(&["fsck", "--names", "/bin"]);
        let expected =
            "/bin: 1 directory, 1 name, 0 problems\n1 name is of an object whose server does not answer\n";
        assert_eq!(said.failed_with(1), expected);
    }

    #[test]
    fn compaction_tells_what_it_did() {
        let system = TestSystem::new();
        for name in ["/home/a", "/home/b"] {
            system.file(name, &[1; 50_000]);
        }
        system.run(&["rm", "--destroy", "a"]).printed("");
        let json: serde_json::Value =
            serde_json::from_str(system.run(&["compact", "--json"]).text()).unwrap();
        assert!(json["hole_count"].as_u64().is_some_and(|holes| holes >= 1), "{json}");
        assert!(system.run(&["cat", "b"]).text().len() == 50_000);
    }
}
