//! A class that has everything the language has, compiled by a build script, and a server of it. The tests in
//! `tests/` drive both.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use amoeba_cap::{Capability, CheckField, ObjectNumber, Private, PutPort, Rights, ServerSecret};
use amoeba_server::{AnyObject, Bulk, Call, Object, Objects, Parameter, Pending, Running};
use amoeba_wire::Status;
use amoeba_world::{Shared, World};

/// A class to inherit from.
pub mod basis {
    include!(concat!(env!("OUT_DIR"), "/basis.rs"));
}

/// A class that has everything the language has.
pub mod probe {
    include!(concat!(env!("OUT_DIR"), "/probe.rs"));
}

use basis::Pair;
use probe::{CREATE, READ, WRITE};

/// A server of the class.
pub struct Probe {
    world: World,
    secret: ServerSecret,
    randoms: Mutex<BTreeMap<ObjectNumber, CheckField>>,
    /// How often each object was touched.
    pub touched: Mutex<BTreeMap<ObjectNumber, u64>>,
    calls: AtomicU64,
    parameter: Mutex<String>,
}

impl Probe {
    /// A server with its own object 0 and nothing else.
    pub fn new(world: &World) -> Probe {
        let randoms = BTreeMap::from([(ObjectNumber::SUPER, CheckField::from_bytes([7; 6]))]);
        Probe {
            world: world.clone(),
            secret: ServerSecret::from_bytes([9; 32]),
            randoms: Mutex::new(randoms),
            touched: Mutex::default(),
            calls: AtomicU64::new(0),
            parameter: Mutex::new("blue".to_owned()),
        }
    }

    /// Starts a server on a port of its own: the server at work, itself, and its super capability.
    pub fn start(world: &World, threads: usize) -> (Running, Arc<Probe>, Capability) {
        let get_port = amoeba_cap::GetPort::from_bytes(amoeba_world::random(&*world.entropy));
        let listener = world
            .transactions
            .listen(&get_port, probe::REQUEST_SIZE_MAX)
            .expect("the loopback has room for a listener");
        let port = listener.put_port();
        let server = Arc::new(Probe::new(world));
        let running = probe::start(world, listener, server.clone(), threads).expect("threads can be started");
        let capability = server.capability(port, ObjectNumber::SUPER).expect("object 0 is always there");
        (running, server, capability)
    }

    fn capability(&self, port: PutPort, object: ObjectNumber) -> Option<Capability> {
        Some(self.secret.capability(port, object, Rights::ALL, self.random(object)?))
    }

    fn insert(&self) -> Result<ObjectNumber, Status> {
        let mut randoms = held(&self.randoms);
        let number =
            u32::try_from(randoms.len()).ok().and_then(ObjectNumber::new).ok_or(Status::STD_NOSPACE)?;
        randoms.insert(number, CheckField::from_bytes(amoeba_world::random(&*self.world.entropy)));
        Ok(number)
    }
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Objects for Probe {
    fn secret(&self) -> &ServerSecret {
        &self.secret
    }

    fn random(&self, object: ObjectNumber) -> Option<CheckField> {
        held(&self.randoms).get(&object).copied()
    }

    fn touch(&self, object: ObjectNumber) {
        *held(&self.touched).entry(object).or_default() += 1;
    }

    fn info(&self, object: AnyObject) -> Result<String, Status> {
        Ok(format!("* probe {} {:02x}", object.number(), object.rights().bits()))
    }

    fn destroy(&self, _: &Call, object: AnyObject) -> Result<(), Status> {
        held(&self.randoms).remove(&object.number()).map(drop).ok_or(Status::STD_NOTNOW)
    }

    fn age(&self, _: &Call) -> Result<(), Status> {
        held(&self.touched).clear();
        Ok(())
    }

    fn copy(&self, call: &Call, _: AnyObject, original: &Capability) -> Result<Capability, Status> {
        call.admit::<{ READ.bits() }>(self, &original.private)?;
        let number = self.insert()?;
        self.capability(call.port(), number).ok_or(Status::STD_SYSERR)
    }

    fn parameters(&self, _: AnyObject) -> Result<Vec<Parameter>, Status> {
        Ok(vec![Parameter {
            name: "colour".to_owned(),
            kind: "text".to_owned(),
            description: "The colour.".to_owned(),
            value: held(&self.parameter).clone(),
        }])
    }

    fn set_parameter(&self, _: AnyObject, name: &[u8], value: &[u8]) -> Result<(), Status> {
        if name != b"colour" {
            return Err(Status::STD_ARGBAD);
        }
        *held(&self.parameter) = String::from_utf8(value.to_vec()).map_err(|_| Status::STD_ARGBAD)?;
        Ok(())
    }
}

impl probe::Serve for Probe {
    fn create(&self, call: &Call, _: Object<{ CREATE.bits() }>) -> Result<Capability, Status> {
        let number = self.insert()?;
        self.capability(call.port(), number).ok_or(Status::STD_SYSERR)
    }

