//! Forged capabilities and garbage on the socket: one clear error, and everybody else goes on.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::system::{System, random};

#[test]
fn a_capability_in_text_names_its_object() {
    let system = System::up();
    system.amoeba_with(&["put", "-", "thing"], b"mine").ok();
    let capability = system.amoeba(&["cap", "show", "thing"]).ok().text();
    system.amoeba(&["cat", &format!("cap:{capability}")]).ok().printed("mine");
    // Secrets need not stand on the command line.
    system.amoeba_with(&["cat", "-"], capability.as_bytes()).ok().printed("mine");
    system.write("capability", capability.as_bytes());
    system.amoeba(&["cat", "@capability"]).ok().printed("mine");
}

#[test]
fn a_flipped_bit_makes_a_capability_worthless() {
    let system = System::up();
    system.amoeba_with(&["put", "-", "thing"], b"mine").ok();
    let capability = system.amoeba(&["cap", "show", "thing"]).ok().text();
    let mut digits = capability.char_indices().filter(|(_, c)| c.is_ascii_hexdigit()).map(|(at, _)| at);
    let last = digits.next_back().expect("a capability has digits");
    let old = u8::from_str_radix(&capability[last..=last], 16).unwrap();
    let forged = format!("cap:{}{:X}{}", &capability[..last], old ^ 1, &capability[last + 1..]);
    system.amoeba(&["cat", &forged]).exit(1).complained("capability");
    system.amoeba(&["cat", &format!("cap:{capability}")]).ok().printed("mine");
}

#[test]
fn a_restricted_capability_gives_exactly_what_it_says() {
    let system = System::up();
    system.amoeba(&["mkdir", "shared"]).ok();
    system.amoeba_with(&["put", "-", "shared/thing"], b"mine").ok();
    let reader = system.amoeba(&["cap", "restrict", "shared", "read"]).ok().text();
    system.write("reader", reader.as_bytes());
    system.amoeba(&["ls", "@reader"]).ok().printed("thing\n");
    system.amoeba(&["rm", &format!("cap:{reader}/thing")]).exit(1).complained("right");
    // Whoever enters it in a directory of his own cannot do more with it there.
    system.amoeba(&["ln", "@reader", "theirs"]).ok();
    system.amoeba(&["cat", "theirs/thing"]).ok().printed("mine");
    system.amoeba(&["rm", "theirs/thing"]).exit(1).complained("right");
    system.amoeba_with(&["put", "-", "theirs/more"], b"x").exit(1).complained("right");
    system.amoeba(&["cat", "shared/thing"]).ok().printed("mine");
}

#[test]
fn garbage_on_the_socket_hurts_only_who_sent_it() {
    let system = System::up();
    let sockets = sockets(&system.state());
    assert!(!sockets.is_empty(), "the kernel has a socket in its state directory");
    for socket in &sockets {
        for round in 0..30 {
            let Ok(mut stream) = UnixStream::connect(socket) else { continue };
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let garbage = match round % 3 {
                0 => random(1 + round * 97),
                1 => vec![0xff; 64],
                _ => vec![0; 4096],
            };
            // The kernel may hang up at any byte.
            let _ = stream.write_all(&garbage);
            let _ = stream.read(&mut [0; 64]);
        }
        // Someone who only connects and stays silent keeps nobody waiting either.
        let _silent: Vec<_> = (0..20).filter_map(|_| UnixStream::connect(socket).ok()).collect();
        system.amoeba(&["run", "--", "echo", "fine"]).ok().printed("fine\n");
    }
    system.amoeba_with(&["put", "-", "after"], b"fine").ok();
    system.amoeba(&["cat", "after"]).ok().printed("fine");
}

#[test]
fn the_state_is_nobody_elses_business() {
    let system = System::up();
    let mut pending = vec![system.state()];
    while let Some(path) = pending.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        if meta.is_symlink() {
            continue;
        }
        // The folder that the test itself made is as open as the test made it; what lies in it is the system's.
        if path != system.state() {
            let mode = meta.permissions().mode() & 0o077;
            assert_eq!(mode, 0, "{} has mode {:o}", path.display(), meta.permissions().mode());
        }
        if meta.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
        }
    }
}

#[test]
fn unknown_words_are_refused_before_anything_starts() {
    let system = System::new();
    system.amoeba(&["frobnicate"]).exit(2).complained("frobnicate");
    system.amoeba(&["run", "--no-such-option", "--", "true"]).exit(125).complained("--no-such-option");
    assert!(sockets(&system.state()).is_empty(), "no system was started");
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() => found.extend(sockets(&entry.path())),
            _ => {}
        }
    }
    found
}
