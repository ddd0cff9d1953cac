//! What a backup needs of the host, and who makes a system of one.

use amoeba_cap::Capability;

use crate::archive::Record;

/// What this host knows of its own services. All of it is secret.
#[derive(Clone, Default)]
pub struct Secrets {
    /// The file server of this host, with all rights.
    pub files: Option<Capability>,
    /// The root of the directory server of this host, with all rights.
    pub directory: Option<Capability>,
    /// Files of the state directory that a restored host must have, by their names.
    pub state: Vec<(String, Vec<u8>)>,
}

/// Makes a system of the records of an archive, in their order. Dropped before [`Restoring::finish`], it leaves nothing that
/// could be started.
pub trait Restoring {
    /// Takes the next record.
    ///
    /// # Errors
    /// It does not fit with those before it, or there is no room for it here.
    fn record(&mut self, record: Record) -> anyhow::Result<()>;
    /// The archive was good to its end: now there is a system.
    ///
    /// # Errors
    /// It does not get to the disk.
    fn finish(self: Box<Self>) -> anyhow::Result<()>;
}
