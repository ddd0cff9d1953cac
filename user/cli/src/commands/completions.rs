//! `amoeba completions`: what a shell completes.

use clap::Args;
use clap_complete::Shell;

use crate::{Context, definition};

/// Print completions for a shell
///
/// For bash, say: amoeba completions bash > ~/.local/share/bash-completion/completions/amoeba
#[derive(Args)]
pub(crate) struct Arguments {
    /// Which shell
    shell: Shell,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut definition(), "amoeba", &mut script);
        context.out.bytes(&script)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::TestSystem;

    #[test]
    fn every_shell_learns_every_command() {
        let system = TestSystem::new();
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let ran = system.run(&["completions", shell]);
            for word in ["run", "map", "host", "keep-going"] {
                assert!(ran.text().contains(word), "{shell} does not know {word}");
            }
        }
    }
}
