//! What is kept of a host in a backup, and a system made of one.
//!
//! A restored host takes the place of the one that was saved: secrets, keys and name are the same, so that every capability
//! of it is good again. Images are made first; the system's secret, without which nothing starts, is written last,
//! when the archive was good to its end. So what is left of an interrupted restore cannot be started, and the next one makes
//! it anew.

use std::fs;
use std::sync::Arc;

use amoeba_bullet::store::{Commit, Edit, FileId, Identity as FileIdentity, Store as Files};
use amoeba_bullet::{FormatOptions, Settings};
use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, Rights, ServerSecret, SystemSecret};
use amoeba_cli::archive::{FileHead, FileService, Record};
use amoeba_cli::{Hint, Restoring, Secrets};
use amoeba_directory::{Format, Importer};
use amoeba_linux::FileDisk;
use amoeba_world::Disk;
use anyhow::{Context, Result, anyhow, bail};

use crate::config::Config;
use crate::state::State;

/// The super capability of the directory server of this host.
pub(crate) const DIRECTORY_CAPABILITY: &str = "directory.cap";
/// The secret of the system, which makes a state directory one.
const SECRET: &str = "system.secret";
/// There while a restore is not complete.
pub(crate) const MARK: &str = "restore.forming";
/// Files of the state directory that a backup keeps.
const KEPT: [&str; 10] = [
    SECRET,
    "host.seed",
    "host.key",
    "host.name",
    "host.cap",
    "root.cap",
    "bullet.cap",
    DIRECTORY_CAPABILITY,
    "pool.cap",
    "members.json",
];
/// Bytes of one of them.
const KEPT_SIZE_MAX: usize = 1 << 20;
/// Room of a volume for what is not files, and for files that come.
const SPARE: u64 = 64 << 20;
/// Room of a volume for each file that it can have.
const RECORD_ROOM: u64 = 128;
/// Memory of the file server's store while it is restored.
const CACHE: u64 = 64 << 20;
/// Files whose bytes wait in memory are written together when there are so many bytes of them.
const SYNC_SIZE: u64 = 16 << 20;

/// What this host knows of its own services.
pub(crate) fn secrets(state: &State) -> Result<Secrets> {
    let mut kept = Vec::new();
    for name in KEPT {
        let path = state.path(name);
        if state.has(name) {
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            kept.push((name.to_owned(), bytes));
        }
    }
    let capability = |name| if state.has(name) { state.capability(name).map(Some) } else { Ok(None) };
    let directory = capability(DIRECTORY_CAPABILITY)?;
    if directory.is_none() && state.has("directory/tables") {
        return Err(anyhow!("{} is missing", state.path(DIRECTORY_CAPABILITY).display())).context(Hint(
            "`amoeba down` and `amoeba up`: the directory server writes it when it starts".to_owned(),
        ));
    }
    Ok(Secrets { files: capability("bullet.cap")?, directory, state: kept })
}

/// Refuses to start what is only half restored.
pub(crate) fn refuse_half(state: &State) -> Result<()> {
    if !state.has(MARK) {
        return Ok(());
    }
    Err(anyhow!("the system in {} is not restored to the end", state.dir().display()))
        .context(Hint("`amoeba restore FILE` again, with the same archive, completes it".to_owned()))
}

/// Begins to restore a system into `state`, where there is none.
///
/// # Errors
/// There is one.
pub(crate) fn restore(state: State) -> Result<Box<dyn Restoring>> {
    let there =
        [SECRET, "root.cap", "bullet.img", "directory/tables"].into_iter().find(|name| state.has(name));
    if let Some(there) = there.filter(|_| !state.has(MARK)) {
        let dir = state.dir().display();
        return Err(anyhow!("there is a system in {dir} already ({there})")).context(Hint(
            "restore into another AMOEBA_STATE, or stop that system and move it away".to_owned(),
        ));
    }
    state.create()?;
    state.write(MARK, b"being restored; when that was interrupted, restore again\n")?;
    let config = Config::read(&state)?;
    Ok(Box::new(Restore { state, config, kept: Vec::new(), names: None, files: None }))
}

/// See the module.
struct Restore {
    state: State,
    config: Config,
    /// Files of the state directory, to be written at the end.
    kept: Vec<(String, Vec<u8>)>,
    names: Option<Importer>,
    files: Option<Volume>,
}

impl Restoring for Restore {
    fn record(&mut self, record: Record) -> Result<()> {
        match record {
            Record::State { name, bytes } => self.keep(name, bytes),
            Record::Page(page) => self.names()?.page(&page).context("the names"),
            Record::Files(service) => {
                if self.files.is_some() {
                    bail!("the archive has two file servers");
                }
                self.files = Some(Volume::make(&self.state, &self.config, &service)?);
                Ok(())
            }
            Record::File(head) => self.volume()?.begin(head),
            Record::Piece(bytes) => self.volume()?.piece(bytes),
            Record::Destroyed => self.volume()?.destroyed(),
            _ => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if let Some(files) = self.files.take() {
            files.finish()?;
        }
        if let Some(names) = self.names.take() {
            names.finish().context("the names")?;
        }
        self.write_capabilities()?;
        // The secret last.
        let (secret, others): (Vec<_>, Vec<_>) = self.kept.iter().partition(|(name, _)| name == SECRET);
        for (name, bytes) in others.into_iter().chain(secret) {
            self.state.write(name, bytes)?;
        }
        self.state.remove(MARK)
    }
}

impl Restore {
    fn keep(&mut self, name: String, bytes: Vec<u8>) -> Result<()> {
        if !KEPT.contains(&name.as_str()) || bytes.len() > KEPT_SIZE_MAX {
            bail!("the archive has a file of the state that is none: {name:?}");
        }
        if self.kept.iter().any(|(kept, _)| *kept == name) {
            bail!("the archive has {name} twice");
        }
        self.kept.push((name, bytes));
        Ok(())
    }

