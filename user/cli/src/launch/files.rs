//! Files that go along with a process: brought into its scratch directory before it runs, fetched out of it afterwards.
//!
//! Both ways lead over the file server. A name in the scratch directory is one name: nothing leads out of it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use amoeba_cap::Capability;
use amoeba_process::{SCRATCH_FILES_MAX, Scratch, is_file_name};
use amoeba_stubs::bullet::COMMIT;
use amoeba_stubs::bullet_stream::{self, StreamError};
use amoeba_stubs::process::ResultRecord;
use amoeba_stubs::standard;
use amoeba_world::World;
use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use crate::failure::{Advise, FAILED};
use crate::graph::Graph;

/// What a person may say about files that go along.
#[derive(Args)]
pub(crate) struct FileOptions {
    /// Bring this file along, as NAME, into a fresh working directory there; may be given several times
    #[arg(long = "in", value_name = "FILE[=NAME]")]
    files: Vec<OsString>,
    /// Fetch this file back, written there as NAME, when the command has ended; may be given several times
    #[arg(long = "out", value_name = "FILE[=NAME]")]
    results: Vec<OsString>,
}

/// A local file, and its name in the scratch directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    local: PathBuf,
    name: Vec<u8>,
}

/// The files of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Luggage {
    files: Vec<Pair>,
    results: Vec<Pair>,
}

/// Files on the file server that one process is to have. They are destroyed when it is dropped.
pub(crate) struct Sent {
    world: World,
    pub(crate) scratch: Scratch,
}

/// Where files go through.
#[derive(Clone)]
pub(crate) struct Porter {
    world: World,
    server: Capability,
}

impl FileOptions {
    /// Whether a process of this command has a scratch directory.
    pub(crate) fn any(&self) -> bool {
        !self.files.is_empty() || !self.results.is_empty()
    }

    /// What the files that go along are called there, as far as that does not depend on an argument.
    pub(crate) fn names(&self) -> Vec<Vec<u8>> {
        self.files.iter().filter_map(|word| pair(word.as_bytes()).ok()).map(|pair| pair.name).collect()
    }

    /// The files, with `fill` applied to each word.
    ///
    /// # Errors
    /// A name that is no single name, or twice the same, or too many.
    pub(crate) fn luggage(&self, fill: impl Fn(&[u8]) -> Vec<u8>) -> anyhow::Result<Luggage> {
        let pairs = |words: &[OsString], option: &str| {
            let pairs = words.iter().map(|word| pair(&fill(word.as_bytes())));
            let pairs = pairs.collect::<anyhow::Result<Vec<Pair>>>().context(option.to_owned())?;
            if pairs.len() > SCRATCH_FILES_MAX {
                bail!("{option}: at most {SCRATCH_FILES_MAX} files");
            }
            let mut names: Vec<&[u8]> = pairs.iter().map(|pair| &pair.name[..]).collect();
            names.sort_unstable();
            if let Some(twice) = names.windows(2).find(|names| names[0] == names[1]) {
                bail!("{option}: two files would be called {}", String::from_utf8_lossy(twice[0]));
            }
            Ok(pairs)
        };
        Ok(Luggage { files: pairs(&self.files, "--in")?, results: pairs(&self.results, "--out")? })
    }
}

/// `FILE` or `FILE=NAME`. Without a name the file keeps its own, without its directories.
fn pair(word: &[u8]) -> anyhow::Result<Pair> {
    let shown = String::from_utf8_lossy(word).into_owned();
    let (local, name) = match word.iter().rposition(|byte| *byte == b'=') {
        Some(at) => (&word[..at], &word[at + 1..]),
        None => (word, Path::new(OsStr::from_bytes(word)).file_name().unwrap_or_default().as_bytes()),
    };
    if local.is_empty() || !is_file_name(name) {
        let hint = "FILE=NAME, where NAME is a name without directories";
        return Err(anyhow!("{shown:?} does not say how the file is called there")).hint(hint);
    }
    Ok(Pair { local: OsString::from_vec(local.to_vec()).into(), name: name.to_vec() })
}

impl Porter {
    /// Files go over the system's file server.
    pub(crate) fn new(graph: &Graph) -> anyhow::Result<Porter> {
        Ok(Porter { world: graph.world().clone(), server: graph.file_server()? })
    }

    /// Stores the files of a process where its host can read them.
    ///
    /// # Errors
    /// A file cannot be read, or the file server has no room.
    pub(crate) fn send(&self, luggage: &Luggage) -> anyhow::Result<Sent> {
        let results = luggage.results.iter().map(|pair| pair.name.clone()).collect();
        let scratch = Scratch { files: Vec::new(), results, store: self.server };
        let mut sent = Sent { world: self.world.clone(), scratch };
        for Pair { local, name } in &luggage.files {
            let shown = || local.display().to_string();
            let mut file = File::open(local).with_context(shown)?;
            if file.metadata().with_context(shown)?.is_dir() {
                bail!("{} is a directory", shown());
            }
            let stored = bullet_stream::write_file(&self.world, &self.server, COMMIT, &mut file);
            sent.scratch.files.push((name.clone(), stored.map_err(unwrapped).with_context(shown)?));
        }
        Ok(sent)
    }

