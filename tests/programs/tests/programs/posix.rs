//! The POSIX suite (pjdfstest), and the list of what fails in `docs/conformance.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::place::Place;
use crate::shell::{Script, built, sh};

const CONFORMANCE: &str = include_str!("../../../../docs/conformance.md");

/// With fewer cases that ran the suite did not do what it should.
const RAN_MIN: usize = 390;

const SETTINGS: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = REMOUNT
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]
";

/// The suite makes the mount read-only in between: by the kernel alone, as a helper would serve it anew, and a little later
/// where somebody who has closed the last file is about to let go of it. Before all other cases, since the kernel makes nothing
/// read-only of which a deleted file is remembered.
const MOUNT: &str = "#!/bin/sh
for i in $(seq 200); do /bin/mount -i \"$@\" && exit; sleep 0.01; done
exit 1
";

/// A case that fails without being listed fails the test, and so does a listed one that passes. What fails on the local
/// file system as well is the suite's affair.
pub(crate) fn suite(place: &mut Place) {
    let Some(suite) = built("pjdfstest") else { return };
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: the POSIX suite becomes other users, which only root may");
        return;
    }
    place.open_to_others();
    let [mounted, local] = place.twins("posix");
    let settings = place.local().join("pjdfstest.toml");
    fs::write(place.local().join("mount"), MOUNT).expect("there is room");
    sh(&place.local(), "chmod +x mount");
    let run = |at: &Path, beside: &Path, remount: &str, cases: &str| {
        fs::write(&settings, SETTINGS.replace("REMOUNT", remount)).expect("there is room");
        let command = format!(
            "PATH={}:$PATH {} -c {} -p {} -s {} -- {cases}",
            place.local().display(),
            suite.display(),
            settings.display(),
            at.display(),
            beside.display()
        );
        let mut script = Script::start(at, &command);
        script.finish();
        script.said()
    };
    let read_only = run(&mounted, &local, "true", "erofs");
    let [said, said_locally] =
        [(&mounted, &local), (&local, &mounted)].map(|(at, beside)| run(at, beside, "false", ""));
    let (mut here, there) = (outcomes(&said), outcomes(&said_locally));
    here.extend(outcomes(&read_only));
    for case in failures(&there) {
        eprintln!("of the POSIX suite {case} fails on the local file system, too");
    }
    let ran = here.values().filter(|outcome| **outcome != "skipped").count();
    assert!(ran >= RAN_MIN, "only {ran} ran:\n{read_only}\n{said}");
    assert!(failures(&there).len() < 10, "{said_locally}");
    let failed: BTreeSet<&str> = failures(&here).difference(&failures(&there)).copied().collect();
    let listed = listed(place.kind);
    let new: Vec<_> = failed.difference(&listed).collect();
    let mended: Vec<_> = listed.difference(&failed).collect();
    assert!(new.is_empty(), "not in docs/conformance.md, `{}`: {new:#?}\n{read_only}\n{said}", place.kind);
    assert!(mended.is_empty(), "in docs/conformance.md, `{}`, and passing: {mended:#?}", place.kind);
}

/// How each case ended.
fn outcomes(said: &str) -> BTreeMap<&str, &str> {
    let words = said.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next().filter(|name| name.contains("::"))?, words.next()?))
    });
    words.filter(|(_, outcome)| ["ok", "FAILED", "skipped"].contains(outcome)).collect()
}

fn failures<'a>(outcomes: &BTreeMap<&'a str, &str>) -> BTreeSet<&'a str> {
    outcomes.iter().filter(|(_, outcome)| **outcome == "FAILED").map(|(name, _)| *name).collect()
}

/// The cases of the table under the heading that names this kind of mount, or this suite.
pub(crate) fn listed(kind: &str) -> BTreeSet<&'static str> {
    let heading = format!("(`{kind}`)");
    let section = CONFORMANCE
        .split("\n## ")
        .find(|section| section.lines().next().is_some_and(|line| line.ends_with(&heading)));
    let rows = section.expect("each of them has its heading").lines();
    // A row names its cases in its first column, each as code.
    let columns = rows.filter_map(|row| row.strip_prefix("| `")?.split('|').next());
    columns
        .flat_map(|column| column.split('`').step_by(2))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect()
}
