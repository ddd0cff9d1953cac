//! A whole service is saved while it is used, and is the same again elsewhere.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::system::{System, random};

/// Names that were acknowledged, by number.
fn name(worker: usize, number: usize) -> String {
    format!("w{worker}-{number}")
}

/// Makes files and names until it is told to stop; every third file is destroyed again, with its name. The contents of the
/// others are their names; the names that were there before `begun` was set.
fn work(system: &System, worker: usize, begun: &AtomicBool, ended: &AtomicBool) -> Vec<String> {
    let mut before = Vec::new();
    for number in 0.. {
        if ended.load(Ordering::SeqCst) {
            break;
        }
        let name = name(worker, number);
        system.amoeba_with(&["put", "-", &name], name.as_bytes()).ok();
        if number % 3 == 2 {
            system.amoeba(&["rm", "--destroy", &name]).ok();
        } else if !begun.load(Ordering::SeqCst) {
            before.push(name);
        }
    }
    before
}

fn restore(archive: &Path) -> System {
    let other = System::new();
    fs::remove_dir(other.state()).unwrap();
    other.amoeba(&["restore", archive.to_str().unwrap()]).ok();
    other.amoeba(&["up"]).ok();
    other
}

#[test]
fn a_service_is_saved_while_it_is_used_and_nothing_that_has_a_name_is_missing() {
    let system = System::up();
    let large = random(3_000_000);
    system.write("large", &large);
    system.amoeba(&["put", "large", "large"]).ok();
    system.amoeba(&["mkdir", "-p", "docs/deep"]).ok();
    system.amoeba_with(&["put", "-", "docs/deep/a"], b"alpha").ok();
    let given = system.amoeba(&["cap", "restrict", "docs/deep/a", "read"]).ok().text();
    let revoked = system.amoeba(&["cap", "show", "large"]).ok().text();
    let archive = system.work().join("archive");
    let (begun, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let before: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                scope.spawn({
                    let (system, begun, ended) = (&system, &begun, &ended);
                    move || work(system, worker, begun, ended)
                })
            })
            .collect();
        thread::sleep(std::time::Duration::from_millis(600));
        begun.store(true, Ordering::SeqCst);
        let saved = system.amoeba(&["backup", "archive"]).ok().told("has every secret of the system");
        assert!(saved.stdout.is_empty(), "{saved:?}");
        ended.store(true, Ordering::SeqCst);
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(!before.is_empty());
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    system.amoeba(&["backup", "archive"]).exit(1).complained("exists already");
    system.amoeba(&["restore", "--check", "archive"]).ok().told("the archive is good");

    let other = restore(&archive);
    // Capabilities that were given out are good, for as much as they were; forged ones are not.
    other.amoeba_with(&["cat", "-"], given.as_bytes()).ok().printed("alpha");
    assert!(!other.amoeba_with(&["rm", "--destroy", "-"], given.as_bytes()).status.success());
    assert!(other.amoeba_with(&["cat", "-"], revoked.as_bytes()).ok().stdout == large);
    other.amoeba(&["cat", "docs/deep/a"]).ok().printed("alpha");
    for name in &before {
        other.amoeba(&["cat", name]).ok().printed(name);
    }
    // Every name that is there stands for a file that is there, but for those that were on their way out.
    let listed = other.amoeba(&["ls"]).ok().text();
    let names: Vec<&str> = listed.lines().filter(|name| name.starts_with('w')).collect();
    assert!(names.len() >= before.len());
    for name in names {
        let number: usize = name.split('-').next_back().unwrap().parse().unwrap();
        if number % 3 != 2 {
            other.amoeba(&["cat", name]).ok().printed(name);
        }
    }
    // And it is a system like any other.
    other.amoeba_with(&["put", "-", "new"], b"new").ok();
    other.amoeba(&["run", "--", "echo", "runs"]).ok().printed("runs\n");
    other.amoeba(&["fsck"]).ok();
    other.amoeba(&["rm", "--destroy", "large"]).ok();
    other.amoeba_with(&["cat", "-"], revoked.as_bytes()).exit(1);
    system.amoeba_with(&["cat", "-"], revoked.as_bytes()).ok();
    other.amoeba(&["down"]).ok();
    other.amoeba(&["up"]).ok();
    other.amoeba(&["cat", "new"]).ok().printed("new");
    // A system that is there is never touched.
    other.amoeba(&["restore", archive.to_str().unwrap()]).exit(1).complained("a system runs in");
    other.amoeba(&["down"]).ok();
    other.amoeba(&["restore", archive.to_str().unwrap()]).exit(1).complained("there is a system in");
    other.amoeba(&["up"]).ok();
    other.amoeba(&["cat", "new"]).ok().printed("new");
}

