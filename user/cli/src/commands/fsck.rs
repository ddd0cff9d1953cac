//! `amoeba fsck`: whether a file server's disk holds what it should.

use std::ffi::OsString;
use std::process::ExitCode;

use amoeba_stubs::bullet;
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::server;
use crate::Context;
use crate::failure::FAILED;
use crate::out::{human_size, printable};

/// Check every record and every byte of a file server's disk
///
/// Files go on being served meanwhile, and none is changed. Exits with 1 when something is wrong.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Clear records that are no records, so that their numbers can be used again; no file is touched
    #[arg(long)]
    repair: bool,
    /// The server: its host's name or its capability, with all rights; without it the one of this host
    server: Option<OsString>,
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
        let graph = context.graph()?;
        let (server, shown) = server::of_files(context, &graph, self.server.as_deref())?;
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
            for problem in &checked.problems {
                context.out.line(problem)?;
            }
            let more = checked.problem_count.saturating_sub(checked.problems.len() as u64);
            if more > 0 {
                context.out.line(format!("and {more} more"))?;
            }
            let Checked { files, bytes, problem_count, .. } = checked;
            let size = human_size(bytes);
            context.out.line(format!("{shown}: {files} files, {size}, {problem_count} problems"))?;
        }
        Ok(if checked.problem_count == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn a_good_disk_has_no_problems() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.run(&["fsck"]).printed("default: 1 files, 5 B, 0 problems\n");
        system.run(&["fsck", "default"]).printed("default: 1 files, 5 B, 0 problems\n");
        let json: serde_json::Value = serde_json::from_str(system.run(&["fsck", "--json"]).text()).unwrap();
        assert_eq!((json["files"].as_u64(), json["problem_count"].as_u64()), (Some(1), Some(0)));
        system.run(&["fsck", "a"]).failed(1, "amoeba: a: is no file server\nhint: `amoeba df` lists them\n");
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
