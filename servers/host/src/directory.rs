//! The host's own directory: its servers under fixed names, and `ps`, its processes under their numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use amoeba_cap::{Capability, CapabilitySet, CheckField, ObjectNumber, PutPort, ServerSecret};
use amoeba_server::{AnyObject, Call, Object, Objects};
use amoeba_stubs::hostdir::{self, COLUMN_1, ListReply, LookupReply, RowHead};
use amoeba_wire::Status;

use crate::PERMANENT;
use crate::seed::Keys;

/// The host directory's object number.
pub const HOST: ObjectNumber = ObjectNumber::new(1).expect("a small number");
/// The object number of `ps` in it.
pub const PS: ObjectNumber = ObjectNumber::new(2).expect("a small number");

/// The processes of a host, as `ps` shows them.
pub trait Processes: Send + Sync {
    /// Number and capability of every process, in any order.
    fn processes(&self) -> Vec<(u32, Capability)>;
}

/// The server of the host's directory.
pub struct HostDirectory {
    secret: ServerSecret,
    ps: Capability,
    servers: BTreeMap<Vec<u8>, Capability>,
    processes: Arc<dyn Processes>,
}

impl HostDirectory {
    /// A directory that listens on `port` with these `keys` and shows `servers` and `processes`.
    pub fn new(
        keys: Keys,
        port: PutPort,
        servers: impl IntoIterator<Item = (&'static str, Capability)>,
        processes: Arc<dyn Processes>,
    ) -> HostDirectory {
        let servers = servers.into_iter().map(|(name, server)| (name.as_bytes().to_vec(), server)).collect();
        let ps = keys.capability(port, PS);
        HostDirectory { secret: keys.secret, ps, servers, processes }
    }

    fn rows(&self, directory: ObjectNumber) -> BTreeMap<Vec<u8>, Capability> {
        if directory == HOST {
            let mut rows = self.servers.clone();
            rows.insert(b"ps".to_vec(), self.ps);
            return rows;
        }
        let processes = self.processes.processes();
        processes.into_iter().map(|(number, process)| (number.to_string().into_bytes(), process)).collect()
    }
}

impl Objects for HostDirectory {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        (object == HOST || object == PS).then_some(PERMANENT)
    }

    fn info(&self, object: AnyObject) -> Result<String, Status> {
        let column = if object.rights().contains(COLUMN_1) { '1' } else { '-' };
        Ok(format!("%--{column}---"))
    }
}

impl hostdir::Serve for HostDirectory {
    fn lookup(
        &self,
        _: &Call,
        directory: Object<{ COLUMN_1.bits() }>,
        path: &[u8],
    ) -> Result<LookupReply, Status> {
        let mut at = directory.number();
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let mut found = None;
        for name in names.by_ref() {
            let capability = *self.rows(at).get(name).ok_or(Status::STD_NOTFOUND)?;
            found = Some(capability);
            if capability != self.ps {
                break;
            }
            at = PS;
        }
        let tail = names.collect::<Vec<_>>().join(&b'/');
        let set = CapabilitySet::singleton(found.ok_or(Status::STD_ARGBAD)?);
        Ok(LookupReply { tail, set, kind: Capability::NULL, time: 0, attributes: Vec::new() })
    }

    fn list(
        &self,
        _: &Call,
        directory: Object<{ COLUMN_1.bits() }>,
        after: &[u8],
        count: u32,
    ) -> Result<ListReply, Status> {
        let rows = self.rows(directory.number());
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(hostdir::LIST_MAX);
        let mut names = rows.into_keys().filter(|name| after.is_empty() || name.as_slice() > after);
        let head = |name| RowHead { name, time: 0, masks: [0xFF, 0, 0, 0] };
        let rows = names.by_ref().take(count).map(head).collect();
        Ok(ListReply { columns: vec![b"owner".to_vec()], rows, more: names.next().is_some() })
    }
}
