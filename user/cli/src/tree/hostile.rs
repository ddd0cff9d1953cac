//! Tests: a directory server that means harm gives out a tree, and nothing is written outside of where it was to go.

use std::fs;
use std::os::unix::fs::symlink;

use amoeba_cap::{Capability, CapabilitySet, CheckField, GetPort, ObjectNumber, Private, Rights};
use amoeba_name::{Attributes, Content};
use amoeba_stubs::directory::{CMD_LIST_FULL, RowFull};
use amoeba_stubs::{bullet, rt::Marshal};
use amoeba_wire::{Header, Status, Writer};
use amoeba_world::{Message, World};

use crate::testing::TestSystem;

const TOP: u32 = 1;
const INNER: u32 = 2;
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// A directory server that answers what it likes.
fn serve(world: &World, rows: impl Fn(u32) -> Vec<RowFull> + Send + 'static) -> Capability {
    let port = GetPort::from_bytes([7, 6, 5, 4, 3, 2]);
    let listener = world.transactions.listen(&port, 1 << 16).expect("nobody has this port");
    let put_port = listener.put_port();
    std::thread::spawn(move || {
        while let Ok(incoming) = listener.getreq() {
            let request = incoming.request.header;
            let reply = if request.command == CMD_LIST_FULL.0 {
                page(&rows(request.private.object.get()))
            } else {
                information("%--1---")
            };
            incoming.reply.send(reply);
        }
    });
    directory(put_port, TOP)
}

fn directory(port: amoeba_cap::PutPort, number: u32) -> Capability {
    let object = ObjectNumber::new(number).expect("it is small");
    Capability { port, private: Private { object, rights: Rights::ALL, check: CheckField::NULL } }
}

fn page(rows: &[RowFull]) -> Message {
    let mut writer = Writer::new();
    writer.put_u32(rows.len() as u32);
    for row in rows {
        writer.put_string(&row.name);
        // The rest as an honest server would put it: behind the name, which is the first field.
        let honest =
            RowFull { name: b"n".to_vec(), ..row.clone() }.to_bytes().expect("it is within the limits");
        writer.raw(&honest[2..]);
    }
    writer.put_bool(false).put_u64(1);
    Message { header: Header { command: Status::STD_OK.0 as u16, ..Header::NULL }, data: writer.finish() }
}

fn information(text: &str) -> Message {
    let header = Header { command: Status::STD_OK.0 as u16, size: text.len() as u16, ..Header::NULL };
    Message { header, data: text.into() }
}

fn row(name: &[u8], mode: u32, object: Capability, link: Option<&str>, contents: &[u8]) -> RowFull {
    let content = Content {
        port: object.port,
        object: object.object(),
        size: contents.len() as u64,
        hash: *blake3::hash(contents).as_bytes(),
    };
    let attributes = Attributes {
        mode: Some(mode),
        link: link.map(|text| text.as_bytes().to_vec()),
        content: Some(content),
        ..Attributes::default()
    };
    RowFull {
        name: name.to_vec(),
        status: 0,
        kind: Capability::NULL,
        time: 0,
        masks: [0xFF; 4],
        set: CapabilitySet::singleton(object),
        attributes: attributes.to_bytes().expect("it is small"),
    }
}

#[test]
fn a_tree_that_means_harm_writes_nothing_outside() {
    let system = TestSystem::new();
    let world = system.graph().world().clone();
    let server = system.names().resolve(b"/profile/cap/bulletsvr/default").expect("there is one");
    let evil = bullet::create(&world, &server, bullet::COMMIT, &b"evil"[..]).expect("there is room");
    let top = std::env::temp_dir().join(format!("amoeba-cli-hostile-{}", std::process::id()));
    let _ = fs::remove_dir_all(&top);
    let outside = top.join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("victim"), "kept").unwrap();
    let (away, victim) = (outside.display().to_string(), outside.join("victim").display().to_string());
    let port = GetPort::from_bytes([7, 6, 5, 4, 3, 2]);
    let inner = directory(world.transactions.put_port(&port).expect("F is always there"), INNER);
    let rows = move |number| {
        let file = |name: &[u8]| row(name, FILE, evil, None, b"evil");
        let link = |name: &[u8], text: &str| row(name, LINK, evil, Some(text), b"evil");
        let folder = |name: &[u8]| row(name, DIRECTORY, inner, None, b"");
        match number {
            TOP => vec![
                file(b"../escaped"),
                file(b"outside/escaped"),
                file(b"/escaped"),
                folder(b".."),
                folder(b"."),
                folder(b""),
                file(&[b'x'; 255]),
                link(b"there", &away),
                folder(b"there"),
                folder(b"other"),
                link(b"other", &away),
                link(b"file", &victim),
                file(b"file"),
                file(b"good"),
                row(b"device", 0o020_666, evil, None, b"evil"),
                row(b"lie", FILE, evil, None, b"other"),
            ],
            _ => vec![file(b"victim"), file(b"escaped")],
        }
    };
    let hostile = serve(&world, rows);
    system.names().append(b"/home/tree", hostile).expect("the name is free");
    let to = top.join("to");
    // What is in the way from before is a link too.
    fs::create_dir(&to).unwrap();
    symlink(&outside, to.join("there")).unwrap();
    let ran = format!("{:?}", system.run(&["get", "-r", "-f", "tree", to.to_str().unwrap()]));
    for wrong in ["tree/../escaped: no local file", "a device is left out", "tree/lie: the contents are not"]
    {
        assert!(ran.contains(wrong), "{wrong}: {ran}");
    }
    let mut left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["victim"]);
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"kept");
    assert!(!top.join("escaped").exists());
    assert_eq!(fs::read(to.join("good")).unwrap(), b"evil");
    assert!(!to.join("lie").exists());
    fs::remove_dir_all(&top).unwrap();
}
