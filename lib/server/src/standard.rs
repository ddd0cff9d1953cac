//! The standard operations, carried out for every class.
//!
//! # Source
//! Amoeba 5.3, std(L). Numbers and encodings are the original's; `idl/std.class` has the clients' side, and a test in
//! `lib/stubs` holds the two together.

use amoeba_cap::{ObjectNumber, Private, Rights};
use amoeba_wire::{Command, Header, Malformed, Reader, Status, Writer};
use amoeba_world::Message;

use crate::call::is_genuine;
use crate::running::Statistics;
use crate::{AnyObject, Call, Failure, Objects, On, Parameter};

const AGE: u16 = 1001;
const COPY: u16 = 1002;
const DESTROY: u16 = 1003;
const INFO: u16 = 1004;
const RESTRICT: u16 = 1005;
const STATUS: u16 = 1006;
const TOUCH: u16 = 1007;
const GETPARAMS: u16 = 1008;
const SETPARAMS: u16 = 1009;
const NTOUCH: u16 = 1010;

/// Private parts in one NTOUCH.
pub const NTOUCH_MAX: usize = 2000;
/// Parameters of one server.
pub const PARAMETERS_MAX: usize = 64;
/// Bytes of an information or status text that one transaction can carry: its length travels in 16 bits.
pub const TEXT_SIZE_MAX: usize = 65535;
/// Bytes of each text of a parameter.
const PARAMETER_TEXT_MAX: usize = 255;

/// What a class says of one standard operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    /// Which.
    pub command: Command,
    /// The rights it needs.
    pub rights: Rights,
    /// The objects it works on.
    pub on: On,
}

impl Standard {
    /// What `offered` says of `command`; `None` when the class does not offer it.
    pub fn find(offered: &[Standard], command: Command) -> Option<Standard> {
        offered.iter().find(|standard| standard.command == command).copied()
    }
}

/// Carries out one standard operation as the class offers it, and tells the objects that it was.
pub(crate) fn standard(
    objects: &dyn Objects,
    statistics: &Statistics,
    offered: Standard,
    call: &Call,
    header: Header,
    data: Vec<u8>,
) -> Result<Message, Failure> {
    let reply = carry_out(objects, statistics, offered, call, header, data)?;
    objects.performed(call.command());
    Ok(reply)
}

fn carry_out(
    objects: &dyn Objects,
    statistics: &Statistics,
    offered: Standard,
    call: &Call,
    header: Header,
    data: Vec<u8>,
) -> Result<Message, Failure> {
    let command = call.command().0;
    if command == NTOUCH {
        return ntouch(objects, call, header, &data);
    }
    let object = call.check(objects, &call.capability().private, offered.on, offered.rights)?;
    match command {
        AGE => done(objects.age(call)),
        COPY => copy(objects, call, object, &data),
        DESTROY => done(objects.destroy(call, object)),
        INFO => Ok(text(header, objects.info(object)?)),
        RESTRICT => restrict(objects, call, object, header),
        STATUS => {
            let mut lines = objects.status(object)?;
            if object.is_super() {
                statistics.report(&call.guard().report(), &mut lines);
            }
            Ok(text(header, lines))
        }
        TOUCH => done(Ok(())), // the check has touched it
        GETPARAMS => parameters(objects.parameters(object)?),
        SETPARAMS => set_parameters(objects, object, header, &data),
        _ => Err(Status::STD_COMBAD.into()),
    }
}

fn done(result: Result<(), Status>) -> Result<Message, Failure> {
    result?;
    Ok(Message::status(Status::STD_OK))
}

/// As much of a text as the client takes, and the length of the whole.
fn text(request: Header, text: String) -> Message {
    let mut data = text.into_bytes();
    data.truncate(TEXT_SIZE_MAX);
    let mut header = Header::reply(Status::STD_OK);
    header.size = u16::try_from(data.len()).expect("just cut to what 16 bits can tell");
    data.truncate(request.size.into());
    Message { header, data }
}

