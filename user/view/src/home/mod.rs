//! The end of the caller: its files as objects that live as long as a run.
//!
//! - [`trees`]: which trees are shown and the way through them; [`hidden`]: what never is.
//! - [`record`]: what is told of a file; [`changes`]: what a host may change, [`upload`] its large files;
//!   [`report`]: what was changed, for the person.
//!
//! **Hosts are not trusted.** Whatever a request says, only what the trees allow is read or changed.

mod changes;
mod hidden;
mod record;
mod report;
mod trees;
mod upload;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, ServerSecret};
use amoeba_process::Tree;
use amoeba_server::{AnyObject, Call, Object, Objects};
use amoeba_stubs::view::{
    self, CHANGED, ChangeRecord, KnownRecord, LIST_MAX, ListReply, NodeRecord, OutcomeRecord, PIECE_SIZE_MAX,
    READ, WRITE, WRITERS_MAX,
};
use amoeba_threads::SpawnError;
use amoeba_wire::Status;
use amoeba_world::World;
use thiserror::Error;

use changes::Making;
pub(crate) use record::nothing;
use report::Report;
pub use report::{CHANGES_TOLD_MAX, Changed, Done};
pub use trees::{SYSTEM, Shown, is_never_shown, system};
use trees::{Trees, Walk};
use upload::Uploads;

/// The most runs that one server serves at once.
pub const RUNS_MAX: usize = 4096;
/// Threads in getreq: most requests are answered from memory, and each thread is made before the process runs.
const THREADS: usize = 2;
/// Bytes that the hash of a file's contents is computed over at once.
const HASH_PIECE_SIZE: usize = 1 << 20;

/// Why files cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is no port to listen on.
    #[error("no port for the files of this host")]
    Listen(#[from] amoeba_world::Error),
    /// There is no thread.
    #[error("no thread for the files of this host")]
    Spawn(#[from] SpawnError),
    /// [`RUNS_MAX`] runs are served.
    #[error("no more processes can see files of this host")]
    TooMany,
}

/// Serves trees of this host to the hosts where its processes run.
pub struct Server {
    world: World,
    port: amoeba_cap::PutPort,
    secret: ServerSecret,
    trees: Trees,
    report: Report,
    runs: Mutex<BTreeMap<u32, Arc<Run>>>,
}

/// What one process sees.
struct Run {
    random: CheckField,
    /// One request for changes at a time: they have an order.
    writers: Mutex<BTreeMap<u32, Writing>>,
}

/// Whoever makes changes one after the other.
#[derive(Default)]
struct Writing {
    /// The number of the last request for changes, and what was answered.
    sequence: u64,
    answer: Vec<OutcomeRecord>,
    uploads: Uploads,
}

impl Server {
    /// Serves these trees, and nothing in or below the paths `closed`, on a port of its own.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn start(world: &World, shown: &[Shown], closed: &[PathBuf]) -> Result<Arc<Server>, HomeError> {
        let get_port = GetPort::from_bytes(amoeba_world::random(&*world.entropy));
        let listener = world.transactions.listen(&get_port, view::REQUEST_SIZE_MAX)?;
        let server = Arc::new(Server {
            world: world.clone(),
            port: listener.put_port(),
            secret: ServerSecret::from_bytes(amoeba_world::random(&*world.entropy)),
            trees: Trees::open(shown, closed),
            report: Report::default(),
            runs: Mutex::default(),
        });
        view::start(world, listener, server.clone(), THREADS)?;
        Ok(server)
    }

    /// The trees that are there, for a descriptor.
    pub fn trees(&self) -> Vec<Tree> {
        self.trees.for_descriptor()
    }

    /// A capability for one process, which may write where the trees allow it.
    ///
    /// # Errors
    /// [`HomeError::TooMany`].
    pub fn admit(&self) -> Result<Capability, HomeError> {
        let random = CheckField::from_bytes(amoeba_world::random(&*self.world.entropy));
        let mut runs = self.runs();
        let limit = u32::try_from(RUNS_MAX).expect("a small number");
        let number = (1..=limit).find(|number| !runs.contains_key(number)).ok_or(HomeError::TooMany)?;
        let writes = self.trees.for_descriptor().iter().any(|tree| tree.writable);
        let rights = if writes { READ | WRITE } else { READ };
        runs.insert(number, Arc::new(Run { random, writers: Mutex::default() }));
        let object = ObjectNumber::new(number).expect("a small number");
        Ok(self.secret.capability(self.port, object, rights, random))
    }

    /// Ends a capability.
    pub fn dismiss(&self, capability: &Capability) {
        self.runs().remove(&capability.object().get());
    }

    /// What the processes have changed, by path, and how many paths beyond [`CHANGES_TOLD_MAX`].
    pub fn changes(&self) -> (Vec<Changed>, u64) {
        self.report.all()
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, object: ObjectNumber) -> Result<Arc<Run>, Status> {
        self.runs().get(&object.get()).cloned().ok_or(Status::STD_CAPBAD)
    }

    fn read_file(&self, path: &[u8], version: [u8; 16], offset: u64, size: usize) -> Result<Vec<u8>, Status> {
        let (file, facts) = Walk::new(&self.trees).read(path)?;
        if record::version(&facts) != version {
            return Err(CHANGED);
        }
        let left = usize::try_from(facts.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = vec![0; size.min(left)];
        file.read_exact_at(&mut data, offset).map_err(|_| CHANGED)?;
        // Somebody may have written meanwhile.
        let now = amoeba_tree::facts(&file).map_err(|error| record::status_of(&error))?;
        if record::version(&now) == version { Ok(data) } else { Err(CHANGED) }
    }
}

/// A writer, which may be new.
fn writing(writers: &mut BTreeMap<u32, Writing>, writer: u32) -> Result<&mut Writing, Status> {
    if writers.len() >= WRITERS_MAX && !writers.contains_key(&writer) {
        return Err(Status::STD_NOSPACE);
    }
    Ok(writers.entry(writer).or_default())
}

impl Objects for Server {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        self.runs().get(&object.get()).map(|run| run.random)
    }

    fn info(&self, _: AnyObject) -> Result<String, Status> {
        Ok("v files of a caller".into())
    }
}

