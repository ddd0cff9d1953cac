//! Trees of many small files, there and back.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::place::Place;
use crate::shell::{have, sh};
use crate::tree::{Depth, same};

/// Files of the tree; `AMOEBA_PROGRAM_FILES` asks for more of them.
const FILES: usize = 2000;
const FILES_OF_FOLDER: usize = 40;

/// A tree as people have them: odd names, old times, links, holes, empty folders.
fn plant(root: &Path) {
    let files = std::env::var("AMOEBA_PROGRAM_FILES").map_or(FILES, |count| count.parse().expect("a number"));
    let mut seed = 1_u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for index in 0..files {
        let folder = root.join(format!("{}/{}", index % 9, index / FILES_OF_FOLDER));
        fs::create_dir_all(&folder).expect("there is room");
        let path = folder.join(format!("file {index}.txt"));
        let size = if index % 100 == 0 { 200_000 } else { next() % 4000 };
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + index) as u8).collect();
        fs::write(&path, bytes).expect("there is room");
        let mode = [0o644, 0o600, 0o755, 0o444][next() % 4];
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        match index % 20 {
            3 => symlink(format!("file {}.txt", index - 1), folder.join(format!("symbolic {index}"))),
            7 => fs::hard_link(&path, folder.join(format!("hard {index}"))),
            11 => fs::create_dir(folder.join(format!("empty {index}"))),
            _ => Ok(()),
        }
        .expect("there is room");
    }
    let odd: [&[u8]; 5] = [b"\xff\xfe", b" ", b"-rf", b"new\nline", "\u{e4}\u{6f22}".as_bytes()];
    for name in odd {
        fs::write(root.join(OsStr::from_bytes(name)), name).expect("there is room");
    }
    fs::write(root.join("n".repeat(255)), b"long").expect("there is room");
    let sparse = fs::File::create(root.join("sparse")).expect("there is room");
    sparse.set_len(3 << 20).expect("a hole takes none");
    sh(root, "find . -type f -name '*3*' -exec touch -h -d '2001-02-03 04:05:06.789012345' {} +; sync -f .");
    sh(root, "touch -h -d 1969-12-31T23:59:58.5Z sparse; chmod 1777 0; chmod 2755 1");
}

/// Unpacked on the mount and packed again from there.
pub(crate) fn tar(place: &mut Place) {
    if !have(&["tar"]) {
        return;
    }
    let [mounted, local] = place.twins("tar");
    let source = local.join("source");
    fs::create_dir(&source).expect("a new name");
    plant(&source);
    sh(&local, "tar -C source --format=pax --sort=name -cf a.tar .");
    let there = format!(
        "mkdir there
tar -C there -xpf {archive}
tar -C there -df {archive}
tar -C there --format=pax --sort=name -cf b.tar .",
        archive = local.join("a.tar").display()
    );
    sh(&mounted, &there);
    same(&mounted.join("there"), &source, Depth::Everything);
    sh(&local, &format!("mkdir back; tar -C back -xpf {}", mounted.join("b.tar").display()));
    same(&local.join("back"), &source, Depth::Everything);
    sh(&mounted, "cp -a there again; rm -rf there; test \"$(ls)\" = \"$(printf 'again\\nb.tar')\"");
    same(&mounted.join("again"), &source, Depth::Everything);
    place.survives_a_new_mount();
    same(&mounted.join("again"), &source, Depth::Everything);
    sh(&mounted, "rm -rf again");
}

/// Copied to the mount, where a second run finds nothing to do and a third only what changed; and back.
pub(crate) fn rsync(place: &mut Place) {
    if !have(&["rsync"]) {
        return;
    }
    let [mounted, local] = place.twins("rsync");
    let source = local.join("source");
    fs::create_dir(&source).expect("a new name");
    plant(&source);
    // Else it takes two times within a second for the same.
    let rsync = "rsync --modify-window=-1";
    let (from, to) = (source.display(), mounted.display());
    sh(&local, &format!("{rsync} -aH {from}/ {to}/"));
    same(&mounted, &source, Depth::Everything);
    assert_eq!(sh(&local, &format!("{rsync} -aHi {from}/ {to}/")), "");
    sh(&source, "echo more >> '0/0/file 0.txt'; rm -rf 3; mv 4 new");
    let said = sh(&local, &format!("{rsync} -aHi --delete --delay-updates {from}/ {to}/"));
    assert!(said.contains("0/0/file 0.txt") && !said.contains("1/0/file 1.txt"), "{said}");
    same(&mounted, &source, Depth::Everything);
    // As the owner of the files does who updates them where they are, by checksum.
    sh(&source, "for file in 5/*/*0.txt; do echo more >> \"$file\"; done");
    sh(&local, &format!("{rsync} -aHc --inplace {from}/ {to}/; {rsync} -aHS {to}/ back/"));
    same(&local.join("back"), &source, Depth::Everything);
}