#[test]
fn a_damaged_archive_never_becomes_a_system() {
    let system = System::up();
    system.amoeba_with(&["put", "-", "kept"], &random(300_000)).ok();
    system.amoeba(&["backup", "good"]).ok();
    let good = fs::read(system.work().join("good")).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    let other = System::new();
    for (bytes, complaint) in
        [(&flipped[..], "damaged"), (&good[..good.len() - 1], "cut off"), (b"something else", "no archive")]
    {
        let bad = system.write("bad", bytes);
        system.amoeba(&["restore", "--check", "bad"]).exit(1).complained(complaint);
        other.amoeba(&["restore", bad.to_str().unwrap()]).exit(1).complained(complaint);
        if complaint != "no archive" {
            other.amoeba(&["up"]).exit(1).complained("not restored to the end");
        }
    }
    // The same command with a good archive completes it.
    let from = fs::read(system.work().join("good")).unwrap();
    other.amoeba_with(&["restore", "-"], &from).ok();
    other.amoeba(&["up"]).ok();
    let kept = system.amoeba(&["cat", "kept"]).ok().stdout;
    assert!(other.amoeba(&["cat", "kept"]).ok().stdout == kept);
}

#[test]
fn what_room_there_is_and_what_is_on_the_disk_can_be_asked() {
    let system = System::up();
    system.amoeba_with(&["put", "-", "a"], &random(2_000_000)).ok();
    system.write("b", &random(2_000_000));
    system.amoeba(&["put", "b", "b"]).ok();
    let used = || {
        let df = system.json(&["df", "--json"]);
        let server = &df["files"][0];
        (
            server["size"].as_u64().unwrap() - server["free"].as_u64().unwrap(),
            server["files"].as_u64().unwrap(),
        )
    };
    let (full, files) = used();
    assert!(full >= 4_000_000 && files >= 2, "{full} {files}");
    system.amoeba(&["rm", "--destroy", "a"]).ok();
    assert!(used().0 <= full - 2_000_000);
    let compacted = system.json(&["compact", "--json"]);
    assert!(compacted["hole_count"].as_u64().is_some(), "{compacted}");
    assert_eq!(system.json(&["fsck", "--json"])["problem_count"], 0);
    assert!(system.amoeba(&["cat", "b"]).ok().stdout.len() == 2_000_000);
    // Damage on the disk is found and named.
    system.amoeba(&["down"]).ok();
    let image = fs::File::options().read(true).write(true).open(system.state().join("bullet.img")).unwrap();
    let contents = system.work().join("b");
    let (mut piece, mut at) = (vec![0; 1 << 20], 0);
    let needle = &fs::read(&contents).unwrap()[..64];
    let place = loop {
        // Files lie at the beginning of a new volume, behind its table.
        assert!(at < 512 << 20, "the file is nowhere");
        image.read_exact_at(&mut piece, at).unwrap();
        if let Some(found) =
            piece.windows(64).step_by(16).position(|window| window == needle).map(|at| at * 16)
        {
            break at + found as u64;
        }
        at += (piece.len() - 64) as u64; // a multiple of 16
    };
    let mut byte = [0];
    image.read_exact_at(&mut byte, place + 1_500_000).unwrap();
    image.write_all_at(&[byte[0] ^ 1], place + 1_500_000).unwrap();
    system.amoeba(&["up"]).ok();
    let found = system.amoeba(&["fsck", "--json"]).exit(1);
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert!(found["problem_count"].as_u64().unwrap() >= 1, "{found}");
    assert!(!found["problems"].as_array().unwrap().is_empty(), "{found}");
    // Whoever meets it is told what to do, and everything else can be saved.
    let names = system.amoeba(&["fsck", "--names"]).exit(1).text();
    assert!(names.contains("/b: what it stands for is damaged\n"), "{names}");
    assert!(system.amoeba(&["get", "b", "-"]).exit(1).error_text().contains("`amoeba fsck` tells whether"));
    system.amoeba_with(&["put", "-", "good"], b"good").ok();
    system.amoeba(&["backup", "all"]).exit(1).complained("--partial saves all the others");
    assert!(!system.work().join("all").exists());
    system.amoeba(&["backup", "--partial", "most"]).exit(1).complained("is not in the archive");
    let other = restore(&system.work().join("most"));
    other.amoeba(&["cat", "good"]).ok().printed("good");
    other.amoeba(&["cat", "b"]).exit(1);
}
