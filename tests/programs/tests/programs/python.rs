//! Python: an environment on the mount, and what its standard library does with files.

use std::fs;

use crate::place::Place;
use crate::shell::{have, sh};

const PROGRAM: &str = r#"
import compileall, fcntl, json, mmap, os, pathlib, shelve, shutil, sqlite3, stat, sys, tempfile, zipfile
from concurrent.futures import ThreadPoolExecutor

here = pathlib.Path(sys.argv[1])
assert sys.prefix == str(here / "environment"), sys.prefix
import package.part
assert package.part.answer() == 42
assert (here / "environment/lib").exists()

os.mkdir(here / "tree")
def write(index):
    path = here / "tree" / f"{index}.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"index": index, "text": "x" * index}))
    os.replace(temporary, path)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(write, range(300)))
assert sorted(os.listdir(here / "tree")) == sorted(f"{index}.json" for index in range(300))
shutil.copytree(here / "tree", here / "copy")
assert all(json.loads((here / "copy" / f"{index}.json").read_text())["index"] == index for index in range(300))
shutil.make_archive(str(here / "tree"), "zip", here / "tree")
with zipfile.ZipFile(here / "tree.zip") as archive:
    assert archive.testzip() is None and len(archive.namelist()) >= 300

with open(here / "mapped", "wb+") as file:
    file.truncate(1 << 20)
    with mmap.mmap(file.fileno(), 1 << 20) as map:
        for at in range(0, 1 << 20, 4096):
            map[at:at + 8] = at.to_bytes(8, "big")
        map.flush()
    file.seek(4096 * 77)
    assert int.from_bytes(file.read(8), "big") == 4096 * 77
assert (here / "mapped").read_bytes()[4096 * 200:][:8] == (4096 * 200).to_bytes(8, "big")

with shelve.open(str(here / "shelf")) as shelf:
    for index in range(100):
        shelf[str(index)] = list(range(index))
with shelve.open(str(here / "shelf"), "r") as shelf:
    assert len(shelf) == 100 and shelf["99"] == list(range(99))

with tempfile.TemporaryFile(dir=here) as file:
    file.write(b"nameless")
    file.seek(0)
    assert file.read() == b"nameless"
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
with tempfile.NamedTemporaryFile(dir=here) as file:
    assert stat.S_IMODE(os.stat(file.name).st_mode) == 0o600
assert compileall.compile_dir(here / "package", quiet=1, force=True)
shutil.rmtree(here / "copy")
os.link(here / "mapped", here / "second")
assert os.path.samefile(here / "mapped", here / "second")
fd = os.open(here, os.O_RDONLY)
os.fsync(fd)
os.copy_file_range(os.open(here / "mapped", os.O_RDONLY), os.open(here / "ranged", os.O_CREAT | os.O_WRONLY), 1 << 20)
assert (here / "ranged").read_bytes() == (here / "mapped").read_bytes()
print("done")
"#;

/// A virtual environment with links and one with copies, a package of compiled modules, threads, archives, mappings.
pub(crate) fn runs_in_an_environment(place: &mut Place) {
    if !have(&["python3"]) {
        return;
    }
    let [mounted, _] = place.twins("python");
    fs::create_dir(mounted.join("package")).expect("a new name");
    fs::write(mounted.join("package/__init__.py"), "").expect("there is room");
    fs::write(mounted.join("package/part.py"), "def answer():\n    return 42\n").expect("there is room");
    fs::write(mounted.join("program.py"), PROGRAM).expect("there is room");
    let script = "
python3 -m venv --without-pip environment
. environment/bin/activate
export PYTHONPATH=.
test \"$(command -v python)\" = $PWD/environment/bin/python
python program.py $PWD
ls package/__pycache__ | grep -q part
python3 -m venv --without-pip --copies copied
cp environment/pyvenv.cfg environment/again.cfg
copied/bin/python -c 'import sys; print(sys.prefix.split(\"/\")[-1])'";
    assert_eq!(sh(&mounted, script), "done\ncopied\n");
}