fn copy(objects: &dyn Objects, call: &Call, target: AnyObject, data: &[u8]) -> Result<Message, Failure> {
    let mut reader = Reader::new(data);
    let original = reader.get_cap()?;
    reader.end()?;
    let mut header = Header::reply(Status::STD_OK);
    header.set_capability(&objects.copy(call, target, &original)?);
    Ok(Message { header, data: Vec::new() })
}

/// Rights can only be taken away: the result has those of the capability that are also in the mask.
fn restrict(
    objects: &dyn Objects,
    call: &Call,
    object: AnyObject,
    request: Header,
) -> Result<Message, Failure> {
    let rights = object.rights() & Rights::from_bits_retain(request.offset as u8);
    let random = objects.random(object.number()).ok_or(Status::STD_CAPBAD)?;
    let mut header = Header::reply(Status::STD_OK);
    header.set_capability(&objects.secret().capability(call.port(), object.number(), rights, random));
    Ok(Message { header, data: Vec::new() })
}

fn parameters(parameters: Vec<Parameter>) -> Result<Message, Failure> {
    let mut writer = Writer::new();
    let mut count = 0;
    for parameter in parameters.iter().take(PARAMETERS_MAX) {
        for text in [&parameter.name, &parameter.kind, &parameter.description, &parameter.value] {
            let text = text.as_bytes();
            if text.len() > PARAMETER_TEXT_MAX || text.contains(&0) {
                return Err(Status::STD_OVERFLOW.into());
            }
            writer.put_string(text);
        }
        count += 1;
    }
    let data = writer.finish();
    let size = u16::try_from(data.len()).unwrap_or(u16::MAX);
    let header = Header { extra: count, size, ..Header::reply(Status::STD_OK) };
    Ok(Message { header, data })
}

fn set_parameters(
    objects: &dyn Objects,
    object: AnyObject,
    request: Header,
    data: &[u8],
) -> Result<Message, Failure> {
    let count = usize::from(request.extra);
    if count > PARAMETERS_MAX {
        return Err(Status::STD_ARGBAD.into());
    }
    let mut reader = Reader::new(data);
    let settings = (0..count)
        .map(|_| Ok((reader.get_string(PARAMETER_TEXT_MAX)?, reader.get_string(PARAMETER_TEXT_MAX)?)))
        .collect::<Result<Vec<_>, Malformed>>()?;
    reader.end()?;
    for (name, value) in settings {
        objects.set_parameter(object, name, value)?;
    }
    done(Ok(()))
}

/// Touches what it can. The reply tells how many, also when its status tells of a failure.
fn ntouch(objects: &dyn Objects, call: &Call, request: Header, data: &[u8]) -> Result<Message, Failure> {
    let count = usize::from(request.size);
    if count == 0 || count > NTOUCH_MAX || data.len() != count * amoeba_cap::PRIVATE_SIZE {
        return Err(Status::STD_ARGBAD.into());
    }
    let mut reader = Reader::new(data);
    let privates = (0..count).map(|_| reader.get_private()).collect::<Result<Vec<Private>, Malformed>>()?;
    let pass = call.guard().admit(call.caller())?;
    // The original says nothing of a server's own capability, whatever its check field: so nobody learns anything by it.
    let (genuine, bad): (Vec<Private>, Vec<Private>) = privates
        .into_iter()
        .partition(|private| private.object == ObjectNumber::SUPER || is_genuine(objects, private));
    for private in &genuine {
        objects.touch(private.object);
    }
    let status = if bad.is_empty() { Status::STD_OK } else { Status::STD_CAPBAD };
    if !bad.is_empty() {
        pass.fail(u32::try_from(bad.len()).expect("at most NTOUCH_MAX"));
    }
    let touched = u16::try_from(genuine.len()).expect("at most NTOUCH_MAX");
    Ok(Message { header: Header { extra: touched, ..Header::reply(status) }, data: Vec::new() })
}
