//! SQLite: every journal mode, several writers, and a writer that is killed.

use std::time::Duration;

use crate::place::Place;
use crate::shell::{Script, have, sh};

const MODES: [&str; 4] = ["delete", "truncate", "persist", "wal"];

/// What is written under each journal is read again by others, and is what a local database holds.
pub(crate) fn keeps_its_journals(place: &mut Place) {
    if !have(&["sqlite3"]) {
        return;
    }
    let [mounted, local] = place.twins("journals");
    for mode in MODES {
        let script = format!(
            "
sqlite3 {mode}.db <<'SQL'
PRAGMA journal_mode={mode};
CREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT);
CREATE INDEX i ON t(v);
WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n < 5000)
INSERT INTO t SELECT n, printf('%0200d', n * 7919 % 5003) FROM c;
BEGIN; UPDATE t SET v = 'gone' WHERE k % 3 = 0; ROLLBACK;
BEGIN; DELETE FROM t WHERE k % 5 = 0; SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT;
ATTACH 'second-{mode}.db' AS second;
BEGIN; CREATE TABLE second.u AS SELECT * FROM t WHERE k < 100; UPDATE t SET v = 'moved' WHERE k < 100; COMMIT;
PRAGMA integrity_check;
SQL
sqlite3 {mode}.db 'VACUUM; REINDEX; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA integrity_check'
sqlite3 {mode}.db .dump | sha256sum
sqlite3 second-{mode}.db .dump | sha256sum
sqlite3 {mode}.db '.backup copy.db'
sqlite3 -readonly copy.db .dump | sha256sum"
        );
        let said = sh(&mounted, &script);
        assert_eq!(said, sh(&local, &script));
        assert!(said.starts_with(&format!("{mode}\nok\n")), "{said}");
    }
}

/// Four processes add up; none of their transactions is lost, by locks (and under `wal` by shared memory) on the mount.
pub(crate) fn writers_take_turns(place: &mut Place) {
    if !have(&["sqlite3"]) {
        return;
    }
    let [mounted, _] = place.twins("turns");
    for mode in ["delete", "wal"] {
        let script = format!(
            "
sqlite3 {mode}.db 'PRAGMA journal_mode={mode}; CREATE TABLE t(n INTEGER); INSERT INTO t VALUES(0)'
for writer in 1 2 3 4; do
    (
        echo '.timeout 100000'
        for i in $(seq 40); do echo 'BEGIN IMMEDIATE; UPDATE t SET n = n + 1; COMMIT;'; done
    ) > writer$writer.sql
    sqlite3 -bail {mode}.db < writer$writer.sql &
    pids[$writer]=$!
done
for writer in 1 2 3 4; do wait ${{pids[$writer]}}; done
sqlite3 {mode}.db 'SELECT n FROM t; PRAGMA integrity_check'"
        );
        assert_eq!(sh(&mounted, &script), format!("{mode}\n160\nok\n"));
    }
}

/// A writer is killed between any two system calls: what it was told is committed is there, and nothing is half done.
pub(crate) fn survives_its_writer(place: &mut Place) {
    if !have(&["sqlite3"]) {
        return;
    }
    let [mounted, _] = place.twins("killed");
    for (index, mode) in MODES.into_iter().enumerate() {
        let make = format!(
            "sqlite3 {mode}.db 'PRAGMA journal_mode={mode}; CREATE TABLE t(n INTEGER PRIMARY KEY, v TEXT);
             CREATE TABLE twin(n INTEGER PRIMARY KEY, v TEXT)'"
        );
        sh(&mounted, &make);
        let mut told = 0;
        for round in 0..4 {
            let script = format!(
                "for i in $(seq {} 100000); do
                     echo \"BEGIN; INSERT INTO t VALUES($i, printf('%05000d', $i));\"
                     echo \"INSERT INTO twin SELECT * FROM t WHERE n = $i; COMMIT; SELECT 'committed', $i;\"
                 done | sqlite3 -bail {mode}.db",
                told + 2
            );
            let mut writer = Script::start(&mounted, &script);
            while committed(&writer.said()).is_none() {
                assert!(writer.ended().is_none(), "{}", writer.said());
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis((index as u64 * 4 + round) * 7 % 30));
            writer.kill();
            told = committed(&writer.said()).expect("it had committed before");
            // The writer may be on its way out, with its locks.
            let look = format!(
                "sqlite3 -cmd '.timeout 60000' {mode}.db 'PRAGMA integrity_check; SELECT max(n) FROM t;
                 SELECT count(*) FROM t LEFT JOIN twin USING (n) WHERE t.v IS NOT twin.v'"
            );
            let said = sh(&mounted, &look);
            // It may have been killed after a commit and before it said so.
            assert!([told, told + 1].iter().any(|last| said == format!("ok\n{last}\n0\n")), "{told}: {said}");
        }
    }
}

/// The last number that a writer said was committed.
fn committed(said: &str) -> Option<u64> {
    let whole = &said[..said.rfind('\n')?];
    whole.lines().rev().find_map(|line| line.strip_prefix("committed|")?.parse().ok())
}
