//! The host's own directory: its servers under fixed names, and `ps`, its processes under their numbers.
//!
//! It has two columns. The owner's shows everything; the group's, which processes are given that see no host's files, shows what
//! leads to none.

use std::collections::BTreeMap;
use std::sync::Arc;

use amoeba_cap::{Capability, CapabilitySet, CheckField, ObjectNumber, PutPort, Rights, ServerSecret};
use amoeba_server::{AnyObject, Call, Object, Objects};
use amoeba_stubs::hostdir::{self, COLUMN_1, COLUMN_2, ListReply, LookupReply, RowHead};
use amoeba_wire::Status;

use crate::PERMANENT;
use crate::seed::Keys;

/// The host directory's object number.
pub const HOST: ObjectNumber = ObjectNumber::new(1).expect("a small number");
/// The object number of `ps` in it.
pub const PS: ObjectNumber = ObjectNumber::new(2).expect("a small number");

/// The row of [`PS`] in the host's directory.
const PS_NAME: &[u8] = b"ps";

/// The processes of a host, as `ps` shows them.
pub trait Processes: Send + Sync {
    /// Number and capability of every process that a column shows, in any order.
    fn processes(&self, column: Column) -> Vec<(u32, Capability)>;
}

/// A column of the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Everything.
    Owner,
    /// All but what leads to the host's own files.
    Group,
}

impl Column {
    /// The column in which who has these rights sees the most.
    fn of(rights: Rights) -> Result<Column, Status> {
        match rights {
            rights if rights.contains(COLUMN_1) => Ok(Column::Owner),
            rights if rights.contains(COLUMN_2) => Ok(Column::Group),
            _ => Err(Status::STD_DENIED),
        }
    }
}

/// What a row of the directory stands for in each column.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// In the owner's.
    pub owner: Capability,
    /// In the group's: the same, perhaps with fewer rights.
    pub group: Capability,
}

impl Row {
    /// The same in both columns.
    pub fn of(server: Capability) -> Row {
        Row { owner: server, group: server }
    }

    fn in_column(&self, column: Column) -> Capability {
        match column {
            Column::Owner => self.owner,
            Column::Group => self.group,
        }
    }
}

/// The server of the host's directory.
pub struct HostDirectory {
    secret: ServerSecret,
    /// The servers, and `ps`.
    rows: BTreeMap<&'static [u8], Row>,
    processes: Arc<dyn Processes>,
}

impl HostDirectory {
    /// A directory that listens on `port` with these `keys` and shows `servers` and `processes`.
    pub fn new(
        keys: Keys,
        port: PutPort,
        servers: impl IntoIterator<Item = (&'static str, Row)>,
        processes: Arc<dyn Processes>,
    ) -> HostDirectory {
        let group = keys.secret.capability(port, PS, COLUMN_2, PERMANENT);
        let ps = Row { owner: keys.capability(port, PS), group };
        let rows = servers.into_iter().map(|(name, server)| (name.as_bytes(), server)).chain([(PS_NAME, ps)]);
        HostDirectory { secret: keys.secret, rows: rows.collect(), processes }
    }

    fn rows(&self, directory: ObjectNumber, column: Column) -> BTreeMap<Vec<u8>, Capability> {
        if directory == HOST {
            return self.rows.iter().map(|(name, row)| (name.to_vec(), row.in_column(column))).collect();
        }
        let processes = self.processes.processes(column);
        processes.into_iter().map(|(number, process)| (number.to_string().into_bytes(), process)).collect()
    }

    fn row(&self, directory: ObjectNumber, column: Column, name: &[u8]) -> Option<Capability> {
        if directory == HOST {
            return self.rows.get(name).map(|row| row.in_column(column));
        }
        self.rows(directory, column).remove(name)
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
        let mark = |column, mark| if object.rights().contains(column) { mark } else { '-' };
        Ok(format!("%--{}{}--", mark(COLUMN_1, '1'), mark(COLUMN_2, '2')))
    }
}

impl hostdir::Serve for HostDirectory {
    fn lookup(&self, _: &Call, directory: Object<0>, path: &[u8]) -> Result<LookupReply, Status> {
        let column = Column::of(directory.rights())?;
        let mut at = directory.number();
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let mut found = None;
        for name in names.by_ref() {
            found = Some(self.row(at, column, name).ok_or(Status::STD_NOTFOUND)?);
            if at != HOST || name != PS_NAME {
                break;
            }
            at = PS;
        }
        let tail = names.collect::<Vec<_>>().join(&b'/');
        let set = CapabilitySet::singleton(found.ok_or(Status::STD_ARGBAD)?);
        Ok(LookupReply { tail, set, kind: Capability::NULL, time: 0, attributes: Vec::new() })
    }

    fn list(&self, _: &Call, directory: Object<0>, after: &[u8], count: u32) -> Result<ListReply, Status> {
        let column = Column::of(directory.rights())?;
        let rows = self.rows(directory.number(), column);
        let group = self.rows(directory.number(), Column::Group);
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(hostdir::LIST_MAX);
        let mut names = rows.into_keys().filter(|name| after.is_empty() || name.as_slice() > after);
        let mask = |name: &Vec<u8>| group.get(name).map_or(0, |capability| capability.rights().bits());
        let head = |name: Vec<u8>| RowHead { time: 0, masks: [0xFF, mask(&name), 0, 0], name };
        let rows = names.by_ref().take(count).map(head).collect();
        Ok(ListReply {
            columns: vec![b"owner".to_vec(), b"group".to_vec()],
            rows,
            more: names.next().is_some(),
        })
    }
}
