//! Whole files to readers of the same host, and files that two servers keep.

use amoeba_stubs::bullet_copies;
use amoeba_stubs::bullet_file;
use amoeba_stubs::standard;

use amoeba_cap::{GetPort, PutPort};
use amoeba_server::Bulk;
use amoeba_world::{KEPT_FILES_MAX, Kept, Listener, Memory, Message, Posted, TransOptions, Transactions};

use super::*;

const LARGE: usize = bullet::WHOLE_SIZE_MAX + 1;

fn make(world: &World, server: &Capability, seed: u64, size: usize) -> (Capability, Vec<u8>) {
    let bytes = Random(seed).bytes(size);
    (bullet_stream::write_file(world, server, COMMIT, &mut &bytes[..]).unwrap(), bytes)
}

/// A line of the server's status.
fn status_line(running: &RunningBullet, name: &str) -> u64 {
    let text = running.store().status();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the status has the line");
    line.trim().parse().expect("a number")
}

#[test]
fn a_whole_file_comes_with_the_reply_or_is_lent() {
    let (world, running, server) = system();
    for size in [0, 1, LARGE - 1, LARGE, 3 << 20] {
        let (file, bytes) = make(&world, &server, size as u64, size);
        let whole = bullet::read_whole(&world, &file, true).unwrap();
        assert_eq!(whole.size, size as u64);
        assert_eq!(whole.ticket != 0, size >= LARGE, "{size} bytes");
        assert_eq!(whole.data, if size < LARGE { bytes.clone() } else { Vec::new() });
        let lent = bullet::read_whole(&world, &file, false).unwrap();
        assert_eq!((lent.size, lent.ticket), (size as u64, 0), "nothing is lent that is not asked for");
        let open = bullet_file::open(&world, &file).unwrap();
        assert!(open.bytes() == Some(&bytes[..]), "it is in memory");
        let mut part = vec![0; 100];
        let read = open.read_at(&world, size as u64 / 2, &mut part).unwrap();
        assert_eq!(part[..read], bytes[size / 2..(size / 2 + 100).min(size)]);
        assert!(open.read_at(&world, size as u64 + 1, &mut part).is_err());
        let mut piece = Vec::new();
        open.write_to(&world, size as u64 / 3, &mut piece).unwrap();
        assert!(piece == bytes[size / 3..]);
        assert!(bullet_stream::read_whole(&world, &file, size).unwrap() == bytes);
    }
    let draft = bullet::create(&world, &server, 0, vec![1; LARGE]).unwrap();
    assert_eq!(refused(bullet::read_whole(&world, &draft, true)), Status::STD_CAPBAD);
    running.stop().unwrap();
}

/// A process that keeps what it was lent.
struct Keeping {
    transactions: Arc<dyn Transactions>,
    kept: Kept,
}

impl Keeping {
    fn of(world: &World) -> Keeping {
        Keeping { transactions: world.transactions.clone(), kept: Kept::default() }
    }
}

impl Transactions for Keeping {
    fn trans(&self, request: Message, options: &TransOptions) -> Result<Message, Error> {
        self.transactions.trans(request, options)
    }

    fn listen(&self, port: &GetPort, request_size_max: usize) -> Result<Listener, Error> {
        self.transactions.listen(port, request_size_max)
    }

    fn put_port(&self, port: &GetPort) -> Result<PutPort, Error> {
        self.transactions.put_port(port)
    }

    fn borrow_memory(&self, ticket: u64) -> Result<Memory, Error> {
        self.transactions.borrow_memory(ticket)
    }

    fn kept_memory(&self, file: &Capability) -> Option<Memory> {
        self.kept.find(file)
    }

    fn keep_memory(&self, file: &Capability, memory: &Memory) {
        self.kept.keep(file, memory);
    }

    fn forget_memory(&self, file: &Capability) {
        self.kept.forget(file);
    }
}

