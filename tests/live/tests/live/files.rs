//! Names and files through the command line.

use std::os::unix::fs::PermissionsExt;

use crate::system::{System, random};

#[test]
fn what_is_put_is_got() {
    let system = System::up();
    for (name, size) in [("empty", 0), ("one", 1), ("page", 4096), ("large", 3_000_000)] {
        let bytes = random(size);
        system.write(name, &bytes);
        system.amoeba(&["put", name, name]).ok();
        system.amoeba(&["get", name, &format!("{name}.back")]).ok();
        assert!(std::fs::read(system.work().join(format!("{name}.back"))).unwrap() == bytes, "{name}");
        assert!(system.amoeba(&["cat", name]).ok().stdout == bytes, "{name} by cat");
    }
}

#[test]
fn files_come_from_standard_input_and_go_to_standard_output() {
    let system = System::up();
    let bytes = random(100_000);
    system.amoeba_with(&["put", "-", "stdin"], &bytes).ok();
    assert!(system.amoeba(&["get", "stdin", "-"]).ok().stdout == bytes);
}

#[test]
fn directories_copies_links_and_moves() {
    let system = System::up();
    system.amoeba(&["mkdir", "docs"]).ok();
    system.amoeba_with(&["put", "-", "docs/a"], b"alpha").ok();
    system.amoeba(&["cp", "docs/a", "docs/b"]).ok();
    system.amoeba(&["ln", "docs/a", "docs/c"]).ok();
    system.amoeba(&["mv", "docs/a", "docs/d"]).ok();
    system.amoeba(&["ls", "docs"]).ok().printed("b\nc\nd\n");
    for name in ["docs/b", "docs/c", "docs/d"] {
        system.amoeba(&["cat", name]).ok().printed("alpha");
    }
    system.amoeba(&["rm", "docs/b"]).ok();
    system.amoeba(&["cat", "docs/b"]).exit(1).complained("docs/b");
    system.amoeba(&["cat", "docs/c"]).ok().printed("alpha");
    let listed = system.json(&["ls", "--json", "docs"]).to_string();
    assert!(listed.contains("\"c\"") && listed.contains("\"d\""), "{listed}");
    system.amoeba(&["stat", "docs/c"]).ok();
    system.json(&["stat", "--json", "docs/c"]);
}

#[test]
fn a_stored_program_is_run_by_its_name() {
    let system = System::up();
    let script = system.write("greet", b"#!/bin/sh\necho greetings $1\nexit 4\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    system.amoeba(&["mkdir", "-p", "/bin"]).ok();
    system.amoeba(&["put", "greet", "/bin/greet"]).ok();
    std::fs::remove_file(&script).unwrap();
    system.amoeba(&["run", "--", "greet", "Andy"]).exit(4).printed("greetings Andy\n");

    let program = std::fs::canonicalize("/bin/echo").unwrap();
    system.amoeba(&["put", program.to_str().unwrap(), "/bin/stored-echo"]).ok();
    system.amoeba(&["run", "--", "stored-echo", "from", "bullet"]).ok().printed("from bullet\n");
}

#[test]
fn names_have_their_bounds() {
    let system = System::up();
    let longest = "n".repeat(255);
    system.amoeba_with(&["put", "-", &longest], b"fits").ok();
    system.amoeba(&["cat", &longest]).ok().printed("fits");
    let too_long = "n".repeat(256);
    system.amoeba_with(&["put", "-", &too_long], b"does not").exit(1).complained("255");
    system.amoeba(&["ls"]).ok().printed(&format!("{longest}\n"));
}

#[test]
fn a_path_through_a_file_is_refused() {
    let system = System::up();
    system.amoeba_with(&["put", "-", "file"], b"flat").ok();
    system.amoeba(&["cat", "file/inside"]).exit(1).complained("not a directory");
    system.amoeba_with(&["put", "-", "file/inside"], b"x").exit(1).complained("not a directory");
    system.amoeba(&["cat", "nobody/here"]).exit(1).complained("nobody");
    system.amoeba(&["mkdir", "file"]).exit(1).complained("exists");
}
