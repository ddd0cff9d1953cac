//! SQLite's own tests of journals, write-ahead logs and locks.
//!
//! Each file of tests runs in a folder of its own on the mount. Only what fails there is run on the local file system, too:
//! what fails in both is the suite's affair, and everything else is in the list of `docs/conformance.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::place::Place;
use crate::posix::listed;
use crate::shell::{Script, built};

/// What is run always: some seconds each at most.
const SHORT: &str = "\
    wal wal2 wal4 wal5 wal6 wal7 wal8 walbak walcksum walhook walmode walnoshm waloverwrite walpersist \
    walprotocol2 walro walrofault walshared e_wal e_walckpt e_walhook zerodamage journal1 journal2 \
    journal3 mjournal jrnlmode jrnlmode3 rollback rollback2 rollbackfault lock lock2 lock3 lock4 lock5 \
    lock6 lock7 nolock shmlock sharedlock superlock unixexcl exclusive exclusive2 busy delete_db tempdb \
    tempdb2 cacheflush snapshot snapshot2 snapshot3 snapshot4 sync sync2 syscall symlink rdonly mmap3 \
    multiplex4 vacuum vacuum2 vacuum-into vacuum5";
/// What is run where there is time: crashes and faults at every point, and waiting. Not `busy2`, which wants things done within a
/// quarter of a second, on any machine.
const LONG: &str = "\
    wal3 wal64k wal9 walcrash walcrash2 walcrash4 walfault walfault2 walslow walthread walprotocol \
    walro2 walsetlk walvfs e_walauto crash crash2 crash3 crash4 crash6 crash7 crash8 diskfull jrnlmode2 \
    fallocate mmap1 mmap2 mmapfault multiplex multiplex2 pager1 savepoint savepoint2 savepoint4 \
    savepointfault snapshot_fault temptable2 vacuum3 oserror";
/// Tests in the files of [`SHORT`]; with fewer of them that ran the suite did not do what it should.
const RAN_MIN: u64 = 4000;

/// Files of tests at once. Most of their time is waiting, for one another's locks and for syncs.
const AT_ONCE: usize = 4;
/// No file takes this long but when it hangs.
const HANG: Duration = Duration::from_secs(1800);

/// The program that runs the tests, and their folder.
struct Suite {
    program: PathBuf,
    tests: PathBuf,
}

/// A failure that is not listed fails the test, and so does a listed one that passes.
pub(crate) fn own_tests(place: &mut Place) {
    let Some(program) = built("testfixture") else { return };
    let tests = program.ancestors().nth(2).expect("it lies in `programs/bin`").join("sqlite/source/test");
    let suite = Suite { program, tests };
    let [mounted, local] = place.twins("sqlite");
    let is_long = std::env::var_os("AMOEBA_SQLITE_ALL").is_some();
    let files: Vec<&str> = SHORT.split(' ').chain(LONG.split(' ').filter(|_| is_long)).collect();
    let (next, ran, failed) = (AtomicUsize::new(0), AtomicU64::new(0), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = suite.run(&mounted, file);
                    ran.fetch_add(outcome.ran, Ordering::Relaxed);
                    if outcome.failed.is_empty() {
                        continue;
                    }
                    let locally = suite.run(&local, file).failed;
                    let ours = outcome.failed.difference(&locally).cloned();
                    failed
                        .lock()
                        .expect("nobody has panicked")
                        .extend(ours.map(|case| (case, outcome.said.clone())));
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody has panicked");
    let listed = listed("sqlite");
    for (case, said) in &failed {
        assert!(listed.contains(case.as_str()), "not in docs/conformance.md, `sqlite`: {case}\n{said}");
    }
    let has_failed = |case: &str| failed.iter().any(|(name, _)| name == case);
    let mended: Vec<_> = listed.iter().filter(|case| !has_failed(case)).collect();
    assert!(mended.is_empty() || !is_long, "in docs/conformance.md, `sqlite`, and passing: {mended:#?}");
    let ran = ran.into_inner();
    eprintln!("{ran} of SQLite's tests ran");
    assert!(ran >= RAN_MIN, "only {ran} ran");
}

/// What became of a file of tests.
struct Outcome {
    ran: u64,
    failed: BTreeSet<String>,
    said: String,
}

impl Suite {
    fn run(&self, place: &Path, file: &str) -> Outcome {
        let folder = place.join(file);
        fs::create_dir(&folder).expect("a new name");
        let command = format!("{} {}/{file}.test", self.program.display(), self.tests.display());
        let mut script = Script::start(&folder, &command);
        let status = script.finish_within(HANG);
        Outcome::of(file, status.success(), script.said())
    }
}

impl Outcome {
    /// A file that ended in another way than by its last line has failed as a whole.
    fn of(file: &str, is_success: bool, said: String) -> Outcome {
        // 0 errors out of 15 tests on HOST Linux 64-bit little-endian
        let ran = said.lines().rev().find_map(|line| {
            let (_, rest) = line.split_once(" errors out of ")?;
            rest.split_whitespace().next()?.parse().ok()
        });
        let named = said.lines().filter_map(|line| line.strip_prefix("!Failures on these tests: "));
        let mut failed: BTreeSet<String> =
            named.flat_map(str::split_whitespace).map(|case| format!("{file}: {case}")).collect();
        if ran.is_none() || (!is_success && failed.is_empty()) {
            failed.insert(format!("{file}: its end"));
        }
        Outcome { ran: ran.unwrap_or(0), failed, said }
    }
}

#[test]
fn an_outcome_is_what_the_last_lines_say() {
    let of = |is_success, said: &str| Outcome::of("wal", is_success, said.to_owned());
    let outcome = of(true, "wal-1.1... Ok\n0 errors out of 581 tests on HOST Linux\nAll memory freed\n");
    assert_eq!((outcome.ran, outcome.failed.len()), (581, 0));
    let two = "! wal-1.1 expected: [1]\n2 errors out of 9 tests on HOST\n!Failures on these tests: wal-1.1 wal-1.2\n";
    let cases = ["wal: wal-1.1", "wal: wal-1.2"].map(str::to_owned);
    assert_eq!(of(false, two).failed, BTreeSet::from(cases));
    for (is_success, said) in
        [(true, "wal-1.1... Ok\n"), (false, "0 errors out of 3 tests on HOST\n"), (false, "")]
    {
        assert_eq!(of(is_success, said).failed, BTreeSet::from(["wal: its end".to_owned()]), "{said}");
    }
}
