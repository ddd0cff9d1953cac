//! `amoeba cat`: files to standard output.

use std::ffi::OsString;

use anyhow::Context as _;
use clap::Args;

use crate::{Context, files, place};

/// Write files to standard output, one after the other
#[derive(Args)]
pub(crate) struct Arguments {
    /// What to write
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input(&self.paths)?;
        let graph = context.graph()?;
        context.for_each(&self.paths, |context, path| {
            let place = graph.place(path)?;
            let found = graph.lookup(&place)?;
            files::read(&graph, &found.set, &mut context.out).map(drop).with_context(|| place.shown())
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn files_come_one_after_the_other_and_nothing_else_comes() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        system.file("/home/b", b"beta");
        system.run(&["cat", "a", "/home/b", "../home/a"]).printed("alphabetaalpha");
        let ran = format!("{:?}", system.run(&["cat", "a", "none", "b"]));
        assert!(
            ran.contains("alphabeta") && ran.contains("none: no such name") && ran.contains("(1)"),
            "{ran}"
        );
        system
            .run(&["cat", "/home"])
            .failed(1, "amoeba: /home: is a directory\nhint: `amoeba ls` lists it\n");
        system.run(&["cat", "a/b"]).failed(1, "amoeba: a/b: not a directory\n");
        let long = "n".repeat(256);
        system.run(&["cat", &long]).failed(1, &format!("amoeba: {long}: a name has at most 255 bytes\n"));
    }

    #[test]
    fn a_forged_capability_opens_nothing_and_is_not_repeated() {
        let system = TestSystem::new();
        system.file("/home/a", b"alpha");
        let ran = system.run(&["cap", "show", "a"]);
        let text = ran.text();
        system.run(&["cat", text]).printed("alpha");
        let (known, check) = text.rsplit_once('/').expect("a capability has three parts");
        let forged =
            format!("{known}/{}", if check == "1:2:3:4:5:6" { "6:5:4:3:2:1" } else { "1:2:3:4:5:6" });
        let refused = format!(
            "amoeba: {known}: no such object, or a forged or revoked capability (STD_CAPBAD)\n\
             hint: the object was destroyed, or the capability was revoked, is expired or is mistyped\n"
        );
        system.run(&["cat", &forged]).failed(1, &refused);
    }
}