#[test]
fn a_file_that_is_kept_is_asked_for_each_time() {
    let (world, running, server) = system();
    let keeping = Keeping::of(&world);
    let keeper = &keeping as &dyn Transactions;
    let (file, bytes) = make(&world, &server, 1, LARGE);
    let reader = standard::restrict(&world, &file, READ.bits().into()).unwrap();
    let blind = standard::restrict(&world, &file, 1).unwrap();
    let open = bullet_file::open(keeper, &reader).unwrap();
    assert!(open.bytes() == Some(&bytes[..]));
    let lent = status_line(&running, "of them in memory that can be lent");
    assert!(lent >= LARGE as u64);
    let again = bullet_file::open(keeper, &reader).unwrap();
    assert!(std::ptr::eq(open.bytes().unwrap(), again.bytes().unwrap()), "it is the same memory");
    assert_eq!(
        refused(bullet_file::open(keeper, &blind)),
        Status::STD_DENIED,
        "whoever keeps it for another right"
    );
    standard::destroy(&world, &file).unwrap();
    assert_eq!(refused(bullet_file::open(keeper, &reader)), Status::STD_CAPBAD, "destroyed, kept or not");
    assert!(open.bytes() == Some(&bytes[..]), "who has it open keeps what it has");
    assert!(keeping.kept.find(&reader).is_none(), "but it is kept no longer");
    let kept = status_line(&running, "of them in memory that can be lent");
    assert_eq!(kept, lent, "and as long as it does, it is counted");
    drop((open, again));
    running.store().sweep().unwrap();
    assert_eq!(status_line(&running, "of them in memory that can be lent"), 0);
    running.stop().unwrap();
}

#[test]
fn past_the_bound_readers_get_copies_and_memory_comes_back() {
    let (world, running, server) = system();
    let lendable_max = SETTINGS.cache_size / 4;
    let size = 1 << 20;
    let files: Vec<_> = (0..8).map(|seed| make(&world, &server, seed, size)).collect();
    let mut open = Vec::new();
    for (file, bytes) in &files {
        let one = bullet_file::open(&world, file).unwrap();
        assert!(bullet_stream::read_whole(&world, file, size).unwrap() == *bytes, "lent or not");
        open.push(one);
        let lent = status_line(&running, "of them in memory that can be lent");
        assert!(lent <= lendable_max, "{lent} bytes are lent");
    }
    let lent = open.iter().filter(|open| open.bytes().is_some()).count();
    assert!((1..8).contains(&lent), "{lent} of 8 files are lent");
    drop(open);
    let (file, bytes) = &files[7];
    let last = bullet_file::open(&world, file).unwrap();
    assert!(last.bytes() == Some(&bytes[..]), "what nobody has makes way");
    running.stop().unwrap();
}

#[test]
fn what_is_kept_is_bounded_and_given_back() {
    let (world, running, server) = system();
    let keeping = Keeping::of(&world);
    let keeper = &keeping as &dyn Transactions;
    let mut in_memory = 0;
    for seed in 0..KEPT_FILES_MAX as u64 {
        let (file, bytes) = make(&world, &server, seed, LARGE);
        let open = bullet_file::open(keeper, &file).unwrap();
        in_memory += u64::from(open.bytes().is_some());
        let mut read = vec![0; LARGE];
        assert_eq!(open.read_at(&world, 0, &mut read), Ok(LARGE));
        assert!(read == bytes, "lent or not");
    }
    let lent = status_line(&running, "of them in memory that can be lent");
    assert!((in_memory * LARGE as u64..=SETTINGS.cache_size / 4).contains(&lent), "{lent} for {in_memory}");
    assert!(keeping.kept.age() && !keeping.kept.age());
    running.store().sweep().unwrap();
    let (file, _) = make(&world, &server, 99, 3 << 20);
    assert!(bullet_file::open(&world, &file).unwrap().bytes().is_some(), "there is room for another");
    running.stop().unwrap();
}

#[test]
fn a_file_with_copies_is_on_both_disks_or_on_none() {
    let (world, running, server) = system();
    let disk = new_disk(&world, 48 << 20);
    let second = serve(&world, disk.clone());
    let servers = [server, second.super_capability()];
    for size in [0, 1000, 3 << 20] {
        let bytes = Random(size as u64).bytes(size);
        let copies = bullet_copies::write_copies(&world, &servers, &mut &bytes[..]).unwrap();
        let members: Vec<_> = copies.current().copied().collect();
        assert_eq!(
            members.iter().map(|copy| copy.port).collect::<Vec<_>>(),
            servers.map(|server| server.port)
        );
        for copy in &members {
            assert_eq!(copy.rights(), Rights::ALL);
            assert!(bullet_stream::read_whole(&world, copy, size).unwrap() == bytes);
        }
    }
    assert!(bullet_copies::write_copies(&world, &[], &mut &b"x"[..]).is_err());
    let used = running.store().space();
    disk.fail_flushes(true);
    let error = bullet_copies::write_copies(&world, &servers, &mut &b"half"[..]).unwrap_err();
    assert!(matches!(error, StreamError::Server(Error::Refused(_))), "{error}");
    assert_eq!(running.store().space(), used, "nothing is left where it was made");
    // What was on both is read from the one that is left.
    let _ = second.stop();
    running.stop().unwrap();
}

