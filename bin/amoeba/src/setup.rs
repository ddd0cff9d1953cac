//! The first start of a system on this host: secrets, images, capabilities. What is there already is kept.

use std::fs;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use amoeba_cap::{Capability, ObjectNumber, Rights};
use amoeba_host::HOST;
use amoeba_linux::FileDisk;
use amoeba_world::{Disk, random};
use anyhow::{Context, Result, bail};

use crate::config::{Config, Service};
use crate::state::State;

/// Makes what is missing. A first start that was interrupted is taken up where it stopped: a capability is written
/// after the image it names.
pub(crate) fn ensure(state: &State) -> Result<()> {
    let entropy = amoeba_linux::entropy();
    for secret in ["system.secret", "host.seed"] {
        if !state.has(secret) {
            state.write(secret, &random::<32>(&*entropy))?;
        }
    }
    if !state.has("host.name") {
        state.write("host.name", amoeba_linux::host::name().as_bytes())?;
    }
    let config = Config::read(state)?;
    if !state.has("host.cap") {
        write_capability(state, "host.cap", &host_capability(state)?)?;
    }
    if config.services.contains(&Service::Bullet) && !state.has("bullet.cap") {
        write_capability(state, "bullet.cap", &format_bullet(state, &config)?)?;
    }
    if !state.has("root.cap") {
        if !config.services.contains(&Service::Directory) {
            bail!(
                "this host has no directory server and knows no root directory; `amoeba join HOST:PORT` tells it"
            );
        }
        write_capability(state, "root.cap", &format_directory(state)?)?;
    }
    Ok(())
}

fn write_capability(state: &State, name: &str, capability: &Capability) -> Result<()> {
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
    for file in ["directory/tables", "directory/log"] {
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
