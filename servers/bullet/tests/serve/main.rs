//! The server as its clients see it: rights, errors, the original's forms, streams, copies, restarts.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use amoeba_bullet::{FormatOptions, RunningBullet, Settings, format, start};
use amoeba_cap::{Capability, ObjectNumber, PutPort, Rights};
use amoeba_loopback::two_processes;
use amoeba_stubs::bullet::{self, COMMIT, READ, SAFETY};
use amoeba_stubs::bullet_stream::{self, PIECE_SIZE, StreamError};
use amoeba_stubs::standard;
use amoeba_wire::Status;
use amoeba_world::{Disk, Error, World};

#[path = "../store/disk.rs"]
#[allow(dead_code)]
mod disk;
#[path = "../store/world.rs"]
#[allow(dead_code)]
mod world;

mod interface;
mod whole;

use disk::CrashDisk;
use world::Random;

const SETTINGS: Settings = Settings {
    cache_size: 16 << 20,
    uncommitted_life: Duration::from_secs(3600),
    sweep_interval: Duration::from_secs(3600),
};

fn new_disk(world: &World, size: usize) -> Arc<CrashDisk> {
    let disk = CrashDisk::new(size);
    let options = FormatOptions { inode_count: Some(128), force: false };
    format(&*disk, &*world.entropy, &options).expect("the disk is large enough");
    disk
}

fn serve(world: &World, disk: Arc<dyn Disk>) -> RunningBullet {
    start(world, disk, SETTINGS, 4).expect("the volume is good")
}