/// A process of another host, to which nothing can be lent. Of each batch of posted transactions it notes how many there are.
struct Elsewhere {
    transactions: Arc<dyn Transactions>,
    posted: std::sync::Mutex<Vec<usize>>,
    done: std::sync::atomic::AtomicUsize,
}

impl Elsewhere {
    fn of(world: &World) -> Elsewhere {
        Elsewhere {
            transactions: world.transactions.clone(),
            posted: Default::default(),
            done: Default::default(),
        }
    }

    /// Single transactions since this was asked last.
    fn done(&self) -> usize {
        self.done.swap(0, std::sync::atomic::Ordering::Relaxed)
    }

    fn posted(&self) -> Vec<usize> {
        std::mem::take(&mut self.posted.lock().unwrap())
    }
}

impl Transactions for Elsewhere {
    fn trans(&self, request: Message, options: &TransOptions) -> Result<Message, Error> {
        self.done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.transactions.trans(request, options)
    }

    fn trans_posted(&self, posts: &mut [Posted<'_>], options: &TransOptions) {
        self.posted.lock().unwrap().push(posts.len());
        self.transactions.trans_posted(posts, options);
    }

    fn listen(&self, port: &GetPort, request_size_max: usize) -> Result<Listener, Error> {
        self.transactions.listen(port, request_size_max)
    }

    fn put_port(&self, port: &GetPort) -> Result<PutPort, Error> {
        self.transactions.put_port(port)
    }

    fn passage(&self, _: PutPort) -> Option<&'static str> {
        Some("flow")
    }
}

#[test]
fn from_another_host_the_pieces_of_a_file_are_wanted_together() {
    let (world, running, server) = system();
    let elsewhere = Elsewhere::of(&world);
    let reader = &elsewhere as &dyn Transactions;
    let (file, bytes) = make(&world, &server, 5, 11 * PIECE_SIZE + 7);
    let open = bullet_file::open(reader, &file).unwrap();
    assert!(open.bytes().is_none() && open.size() == bytes.len() as u64);
    let mut part = vec![0; 3 * PIECE_SIZE + 1];
    let offset = PIECE_SIZE - 3;
    assert_eq!(open.read_at(reader, offset as u64, &mut part), Ok(part.len()));
    assert!(part == bytes[offset..][..part.len()]);
    assert_eq!(elsewhere.posted(), [4]);
    let end = bytes.len() - 9;
    assert_eq!(open.read_at(reader, end as u64, &mut part), Ok(9), "fewer than wanted at the end");
    assert!(part[..9] == bytes[end..]);
    elsewhere.posted();
    let mut whole = Vec::new();
    open.write_to(reader, 0, &mut whole).unwrap();
    assert!(whole == bytes);
    assert_eq!(elsewhere.posted(), [8, 4]);
    standard::destroy(&world, &file).unwrap();
    assert_eq!(refused(open.read_at(reader, 0, &mut part)), Status::STD_CAPBAD);
    running.stop().unwrap();
}