impl view::Serve for Server {
    fn lookup(&self, _: &Call, _: Object<{ READ.bits() }>, path: &[u8]) -> Result<NodeRecord, Status> {
        Walk::new(&self.trees).look(path)
    }

    fn list(
        &self,
        _: &Call,
        _: Object<{ READ.bits() }>,
        path: &[u8],
        after: &[u8],
    ) -> Result<ListReply, Status> {
        let page = Walk::new(&self.trees).list(path, after, LIST_MAX)?;
        Ok(ListReply { version: page.version, more: page.more, entries: page.entries })
    }

    fn read(
        &self,
        _: &Call,
        _: Object<{ READ.bits() }>,
        version: [u8; 16],
        offset: u64,
        size: u32,
        path: &[u8],
    ) -> Result<Vec<u8>, Status> {
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(PIECE_SIZE_MAX);
        self.read_file(path, version, offset, size)
    }

    fn identity(
        &self,
        _: &Call,
        _: Object<{ READ.bits() }>,
        version: [u8; 16],
        path: &[u8],
    ) -> Result<[u8; 32], Status> {
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        loop {
            let piece = self.read_file(path, version, offset, HASH_PIECE_SIZE)?;
            if piece.is_empty() {
                return Ok(*hasher.finalize().as_bytes());
            }
            hasher.update(&piece);
            offset += piece.len() as u64;
        }
    }

    fn revalidate(
        &self,
        _: &Call,
        _: Object<{ READ.bits() }>,
        known: Vec<KnownRecord>,
    ) -> Result<Vec<u8>, Status> {
        let mut walk = Walk::new(&self.trees);
        let mut changed = vec![0; known.len().div_ceil(8)];
        for (index, known) in known.iter().enumerate() {
            let same = walk.look(&known.path).is_ok_and(|node| node.version == known.version);
            changed[index / 8] |= u8::from(!same) << (index % 8);
        }
        Ok(changed)
    }

    fn upload(
        &self,
        _: &Call,
        object: Object<{ WRITE.bits() }>,
        writer: u32,
        number: u32,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<(), Status> {
        let run = self.run(object.number())?;
        let mut writers = run.writers.lock().unwrap_or_else(PoisonError::into_inner);
        writing(&mut writers, writer)?.uploads.piece(number, offset, &data)
    }

    fn apply(
        &self,
        _: &Call,
        object: Object<{ WRITE.bits() }>,
        writer: u32,
        sequence: u64,
        changes: Vec<ChangeRecord>,
    ) -> Result<Vec<OutcomeRecord>, Status> {
        let run = self.run(object.number())?;
        let mut writers = run.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let writing = writing(&mut writers, writer)?;
        if sequence == writing.sequence && sequence != 0 {
            return Ok(writing.answer.clone());
        }
        if sequence != writing.sequence + 1 {
            return Err(Status::STD_ARGBAD);
        }
        // Numbers that no other run of this host has at the same time.
        let unique = u64::from_le_bytes(amoeba_world::random(&*self.world.entropy));
        let uploads = &mut writing.uploads;
        let mut making = Making { trees: &self.trees, uploads, report: &self.report, unique: unique >> 1 };
        let outcomes: Vec<OutcomeRecord> = changes.iter().map(|change| making.make(change)).collect();
        writing.sequence = sequence;
        writing.answer.clone_from(&outcomes);
        Ok(outcomes)
    }
}
