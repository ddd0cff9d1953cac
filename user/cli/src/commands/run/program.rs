//! From the first word of a command to a program.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use amoeba_process::Program;

use crate::graph::{Graph, Kind};
use crate::place::Place;

/// Directories of the graph where programs are looked for by name alone, before the host's PATH.
const DIRECTORIES: [&[u8]; 2] = [b"/home/bin", b"/bin"];

/// What a word leads to.
pub(super) enum Found {
    /// Something that may be executable.
    Program(Program),
    /// Nothing, here or in the graph.
    Nothing,
    /// Something that cannot be.
    NoProgram(&'static str),
}

/// Finds the program that `word` names for a process that runs in `directory`.
pub(super) fn find(graph: &Graph, word: &OsStr, directory: &Path) -> anyhow::Result<Found> {
    match Place::parse_without_reading(word)? {
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
    Ok(match graph.kind(&found.capability)? {
        Kind::File => Found::Program(Program::File(found.capability)),
        Kind::Directory => Found::NoProgram("is a directory"),
        _ => Found::NoProgram("is no file"),
    })
}

/// The word for people: a capability is not repeated.
pub(super) fn shown(word: &OsStr) -> String {
    Place::parse_without_reading(word).map_or_else(|_| "the command".into(), |place| place.shown())
}
