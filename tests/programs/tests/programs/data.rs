//! Bytes under random operations: fio, which verifies what it wrote, and fsx, which has a model of the file.

use std::fs;

use crate::place::Place;
use crate::shell::{built, have, sh};

/// Operations of fsx for each seed.
const OPERATIONS: usize = 4000;

const FSX: &str = "\
flen = 1048576
[opsize]
max = 131072
[weights]
close_open = 2
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 3
sendfile = 3
posix_fadvise = 2
copy_file_range = 3
";

/// Written at random and verified, by system calls, past the page cache and through mappings; once more by a second process.
pub(crate) fn fio(place: &mut Place) {
    if !have(&["fio"]) {
        return;
    }
    let [mounted, _] = place.twins("fio");
    let common =
        "fio --output=/dev/null --bs=4k --size=16m --numjobs=2 --verify=crc32c --verify_fatal=1 --randseed=7";
    for (name, engine) in [
        ("psync", "--ioengine=psync --fsync=200"),
        ("mmap", "--ioengine=mmap --fsync=500"),
        ("direct", "--ioengine=psync --direct=1"),
        ("aio", "--ioengine=libaio --iodepth=8"),
        ("extend", "--ioengine=psync --fallocate=none --rw=write"),
    ] {
        let job = format!("{common} --rw=randwrite {engine} --name={name}");
        sh(&mounted, &format!("{job} --do_verify=1; {job} --verify_only"));
    }
    sh(&mounted, "rm psync.* mmap.* direct.* aio.* extend.*; rm -f *.state; test -z \"$(ls -A)\"");
}

/// Reads, writes, mappings, new sizes, holes, ranges that are copied: after each the file is what the model says.
pub(crate) fn fsx(place: &mut Place) {
    let Some(fsx) = built("fsx") else { return };
    let [mounted, local] = place.twins("fsx");
    let settings = local.join("fsx.toml");
    fs::write(&settings, FSX).expect("there is room");
    for seed in 1..=3 {
        let command = format!(
            "{} -q -N {OPERATIONS} -S {seed} -P {} -f {} file{seed}",
            fsx.display(),
            local.display(),
            settings.display()
        );
        sh(&mounted, &command);
    }
}
