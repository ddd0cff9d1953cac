//! `amoeba backup`: everything of this host's services into one file, while they run.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use amoeba_cap::{Capability, CheckField, ObjectNumber, Rights, ServerSecret};
use amoeba_stubs::bullet::{self, FileRecord};
use amoeba_stubs::directory;
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use serde::Serialize;

use crate::archive::{ArchiveWriter, FileHead, FileService, PIECE_SIZE, Record, Totals};
use crate::failure::{Advise, FAILED, Told};
use crate::graph::Graph;
use crate::out::{counted, human_size};
use crate::progress::{Interrupt, Metered};
use crate::{Context, Secrets, Standard};

/// Destroyed files, and damaged ones, that are told one by one.
const TOLD_MAX: usize = 20;
/// What errors call the server whose files are saved.
const SERVER: &str = "the file server";

/// Save all files and names of this host's servers in one file
///
/// The servers go on meanwhile. Names are as of one moment; the files are all that those names stood for, but for those that
/// were destroyed while they were being saved, which are told. Whoever has the archive has every secret of the
/// system, so it is made with mode 0600. With several hosts each one saves the files that are on its own file server.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Leave out files that are damaged on the disk, rather than save nothing; they are told, and the exit code is 1
    #[arg(long)]
    partial: bool,
    /// The archive, which must not be there yet; `-` is standard output
    file: OsString,
}

#[derive(Serialize)]
struct Saved {
    #[serde(flatten)]
    totals: Totals,
    /// Object numbers, the first of them.
    destroyed_files: Vec<u32>,
    /// Files that could not be read; among the `destroyed` of the archive itself, and not among those of this.
    damaged: u64,
    /// Object numbers, the first of them.
    damaged_files: Vec<u32>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let secrets = context.system.secrets()?;
        let graph = context.graph()?;
        let interrupt = Interrupt::catch(context.system.console(), &graph.world().threads)?;
        let to_stdout = self.file == "-";
        let shown = if to_stdout { "standard output".into() } else { self.file.display().to_string() };
        let backup = Backup {
            graph: &graph,
            secrets,
            shown,
            partial: self.partial,
            destroyed: Vec::new(),
            damaged: (0, Vec::new()),
        };
        let saved = if to_stdout {
            if context.is_terminal(Standard::Output) {
                return Err(anyhow!("an archive of secrets does not go to a terminal"))
                    .hint("say a file, or a pipe");
            }
            if self.json {
                bail!("standard output cannot be both, the archive and JSON");
            }
            let out = Metered::new(context, &interrupt, "backup".into(), None, io::stdout());
            backup.write(BufWriter::with_capacity(PIECE_SIZE, out))?.1
        } else {
            self.to_file(context, &interrupt, backup)?
        };
        if self.json {
            context.out.json(&saved)?;
        } else {
            tell(context, &saved);
        }
        if saved.damaged == 0 { Ok(()) } else { Err(Told(FAILED).into()) }
    }

    fn to_file(
        &self,
        context: &Context<'_>,
        interrupt: &Interrupt,
        backup: Backup<'_>,
    ) -> anyhow::Result<Saved> {
        let path = Path::new(&self.file);
        let shown = || path.display().to_string();
        if path.file_name().is_none() && !path.is_dir() {
            bail!("{:?} cannot be the name of a file", self.file);
        }
        if path.symlink_metadata().is_ok() {
            return Err(anyhow!("{} exists already", shown()))
                .hint("say a new name, or remove the old archive");
        }
        let part = Part::beside(path);
        let file =
            File::options().write(true).create_new(true).mode(0o600).open(&part.0).with_context(shown)?;
        let out = Metered::new(context, interrupt, shown(), None, file);
        let (out, saved) = backup.write(BufWriter::with_capacity(PIECE_SIZE, out))?;
        let out = out.into_inner().map_err(|error| error.into_error()).with_context(shown)?;
        // What is to be kept must be on the disk before it has its name.
        out.inner().sync_all().with_context(shown)?;
        std::fs::hard_link(&part.0, path).or_else(|_| std::fs::rename(&part.0, path)).with_context(shown)?;
        Ok(saved)
    }
}

/// An archive that is not whole yet; removed when it has another name, or never becomes whole.
struct Part(PathBuf);

impl Part {
    fn beside(path: &Path) -> Part {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or(OsStr::new("amoeba")));
        name.push(format!(".part-{}", std::process::id()));
        Part(path.with_file_name(name))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn tell(context: &mut Context<'_>, saved: &Saved) {
    let Totals { files, bytes, destroyed, .. } = saved.totals;
    let mut text = format!("amoeba: saved {}, {}\n", counted(files, "file", "files"), human_size(bytes));
    for number in &saved.destroyed_files {
        text += &format!("amoeba: file {number} was destroyed meanwhile and is not in the archive\n");
    }
    if destroyed > saved.destroyed_files.len() as u64 {
        text += &format!("amoeba: {destroyed} files were destroyed meanwhile\n");
    }
    for number in &saved.damaged_files {
        text += &format!("amoeba: file {number} cannot be read and is not in the archive\n");
    }
    if saved.damaged > saved.damaged_files.len() as u64 {
        text += &format!("amoeba: {} files cannot be read\n", saved.damaged);
    }
    text += "amoeba: whoever has this archive has every secret of the system: keep it as you keep a key\n";
    // Standard error may be closed; the exit code still tells.
    let _ = context.errors.write_all(text.as_bytes());
}

struct Backup<'a> {
    graph: &'a Graph,
    secrets: Secrets,
    /// What people call the archive.
    shown: String,
    partial: bool,
    /// The first of those that are not in the archive.
    destroyed: Vec<u32>,
    /// How many cannot be read, and the first of them.
    damaged: (u64, Vec<u32>),
}