#[test]
fn from_another_host_a_file_of_a_piece_comes_with_one_transaction() {
    let (world, running, server) = system();
    let elsewhere = Elsewhere::of(&world);
    let reader = &elsewhere as &dyn Transactions;
    for size in [0, 1, LARGE, PIECE_SIZE, PIECE_SIZE + 1] {
        let (file, bytes) = make(&world, &server, size as u64, size);
        let open = bullet_file::open(reader, &file).unwrap();
        let is_small = size <= PIECE_SIZE;
        assert_eq!(elsewhere.done(), if is_small { 1 } else { 2 }, "{size} bytes");
        assert_eq!(open.bytes(), is_small.then_some(&bytes[..]));
        let mut read = vec![0; size];
        assert_eq!(open.read_at(reader, 0, &mut read), Ok(size));
        assert!(read == bytes);
        assert_eq!(elsewhere.done(), 0);
        let blind = standard::restrict(&world, &file, 1).unwrap();
        assert_eq!(refused(bullet_file::open(reader, &blind)), Status::STD_DENIED);
        elsewhere.done();
    }
    let draft = bullet::create(&world, &server, 0, vec![1; 10]).unwrap();
    assert_eq!(refused(bullet::read_small(&world, &draft, 10)), Status::STD_CAPBAD);
    let (file, _) = make(&world, &server, 1, 10);
    assert_eq!(refused(bullet::read_small(&world, &file, 9)), Status::STD_OVERFLOW);
    assert_eq!(bullet::read_small(&world, &file, u32::MAX).unwrap().len(), 10);
    running.stop().unwrap();
}

#[test]
fn replies_are_sent_out_of_the_cache_and_keep_a_bounded_part_of_it() {
    let (world, running, server) = system();
    let (file, bytes) = make(&world, &server, 6, 1 << 20);
    let file = running.store().verified(&file.private).unwrap();
    let read = |offset: usize, size: usize| {
        let bulk = running.store().read_bulk(file, offset as u64, size).unwrap();
        assert!(bulk[..] == bytes[offset..][..size]);
        bulk
    };
    assert!(matches!(read(3, 1000), Bulk::Own(_)), "little is copied");
    let may = (SETTINGS.cache_size / 4 / bytes.len() as u64) as usize;
    let mut under_way: Vec<_> = (0..may).map(|index| read(index, 500_000)).collect();
    assert!(under_way.iter().all(|bulk| matches!(bulk, Bulk::Shared(_))));
    let begin = |bulk: &Bulk| bulk.as_ptr() as usize;
    assert_eq!(begin(&under_way[1]) - begin(&under_way[0]), 1, "they are parts of the same memory");
    assert!(matches!(read(0, 500_000), Bulk::Own(_)), "and past the bound copies");
    under_way.pop();
    assert!(matches!(read(0, 500_000), Bulk::Shared(_)));
    drop(under_way);
    running.stop().unwrap();
}

#[test]
fn a_large_file_is_read_on_past_the_cache_and_a_part_of_it_is_kept() {
    let (world, running, server) = system();
    let (file, bytes) = make(&world, &server, 7, 6 * PIECE_SIZE + 7);
    let open = bullet_file::open(&world, &file).unwrap();
    assert!(open.bytes().is_none(), "it is larger than a quarter of the memory");
    let mut read = Vec::new();
    let mut read_on = |offset: usize, size: usize| {
        open.read_where_it_is(&world, offset as u64, size, &mut |some| read = some.to_vec()).unwrap();
        std::mem::take(&mut read)
    };
    read_on(0, 1); // its hashes, and a part
    let cached = || bullet::usage(&world, &server).unwrap().cached;
    let before = cached();
    for round in 0..2 {
        for at in (0..bytes.len()).step_by(PIECE_SIZE) {
            let wanted = if round == 0 { PIECE_SIZE } else { usize::MAX };
            let end = bytes.len().min(at + PIECE_SIZE);
            assert!(read_on(at, wanted) == bytes[at..end], "a piece at a time");
        }
    }
    assert_eq!(cached(), before);
    assert!(read_on(3 * PIECE_SIZE + 5, 1000) == bytes[3 * PIECE_SIZE + 5..][..1000]);
    assert!(cached() >= before + PIECE_SIZE as u64);
    let mut whole = vec![0; bytes.len()];
    assert_eq!(open.read_at(&world, 0, &mut whole), Ok(bytes.len()));
    assert!(whole == bytes);
    let end = bytes.len() as u64;
    assert_eq!(open.read_where_it_is(&world, end, 1, &mut |some| assert!(some.is_empty())), Ok(()));
    let behind = open.read_where_it_is(&world, end + 1, 1, &mut |_| panic!("there is nothing"));
    assert_eq!(behind, Err(Error::NotSent(Status::STD_ARGBAD)));
    running.stop().unwrap();
}
