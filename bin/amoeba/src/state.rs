//! The state directory of a system on one host: secrets, images, capabilities, logs. Mode 0700, files 0600.
//!
//! ```text
//! system.secret   the key of F, shared by all hosts of a system
//! host.seed       what this host's ports and check fields are made from
//! host.key        its identity: the private key that other hosts know it by
//! host.name       its name in /profile/hosts and /system/hosts
//! host.cap        the capability of its own directory
//! root.cap        the user's root directory: losing it is losing the home
//! confined.cap    the same as processes get it that see no host's files, made of it at each start
//! bullet.img      the image of the file server          bullet.cap     its super capability
//! pool.cap        the capability of the run server, with all rights
//! directory/      log and tables of the directory server  directory.cap  its super capability
//! guests/         output of detached processes
//! log/            what the daemons have to say
//! namespaces/     links to the namespaces of a throw-away host
//! run/            the kernel's socket, locks of the supervisor and of each daemon, the supervisor's report; slots of jobs
//! members.json    the hosts of the system, as they were when they could last be read
//! invites.json    the invitations of this host
//! join.pending    this host has what it needs of a system and is not confirmed as a member yet
//! removed         this host was removed from its system
//! *.forming       an image is being made; if it is there at a start, the image is made anew (restore.forming: by `restore`)
//! ```

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use amoeba_cap::{Capability, SystemSecret};
use amoeba_cli::Hint;
use amoeba_host::HostSeed;
use amoeba_linux::Place;
use amoeba_linux::lock::{self, Lock};
use amoeba_seal::Identity;
use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A state directory.
#[derive(Clone, Debug)]
pub(crate) struct State {
    place: Place,
}

impl State {
    /// The state directory that [`Place::find`] names.
    pub(crate) fn find() -> Result<State> {
        let place = Place::find().context(
            "neither HOME nor XDG_STATE_HOME nor AMOEBA_STATE is set: there is no place for state",
        )?;
        Ok(State { place })
    }

    /// A state directory by its path.
    pub(crate) fn at(directory: PathBuf) -> State {
        State { place: Place { directory, of_host: false } }
    }

    /// The directory itself.
    pub(crate) fn dir(&self) -> &Path {
        &self.place.directory
    }

    /// Whether it is the host's own system and not a user's private one.
    pub(crate) fn of_host(&self) -> bool {
        self.place.of_host
    }

    /// Makes the directories that are missing.
    ///
    /// # Errors
    /// There is no room, or others may write in the directory and so replace secrets by their own.
    pub(crate) fn create(&self) -> Result<()> {
        if self.open_to_others() & 0o022 != 0 {
            let dir = self.dir().display();
            return Err(anyhow!("others may write in the state directory {dir}")
                .context(Hint(format!("`chmod 700 {dir}` closes it"))));
        }
        for dir in ["", "directory", "guests", "log", "run"] {
            let dir = self.dir().join(dir);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.with_context(|| format!("cannot make {}", dir.display()))?;
        }
        Ok(())
    }

    /// The path of something in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The socket of the kernel daemon.
    pub(crate) fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    /// The system's secret.
    pub(crate) fn system_secret(&self) -> Result<SystemSecret> {
        Ok(SystemSecret::from_bytes(self.read_array("system.secret")?))
    }

    /// What this host's own servers are made from.
    pub(crate) fn host_seed(&self) -> Result<HostSeed> {
        Ok(HostSeed::from_bytes(self.read_array("host.seed")?))
    }

    /// This host's identity.
    pub(crate) fn identity(&self) -> Result<Identity> {
        Ok(Identity::from_bytes(self.read_array("host.key")?))
    }

    /// What a file of JSON says; `None` when it is not there.
    pub(crate) fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes a file of JSON, as [`State::write`] does.
    pub(crate) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value).expect("what is kept has nothing that JSON has not");
        text.push(b'\n');
        self.write(name, &text)
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// This host's name.
    pub(crate) fn host_name(&self) -> Result<String> {
        let name = fs::read_to_string(self.path("host.name")).context("the state directory names no host")?;
        Ok(name.trim().to_owned())
    }

    /// A capability stored as text.
    pub(crate) fn capability(&self, name: &str) -> Result<Capability> {
        let path = self.path(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.trim().parse().with_context(|| format!("{} holds no capability", path.display()))
    }

    /// Whether the file is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Writes a file whole or not at all, with mode 0600, durably.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        let part = path.with_extension(format!("part{}", std::process::id()));
        let store = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            fs::File::open(path.parent().unwrap_or(self.dir()))?.sync_all()
        };
        store().or_else(|error| {
            let _ = fs::remove_file(&part);
            Err(error).with_context(|| format!("cannot write {}", path.display()))
        })
    }

    /// Takes the lock that `name` stands for; `None` when another process has it.
    pub(crate) fn lock(&self, name: &str) -> Result<Option<Lock>> {
        let path = self.path(name);
        lock::take(&path).with_context(|| format!("cannot lock {}", path.display()))
    }

    /// The process that holds the lock; 0 for one that cannot be seen from here.
    ///
    /// # Errors
    /// This user may not look into the state directory.
    pub(crate) fn holder(&self, name: &str) -> Result<Option<u32>> {
        let path = self.path(name);
        lock::holder(&path).with_context(|| format!("cannot look whether a system runs: {}", path.display()))
    }

    /// What the mode of the directory allows to others, of 0o077; 0 when there is none.
    pub(crate) fn open_to_others(&self) -> u32 {
        fs::metadata(self.dir()).map_or(0, |directory| directory.permissions().mode() & 0o077)
    }

    fn read_array<const N: usize>(&self, name: &str) -> Result<[u8; N]> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("{} is missing: this is not the state of a system", path.display())
            }
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        bytes
            .try_into()
            .ok()
            .with_context(|| format!("{} is damaged: it should have {N} bytes", path.display()))
    }
}