fn system() -> (World, RunningBullet, Capability) {
    let (server, client) = two_processes();
    let disk = new_disk(&server, 48 << 20);
    let running = serve(&server, disk);
    let capability = running.super_capability();
    (client, running, capability)
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Status {
    match result {
        Err(Error::Refused(status)) => status,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_file_is_made_read_looked_at_and_destroyed() {
    let (world, running, server) = system();
    let file = bullet::create(&world, &server, COMMIT | SAFETY, b"hello, world".to_vec()).unwrap();
    assert_eq!(file.rights(), Rights::ALL);
    assert_eq!(bullet::size(&world, &file), Ok(12));
    assert_eq!(bullet::read(&world, &file, 7, 100).unwrap(), b"world");
    assert_eq!(bullet::read(&world, &file, 12, 1).unwrap(), b"");
    assert_eq!(refused(bullet::read(&world, &file, 13, 1)), Status::STD_ARGBAD);
    assert_eq!(standard::info_text(&world, &file).unwrap(), "-       12 bytes");
    assert_eq!(standard::info_text(&world, &server).unwrap(), "bullet server");
    assert!(standard::status_text(&world, &server).unwrap().contains("b_create"));
    standard::touch(&world, &file).unwrap();
    standard::destroy(&world, &file).unwrap();
    assert_eq!(refused(bullet::size(&world, &file)), Status::STD_CAPBAD);
    running.stop().unwrap();
}

#[test]
fn an_uncommitted_file_is_edited_and_shown_to_nobody() {
    let (world, running, server) = system();
    let draft = bullet::create(&world, &server, 0, b"bd".to_vec()).unwrap();
    assert_eq!(bullet::insert(&world, &draft, 0, 0, b"a".to_vec()), Ok(draft));
    assert_eq!(bullet::insert(&world, &draft, 0, 2, b"cXX".to_vec()), Ok(draft));
    assert_eq!(refused(bullet::read(&world, &draft, 0, 10)), Status::STD_CAPBAD);
    assert_eq!(refused(bullet::size(&world, &draft)), Status::STD_CAPBAD);
    assert_eq!(refused(standard::info_text(&world, &draft)), Status::STD_CAPBAD);
    assert_eq!(refused(standard::copy(&world, &server, &draft)), Status::STD_CAPBAD);
    assert_eq!(refused(bullet::insert(&world, &draft, 0, 0, Vec::new())), Status::STD_ARGBAD);
    assert_eq!(refused(bullet::modify(&world, &draft, 0, 7, b"x".to_vec())), Status::STD_ARGBAD);
    assert_eq!(refused(bullet::modify(&world, &draft, 4, 0, b"x".to_vec())), Status::STD_ARGBAD);
    assert_eq!(bullet::delete(&world, &draft, COMMIT, 3, 2), Ok(draft));
    assert_eq!(bullet::read(&world, &draft, 0, 10).unwrap(), b"abcd");
    // Now it is committed: an edit makes another file, and this one stays.
    let edited = bullet::modify(&world, &draft, COMMIT | SAFETY, 4, b"e".to_vec()).unwrap();
    assert_ne!(edited, draft);
    assert_eq!(bullet::read(&world, &edited, 0, 10).unwrap(), b"abcde");
    assert_eq!(bullet::read(&world, &draft, 0, 10).unwrap(), b"abcd");
    running.stop().unwrap();
}

#[test]
fn capabilities_are_checked_before_rights_and_rights_before_anything_else() {
    let (world, running, server) = system();
    let file = bullet::create(&world, &server, COMMIT, b"secret".to_vec()).unwrap();
    let mut bytes = file.to_bytes();
    bytes[12] ^= 1;
    assert_eq!(refused(bullet::size(&world, &Capability::from_bytes(bytes))), Status::STD_CAPBAD);
    let no_such = ObjectNumber::new(99).unwrap();
    let mut wrong = file;
    wrong.private.object = no_such;
    assert_eq!(refused(bullet::size(&world, &wrong)), Status::STD_CAPBAD);
    let reader = standard::restrict(&world, &file, READ.bits().into()).unwrap();
    assert_eq!(bullet::read(&world, &reader, 0, 6).unwrap(), b"secret");
    for denied in [
        refused(bullet::modify(&world, &reader, COMMIT, 0, b"x".to_vec())),
        refused(bullet::create(&world, &reader, COMMIT, b"x".to_vec())),
        refused(standard::destroy(&world, &reader)),
        refused(standard::age(&world, &standard::restrict(&world, &server, 0x7F).unwrap())),
    ] {
        assert_eq!(denied, Status::STD_DENIED);
    }
    assert_eq!(refused(bullet::read(&world, &server, 0, 1)), Status::STD_COMBAD);
    assert_eq!(refused(standard::destroy(&world, &server)), Status::STD_COMBAD);
    assert_eq!(refused(standard::age(&world, &file)), Status::STD_COMBAD);
    let too_large = bullet::create(&world, &server, COMMIT, vec![0; bullet::REQUEST_DATA_MAX + 1]);
    assert_eq!(too_large, Err(Error::NotSent(Status::STD_ARGBAD)));
    let largest = bullet::create(&world, &server, COMMIT, vec![1; bullet::REQUEST_DATA_MAX]).unwrap();
    assert_eq!(bullet::read(&world, &largest, 0, u32::MAX).unwrap().len(), bullet::READ_SIZE_MAX);
    running.stop().unwrap();
}

#[test]
fn an_equal_file_gives_back_the_capability_it_was_compared_with_and_no_more_rights() {
    let (world, running, server) = system();
    let file = bullet::create(&world, &server, COMMIT, b"same".to_vec()).unwrap();
    let weaker = standard::restrict(&world, &file, 3).unwrap();
    assert_eq!(bullet::create(&world, &weaker, COMMIT | SAFETY, b"same".to_vec()), Ok(weaker));
    assert_ne!(bullet::create(&world, &weaker, COMMIT, b"else".to_vec()), Ok(weaker));
    // Without READ a client must not learn what is in a file by guessing.
    let blind = standard::restrict(&world, &file, 1).unwrap();
    assert_ne!(bullet::create(&world, &blind, COMMIT, b"same".to_vec()).unwrap().object(), file.object());
    running.stop().unwrap();
}

#[test]
fn the_originals_forms_work() {
    let (world, running, server) = system();
    let file = bullet::classic_create(&world, &server, 0, b"adX".to_vec()).unwrap();
    assert_eq!(bullet::classic_insert(&world, &file, 1, 0, b"bc".to_vec()), Ok(file));
    assert_eq!(bullet::classic_delete(&world, &file, 4, 0, 1), Ok(file));
    assert_eq!(bullet::classic_modify(&world, &file, 0, COMMIT, b"A".to_vec()), Ok(file));
    assert_eq!(bullet::classic_read(&world, &file, 0, 100).unwrap(), b"Abcd");
    assert_eq!(bullet::classic_size(&world, &file), Ok(4));
    assert_eq!(refused(bullet::classic_read(&world, &file, -1, 1)), Status::STD_ARGBAD);
    assert_eq!(refused(bullet::classic_delete(&world, &file, 0, 0, -1)), Status::STD_ARGBAD);
    bullet::classic_fsck(&world, &server).unwrap();
    bullet::sync(&world, &server).unwrap();
    let check = bullet::fsck(&world, &server, false).unwrap();
    assert_eq!((check.file_count, check.size, check.problem_count), (1, 4, 0));
    running.stop().unwrap();
}

#[test]
fn streams_of_every_awkward_size_come_back() {
    let (world, running, server) = system();
    for size in [0, 1, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 9 * PIECE_SIZE + 5] {
        let bytes = Random(size as u64).bytes(size);
        let file = bullet_stream::write_file(&world, &server, COMMIT | SAFETY, &mut &bytes[..]).unwrap();
        let mut back = Vec::new();
        assert_eq!(bullet_stream::read_file(&world, &file, &mut back).unwrap(), size as u64);
        assert!(back == bytes);
        assert!(bullet_stream::read_whole(&world, &file, size).unwrap() == bytes);
        if size > 0 {
            assert_eq!(refused(bullet_stream::read_whole(&world, &file, size - 1)), Status::STD_OVERFLOW);
        }
        standard::destroy(&world, &file).unwrap();
    }
    let (free, all) = running.store().space();
    assert_eq!(free, all);
    running.stop().unwrap();
}

/// Breaks off in the middle.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("gone"));
        }
        let size = bytes.len().min(self.0);
        self.0 -= size;
        Ok(size)
    }
}