impl Backup<'_> {
    fn write<W: Write>(mut self, to: W) -> anyhow::Result<(W, Saved)> {
        let mut archive = ArchiveWriter::new(to).with_context(|| self.shown.clone())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let about = Record::About {
            host: self.graph.session().host_name.clone(),
            program: env!("CARGO_PKG_VERSION").into(),
            time: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        };
        self.put(&mut archive, &about)?;
        for (name, bytes) in std::mem::take(&mut self.secrets.state) {
            self.put(&mut archive, &Record::State { name, bytes })?;
        }
        // Names first: a file is there before it has a name, so what a saved name stands for is there now or was destroyed.
        // In the other order a file made in between would have a name in the archive and not be in it.
        if let Some(directory) = self.secrets.directory {
            self.names(&mut archive, &directory)?;
        }
        if let Some(files) = self.secrets.files {
            self.files(&mut archive, &files)?;
        }
        let (to, mut totals) = archive.finish().with_context(|| self.shown.clone())?;
        let (damaged, damaged_files) = self.damaged;
        totals.destroyed -= damaged;
        Ok((to, Saved { totals, destroyed_files: self.destroyed, damaged, damaged_files }))
    }

    fn put(&self, archive: &mut ArchiveWriter<impl Write>, record: &Record) -> anyhow::Result<()> {
        archive.write(record).with_context(|| self.shown.clone())
    }

    fn names(&self, archive: &mut ArchiveWriter<impl Write>, service: &Capability) -> anyhow::Result<()> {
        let world = self.graph.world();
        let (mut snapshot, mut after) = (0, Vec::new());
        loop {
            let page = directory::export(world, service, snapshot, &after).context("the directory server")?;
            self.put(archive, &Record::Page(page.page))?;
            (snapshot, after) = (page.snapshot, page.next);
            if after.is_empty() {
                break;
            }
        }
        // If this fails, the server forgets the export by itself.
        let _ = directory::export_end(world, service, snapshot);
        Ok(())
    }

    fn files(&mut self, archive: &mut ArchiveWriter<impl Write>, service: &Capability) -> anyhow::Result<()> {
        let world = self.graph.world();
        let identity = bullet::identity(world, service).context(SERVER)?;
        let usage = bullet::usage(world, service).context(SERVER)?;
        let head = FileService {
            get_port: identity.get_port,
            random: identity.random,
            secret: identity.secret,
            size: usage.blocks.saturating_mul(usage.block_size.into()),
            files_max: usage.files_max,
        };
        self.put(archive, &Record::Files(head))?;
        let secret = ServerSecret::from_bytes(identity.secret);
        let mut after = 0;
        loop {
            let page = bullet::list(world, service, after).context(SERVER)?;
            for file in &page.files {
                self.file(archive, service, &secret, file)?;
            }
            after = page.next;
            if after == 0 {
                return Ok(());
            }
        }
    }

    fn file(
        &mut self,
        archive: &mut ArchiveWriter<impl Write>,
        service: &Capability,
        secret: &ServerSecret,
        record: &FileRecord,
    ) -> anyhow::Result<()> {
        let object = ObjectNumber::new(record.number).context("the server lists what cannot be a file")?;
        let random = CheckField::from_bytes(record.random);
        let file = secret.capability(service.port, object, Rights::ALL, random);
        let FileRecord { number, random, owner, size, .. } = *record;
        let head = FileHead { number, random, owner, size };
        self.put(archive, &Record::File(head))?;
        let mut offset = 0;
        while offset < size {
            let wanted = (size - offset).min(PIECE_SIZE as u64);
            match bullet::read(self.graph.world(), &file, offset, wanted as u32) {
                Ok(piece) if piece.len() as u64 == wanted => self.put(archive, &Record::Piece(piece))?,
                Ok(_) => return Err(Refusal::BadReply).context(SERVER),
                Err(error) => {
                    self.left_out(number, error)?;
                    return archive.destroyed(&head).with_context(|| self.shown.clone());
                }
            }
            offset += wanted;
        }
        Ok(())
    }

    /// Remembers a file that is not saved.
    ///
    /// # Errors
    /// It should have been.
    fn left_out(&mut self, number: u32, error: Refusal) -> anyhow::Result<()> {
        let told = match error {
            Refusal::Refused(Status::STD_CAPBAD) => &mut self.destroyed,
            Refusal::Refused(Status::STD_SYSERR) if self.partial => {
                self.damaged.0 += 1;
                &mut self.damaged.1
            }
            Refusal::Refused(Status::STD_SYSERR) => {
                return Err(error)
                    .with_context(|| format!("{SERVER}: file {number}"))
                    .hint("`amoeba fsck` tells which files are damaged; --partial saves all the others");
            }
            _ => return Err(error).with_context(|| format!("{SERVER}: file {number}")),
        };
        if told.len() < TOLD_MAX {
            told.push(number);
        }
        Ok(())
    }
}
