//! The local configuration, `config.toml` in the state directory. A missing file means the defaults.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::state::State;

/// The smallest image of a file server.
const BULLET_SIZE_MIN: u64 = 1 << 20;

/// The most raw Ethernets.
const ETHERNETS_MAX: usize = 8;

/// The port of a link, where nothing else is said.
pub(crate) const LINK_PORT: u16 = 5321;

/// What this host runs, and how large.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The servers of this host beside its kernel. A host that joins has none.
    pub services: Vec<Service>,
    /// The file server.
    pub bullet: Bullet,
    /// The directory server.
    pub directory: Directory,
    /// The way to other hosts; without it there are none.
    pub link: Option<Link>,
    /// Raw Ethernets that it is on beside it.
    pub ethernet: Vec<Ethernet>,
}

impl Default for Config {
    fn default() -> Config {
        let services = vec![Service::Bullet, Service::Directory, Service::Pool];
        Config {
            services,
            bullet: Bullet::default(),
            directory: Directory::default(),
            link: None,
            ethernet: vec![],
        }
    }
}

/// A server that a host may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Service {
    /// The file server.
    Bullet,
    /// The directory server.
    Directory,
    /// The run server; on a host without a link there is nothing to choose, and it is not started.
    Pool,
}

/// The link's part.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    /// Where the kernel listens for other hosts.
    pub listen: SocketAddr,
}

/// A raw Ethernet's part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ethernet {
    /// The interface.
    pub interface: String,
    /// Everybody on it is trusted with everything: without it no transaction crosses it.
    #[serde(default)]
    pub trusted: bool,
    /// Bytes behind the Ethernet header of the largest frame, where it is not the original's 1500.
    pub mtu: Option<usize>,
}

/// The address that `HOST:PORT` stands for; without a port the usual one.
pub(crate) fn resolve(text: &str) -> Result<SocketAddr> {
    let found = match text.parse() {
        Ok(address) => return Ok(address),
        Err(_) if text.contains(':') => text.to_socket_addrs(),
        Err(_) => (text, LINK_PORT).to_socket_addrs(),
    };
    let mut found = found.with_context(|| format!("cannot find the host {text}"))?;
    found.next().with_context(|| format!("the host {text} has no address"))
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
        Directory { cache: 256 << 20 }
    }
}

impl Config {
    /// Whether there is no way to other hosts.
    pub(crate) fn is_alone(&self) -> bool {
        self.link.is_none() && self.ethernet.is_empty()
    }

    /// Whether this host runs a run server.
    pub(crate) fn has_pool(&self) -> bool {
        !self.is_alone() && self.services.contains(&Service::Pool)
    }

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
        if config.ethernet.len() > ETHERNETS_MAX {
            bail!("{}: at most {ETHERNETS_MAX} [[ethernet]]", path.display());
        }
        if config.bullet.size < BULLET_SIZE_MIN {
            bail!("{}: bullet.size is at least {BULLET_SIZE_MIN} bytes", path.display());
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_on_an_ethernet_is_not_alone_and_trust_must_be_said() {
        let config: Config = toml::from_str("[[ethernet]]\ninterface = \"eth0\"\n").unwrap();
        assert!(!config.is_alone() && config.has_pool());
        assert_eq!((config.ethernet[0].trusted, config.ethernet[0].mtu), (false, None));
        let two = "[link]\nlisten = \"127.0.0.1:1\"\n[[ethernet]]\ninterface = \"a\"\ntrusted = true\nmtu = 9000\n\
                   [[ethernet]]\ninterface = \"b\"\n";
        let config: Config = toml::from_str(two).unwrap();
        assert_eq!(
            (config.ethernet.len(), config.ethernet[0].mtu, config.ethernet[0].trusted),
            (2, Some(9000), true)
        );
        assert!(toml::from_str::<Config>("[[ethernet]]\n").is_err());
        assert!(Config::default().is_alone());
    }
}
