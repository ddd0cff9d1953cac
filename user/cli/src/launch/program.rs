//! From the first word of a command to a program.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use amoeba_process::{ProcessDescriptor, Program};

use crate::graph::{Graph, Kind};
use crate::place::Place;

/// Directories of the graph where programs are looked for by name alone, before the host's PATH.
const DIRECTORIES: [&[u8]; 2] = [b"/home/bin", b"/bin"];

/// The bits of a mode that let somebody execute a file.
const EXECUTABLE: u32 = 0o111;

/// What a word leads to.
pub(crate) enum Found {
    /// Something that may be executable.
    Program(Program),
    /// Nothing, here or in the graph.
    Nothing,
    /// Something that cannot be.
    NoProgram(&'static str),
}

/// Finds the program that `word` names for a process that runs in `directory`.
pub(crate) fn find(graph: &Graph, word: &OsStr, directory: &Path) -> anyhow::Result<Found> {
    match Place::parse(word)? {
        place @ Place::Capability(..) => in_graph(graph, &place),
        Place::Path(path) if path.contains(&b'/') => {
            let on_host = directory.join(word);
            match std::fs::metadata(&on_host) {
                Ok(metadata) if metadata.is_dir() => Ok(Found::NoProgram("is a directory")),
                Ok(_) => Ok(Found::Program(Program::HostPath(on_host.into_os_string().as_bytes().to_vec()))),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    Ok(Found::NoProgram("permission denied"))
                }
                Err(_) => in_graph(graph, &Place::Path(path)),
            }
        }
        Place::Path(name) => {
            for directory in DIRECTORIES {
                match in_graph(graph, &Place::Path(directory.to_vec()).child(&name))? {
                    Found::Nothing => {}
                    found => return Ok(found),
                }
            }
            Ok(Found::Program(Program::HostPath(name)))
        }
    }
}

fn in_graph(graph: &Graph, place: &Place) -> anyhow::Result<Found> {
    let Some(found) = graph.find(place)? else { return Ok(Found::Nothing) };
    let (replica, kind) = graph.answering(&found.set)?;
    Ok(match kind {
        Kind::File => Found::Program(Program::File(replica)),
        Kind::Directory => Found::NoProgram("is a directory"),
        _ => Found::NoProgram("is no file"),
    })
}

/// The files of this host that a descriptor's program may be: by its path, or all along the PATH that the process will have.
pub(crate) fn on_this_host(descriptor: &ProcessDescriptor) -> Vec<PathBuf> {
    let Program::HostPath(name) = &descriptor.program else { return Vec::new() };
    let name = Path::new(OsStr::from_bytes(name));
    let directory = Path::new(OsStr::from_bytes(&descriptor.working_directory));
    if name.as_os_str().as_bytes().contains(&b'/') {
        return Vec::from_iter(Some(directory.join(name)).filter(|path| path.is_file()));
    }
    let along = descriptor.environment.iter().find_map(|string| string.strip_prefix(b"PATH="));
    let parts = along.unwrap_or_default().split(|byte| *byte == b':').filter(|part| !part.is_empty());
    let paths = parts.map(|part| directory.join(OsStr::from_bytes(part)).join(name));
    let is_program = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.mode() & EXECUTABLE != 0)
    };
    paths.filter(is_program).collect()
}

/// The word for people: a capability is not repeated.
pub(crate) fn shown(word: &OsStr) -> String {
    Place::argument_shown(word)
}

/// The name a program is told it has: the word, unless that is a secret, or could be taken for an option.
pub(crate) fn told_name(word: &OsStr) -> Vec<u8> {
    match Place::parse_without_reading(word) {
        Ok(Place::Path(path)) if path == b"-" => b"stdin".to_vec(),
        Ok(Place::Path(path)) => path,
        _ => shown(word).into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestSystem;
    use std::os::fd::AsRawFd;

    const TEXT: &str = "1:2:3:4:5:6/7(FF)/A:B:C:D:E:F";

    fn found(system: &TestSystem, word: &str) -> String {
        match find(&system.graph(), OsStr::new(word), Path::new("/")).expect("the system answers") {
            Found::Program(Program::HostPath(path)) => format!("host {}", String::from_utf8_lossy(&path)),
            Found::Program(Program::File(_)) => "file".into(),
            Found::Program(_) => "another".into(),
            Found::Nothing => "nothing".into(),
            Found::NoProgram(why) => why.into(),
        }
    }

    #[test]
    fn the_graph_comes_before_the_path_and_the_host_before_the_graph() {
        let system = TestSystem::new();
        system.file("/bin/stored", b"#!/bin/sh");
        system.run(&["mkdir", "bin", "bin/folder"]).printed("");
        system.file("/home/bin/mine", b"#!/bin/sh");
        assert_eq!(found(&system, "sh"), "host sh");
        assert_eq!(found(&system, "stored"), "file");
        assert_eq!(found(&system, "mine"), "file");
        assert_eq!(found(&system, "folder"), "is a directory");
        assert_eq!(found(&system, "/bin/stored"), "file");
        assert_eq!(found(&system, "./dev/null"), "host /./dev/null");
        assert_eq!(found(&system, "/dev"), "is a directory");
        assert_eq!(found(&system, "no/such/program"), "nothing");
        assert_eq!(found(&system, "bin/mine/inside"), "nothing");
        let capability = system.run(&["cap", "show", "bin/mine"]);
        assert_eq!(found(&system, capability.text()), "file");
        assert_eq!(found(&system, &format!("cap:{}", capability.text())), "file");
        let local = std::env::temp_dir().join(format!("amoeba-program-{}", std::process::id()));
        std::fs::write(&local, capability.text()).expect("the temporary folder is ours");
        assert_eq!(found(&system, &format!("@{}", local.display())), "file");
        let open = std::fs::File::open(&local).expect("it was just written");
        assert_eq!(found(&system, &format!("fd:{}", open.as_raw_fd())), "file");
        std::fs::remove_file(&local).expect("it is ours");
    }

    #[test]
    fn a_program_is_told_its_name_but_no_secret() {
        assert_eq!(told_name(OsStr::from_bytes(b"a\xFF\n")), b"a\xFF\n");
        assert_eq!(told_name(OsStr::new(TEXT)), b"1:2:3:4:5:6/7(FF)");
        assert_eq!(told_name(OsStr::new("@p.cap")), b"@p.cap");
        assert_eq!(told_name(OsStr::new("-")), b"stdin");
    }
}
