//! Files that several servers keep: a P-factor of 2 and more.
//!
//! The original's paper knows a P-factor for each create: 0, answered when the file is in memory; 1, when it is on this
//! server's disk; 2, when it is on a second one's too. 0 and 1 are flags of [`bullet::create`] ([`bullet::COMMIT`] without
//! and with [`bullet::SAFETY`]). From 2 on the copies are files of their own, each with its capability, and what names
//! them is their capability set: so every server stays the only one that knows its files, and any of the copies can be
//! read, aged and destroyed without the others.

use std::io::{self, Read};

use amoeba_cap::{Capability, CapabilitySet, SET_MEMBERS_MAX};
use amoeba_wire::Status;
use amoeba_world::Error;

use crate::bullet_file::{self, OpenFile};
use crate::bullet_stream::{StreamError, write_file};
use crate::{Client, bullet, standard};

const DURABLE: u16 = bullet::COMMIT | bullet::SAFETY;

/// Makes a file of everything `from` gives, on each of `servers`, and returns when it is on the disks of all of them: the copies
/// in the order of the servers. The first server is sent the file; the others copy it from there. After an error none is left.
///
/// # Rights
/// CREATE on each of `servers`.
///
/// # Errors
/// [`StreamError::Local`]: reading `from`. [`StreamError::Server`]: those of [`bullet::create`] and [`standard::copy`];
/// NotSent(STD_ARGBAD) for no server, or more than a capability set has room for.
pub fn write_copies<'t>(
    t: impl Into<Client<'t>>,
    servers: &[Capability],
    from: &mut dyn Read,
) -> Result<CapabilitySet, StreamError> {
    let client = t.into();
    let Some((first, others)) = servers.split_first().filter(|_| servers.len() <= SET_MEMBERS_MAX) else {
        return Err(Error::NotSent(Status::STD_ARGBAD).into());
    };
    let original = write_file(client, first, DURABLE, from)?;
    let mut copies = CapabilitySet::singleton(original);
    for server in others {
        let made = copy_to(client, server, &original);
        match made {
            Ok(copy) => copies.push(copy).expect("the servers are no more than a set has room for"),
            Err(error) => {
                for copy in copies.current() {
                    // Whoever cannot be reached now ages the file away: nobody has its capability.
                    let _ = standard::destroy(client, copy);
                }
                return Err(error);
            }
        }
    }
    Ok(copies)
}

/// A durable copy of `file` on `server`: the server fetches it from the file's own, or, when it has no time for that, is sent
/// it from here.
///
/// # Rights
/// CREATE on `server`, READ on `file`.
///
/// # Errors
/// Those of [`standard::copy`], [`bullet::read`] and [`bullet::create`].
pub fn copy_to<'t>(
    t: impl Into<Client<'t>>,
    server: &Capability,
    file: &Capability,
) -> Result<Capability, StreamError> {
    let client = t.into();
    match standard::copy(client, server, file) {
        Err(Error::Refused(Status::STD_NOTNOW)) => {
            let open = bullet_file::open(client, file)?;
            write_file(client, server, DURABLE, &mut Reading { client, open, offset: 0 })
        }
        result => Ok(result?),
    }
}

/// Reads an open file from its beginning to its end.
struct Reading<'t> {
    client: Client<'t>,
    open: OpenFile,
    offset: u64,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.open.read_at(self.client, self.offset, buffer).map_err(io::Error::other)?;
        self.offset += read as u64;
        Ok(read)
    }
}