    /// Fetches what a process has left. A local file appears when it is whole.
    ///
    /// # Errors
    /// What is missing, in the order it was asked for, when `complete`; a file that cannot be written.
    pub(crate) fn fetch(
        &self,
        luggage: &Luggage,
        left: &[ResultRecord],
        complete: bool,
    ) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        let mut failure = Ok(());
        for Pair { local, name } in &luggage.results {
            let shown = String::from_utf8_lossy(name);
            match left.iter().find(|result| result.name == *name) {
                None => missing.push(shown.into_owned()),
                Some(result) if result.file.is_null() => {
                    failure = failure.and(Err(anyhow!("{shown} could not be stored on the file server")));
                }
                Some(result) => {
                    let fetched = self.fetch_one(&result.file, local);
                    failure = failure.and(fetched.with_context(|| local.display().to_string()));
                    // It was made for us alone. If this fails, ageing takes it.
                    let _ = standard::destroy(&self.world, &result.file);
                }
            }
        }
        failure?;
        if complete && !missing.is_empty() {
            return Err(anyhow!("the command has not written {}", missing.join(", ")))
                .hint("--out FILE=NAME fetches what it calls NAME in its working directory")
                .code(FAILED);
        }
        Ok(())
    }

    fn fetch_one(&self, file: &Capability, local: &Path) -> anyhow::Result<()> {
        if local.exists() && !local.is_file() {
            // A device or a pipe is written to, not replaced.
            let mut to = File::options().write(true).open(local)?;
            return bullet_stream::read_file(&self.world, file, &mut to).map(drop).map_err(unwrapped);
        }
        let parent = local.parent().filter(|parent| !parent.as_os_str().is_empty());
        let unique = u64::from_ne_bytes(amoeba_world::random(&*self.world.entropy));
        let part = parent.unwrap_or(Path::new(".")).join(format!(".amoeba-out-{unique:016x}"));
        let mut to = File::create_new(&part)?;
        let whole = bullet_stream::read_file(&self.world, file, &mut to)
            .map_err(unwrapped)
            .and_then(|_| Ok(std::fs::rename(&part, local)?));
        if whole.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        whole
    }
}

impl Luggage {
    /// Bytes that are brought along, as far as that can be told.
    pub(crate) fn size(&self) -> u64 {
        let size = |pair: &Pair| pair.local.metadata().map_or(0, |metadata| metadata.len());
        self.files.iter().map(size).fold(0, u64::saturating_add)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        for (_, file) in &self.scratch.files {
            // It was made for one process alone. If this fails, ageing takes it.
            let _ = standard::destroy(&self.world, file);
        }
    }
}

fn unwrapped(error: StreamError) -> anyhow::Error {
    match error {
        StreamError::Server(refusal) => refusal.into(),
        StreamError::Local(error) => error.into(),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestSystem;
    use amoeba_stubs::bullet;

    fn options(files: &[&str], results: &[&str]) -> FileOptions {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect();
        FileOptions { files: words(files), results: words(results) }
    }

    #[test]
    fn files_keep_their_names_or_get_new_ones() {
        let pair = |word: &str| pair(word.as_bytes()).map(|pair| (pair.local, pair.name)).ok();
        let known = |local: &str, name: &str| Some((local.into(), name.as_bytes().to_vec()));
        assert_eq!(pair("a"), known("a", "a"));
        assert_eq!(pair("/x/y/a.c"), known("/x/y/a.c", "a.c"));
        assert_eq!(pair("../a=b"), known("../a", "b"));
        assert_eq!(pair("a=b=c"), known("a=b", "c"));
        for bad in ["", "=x", "a=", "a=b/c", "a=..", "a=.", "..", "/", "a=/etc/passwd"] {
            assert_eq!(pair(bad), None, "{bad}");
        }
        assert!(options(&["a/x", "b/x"], &[]).luggage(<[u8]>::to_vec).is_err());
        assert!(options(&["x"], &["x"]).luggage(<[u8]>::to_vec).is_ok());
    }

    #[test]
    fn what_is_sent_can_be_fetched_and_what_is_missing_is_named() {
        let system = TestSystem::new();
        let porter = Porter::new(&system.graph()).expect("there is a file server");
        let folder = std::env::temp_dir().join(format!("amoeba-cli-luggage-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder is ours");
        let (from, to) = (folder.join("from"), folder.join("to"));
        std::fs::write(&from, b"alpha").expect("the folder is ours");
        let text = |path: &Path, name: &str| format!("{}={name}", path.display());
        let options =
            options(&[&text(&from, "in")], &[&text(&to, "out"), &text(&folder.join("none"), "none")]);
        let luggage = options.luggage(<[u8]>::to_vec).expect("the names are good");
        assert_eq!(luggage.size(), 5);
        let sent = porter.send(&luggage).expect("the file is there");
        assert_eq!(sent.scratch.files[0].0, b"in");
        // As if the process had written what it read.
        let file = sent.scratch.files[0].1;
        let left = [ResultRecord { name: b"out".to_vec(), file }];
        let error = porter.fetch(&luggage, &left, true).expect_err("one is missing");
        assert_eq!(
            error.chain().last().map(ToString::to_string).as_deref(),
            Some("the command has not written none")
        );
        assert_eq!(std::fs::read(&to).expect("it was fetched"), b"alpha");
        assert!(porter.fetch(&luggage, &[], false).is_ok());
        drop(sent);
        assert!(bullet::size(system.graph().world(), &file).is_err(), "nothing is left on the server");
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).expect("it is ours").flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["from", "to"]);
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }
}
