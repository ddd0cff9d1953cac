//! `amoeba restore`: everything that `amoeba backup` saved, on a host without a system.

use std::ffi::OsString;
use std::io::{self, BufReader, Read};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::archive::{ArchiveReader, Record, Totals};
use crate::out::{counted, human_size};
use crate::progress::{Interrupt, Metered};
use crate::{Context, Restoring};

/// Make this host's system from what `amoeba backup` has saved
///
/// For a host without a system: one that is there is never touched. All capabilities that the saved system gave out are good
/// again; the host takes the place of the one that was saved, so let the two never run at the same time. `amoeba up` starts
/// it afterwards. A restore that was interrupted leaves nothing that could be started; the same command does it again.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Read the archive from its beginning to its end, and change nothing
    #[arg(long)]
    check: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The archive; `-` is standard input
    file: OsString,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let threads = context.system.threads();
        let interrupt = Interrupt::catch(context.system.console(), &threads)?;
        let (from, size): (Box<dyn Read>, _) = if self.file == "-" {
            (Box::new(io::stdin()), None)
        } else {
            let shown = || self.file.display().to_string();
            let file = std::fs::File::open(&self.file).with_context(shown)?;
            let size = file.metadata().with_context(shown)?.len();
            (Box::new(file), Some(size))
        };
        let shown = if self.file == "-" { "standard input".into() } else { self.file.display().to_string() };
        let metered = Metered::new(context, &interrupt, shown.clone(), size, from);
        let mut archive = ArchiveReader::new(BufReader::new(metered)).with_context(|| shown.clone())?;
        let restoring = if self.check { None } else { Some(context.system.restore()?) };
        let totals = restore(&mut archive, restoring).with_context(|| shown)?;
        drop(archive);
        if self.json {
            return context.out.json(&totals);
        }
        let what = if self.check { "the archive is good" } else { "restored" };
        let files = counted(totals.files, "file", "files");
        let text = format!("{what}: {files}, {}", human_size(totals.bytes));
        let next = if self.check { "" } else { "; `amoeba up` starts the system" };
        // Standard error may be closed; the exit code still tells.
        let _ = context.errors.write_all(format!("amoeba: {text}{next}\n").as_bytes());
        Ok(())
    }
}

/// Hands the records of an archive to whoever makes a system of them.
fn restore(
    archive: &mut ArchiveReader<impl Read>,
    mut restoring: Option<Box<dyn Restoring>>,
) -> anyhow::Result<Totals> {
    let mut totals = None;
    while let Some(record) = archive.read()? {
        if let Record::End(all) = &record {
            totals = Some(*all);
        }
        if let Some(restoring) = &mut restoring {
            restoring.record(record)?;
        }
    }
    let Some(totals) = totals else { bail!("the archive has no end") };
    // Only an archive that was good to its end becomes a system.
    if let Some(restoring) = restoring {
        restoring.finish()?;
    }
    Ok(totals)
}
