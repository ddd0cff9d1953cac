//! Hosts that only pretend, and directories that name them; both worlds' tests use them.
#![allow(dead_code, unreachable_pub)] // each test takes what it needs

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amoeba_cap::{
    Capability, CapabilitySet, CheckField, GetPort, ObjectNumber, PutPort, Rights, ServerSecret,
};
use amoeba_process::{Events, Guest, GuestError, Guests, HostLoad, ProcessServer, Spec};
use amoeba_server::{Call, Object, Objects, Running};
use amoeba_stubs::hostdir::{self, ListReply, LookupReply, RowHead};
use amoeba_stubs::process;
use amoeba_wire::Status;
use amoeba_world::{Listener, World};

/// The only object of a fake directory.
const DIRECTORY: ObjectNumber = ObjectNumber::new(1).expect("a small number");

/// What is behind a name: get-port and secret made of its first bytes.
pub fn get_port(name: &str) -> GetPort {
    let mut bytes = [0x11; 6];
    for (byte, of_name) in bytes.iter_mut().zip(name.bytes()) {
        *byte = of_name;
    }
    GetPort::from_bytes(bytes)
}

fn secret(name: &str) -> ServerSecret {
    let mut bytes = [0x22; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    ServerSecret::from_bytes(bytes)
}

/// A directory of one level whose rows the test changes.
pub struct FakeDirectory {
    secret: ServerSecret,
    rows: Mutex<BTreeMap<Vec<u8>, Capability>>,
}

pub type Rows = BTreeMap<Vec<u8>, Capability>;

impl FakeDirectory {
    pub fn new(name: &str, rows: impl IntoIterator<Item = (String, Capability)>) -> Arc<FakeDirectory> {
        let rows = rows.into_iter().map(|(name, capability)| (name.into_bytes(), capability)).collect();
        Arc::new(FakeDirectory { secret: secret(name), rows: Mutex::new(rows) })
    }

    pub fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn capability(name: &str, port: PutPort) -> Capability {
        secret(name).capability(port, DIRECTORY, Rights::ALL, CheckField::NULL)
    }
}

impl Objects for FakeDirectory {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        (object == DIRECTORY).then_some(CheckField::NULL)
    }
}

impl hostdir::Serve for FakeDirectory {
    fn lookup(&self, _: &Call, _: Object<0>, path: &[u8]) -> Result<LookupReply, Status> {
        let mut names = path.splitn(2, |byte| *byte == b'/');
        let name = names.next().expect("a split has a first part");
        let found = *self.rows().get(name).ok_or(Status::STD_NOTFOUND)?;
        let (tail, set) = (names.next().unwrap_or_default().to_vec(), CapabilitySet::singleton(found));
        Ok(LookupReply { tail, set, kind: Capability::NULL, time: 0, attributes: Vec::new() })
    }

    fn list(&self, _: &Call, _: Object<0>, after: &[u8], count: u32) -> Result<ListReply, Status> {
        let rows = self.rows();
        let mut names = rows.keys().filter(|name| after.is_empty() || name.as_slice() > after);
        let head = |name: &Vec<u8>| RowHead { name: name.clone(), time: 0, masks: [0xFF, 0, 0, 0] };
        let rows = names.by_ref().take(count as usize).map(head).collect();
        Ok(ListReply { columns: vec![b"owner".to_vec()], rows, more: names.next().is_some() })
    }
}

/// A host whose load is what the test says.
pub struct FakeGuests {
    pub architecture: &'static str,
    pub load: Mutex<HostLoad>,
}

impl FakeGuests {
    /// Idle: four processors of 4000 MIPS, 8 GiB free.
    pub fn idle(architecture: &'static str) -> Arc<FakeGuests> {
        let load =
            HostLoad { cpus: 4, load: 0.0, memory_free: 8 << 30, memory_total: 16 << 30, kips: 4_000_000 };
        Arc::new(FakeGuests { architecture, load: Mutex::new(load) })
    }

    pub fn set(&self, change: impl FnOnce(&mut HostLoad)) {
        change(&mut self.load.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Guests for FakeGuests {
    fn architecture(&self) -> &str {
        self.architecture
    }

    fn has_option(&self, _: &[u8]) -> bool {
        false
    }

    fn load(&self) -> HostLoad {
        self.load.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(&self, _: Spec, _: Arc<dyn Events>) -> Result<Arc<dyn Guest>, GuestError> {
        Err(GuestError::NoRoom("nothing runs here".into()))
    }

    fn read_log(&self, _: u16, _: u64, _: u32) -> (Vec<u8>, bool) {
        (Vec::new(), true)
    }

    fn forget(&self, _: u16) {}
}

/// A host at work: its process server, and its own directory with `proc` in it.
pub struct FakeHost {
    pub directory: Capability,
    pub server: Capability,
    listeners: [Listener; 2],
    running: [Running; 2],
}

impl FakeHost {
    /// Ports and secrets come from the name alone, so that a host that comes back is the same.
    pub fn start(world: &World, name: &str, guests: Arc<FakeGuests>) -> FakeHost {
        let (of_server, of_directory) = (format!("p{name}"), format!("d{name}"));
        let listen = |name: &str| {
            world.transactions.listen(&get_port(name), process::REQUEST_SIZE_MAX).expect("the port is good")
        };
        let listener = listen(&of_server);
        let server = ProcessServer::new(
            world.clone(),
            listener.put_port(),
            secret(&of_server),
            CheckField::NULL,
            guests,
        );
        let capability = server.super_capability();
        let running = process::start(world, listener.clone(), server, 2).expect("there is room for threads");
        let directory_listener = listen(&of_directory);
        let rows = [("proc".to_owned(), capability)];
        let directory = FakeDirectory::new(&of_directory, rows);
        let directory_running = hostdir::start(world, directory_listener.clone(), directory, 2)
            .expect("there is room for threads");
        FakeHost {
            directory: FakeDirectory::capability(&of_directory, directory_listener.put_port()),
            server: capability,
            listeners: [listener, directory_listener],
            running: [running, directory_running],
        }
    }

    pub fn stop(self) {
        self.listeners.iter().for_each(|listener| listener.close());
        self.running.into_iter().for_each(Running::join);
    }
}

/// A directory of hosts at work.
pub struct FakePool {
    pub capability: Capability,
    pub directory: Arc<FakeDirectory>,
    running: Running,
}

impl FakePool {
    pub fn start(world: &World, rows: impl IntoIterator<Item = (String, Capability)>) -> FakePool {
        let listener = world.transactions.listen(&get_port("hosts"), hostdir::REQUEST_SIZE_MAX);
        let listener = listener.expect("the port is good");
        let directory = FakeDirectory::new("hosts", rows);
        let capability = FakeDirectory::capability("hosts", listener.put_port());
        let running =
            hostdir::start(world, listener, directory.clone(), 2).expect("there is room for threads");
        FakePool { capability, directory, running }
    }

    pub fn stop(self) {
        self.running.stop();
    }
}
