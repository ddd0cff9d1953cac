//! Records of a trace as people and programs read them.

use std::fmt::Write as _;
use std::time::Duration;

use amoeba_stubs::command_name;
use amoeba_wire::packet::{FLIP_HEADER_SIZE, FlipHeader, PacketKind, RpcHeader, RpcKind};
use amoeba_wire::trace::{Event, Outcome, Record, Seen, rpc_header};
use amoeba_wire::{HEADER_SIZE, Header, Status};
use serde_json::{Map, Value, json};

use super::super::ping::shown;
use crate::out::printable;

/// A record on a line.
pub(super) fn line(record: &Record) -> String {
    let mut line = time_of_day(record.time);
    // Writing to a string does not fail.
    let _ = match &record.event {
        Event::Request { pid, slot, message } => write!(line, "  {pid}.{slot} > {}", request(message)),
        Event::Delivered { pid, request: number, client, message } => {
            write!(line, "  {pid} takes {number} of {client}: {}", request(message))
        }
        Event::Answered { pid, request, reply: Some(reply) } => {
            write!(line, "  {pid} answers {request}: {}", answer(reply))
        }
        Event::Answered { pid, request, reply: None } => write!(line, "  {pid} gives up {request}"),
        Event::Ended { pid, slot, elapsed, outcome } => {
            let elapsed = elapsed.map(|time| format!(", {}", shown(time))).unwrap_or_default();
            write!(line, "  {pid}.{slot} < {}{elapsed}", ended(outcome))
        }
        Event::Packet { inward, link, peer, size, bytes } => {
            let (way, whom) = if *inward { ("in", "from") } else { ("out", "to") };
            let peer = if peer.is_empty() { "everybody".into() } else { printable(peer) };
            write!(line, "  link {link} {way} {whom} {peer}: {}", packet(bytes, *size))
        }
    };
    line
}

/// A record as an object.
pub(super) fn json(record: &Record) -> Value {
    let mut object = match &record.event {
        Event::Request { pid, slot, message } => {
            let mut object = json!({ "event": "request", "pid": pid, "slot": slot });
            add_request(&mut object, message);
            object
        }
        Event::Delivered { pid, request, client, message } => {
            let mut object = json!({
                "event": "delivered", "pid": pid, "request": request, "client": client.to_string()
            });
            add_request(&mut object, message);
            object
        }
        Event::Answered { pid, request, reply } => {
            let mut object = json!({ "event": "answered", "pid": pid, "request": request });
            match reply {
                Some(reply) => add_reply(&mut object, reply),
                None => object["outcome"] = "given up".into(),
            }
            object
        }
        Event::Ended { pid, slot, elapsed, outcome } => {
            let microseconds = elapsed.map(|time| time.as_nanos() as f64 / 1000.0);
            let mut object =
                json!({ "event": "ended", "pid": pid, "slot": slot, "microseconds": microseconds });
            match outcome {
                Outcome::Reply(reply) => add_reply(&mut object, reply),
                Outcome::NotSent(status) => {
                    object["outcome"] = "not sent".into();
                    object["status"] = status_name(*status).into();
                }
                Outcome::MaybeExecuted(status) => {
                    object["outcome"] = "maybe executed".into();
                    object["status"] = status_name(*status).into();
                }
            }
            object
        }
        Event::Packet { inward, link, peer, size, bytes } => {
            let mut object = json!({
                "event": "packet", "inward": inward, "link": link, "peer": printable(peer), "size": size
            });
            add_packet(&mut object, bytes);
            object
        }
    };
    object["time"] = (record.time.as_nanos() as f64 / 1e9).into();
    object
}

fn time_of_day(time: Duration) -> String {
    let seconds = time.as_secs() % 86_400;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:06}", seconds % 60, time.subsec_micros())
}

/// A command as the class files call it, or its number.
fn command(number: u16) -> String {
    command_name(number).map_or_else(|| format!("command {number}"), str::to_owned)
}

fn status_name(status: i16) -> String {
    match status {
        0 => "OK".to_owned(),
        _ => Status(status).name().map_or_else(|| status.to_string(), str::to_owned),
    }
}

/// Port, object and rights of a header.
fn object(header: &Header) -> String {
    let private = &header.private;
    format!("{}/{}({:02X})", header.port, private.object.get(), private.rights.bits())
}

fn request(seen: &Seen) -> String {
    format!("{} {}, {}", command(seen.header.command), object(&seen.header), data(seen))
}