    fn echo(
        &self,
        _: &Call,
        _: Object<{ READ.bits() }>,
        everything: probe::Everything,
        ports: Vec<PutPort>,
        flag: bool,
    ) -> Result<probe::EchoReply, Status> {
        Ok(probe::EchoReply { everything, ports, flag })
    }

    fn echo_loose(
        &self,
        _: &Call,
        _: Object<{ READ.bits() | WRITE.bits() }>,
        _: bool,
        _: u8,
        _: i64,
        name: &[u8],
        _: &[u8],
        _: [u8; 6],
        _: Capability,
        _: Private,
        _: PutPort,
        _: amoeba_cap::CapabilitySet,
        _: Vec<probe::Point>,
        numbers: Vec<u32>,
    ) -> Result<probe::EchoLooseReply, Status> {
        Ok(probe::EchoLooseReply { name: name.to_vec(), numbers })
    }

    fn classic(
        &self,
        call: &Call,
        _: Object<{ READ.bits() }>,
        position: i32,
        count: u16,
        flags: i16,
    ) -> Result<probe::ClassicReply, Status> {
        Ok(probe::ClassicReply {
            position: position as u32,
            count: u8::try_from(count).map_err(|_| Status::STD_ARGBAD)?,
            safe: flags == probe::FLAG_SAFE as i16,
            place: *call.capability(),
        })
    }

    fn bulk(&self, _: &Call, _: Object<{ WRITE.bits() }>, data: Vec<u8>, _: u16) -> Result<Vec<u8>, Status> {
        Ok(data)
    }

    fn labelled(
        &self,
        _: &Call,
        _: Object<{ WRITE.bits() }>,
        name: &[u8],
        data: Vec<u8>,
    ) -> Result<probe::LabelledReply, Status> {
        Ok(probe::LabelledReply { name: name.to_vec(), data })
    }

    fn shared(&self, _: &Call, _: Object<{ READ.bits() }>, from: u32, to: u32) -> Result<Bulk, Status> {
        let held: Arc<Vec<u8>> = Arc::new((0..=u8::MAX).cycle().take(2 * probe::DATA_MAX).collect());
        match (from as usize, to as usize) {
            (0, 0) => Ok(Vec::new().into()),
            (from, to) if from <= to && to <= held.len() => Ok(Bulk::Shared(Shared::new(held, from..to))),
            _ => Err(Status::STD_ARGBAD),
        }
    }

    fn panics(&self, _: &Call, _: Object<0>) -> Result<(), Status> {
        panic!("as it was asked to");
    }

    fn fails(&self, _: &Call, _: Object<0>, status: i16) -> Result<(), Status> {
        Err(Status(status))
    }

    fn too_long(&self, _: &Call, _: Object<0>) -> Result<Vec<u8>, Status> {
        Ok(vec![b'x'; probe::NAME_MAX + 1])
    }

    fn later(
        &self,
        _: &Call,
        _: Object<{ READ.bits() }>,
        name: &[u8],
        data: Vec<u8>,
        pending: Pending<Vec<u8>>,
    ) {
        let mut answer = name.to_vec();
        answer.truncate(data.len());
        self.world
            .threads
            .spawn("later", move || pending.send(Ok(answer)))
            .expect("a thread can be started in a test");
    }

    fn never(&self, _: &Call, _: Object<0>, pending: Pending<()>) {
        drop(pending);
    }

    fn not_on_super(&self, _: &Call, _: Object<0>) -> Result<(), Status> {
        Ok(())
    }

    fn admit(&self, call: &Call, part: Private) -> Result<u32, Status> {
        Ok(call.admit::<{ READ.bits() | WRITE.bits() }>(self, &part)?.number().get())
    }

    fn names(
        &self,
        _: &Call,
        _: Object<{ READ.bits() }>,
        server: &[u8],
        header: u32,
        data: u32,
        result: u32,
        reader: u32,
        writer: u32,
        reply: u32,
    ) -> Result<probe::NamesReply, Status> {
        let sum = data + result + reader + writer + reply;
        Ok(probe::NamesReply { server: server.to_vec(), header, data: vec![1, 2], result: sum, size: 3 })
    }

    fn count(&self, _: &Call, _: Object<0>) -> Result<u64, Status> {
        Ok(self.calls.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn count_once(&self, _: &Call, _: Object<0>) -> Result<u64, Status> {
        Ok(self.calls.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn swap(&self, _: &Call, _: Object<{ READ.bits() }>, pairs: Vec<Pair>) -> Result<Vec<Pair>, Status> {
        Ok(pairs.iter().map(|pair| Pair { left: pair.right, right: pair.left }).collect())
    }

    fn split(&self, _: &Call, _: Object<{ READ.bits() }>, whole: Pair, pending: Pending<basis::SplitReply>) {
        pending.send(Ok(basis::SplitReply { left: whole.left, right: whole.right }));
    }
}
