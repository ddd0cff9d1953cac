//! Somebody is killed while programs write: they end, with an error or as if nothing had been, and what they were told is
//! durable is there afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::place::Place;
use crate::shell::{Script, have, sh};
use crate::system::{kill, send};

/// What the writers have done before anything happens.
const TOLD_MIN: usize = 5;
/// How often each writer tries before it gives up: servers that were killed come back.
const ROUNDS: usize = 100_000;

/// Programs that write, each telling what is durable by the promise of fsync.
struct Load {
    writers: Vec<(Kind, Script)>,
    mounted: PathBuf,
    sums: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Files that are synced, then get their name, then their directory is synced.
    Files,
    /// A database with a write-ahead log, synced at each commit.
    Database,
    /// A repository that syncs all that it writes.
    Repository,
}

impl Kind {
    fn script(self, mounted: &Path, sums: &Path) -> String {
        let (mounted, sums) = (mounted.display(), sums.display());
        match self {
            Kind::Files => format!(
                "mkdir {mounted}/files
cd {mounted}/files
for i in $(seq {ROUNDS}); do
    head -c $((i * 997 % 20000 + 1)) /dev/urandom > {sums}/file
    sha256sum < {sums}/file > {sums}/$i
    cp {sums}/file $i.new
    sync $i.new
    mv $i.new $i
    sync .
    echo told $i
done"
            ),
            Kind::Database => format!(
                "cd {mounted}
sqlite3 database 'PRAGMA journal_mode=wal; CREATE TABLE t(n INTEGER PRIMARY KEY, v TEXT)'
sync .
for i in $(seq {ROUNDS}); do
    echo \"INSERT INTO t VALUES($i, printf('%02000d', $i)); SELECT 'told ' || $i;\"
done | sqlite3 -bail -cmd 'PRAGMA synchronous=FULL' database"
            ),
            Kind::Repository => format!(
                "cd {mounted}
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
git init -q -b main repository
cd repository
git config user.name a
git config user.email a@b
git config core.fsync all
git config gc.auto 0
sync . .git .git/*
for i in $(seq {ROUNDS}); do
    echo $i > file
    git add file
    git commit -q -m $i
    sync .git .git/refs/heads .git/objects .git/objects/* .git/refs/heads/main
    echo told $i
done"
            ),
        }
    }
}

impl Load {
    fn start(place: &Place) -> Load {
        let (mounted, sums) = (place.mounted(), place.local().join("sums"));
        fs::create_dir(&sums).expect("a new name");
        let kinds = [Kind::Files, Kind::Database, Kind::Repository];
        // None of them works in a directory of the mount before it says so: a dead one could not be started in.
        let start = |kind: Kind| (kind, Script::start(&place.local(), &kind.script(&mounted, &sums)));
        let mut load = Load { writers: kinds.map(start).into(), mounted, sums };
        load.goes_on_by(TOLD_MIN);
        load
    }

    /// Returns when every writer that still writes has told so many more.
    fn goes_on_by(&mut self, more: usize) {
        for (_, writer) in &mut self.writers {
            let before = told(&writer.said()).len();
            while told(&writer.said()).len() < before + more {
                assert!(writer.ended().is_none(), "{}", writer.said());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        self.writers.iter_mut().any(|(_, writer)| writer.ended().is_some())
    }

    /// Every writer ends by itself: none hangs.
    fn ends(&mut self) {
        for (_, writer) in &mut self.writers {
            assert!(!writer.finish().success(), "{}", writer.said());
        }
    }

    fn stop(&mut self) {
        self.writers.iter_mut().for_each(|(_, writer)| writer.kill());
    }

    /// All that was told is there.
    fn holds(&self) {
        for (kind, writer) in &self.writers {
            let told = told(&writer.said());
            let last = *told.last().expect("each had told something");
            match kind {
                Kind::Files => self.files_are_there(&told),
                Kind::Database => {
                    let look = "sqlite3 database 'PRAGMA integrity_check; SELECT count(*), max(n) FROM t'";
                    let said = sh(&self.mounted, look);
                    let (check, numbers) = said.trim().split_once('\n').expect("two lines");
                    let (count, max) = numbers.split_once('|').expect("two columns");
                    assert_eq!((check, count), ("ok", max), "{said}");
                    assert!(max.parse::<usize>().expect("a number") >= last, "{said}, but told {last}");
                }
                Kind::Repository => {
                    let look = "rm -f .git/index.lock .git/refs/heads/main.lock .git/HEAD.lock
git fsck --full --strict --no-dangling
git log --format=%s -1
git status --porcelain > /dev/null";
                    let said = sh(&self.mounted.join("repository"), look);
                    assert!(
                        said.trim().parse::<usize>().is_ok_and(|max| max >= last),
                        "{said}, but told {last}"
                    );
                }
            }
        }
    }

    fn files_are_there(&self, told: &[usize]) {
        let names = sh(&self.mounted.join("files"), "ls");
        assert!(!names.contains("conflict"), "{names}");
        for number in told {
            let expected =
                fs::read_to_string(self.sums.join(number.to_string())).expect("it was written before");
            let sum = sh(&self.mounted.join("files"), &format!("sha256sum < {number}"));
            assert_eq!(sum, expected, "{number}");
        }
    }
}

/// The numbers that a writer said are durable.
fn told(said: &str) -> Vec<usize> {
    let whole = &said[..said.rfind('\n').unwrap_or(0)];
    whole.lines().filter_map(|line| line.strip_prefix("told ")?.parse().ok()).collect()
}

fn scene() -> Option<Place> {
    if !have(&["sqlite3", "git"]) {
        return None;
    }
    Place::graph()
}

/// Whoever was at it gets errors; the next mount has all that was synced.
#[test]
fn the_mount_is_killed() {
    let Some(mut place) = scene() else { return };
    let mut load = Load::start(&place);
    kill(place.server());
    load.ends();
    place.mount();
    load.holds();
    place.survives_a_new_mount();
    load.holds();
}

/// And while a program has its directory there, and files open: it can be unmounted and mounted again.
#[test]
fn a_dead_mount_can_be_unmounted() {
    let Some(mut place) = scene() else { return };
    fs::write(place.mounted().join("a"), b"kept").expect("there is room");
    sh(&place.mounted(), "sync a; sync .");
    let mut stays = Script::start(&place.mounted(), "exec 3< a; echo ready; sleep 1000");
    while stays.said().is_empty() {
        std::thread::sleep(Duration::from_millis(2));
    }
    kill(place.server());
    place.umount();
    assert_eq!(fs::read_dir(place.mounted()).expect("the folder below").count(), 0);
    place.mount();
    assert_eq!(sh(&place.mounted(), "cat a"), "kept");
    stays.kill();
}

/// A program has pages of a file mapped and not written yet, and somebody else has just closed that file, so that the mount has it open
/// too: killed, the mount's process would wait for pages that only it could write.
const MAPS: &str = "import mmap, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.ftruncate(file, 1 << 20)
pages = mmap.mmap(file, 1 << 20)
pages[0] = 1
os.close(os.open(sys.argv[1], os.O_RDWR))
print('mapped', flush=True)
while not os.path.exists(sys.argv[2]): time.sleep(0.001)
pages[0] = 2
print('dirty', flush=True)
pages.flush()
";

/// Kills the mount at that moment; the program that has the pages.
fn killed_while_pages_are_on_their_way(place: &Place, also: Option<i32>) -> Script {
    let (go, mounted) = (place.local().join("go"), place.mounted().join("pages"));
    fs::write(place.local().join("maps.py"), MAPS).expect("there is room");
    let line = format!("exec python3 maps.py {} {}", mounted.display(), go.display());
    let maps = Script::start(&place.local(), &line);
    let until = |word| {
        while !maps.said().contains(word) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    until("mapped");
    let server = place.server();
    let has_it_open = || {
        let open = fs::read_dir(format!("/proc/{server}/fd")).expect("it runs");
        open.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == mounted))
    };
    // As a rule it has, for a second; who takes longer to get here has shown less.
    let mut has_it = has_it_open();
    for _ in 0..100 {
        if !has_it {
            std::thread::sleep(Duration::from_millis(1));
            has_it = has_it_open();
        }
    }
    eprintln!("the mount has the file open: {has_it}");
    send(server, Signal::STOP);
    fs::write(&go, b"").expect("there is room");
    until("dirty");
    also.into_iter().for_each(kill);
    send(server, Signal::KILL);
    maps
}

/// The guard of a mount, which is the only process that it has started.
fn guard(server: i32) -> i32 {
    let tasks = fs::read_dir(format!("/proc/{server}/task")).expect("it runs");
    let children =
        tasks.flatten().map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children: Vec<i32> = children
        .flat_map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>())
        .collect();
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

/// Nobody hangs: whoever waits hears of it, and the next mount has what was there.
#[test]
fn the_mount_is_killed_while_pages_are_on_their_way() {
    if !have(&["python3"]) {
        return;
    }
    let Some(mut place) = scene() else { return };
    fs::write(place.mounted().join("a"), b"kept").expect("there is room");
    sh(&place.mounted(), "sync a; sync .");
    let mut maps = killed_while_pages_are_on_their_way(&place, None);
    assert!(!maps.finish().success());
    place.mount();
    assert_eq!(sh(&place.mounted(), "cat a"), "kept");
}

/// Nor for ever where the guard was killed too: who looks after the mounts ends it.
#[test]
fn the_mount_is_killed_with_its_guard() {
    if !have(&["python3"]) {
        return;
    }
    let Some(mut place) = scene() else { return };
    for command in ["status", "umount", "mount"] {
        let mut maps = killed_while_pages_are_on_their_way(&place, Some(guard(place.server())));
        match command {
            "status" => {
                let status = place.system().amoeba("status");
                assert!(status.contains("is dead"), "{status}");
            }
            "umount" => place.umount(),
            _ => {}
        }
        place.mount();
        assert!(!maps.finish().success());
        fs::remove_file(place.local().join("go")).expect("it was made");
    }
}

/// The directory server comes back: the writers go on or have heard of it, and all that they were told holds, also on the
/// next mount.
#[test]
fn the_directory_is_killed() {
    server_is_killed("directory");
}

/// Likewise the file server.
#[test]
fn the_file_server_is_killed() {
    server_is_killed("bullet");
}

fn server_is_killed(role: &str) {
    let Some(mut place) = scene() else { return };
    let mut load = Load::start(&place);
    for _ in 0..3 {
        kill(place.system().daemon(role));
        if load.has_ended() {
            break;
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    // Who still writes goes on.
    if !load.has_ended() {
        load.goes_on_by(TOLD_MIN);
    }
    load.stop();
    load.holds();
    place.survives_a_new_mount();
    load.holds();
}

/// The network between the mount and its servers is cut: what was read is still read, what was not gives an error, what is
/// synced is kept, also by a mount that is killed meanwhile, and reaches the servers when the network is there again.
#[test]
fn the_network_is_cut() {
    let Some(folder) = crate::place::folder() else { return };
    let binary = crate::system::binary();
    let script = format!(
        r#"export TMPDIR=$PWD HOME=$PWD
{} dev 2 --faults none -- bash -euc '
    mount=$PWD/../mount
    order() {{
        orders=$((orders + 1))
        echo "$@" > $AMOEBA_DEV_WIRE
        until grep -qx "orders $orders" $AMOEBA_DEV_WIRE.state; do sleep 0.01; done
    }}
    orders=1
    anvil=$AMOEBA_STATE bolt=${{AMOEBA_STATE%/*}}/bolt
    there() {{ AMOEBA_STATE=$anvil amoeba "$@"; }}
    here() {{ AMOEBA_STATE=$bolt amoeba "$@"; }}
    appears() {{ until [ "$(there cat "$1" 2> /dev/null)" = "$2" ]; do sleep 0.05; done; }}
    echo never read | there put - /unread
    here mount --json $mount > mounted
    echo before > $mount/before
    echo known > $mount/known
    appears /before before
    appears /known known
    cat $mount/known
    order cut anvil bolt
    cat $mount/known
    if cat $mount/unread; then exit 8; fi
    echo during > $mount/during
    sync $mount/during
    cat $mount/during
    kill -9 $(grep -o "[0-9]*" mounted | tail -1)
    if cat $mount/during; then exit 9; fi
    order heal
    here mount $mount
    appears /during during
    cat $mount/unread $mount/before $mount/during
    order cut anvil bolt
    echo later > $mount/later
    order heal
    appears /later later
    here umount $mount
    test -z "$(ls $mount)"
'"#,
        binary.display()
    );
    let said = sh(&folder.join("local"), &script);
    let lines = said.lines().filter(|line| !line.contains(": "));
    assert_eq!(
        lines.collect::<Vec<_>>(),
        ["known", "known", "during", "never read", "before", "during"],
        "{said}"
    );
    fs::remove_dir_all(folder).expect("nothing is mounted there");
}