fn answer(seen: &Seen) -> String {
    format!("{}, {}", status_name(seen.header.status().0), data(seen))
}

fn data(seen: &Seen) -> String {
    let size = format!("{} bytes", seen.size);
    if seen.data.is_empty() { size } else { format!("{size} \"{}\"", seen.data.escape_ascii()) }
}

fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reply(reply) => answer(reply),
        Outcome::NotSent(status) => format!("not sent: {}", status_name(*status)),
        Outcome::MaybeExecuted(status) => format!("may have been executed: {}", status_name(*status)),
    }
}

/// What can be read of a packet: its FLIP header, and of a first fragment what RPC says.
struct Read {
    flip: FlipHeader,
    rpc: Option<RpcHeader>,
    header: Option<Header>,
}

/// Reads a packet of which perhaps only the headers were kept.
fn read(bytes: &[u8]) -> Option<Read> {
    // The length in the header may be that of data which are not here: it says how long the payload was.
    let header: [u8; FLIP_HEADER_SIZE] = *bytes.first_chunk()?;
    let mut whole = bytes.to_vec();
    let big_endian = header[2] & 1 != 0;
    let length = <[u8; 4]>::try_from(&header[28..32]).ok()?;
    let length = if big_endian { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) };
    whole.resize(FLIP_HEADER_SIZE + usize::try_from(length).ok()?.min(1 << 16), 0);
    let (flip, payload, _) = FlipHeader::parse(&whole)?;
    let found = rpc_header(&flip, payload);
    let header = found.and_then(|(rpc, end)| {
        let big_endian = RpcHeader::parse(payload.get(end - amoeba_wire::packet::RPC_HEADER_SIZE..)?)?.2;
        let bytes = payload.get(end..)?.first_chunk::<HEADER_SIZE>()?;
        matches!(rpc.kind, RpcKind::Request | RpcKind::Reply).then(|| Header::from_bytes(bytes, big_endian))
    });
    Some(Read { flip, rpc: found.map(|(rpc, _)| rpc), header })
}

fn kind(kind: PacketKind) -> &'static str {
    match kind {
        PacketKind::Locate => "LOCATE",
        PacketKind::Hereis => "HEREIS",
        PacketKind::Unidata => "UNIDATA",
        PacketKind::Multidata => "MULTIDATA",
        PacketKind::Nothere => "NOTHERE",
        PacketKind::Untrusted => "UNTRUSTED",
    }
}

fn packet(bytes: &[u8], size: u32) -> String {
    let Some(Read { flip, rpc, header }) = read(bytes) else {
        return format!("{size} bytes that are no FLIP packet");
    };
    let mut text = format!(
        "{} {} > {} message {} bytes {}+{} of {} hops {}/{}",
        kind(flip.kind),
        flip.from,
        flip.to,
        flip.message_id,
        flip.offset,
        flip.length,
        flip.total,
        flip.hops,
        flip.hops_max
    );
    if let Some(rpc) = rpc {
        let name = format!("{:?}", rpc.kind).to_uppercase();
        // Writing to a string does not fail.
        let _ = write!(text, " RPC {name} {} slots {}>{}", rpc.tid, rpc.from, rpc.dest);
        let _ = match (rpc.kind, header) {
            (RpcKind::Request, Some(header)) => {
                write!(text, " {} {}", command(header.command), object(&header))
            }
            (RpcKind::Reply, Some(header)) => write!(text, " {}", status_name(header.status().0)),
            (RpcKind::Locate | RpcKind::Hereis, _) => write!(text, " {}", rpc.port),
            _ => Ok(()),
        };
    }
    text
}

fn add_request(to: &mut Value, seen: &Seen) {
    to["command"] = command(seen.header.command).into();
    to["object"] = object(&seen.header).into();
    add_data(to, seen);
}

fn add_reply(to: &mut Value, seen: &Seen) {
    to["outcome"] = "reply".into();
    to["status"] = status_name(seen.header.status().0).into();
    add_data(to, seen);
}

fn add_data(to: &mut Value, seen: &Seen) {
    to["size"] = seen.size.into();
    if !seen.data.is_empty() {
        to["data"] = seen.data.escape_ascii().to_string().into();
    }
}