    fn names(&mut self) -> Result<&mut Importer> {
        if self.names.is_none() {
            self.names = Some(import(&self.state)?);
        }
        Ok(self.names.as_mut().expect("it was just made"))
    }

    fn volume(&mut self) -> Result<&mut Volume> {
        self.files.as_mut().context("the archive has files of no file server")
    }

    /// Whether what was saved belongs together.
    fn write_capabilities(&self) -> Result<()> {
        let kept = |wanted: &str| self.kept.iter().find(|(name, _)| name == wanted).map(|(_, bytes)| bytes);
        let secret = kept(SECRET).context("the archive has no secret of a system")?;
        let secret: [u8; 32] =
            secret.as_slice().try_into().ok().context("the secret in the archive is none")?;
        let _ = SystemSecret::from_bytes(secret);
        kept("root.cap").context("the archive names no root directory")?;
        Ok(())
    }
}

fn import(state: &State) -> Result<Importer> {
    let open = |name: &str| -> Result<FileDisk> {
        let path = state.path(name);
        let _ = fs::remove_file(&path); // of an interrupted restore
        FileDisk::open_or_create(&path).with_context(|| format!("cannot make {}", path.display()))
    };
    let (tables, log) = (open("directory/tables")?, open("directory/log")?);
    let entropy = amoeba_linux::entropy();
    let importer = Importer::new(Arc::new(tables), &log, &*entropy, Format::default().log_size);
    importer.context("cannot make the directory server's files")
}

/// The file server's volume, while files come into it.
struct Volume {
    store: Files,
    /// The file at hand, and how many of its bytes are there.
    at_hand: Option<(FileHead, u64)>,
    unwritten: u64,
}

impl Volume {
    fn make(state: &State, config: &Config, service: &FileService) -> Result<Volume> {
        let path = state.path("bullet.img");
        let _ = fs::remove_file(&path); // of an interrupted restore
        let disk = FileDisk::open_or_create(&path).context("cannot make the file server's image")?;
        let needed =
            service.size.saturating_add(service.files_max.saturating_mul(RECORD_ROOM)).saturating_add(SPARE);
        let size = config.bullet.size.max(needed);
        disk.set_size(size).with_context(|| format!("cannot make an image of {size} bytes"))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let entropy = amoeba_linux::entropy();
        let inodes = u32::try_from(service.files_max.saturating_add(1)).ok();
        let options = FormatOptions { force: true, inode_count: inodes };
        amoeba_bullet::format(&*disk, &*entropy, &options)
            .context("cannot format the file server's image")?;
        let settings = Settings { cache_size: CACHE, ..Settings::default() };
        let open = || {
            let opened = Files::open(disk.clone(), &amoeba_linux::threads(), entropy.clone(), settings);
            opened.context("cannot open the file server's image")
        };
        let store = open()?;
        store.adopt(&FileIdentity {
            get_port: GetPort::from_bytes(service.get_port),
            super_random: CheckField::from_bytes(service.random),
            secret: ServerSecret::from_bytes(service.secret),
        })?;
        store.close()?;
        drop(store);
        Ok(Volume { store: open()?, at_hand: None, unwritten: 0 })
    }

    fn begin(&mut self, head: FileHead) -> Result<()> {
        self.at_hand = Some((head, 0));
        if head.size == 0 { self.piece(Vec::new()) } else { Ok(()) }
    }

    fn piece(&mut self, bytes: Vec<u8>) -> Result<()> {
        let (head, offset) = self.at_hand.take().context("the archive has bytes of no file")?;
        let file = file_id(&head)?;
        let end = offset + bytes.len() as u64;
        let commit = if end == head.size { Commit::Memory } else { Commit::No };
        let told = || format!("file {}", head.number);
        if offset == 0 {
            self.store.restore(file, Vec::new(), head.owner).with_context(told)?;
        }
        self.unwritten += bytes.len() as u64;
        self.store.edit(file, Edit::Modify { offset, data: bytes }, commit, head.owner).with_context(told)?;
        if end < head.size {
            self.at_hand = Some((head, end));
        } else if self.unwritten > SYNC_SIZE {
            self.store.sync()?;
            self.unwritten = 0;
        }
        Ok(())
    }

    fn destroyed(&mut self) -> Result<()> {
        match self.at_hand.take() {
            Some((head, offset)) if offset > 0 => Ok(self.store.destroy(file_id(&head)?)?),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<()> {
        self.store.close().context("the file server's image")
    }
}

fn file_id(head: &FileHead) -> Result<FileId> {
    let object = ObjectNumber::new(head.number).context("the archive has a number that no file can have")?;
    Ok(FileId { object, random: CheckField::from_bytes(head.random) })
}

/// The capability of the directory server itself, for who administers it.
pub(crate) fn keep_directory_capability(state: &State, service: &amoeba_directory::Store) -> Result<()> {
    let identity = service.identity();
    let capability: Capability =
        identity.secret.capability(service.port(), ObjectNumber::SUPER, Rights::ALL, identity.super_random);
    if state.capability(DIRECTORY_CAPABILITY).is_ok_and(|there| there == capability) {
        return Ok(());
    }
    state.write(DIRECTORY_CAPABILITY, format!("{}\n", capability.to_text()).as_bytes())
}
