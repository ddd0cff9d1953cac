//! The local configuration, `config.toml` in the state directory. A missing file means the defaults.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::state::State;

/// The smallest image of a file server.
const BULLET_SIZE_MIN: u64 = 1 << 20;

/// What this host runs, and how large.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The file server.
    pub(crate) bullet: Bullet,
    /// The directory server.
    pub(crate) directory: Directory,
}

/// The file server's part.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Bullet {
    /// Bytes of the image; read once, when it is made. The file is sparse.
    pub(crate) size: u64,
    /// Bytes of memory for files.
    pub(crate) cache: u64,
}

impl Default for Bullet {
    fn default() -> Bullet {
        Bullet { size: 16 << 30, cache: 256 << 20 }
    }
}

/// The directory server's part.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Directory {
    /// Bytes of memory for tables.
    pub(crate) cache: usize,
}

impl Default for Directory {
    fn default() -> Directory {
        Directory { cache: 64 << 20 }
    }
}

impl Config {
    /// The configuration of a system.
    ///
    /// # Errors
    /// The file is there and cannot be read, or says something that is not known here: line and column are told.
    pub(crate) fn read(state: &State) -> Result<Config> {
        let path = state.path("config.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Config::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let config: Config = toml::from_str(&text).with_context(|| path.display().to_string())?;
        if config.bullet.size < BULLET_SIZE_MIN {
            bail!("{}: bullet.size is at least {BULLET_SIZE_MIN} bytes", path.display());
        }
        Ok(config)
    }
}