#[test]
fn a_stream_that_breaks_off_leaves_nothing() {
    let (world, running, server) = system();
    let broken = bullet_stream::write_file(&world, &server, COMMIT, &mut Broken(3 * PIECE_SIZE));
    assert!(matches!(broken, Err(StreamError::Local(_))));
    let mut endless = io::repeat(7);
    let full = bullet_stream::write_file(&world, &server, COMMIT | SAFETY, &mut endless);
    let Err(StreamError::Server(error)) = full else { panic!("{full:?}") };
    assert_eq!(error.status(), Status::STD_NOSPACE);
    let (free, all) = running.store().space();
    assert_eq!(free, all);
    running.stop().unwrap();
}

#[test]
fn a_file_is_copied_on_one_server_and_between_two() {
    let (world, running, server) = system();
    let other = serve(&world, new_disk(&world, 48 << 20));
    let bytes = Random(3).bytes(10 << 20);
    let file = bullet_stream::write_file(&world, &server, COMMIT, &mut &bytes[..]).unwrap();
    let reader = standard::restrict(&world, &file, READ.bits().into()).unwrap();
    for target in [server, other.super_capability()] {
        let copy = standard::copy(&world, &target, &reader).unwrap();
        assert_eq!((copy.port, copy.rights()), (target.port, Rights::ALL));
        assert_ne!(copy, file);
        assert!(bullet_stream::read_whole(&world, &copy, bytes.len()).unwrap() == bytes);
    }
    let blind = standard::restrict(&world, &file, 1).unwrap();
    for target in [server, other.super_capability()] {
        assert_eq!(refused(standard::copy(&world, &target, &blind)), Status::STD_DENIED);
    }
    let empty = bullet::create(&world, &server, COMMIT, Vec::new()).unwrap();
    let copy = standard::copy(&world, &other.super_capability(), &empty).unwrap();
    assert_eq!(bullet::size(&world, &copy), Ok(0));
    other.stop().unwrap();
    running.stop().unwrap();
}

#[test]
fn capabilities_outlive_a_restart_and_its_port_stays() {
    let (server, client) = two_processes();
    let disk = new_disk(&server, 16 << 20);
    let running = serve(&server, disk.clone());
    let capability = running.super_capability();
    let safe = bullet::create(&client, &capability, COMMIT | SAFETY, b"safe".to_vec()).unwrap();
    let kept = bullet::create(&client, &capability, COMMIT, b"kept".to_vec()).unwrap();
    let gone = bullet::create(&client, &capability, COMMIT | SAFETY, b"gone".to_vec()).unwrap();
    standard::destroy(&client, &gone).unwrap();
    running.stop().unwrap();
    let running = serve(&server, CrashDisk::with_image(disk.image()));
    assert_eq!(running.super_capability(), capability);
    assert_ne!(running.put_port(), PutPort::NULL);
    assert_eq!(bullet::read(&client, &safe, 0, 10).unwrap(), b"safe");
    assert_eq!(bullet::read(&client, &kept, 0, 10).unwrap(), b"kept");
    assert_eq!(refused(bullet::read(&client, &gone, 0, 10)), Status::STD_CAPBAD);
    running.stop().unwrap();
}

#[test]
fn a_failing_disk_is_told_to_whoever_commits_and_to_nobody_who_reads() {
    let (server, client) = two_processes();
    let disk = new_disk(&server, 16 << 20);
    let running = serve(&server, disk.clone());
    let capability = running.super_capability();
    let file = bullet::create(&client, &capability, COMMIT | SAFETY, b"safe".to_vec()).unwrap();
    disk.fail_flushes(true);
    let failed = bullet::create(&client, &capability, COMMIT | SAFETY, b"lost".to_vec());
    assert_eq!(refused(failed), Status::STD_SYSERR);
    let later = bullet::create(&client, &capability, COMMIT | SAFETY, b"lost".to_vec());
    assert_eq!(refused(later), Status::STD_WRITEPROT);
    assert_eq!(refused(standard::destroy(&client, &file)), Status::STD_WRITEPROT);
    assert_eq!(bullet::read(&client, &file, 0, 10).unwrap(), b"safe");
    assert!(running.stop().is_err());
}
