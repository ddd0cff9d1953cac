//! `amoeba join`: this host becomes one of a system that is there already.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use amoeba_cli::{Hint, JoinOptions};
use amoeba_linux::link::{JoinError, Joined, join};
use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use crate::config::{LINK_PORT, Link, Service, resolve};
use crate::state::State;

/// Addresses of the loopback network that are tried for a host that says none.
const LOOPBACK_TRIES: u8 = 250;

/// The configuration of a host that has joined.
#[derive(Serialize)]
struct Config {
    services: Vec<Service>,
    link: Link,
}

/// Asks to be taken in, and lays out the state directory. The system's secret is written last: without it there is no
/// system here, and joining can be tried again.
pub(crate) fn main(state: &State, options: &JoinOptions) -> Result<()> {
    if state.has("system.secret") {
        let dir = state.dir().display();
        return Err(anyhow!("this host belongs to a system already (state in {dir})")
            .context(Hint("set AMOEBA_STATE to an empty directory to have another host here".to_owned())));
    }
    let address = resolve(&options.address)?;
    let name = options.name.clone().unwrap_or_else(amoeba_linux::host::name);
    let joined = ask(address, &name, options.dev)?;
    let listen = match &options.listen {
        Some(listen) => resolve(listen)?,
        None => free_address(address)?,
    };
    let peers = joined.peers.iter().map(SocketAddr::to_string).collect();
    let config = Config { services: Vec::new(), link: Link { listen, peers, dev: options.dev } };
    state.create()?;
    state.write("config.toml", toml::to_string(&config)?.as_bytes())?;
    state.write("host.name", name.as_bytes())?;
    state.write("root.cap", format!("{}\n", joined.root_capability).as_bytes())?;
    state.write("system.secret", &joined.secret.to_bytes())
}

fn ask(address: SocketAddr, name: &str, dev: bool) -> Result<Joined> {
    join(address, name, dev, &*amoeba_linux::entropy()).map_err(|error| {
        let hint = match &error {
            JoinError::Unsealed(_) => "hosts of an isolated network for tests may use --dev",
            JoinError::Name(_) => "choose a name with --name",
            JoinError::Silent(_) => "its config.toml needs a [link] with `listen = \"ADDRESS:PORT\"`",
            _ => return anyhow!(error),
        };
        anyhow!(error).context(Hint(hint.to_owned()))
    })
}

/// Where a host listens that was not told: on the loopback network an address of its own beside the one it joined,
/// elsewhere everywhere.
fn free_address(joined: SocketAddr) -> Result<SocketAddr> {
    match joined.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let addresses = (2..LOOPBACK_TRIES).map(|last| Ipv4Addr::new(127, 0, 0, last));
            let mut addresses = addresses.map(|ip| SocketAddr::from((ip, LINK_PORT)));
            let free = addresses.find(|address| *address != joined && UdpSocket::bind(address).is_ok());
            free.context("no address of the loopback network is free; choose one with --listen")
        }
        IpAddr::V6(ip) if ip.is_loopback() => {
            let free = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
            free.context("no port is free; choose an address with --listen")
        }
        IpAddr::V4(_) => Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, LINK_PORT))),
        IpAddr::V6(_) => Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, LINK_PORT))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_a_configuration() {
        let link = Link {
            listen: "127.0.0.2:5321".parse().unwrap(),
            peers: vec!["127.0.0.1:5321".to_owned()],
            dev: false,
        };
        let text = toml::to_string(&Config { services: Vec::new(), link }).unwrap();
        let config: crate::config::Config = toml::from_str(&text).unwrap();
        assert!(config.services.is_empty());
        let link = config.link.unwrap();
        assert_eq!((link.listen.to_string().as_str(), link.addresses().len()), ("127.0.0.2:5321", 1));
    }

    #[test]
    fn a_host_beside_another_gets_an_address_of_its_own() {
        let joined = "127.0.0.2:5321".parse().unwrap();
        let free = free_address(joined).unwrap();
        assert!(free.ip().is_loopback() && free != joined);
        let elsewhere = free_address("192.0.2.1:9".parse().unwrap()).unwrap();
        assert!(elsewhere.ip().is_unspecified());
    }
}
