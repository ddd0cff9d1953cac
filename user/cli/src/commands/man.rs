//! `amoeba man`: manual pages.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use clap_mangen::Man;

use crate::{Context, definition};

/// Write manual pages
///
/// One for `amoeba` and one for each command, in section 1: `man -M DIR` looks for them in DIR/man1.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to write them; it is made if it is not there. Without it, that of `amoeba` is printed
    directory: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        // Building fills in what subcommands inherit, their full names among it.
        let mut command = definition();
        command.build();
        let Some(directory) = self.directory else {
            return context.out.bytes(&page(command)?);
        };
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        write_all(command, "amoeba", &directory)
    }
}

/// The pages of a command and of all below it.
fn write_all(command: clap::Command, name: &str, directory: &Path) -> anyhow::Result<()> {
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        write_all(inner.clone(), &format!("{name}-{}", inner.get_name()), directory)?;
    }
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page(command)?).with_context(|| path.display().to_string())
}

fn page(command: clap::Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page).context("a manual page")?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestSystem;

    #[test]
    fn every_command_has_a_page() {
        let system = TestSystem::new();
        let folder = std::env::temp_dir().join(format!("amoeba-cli-man-{}", std::process::id()));
        let text = folder.to_str().expect("the temporary folder is named in UTF-8");
        system.run(&["man", text]).printed("");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("it was written");
        assert!(read("amoeba.1").contains("few machines, one computer"));
        assert!(read("amoeba-map.1").contains("keep"));
        assert!(read("amoeba-host-ls.1").contains("List the hosts"));
        for command in definition().get_subcommands() {
            assert!(folder.join(format!("amoeba-{}.1", command.get_name())).exists());
        }
        assert!(system.run(&["man"]).text().contains(".TH"));
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
