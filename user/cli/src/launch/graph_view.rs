//! `--view graph`: processes see the directory graph, and of their host only what every program needs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use amoeba_cap::Capability;
use amoeba_name::Names;
use amoeba_process::{ProcessDescriptor, Program, View};
use anyhow::{Context as _, anyhow};
use clap::Args;

use crate::failure::Advise;
use crate::graph::{self, Graph};
use crate::place::Place;

/// Directories along which programs are looked for before those of PATH.
const PATH: &str = "/home/bin:/bin";

/// What a person may say about it.
#[derive(Args, Clone, Debug)]
pub(crate) struct GraphOptions {
    /// With `--view graph`: the directory of the graph that is the root, instead of that of your directories
    #[arg(long, value_name = "PATH")]
    root: Option<OsString>,
}

/// The part of the graph that the processes of one command see.
pub(crate) struct GraphView {
    root: Capability,
    /// Where relative paths begin, in what they see.
    directory: PathBuf,
    /// Environment strings that mean something else there, unless the person has set them.
    environment: Vec<(&'static str, OsString)>,
}

impl GraphOptions {
    /// What processes are to see, of the directories below `root`, if that `is_chosen`; they work in `directory`, if the person
    /// says where. `set` are environment strings that the person has set.
    ///
    /// # Errors
    /// Options that contradict each other; the directory that is to be the root is not there.
    pub(crate) fn find(
        &self,
        graph: &Graph,
        root: Capability,
        is_chosen: bool,
        directory: Option<&Path>,
        set: &[(OsString, OsString)],
    ) -> anyhow::Result<Option<GraphView>> {
        if !is_chosen {
            return match self.root {
                Some(_) => Err(anyhow!("--root is for the directory graph")).hint("`--view graph` shows it"),
                None => Ok(None),
            };
        }
        let (root, home, base) = match &self.root {
            Some(place) => (graph.directory(&below(graph, root, Place::parse(place)?)?)?, "/", b"/".to_vec()),
            None => {
                let home = std::str::from_utf8(graph::HOME).expect("it is a word");
                (root, home, Graph::work_path()?)
            }
        };
        // A path that begins with `/` replaces what it is joined to.
        let base = PathBuf::from(OsString::from_vec(base));
        let directory = directory.map_or(base.clone(), |directory| base.join(directory));
        let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
        let path = path.map_or_else(
            || PATH.into(),
            |path| {
                let parts = [OsStr::new(PATH), &path];
                parts.join(OsStr::new(":"))
            },
        );
        let mut environment = vec![("HOME", home.into()), ("PATH", path)];
        environment.retain(|(name, _)| set.iter().all(|(said, _)| said != name));
        Ok(Some(GraphView { root, directory, environment }))
    }
}

/// The place that a path leads to as whoever has only `root` sees it; a capability is what it is.
fn below(graph: &Graph, root: Capability, place: Place) -> anyhow::Result<Place> {
    let Place::Path(path) = &place else { return Ok(place) };
    let path = amoeba_name::path::join(&Graph::work_path()?, path).with_context(|| place.shown())?;
    let found = Names::new(graph.world(), root).resolve(&path).with_context(|| place.shown())?;
    Ok(Place::Capability(found, Vec::new(), Some(place.shown())))
}

impl GraphView {
    /// The program that `word` names: a path in what is seen, or a name along PATH. `None` for a capability.
    pub(crate) fn program(&self, word: &OsStr) -> anyhow::Result<Option<Program>> {
        let Place::Path(path) = Place::parse(word)? else { return Ok(None) };
        if !path.contains(&b'/') {
            return Ok(Some(Program::HostPath(path)));
        }
        let path = self.directory.join(OsStr::from_bytes(&path));
        Ok(Some(Program::HostPath(path.into_os_string().into_encoded_bytes())))
    }

    /// Lets the process of a descriptor see it.
    pub(crate) fn describe(&self, descriptor: &mut ProcessDescriptor) {
        descriptor.view = View::Graph(self.root);
        descriptor.working_directory = self.directory.as_os_str().as_bytes().to_vec();
        for (name, value) in &self.environment {
            let name = [name.as_bytes(), b"="].concat();
            descriptor.environment.retain(|string| !string.starts_with(&name));
            descriptor.environment.push([&name, value.as_bytes()].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestSystem;

    fn found(system: &TestSystem, root: Option<&str>, directory: Option<&str>) -> GraphView {
        let options = GraphOptions { root: root.map(OsString::from) };
        let graph = system.graph();
        let root = graph.confined_root().expect("it has one");
        let found = options.find(&graph, root, true, directory.map(Path::new), &[]);
        found.expect("it is there").expect("it was chosen")
    }

    fn path(view: &GraphView, word: &str) -> Option<String> {
        match view.program(OsStr::new(word)).expect("it is a word") {
            Some(Program::HostPath(path)) => Some(String::from_utf8(path).expect("it is text")),
            _ => None,
        }
    }

    #[test]
    fn programs_and_directories_are_those_of_the_graph() {
        let system = TestSystem::new();
        let view = found(&system, None, None);
        assert_eq!(path(&view, "cc"), Some("cc".into()));
        assert_eq!(path(&view, "/bin/cc"), Some("/bin/cc".into()));
        assert_eq!(path(&view, "./cc"), Some("/home/./cc".into()));
        assert_eq!(path(&view, "1:2:3:4:5:6/7(FF)/A:B:C:D:E:F"), None);
        let mut descriptor = ProcessDescriptor::new("", Program::HostPath(b"cc".to_vec()), Vec::new());
        descriptor.environment = vec![b"HOME=/root".to_vec(), b"HOMES=2".to_vec()];
        view.describe(&mut descriptor);
        let root = system.graph().confined_root().expect("it has one");
        assert_eq!((root.rights(), descriptor.view), (amoeba_name::CONFINED_ROOT, View::Graph(root)));
        assert_eq!(descriptor.working_directory, b"/home");
        assert_eq!(descriptor.environment[..2], [b"HOMES=2".to_vec(), b"HOME=/home".to_vec()]);
        assert!(descriptor.environment[2].starts_with(b"PATH=/home/bin:/bin"));
    }

    #[test]
    fn another_directory_may_be_the_root() {
        let system = TestSystem::new();
        system.run(&["mkdir", "there"]).printed("");
        let view = found(&system, Some("there"), Some("work"));
        assert_ne!(view.root, system.graph().session().root);
        assert_eq!(path(&view, "./cc"), Some("/work/./cc".into()));
        let options = GraphOptions { root: Some("there".into()) };
        let root = system.graph().session().root;
        assert!(options.find(&system.graph(), root, false, None, &[]).is_err());
        system.file("/home/file", b"x");
        let options = GraphOptions { root: Some("file".into()) };
        let error = options.find(&system.graph(), root, true, None, &[]).err().expect("it is no directory");
        assert_eq!(error.to_string(), "file is a file, not a directory");
    }
}
