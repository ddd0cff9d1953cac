//! Vim: backups, swap files, undo files, and an editor that is killed.

use std::fs;
use std::time::Duration;

use crate::place::Place;
use crate::shell::{Script, have, sh};
use crate::tree::{Depth, same};

/// Silent, without anybody's settings.
const VIM: &str = "vim -es -u NONE -i NONE -N";

/// Every way of writing a file back, each with a backup and an undo file.
pub(crate) fn edits(place: &mut Place) {
    if !have(&["vim"]) {
        return;
    }
    let folders = place.twins("vim");
    for copy in ["yes", "no", "auto"] {
        let script = format!(
            "
seq 1000 > {copy}.txt
chmod 640 {copy}.txt
ln -s {copy}.txt link-{copy}
{VIM} -c 'set backup backupskip= backupcopy={copy} undofile swapfile' -c '%s/^\\(.*\\)7$/seven \\1/' \\
    -c 'normal Gothe end' -c wq {copy}.txt
cmp {copy}.txt~ <(seq 1000)
{VIM} -c 'set backupcopy={copy} undofile backup backupskip=' -c 'g/3/d' -c 'w' -c 'normal u' -c 'wq' link-{copy}
{VIM} -c 'set undofile backupcopy={copy}' -c 'undo' -c 'undo' -c 'wq! undone-{copy}.txt' {copy}.txt || true
stat -c '%n %a %F %h' *
tail -1 {copy}.txt
test -z \"$(ls -A | grep -e '[.]sw' || true)\"
rm -f .*.un~"
        );
        let [mounted, local] = folders.each_ref().map(|folder| sh(folder, &script));
        assert_eq!(mounted, local);
        assert!(mounted.ends_with("\nthe end\n"), "{mounted}");
    }
    same(&folders[0], &folders[1], Depth::Contents);
}

/// Killed while it edits, Vim finds in its swap file what was not written.
pub(crate) fn recovers(place: &mut Place) {
    if !have(&["vim"]) {
        return;
    }
    let [mounted, _] = place.twins("recover");
    fs::write(mounted.join("text"), "first\n").expect("there is room");
    let edit = format!(
        "{VIM} -c 'set swapfile' -c 'normal osecond' -c preserve -c '!touch preserved; sleep 100' text"
    );
    let mut editor = Script::start(&mounted, &edit);
    while !mounted.join("preserved").exists() {
        assert!(editor.ended().is_none(), "{}", editor.said());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(mounted.join(".text.swp").exists());
    editor.kill();
    sh(&mounted, &format!("{VIM} -r -c 'w! recovered' -c 'q!' text"));
    assert_eq!(fs::read_to_string(mounted.join("recovered")).expect("it was written"), "first\nsecond\n");
    assert_eq!(fs::read_to_string(mounted.join("text")).expect("it is still there"), "first\n");
}
