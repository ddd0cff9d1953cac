//! Git: histories that come out the same to the last commit number, and are whole.

use crate::place::Place;
use crate::shell::{have, sh};
use crate::tree::{Depth, same};

/// Whoever runs the tests, whenever: the numbers of commits depend on nothing but the files.
const SETTING: &str = "
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE='2026-01-01 00:00:00 +0000' GIT_COMMITTER_DATE='2026-01-01 00:00:00 +0000'
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
";

const HISTORY: &str = "
git init -q -b main repository
cd repository
for i in $(seq 200); do mkdir -p d$((i % 7)); echo \"file $i\" > d$((i % 7))/f$i; done
ln -s d1 link
chmod +x d2/f2
git add -A
git commit -q -m first
for i in $(seq 8); do
    seq $((i * 100)) >> d3/f3
    echo $i > new$i
    git add -A
    git commit -q -m \"change $i\"
done
git checkout -q -b side HEAD~4
git mv d1 moved
git commit -q -m moved
git checkout -q main
git merge -q -m merged side
git rebase -q --onto side~2 side~1 side
git checkout -q main
git tag -a -m tagged v1
echo change >> d4/f4
git stash -q
git stash pop -q
git checkout -q -- d4/f4
git status --porcelain
git rev-parse main side v1
git ls-tree -r main
";

/// A repository with branches, renames and merges, packed; the same as one made locally.
pub(crate) fn keeps_its_history(place: &mut Place) {
    if !have(&["git"]) {
        return;
    }
    let script = format!(
        "{SETTING}{HISTORY}
git gc -q --aggressive --prune=now
git fsck --full --strict
git count-objects -v | grep -e '^count: 0' -e '^garbage: 0'
git log --format=%H --all"
    );
    let [mounted, local] = place.twins("work");
    assert_eq!(sh(&mounted, &script), sh(&local, &script));
    same(&mounted.join("repository/d3"), &local.join("repository/d3"), Depth::Contents);
    sh(&mounted, "rm -rf repository/.git; test -d repository/d2; rm -rf repository; test -z \"$(ls -A)\"");
}

/// Clones by hard links, by packs, into the mount and out of it.
pub(crate) fn clones(place: &mut Place) {
    if !have(&["git"]) {
        return;
    }
    let [mounted, local] = place.twins("clones");
    sh(&local, &format!("{SETTING}{HISTORY}"));
    let outside = local.display();
    let script = format!(
        "{SETTING}
git clone -q --no-local file://{outside}/repository in
git clone -q in linked
git clone -q --no-hardlinks in copied
git clone -q --bare in bare
git clone -q --no-local file://$PWD/in {outside}/out
for one in in linked copied bare {outside}/out; do git -C $one fsck --full --strict --no-dangling; done
cd linked
git worktree add -q ../second v1
echo pushed > pushed
git add pushed
git commit -q -m pushed
git push -q ../bare main
git -C ../bare log --format=%s -1 main
cd ../copied
git pull -q ../bare main
git status --porcelain
cat pushed"
    );
    assert_eq!(sh(&mounted, &script), "pushed\npushed\n");
    for clone in ["in", "second"] {
        sh(&mounted, &format!("rm -rf {clone}/.git"));
    }
    sh(&local, "rm -rf repository/.git out/.git");
    same(&mounted.join("in"), &local.join("repository"), Depth::Contents);
    same(&mounted.join("second"), &local.join("out"), Depth::Contents);
}
