//! The first start of a system on this host: secrets, images, capabilities. What is there already is kept.

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use amoeba_cap::{Capability, GetPort, ObjectNumber, Rights, ServerSecret};
use amoeba_cli::Hint;
use amoeba_host::{HOST, PERMANENT};
use amoeba_linux::FileDisk;
use amoeba_seal::Identity;
use amoeba_world::{Disk, random};
use anyhow::{Context, Result, anyhow, bail};

use crate::config::{Config, Service};
use crate::hosts::{Member, Members};
use crate::join::PENDING;
use crate::keeping;
use crate::state::State;

/// What a volume consists of, and the mark that it is being made.
struct Volume {
    /// The capability, without which nothing in the volume can be reached.
    capability: &'static str,
    files: &'static [&'static str],
    /// There from before the first file is made until the capability is written.
    mark: &'static str,
    /// What the capability is for, for people.
    purpose: &'static str,
}

const BULLET: Volume =
    Volume { capability: "bullet.cap", files: &["bullet.img"], mark: "bullet.forming", purpose: "the files" };
const DIRECTORY: Volume = Volume {
    capability: "root.cap",
    files: &["directory/tables", "directory/log"],
    mark: "directory.forming",
    purpose: "the directory graph",
};

/// Makes what is missing. A first start that was interrupted is taken up where it stopped; but what was made once is
/// never made anew: a secret or capability that somebody lost is to be put back.
///
/// # Errors
/// Something was lost; the hint says what to do.
pub(crate) fn ensure(state: &State) -> Result<()> {
    let entropy = amoeba_linux::entropy();
    keeping::refuse_half(state)?;
    if state.has(PENDING) {
        return Err(anyhow!("this host has not joined its system to the end")
            .context(Hint("`amoeba join TOKEN` again, with the same token, completes it".to_owned())));
    }
    if !state.has("system.secret") {
        // It is the first thing ever written, so that nothing of a first start is there without it.
        refuse_without_secret(state)?;
        state.write("system.secret", &random::<32>(&*entropy))?;
    }
    if !state.has("host.seed") {
        state.write("host.seed", &random::<32>(&*entropy))?;
    }
    if !state.has("host.name") {
        state.write("host.name", amoeba_linux::host::name().as_bytes())?;
    }
    ensure_identity(state)?;
    let config = Config::read(state)?;
    let host = host_capability(state)?;
    if !matches!(state.capability("host.cap"), Ok(there) if there == host) {
        write_capability(state, "host.cap", &host)?;
    }
    if config.services.contains(&Service::Bullet) {
        make(state, &BULLET, || format_bullet(state, &config))?;
    }
    if config.has_pool() && !state.has("pool.cap") {
        write_capability(state, "pool.cap", &run_server(state, Rights::ALL)?)?;
    }
    if Members::read(state)?.is_empty() {
        Members::new([Member::of_this_host(state)?]).write(state)?;
    }
    if config.services.contains(&Service::Directory) {
        make(state, &DIRECTORY, || format_directory(state))?;
    } else if !state.has("root.cap") {
        bail!("this host has no directory server and knows no root directory; `amoeba join TOKEN` tells it");
    }
    Ok(())
}

/// Makes this host's identity, unless it has one.
pub(crate) fn ensure_identity(state: &State) -> Result<()> {
    if state.has("host.key") {
        return Ok(());
    }
    state.write("host.key", &Identity::generate(&*amoeba_linux::entropy()).to_bytes())
}

fn refuse_without_secret(state: &State) -> Result<()> {
    let volumes = [BULLET, DIRECTORY];
    let mut rest = volumes.iter().flat_map(|volume| volume.files.iter().chain([&volume.capability]));
    let Some(found) = rest.find(|name| state.has(name)) else { return Ok(()) };
    Err(anyhow!("{} is missing, and {found} is of no use without it", state.path("system.secret").display())
        .context(Hint("put the saved copy back; after a join that was interrupted, join again".to_owned())))
}

