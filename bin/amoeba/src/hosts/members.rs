//! A host of the system, as its file in /system/hosts says it, and the list of all in the state directory.

use std::net::SocketAddr;

use amoeba_linux::link::admission::{ADDRESSES_MAX, MEMBERS_MAX, Row, is_name};
use amoeba_seal::PublicKey;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Service};
use crate::hosts::reachable;
use crate::state::State;

/// Where the list lies.
const FILE: &str = "members.json";

/// A host of the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// Its public key.
    #[serde(with = "as_text")]
    pub(crate) key: PublicKey,
    /// Where it may be reached; the first is best. Empty while it listens nowhere.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The servers that it runs beside its kernel.
    #[serde(default)]
    pub(crate) services: Vec<String>,
    /// When it joined, by the clock of whoever wrote this: seconds since 1970. For people alone.
    #[serde(default)]
    pub(crate) joined: u64,
    /// The host that invited it; the first host was invited by nobody.
    #[serde(default)]
    pub(crate) inviter: Option<String>,
}

impl Member {
    /// This host, as its state directory describes it.
    pub(crate) fn of_this_host(state: &State) -> Result<Member> {
        let config = Config::read(state)?;
        let services = config.services.iter().map(|service| match service {
            Service::Bullet => "bullet".to_owned(),
            Service::Directory => "directory".to_owned(),
            Service::Pool => "pool".to_owned(),
        });
        Ok(Member {
            name: state.host_name()?,
            key: state.identity()?.public(),
            addresses: config.link.map(|link| reachable(link.listen)).unwrap_or_default(),
            services: services.collect(),
            joined: super::now(),
            inviter: None,
        })
    }

    /// A host that has just joined.
    pub(crate) fn that_joined(row: &Row, inviter: &str) -> Member {
        Member {
            name: row.name.clone(),
            key: row.key,
            addresses: row.addresses.clone(),
            services: Vec::new(),
            joined: super::now(),
            inviter: Some(inviter.to_owned()),
        }
    }

    /// What links are told.
    pub(crate) fn row(&self) -> Row {
        Row { name: self.name.clone(), key: self.key, addresses: self.addresses.clone() }
    }

    /// The file of its row.
    pub(crate) fn to_file(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a member has nothing that JSON has not");
        text.push(b'\n');
        text
    }

    /// The member that a file describes, under the name of its row.
    ///
    /// # Errors
    /// It is no such file, or that of another host.
    pub(crate) fn from_file(name: &[u8], bytes: &[u8]) -> Result<Member> {
        let member: Member = serde_json::from_slice(bytes).context("not the file of a host")?;
        ensure!(member.name.as_bytes() == name && is_name(&member.name), "it is the file of another host");
        ensure!(member.addresses.len() <= ADDRESSES_MAX, "a host has at most {ADDRESSES_MAX} addresses");
        Ok(member)
    }
}

impl From<Row> for Member {
    /// A host that is only known from another's list.
    fn from(row: Row) -> Member {
        let Row { name, key, addresses } = row;
        Member { name, key, addresses, services: Vec::new(), joined: 0, inviter: None }
    }
}

/// All hosts of the system, this one among them, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Members(Vec<Member>);

impl Members {
    /// These hosts; past the bound of a system the rest is left out.
    pub(crate) fn new(members: impl IntoIterator<Item = Member>) -> Members {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort_by(|one, other| one.name.cmp(&other.name));
        members.dedup_by(|one, other| one.name == other.name);
        if members.len() > MEMBERS_MAX {
            tracing::warn!("there are more than {MEMBERS_MAX} hosts; those past it are not spoken with");
            members.truncate(MEMBERS_MAX);
        }
        Members(members)
    }

    /// The list of the state directory; empty where there is none.
    pub(crate) fn read(state: &State) -> Result<Members> {
        state.read_json(FILE).map(Option::unwrap_or_default)
    }

    /// Keeps the list in the state directory.
    pub(crate) fn write(&self, state: &State) -> Result<()> {
        state.write_json(FILE, self)
    }

    /// The hosts.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.iter()
    }

    /// The host of this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Member> {
        self.0.iter().find(|member| member.name == name)
    }

    /// What links are told.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.0.iter().map(Member::row).collect()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Public keys as their text.
mod as_text {
    use amoeba_seal::PublicKey;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(key: &PublicKey, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PublicKey, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_back_under_its_own_name_only() {
        let member = Member {
            name: "bolt".into(),
            key: PublicKey::from_bytes([0xAB; 32]),
            addresses: vec!["192.0.2.7:5321".parse().unwrap(), "[2001:db8::7]:5321".parse().unwrap()],
            services: vec!["bullet".into()],
            joined: 1_795_301_057,
            inviter: Some("anvil".into()),
        };
        let file = member.to_file();
        assert!(String::from_utf8_lossy(&file).contains("\"192.0.2.7:5321\""), "people can read it");
        assert_eq!(Member::from_file(b"bolt", &file).unwrap(), member);
        assert!(Member::from_file(b"chisel", &file).is_err());
        assert!(Member::from_file(b"bolt", b"{}").is_err() && Member::from_file(b"bolt", b"\xFF").is_err());
        let bare = r#"{"name": "bolt", "key": "KEY", "addresses": []}"#.replace("KEY", &"ab".repeat(32));
        assert!(Member::from_file(b"bolt", bare.as_bytes()).is_ok(), "later versions may say less");
    }

    #[test]
    fn the_list_is_in_order_and_each_host_once() {
        let member = |name: &str| {
            let key = PublicKey::from_bytes([name.len() as u8; 32]);
            Member::from(Row { name: name.into(), key, addresses: Vec::new() })
        };
        let members = Members::new(["chisel", "anvil", "chisel"].map(member));
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["anvil", "chisel"]);
        assert!(members.find("anvil").is_some() && members.find("bolt").is_none());
        assert_eq!(
            Members::new((0..300).map(|host| member(&"x".repeat(host + 1)))).rows().len(),
            MEMBERS_MAX
        );
    }
}