fn add_packet(to: &mut Value, bytes: &[u8]) {
    let Some(Read { flip, rpc, header }) = read(bytes) else { return };
    to["flip"] = json!({
        "kind": kind(flip.kind), "from": flip.from.to_string(), "to": flip.to.to_string(),
        "message": flip.message_id, "offset": flip.offset, "length": flip.length, "total": flip.total,
        "hops": flip.hops, "hops_max": flip.hops_max, "flags": flip.flags,
    });
    let Some(rpc) = rpc else { return };
    let mut said = Map::new();
    said.insert("kind".into(), format!("{:?}", rpc.kind).to_uppercase().into());
    said.insert("transaction".into(), rpc.tid.into());
    said.insert("from".into(), rpc.from.into());
    said.insert("to".into(), rpc.dest.into());
    if !rpc.port.is_null() {
        said.insert("port".into(), rpc.port.to_string().into());
    }
    match (rpc.kind, header) {
        (RpcKind::Request, Some(header)) => {
            said.insert("command".into(), command(header.command).into());
            said.insert("object".into(), object(&header).into());
        }
        (RpcKind::Reply, Some(header)) => {
            said.insert("status".into(), status_name(header.status().0).into());
        }
        _ => {}
    }
    to["rpc"] = said.into();
}

#[cfg(test)]
mod tests {
    use amoeba_cap::PutPort;
    use amoeba_wire::packet::Address;
    use amoeba_wire::trace::abridged;

    use super::*;

    fn seen(command: u16, size: u32) -> Seen {
        let capability: amoeba_cap::Capability = "1:2:3:4:5:6/7(FF)/0:0:0:0:0:0".parse().expect("one");
        Seen { header: Header::request(&capability, amoeba_wire::Command(command)), size, data: Vec::new() }
    }

    fn record(event: Event) -> Record {
        Record { time: Duration::new(3 * 86_400 + 3_661, 2_000), event }
    }

    fn a_packet() -> Vec<u8> {
        let rpc = RpcHeader {
            kid: [0; 8],
            port: PutPort::from_bytes([1, 2, 3, 4, 5, 6]),
            kind: RpcKind::Request,
            flags: 0,
            tid: 77,
            dest: 0,
            from: 3,
        };
        let payload = [&rpc.to_bytes()[..], &seen(1004, 0).header.to_bytes(true), &[1; 200]].concat();
        let size = u32::try_from(payload.len()).expect("small");
        let flip = FlipHeader {
            kind: PacketKind::Unidata,
            flags: 0,
            hops: 3,
            hops_max: 3,
            to: Address([1; 8]),
            from: Address([2; 8]),
            message_id: 9,
            length: size,
            offset: 0,
            total: size,
        };
        [&flip.to_bytes()[..], &payload].concat()
    }

    #[test]
    fn people_read_a_transaction() {
        let begun = Event::Request { pid: 12, slot: 1, message: seen(1004, 5) };
        assert_eq!(line(&record(begun)), "01:01:01.000002  12.1 > std.info 1:2:3:4:5:6/7(FF), 5 bytes");
        let reply = Outcome::Reply(seen(0, 30));
        let end = Event::Ended { pid: 12, slot: 1, elapsed: Some(Duration::from_micros(42)), outcome: reply };
        assert_eq!(line(&record(end)), "01:01:01.000002  12.1 < OK, 30 bytes, 42 µs");
        let end = Event::Ended { pid: 12, slot: 1, elapsed: None, outcome: Outcome::NotSent(-2) };
        assert_eq!(line(&record(end)), "01:01:01.000002  12.1 < not sent: RPC_NOTFOUND");
    }

    #[test]
    fn people_read_a_packet_of_which_only_headers_were_kept() {
        let whole = a_packet();
        let bytes = abridged(&whole, false);
        assert!(bytes.len() < whole.len());
        let size = u32::try_from(whole.len()).expect("small");
        let event =
            Event::Packet { inward: true, link: 0, peer: b"bolt 10.0.0.2:5321".to_vec(), size, bytes };
        let expected = "01:01:01.000002  link 0 in from bolt 10.0.0.2:5321: UNIDATA 2:2:2:2:2:2:2:2 > \
                        1:1:1:1:1:1:1:1 message 9 bytes 0+256 of 256 hops 3/3 RPC REQUEST 77 slots 3>0 std.info \
                        1:2:3:4:5:6/7(FF)";
        assert_eq!(line(&record(event.clone())), expected);
        let value = json(&record(event));
        assert_eq!(value["rpc"]["command"], "std.info");
        assert_eq!(value["flip"]["kind"], "UNIDATA");
    }

    #[test]
    fn any_record_can_be_read() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(record) = Record::get(&mut amoeba_wire::Reader::new(bytes)) {
                let _ = (line(&record), json(&record));
            }
            let _ = packet(bytes, 0);
        });
    }
}