/// Makes a volume and its capability, unless they are there.
fn make(state: &State, volume: &Volume, format: impl FnOnce() -> Result<Capability>) -> Result<()> {
    if !state.has(volume.capability) {
        let there = volume.files.iter().find(|name| state.has(name));
        if let Some(there) = there.filter(|_| !state.has(volume.mark)) {
            return Err(lost(state, volume, there));
        }
        state.write(
            volume.mark,
            b"being made; when the start was interrupted, the next one makes it anew\n",
        )?;
        write_capability(state, volume.capability, &format()?)?;
    }
    match fs::remove_file(state.path(volume.mark)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot remove a mark"),
        _ => Ok(()),
    }
}

fn lost(state: &State, volume: &Volume, there: &str) -> anyhow::Error {
    let Volume { capability, files, purpose, .. } = volume;
    let dir = state.dir().display();
    anyhow!("{dir}/{there} is there, but {dir}/{capability} is missing, the key to {purpose}").context(Hint(
        format!(
            "put the saved copy of {capability} back; to lose {purpose} and begin anew, move {} away",
            files.join(" and ")
        ),
    ))
}

/// Where the run server listens and what protects it: the same on every host of the system, so that one stands in for the
/// other.
pub(crate) fn run_server_keys(state: &State) -> Result<amoeba_pool::Keys> {
    let system = state.system_secret()?;
    let port = system.tag(b"runsvr-p", b"");
    let secret = [system.tag(b"runsvr-1", b""), system.tag(b"runsvr-2", b"")].concat();
    Ok(amoeba_pool::Keys {
        get_port: GetPort::from_bytes(std::array::from_fn(|index| port[index])),
        secret: ServerSecret::from_bytes(std::array::from_fn(|index| secret[index])),
    })
}

/// The capability of the run server with these rights.
pub(crate) fn run_server(state: &State, rights: Rights) -> Result<Capability> {
    let keys = run_server_keys(state)?;
    let port = state.system_secret()?.put_port(&keys.get_port);
    Ok(keys.secret.capability(port, ObjectNumber::SUPER, rights, PERMANENT))
}

pub(crate) fn write_capability(state: &State, name: &str, capability: &Capability) -> Result<()> {
    state.write(name, format!("{}\n", capability.to_text()).as_bytes())
}

fn host_capability(state: &State) -> Result<Capability> {
    let keys = state.host_seed()?.keys("host");
    Ok(keys.capability(state.system_secret()?.put_port(&keys.get_port), HOST))
}

fn format_bullet(state: &State, config: &Config) -> Result<Capability> {
    let disk =
        FileDisk::open_or_create(&state.path("bullet.img")).context("cannot make the file server's image")?;
    let size = config.bullet.size;
    disk.set_size(size)
        .with_context(|| format!("cannot make an image of {size} bytes for the file server"))?;
    let options = amoeba_bullet::FormatOptions { force: true, ..Default::default() };
    let made = amoeba_bullet::format(&disk, &*amoeba_linux::entropy(), &options);
    let volume = made.context("cannot format the file server's image")?;
    let port = state.system_secret()?.put_port(&volume.get_port);
    Ok(volume.secret.capability(port, ObjectNumber::SUPER, Rights::ALL, volume.super_random))
}

fn format_directory(state: &State) -> Result<Capability> {
    for file in DIRECTORY.files {
        let _ = fs::remove_file(state.path(file)); // half-made: no capability for it was ever given out
    }
    let open = |name| {
        FileDisk::open_or_create(&state.path(name)).context("cannot make the directory server's files")
    };
    let (tables, log) = (open("directory/tables")?, open("directory/log")?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let entropy = amoeba_linux::entropy();
    let made = amoeba_directory::format(Arc::new(tables), &log, &*entropy, now, &Default::default());
    let service = made.context("cannot format the directory server's files")?;
    Ok(service.root_capability(state.system_secret()?.put_port(&service.identity.get_port)))
}
