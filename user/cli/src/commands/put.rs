//! `amoeba put`: local files into the system.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use amoeba_cap::{CapabilitySet, SET_MEMBERS_MAX};
use amoeba_world::Error as Refusal;
use anyhow::{Context as _, anyhow, bail};
use clap::{Args, value_parser};

use crate::failure::{Advise, Told, refusal};
use crate::graph::{Graph, Kind};
use crate::place::{self, Place};
use crate::progress::{Interrupt, Metered};
use crate::tree::{self, Report};
use crate::{Context, files, masks};

/// Store local files under names
///
/// Every FILE becomes a file on the file server, whole and on disk before its name appears. With several FILEs, or when
/// PATH is a directory, they keep their own names in it, and their modes, owners and times. A name that is there already is an error, unless it is to be
/// replaced: then it stands for the old file until it stands for the new one.
///
/// With -r a FILE may be a directory: PATH is then the name of the tree itself, unless it ends with `/` or there are several
/// FILEs. Modes, owners, times, extended attributes, symbolic and hard links are kept; pipes, sockets and devices are left
/// out. The tree gets its name when all of it is there; the same command again goes on where an earlier one was
/// interrupted, and carries only what is missing or has another size or time.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Replace what has the name; the old file itself is not destroyed
    #[arg(short = 'f', long)]
    replace: bool,
    /// Keep each FILE on so many file servers; it can be read as long as one of them is there
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u8).range(1..=SET_MEMBERS_MAX as i64))]
    copies: u8,
    /// Store directories with what is in them
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    tree: TreeOptions,
    /// Local files; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    /// A name, or a directory
    path: OsString,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        place::one_standard_input(self.files.iter().chain([&self.path]))?;
        let graph = context.graph()?;
        let target = graph.place(&self.path)?;
        let interrupt = Interrupt::catch(context.system.console(), &graph.world().threads)?;
        let mut gravest = Ok(());
        for file in &self.files {
            if self.recursive && file != "-" && Path::new(file).is_dir() {
                let stored = self.store(context, &graph, &interrupt, file, &target);
                match stored {
                    Err(error) if error.is::<Told>() => gravest = Err(error),
                    stored => stored?,
                }
                continue;
            }
            let local = Local::open(file)?;
            let to = graph.destination(&target, local.name.as_bytes(), self.files.len() > 1)?;
            refuse_taken(&graph, &to, self.replace)?;
            local.check()?;
            let mut from = Metered::new(context, &interrupt, local.shown.clone(), local.size, local.from);
            let made = files::write_copies(&graph, self.copies.into(), &mut from);
            let made = made.with_context(|| local.shown)?;
            enter(&graph, &to, made, self.replace, &local.attributes)?;
        }
        gravest
    }

    /// Stores a directory with what is in it.
    fn store(
        &self,
        context: &mut Context<'_>,
        graph: &Graph,
        interrupt: &Interrupt,
        directory: &OsStr,
        target: &Place,
    ) -> anyhow::Result<()> {
        let shown = directory.display().to_string();
        let path = std::fs::canonicalize(directory).with_context(|| shown.clone())?;
        let to = match path.file_name() {
            Some(name) if self.files.len() > 1 || target.is_directory() => target.child(name.as_bytes()),
            None if self.files.len() > 1 || target.is_directory() => bail!("{shown} has no name of its own"),
            _ => target.clone(),
        };
        let host = graph.session().host_name.as_bytes();
        let work = tree::work_name(".amoeba-put-", &[host, path.as_os_str().as_bytes(), to.last_name()]);
        let report = Report::new(context, interrupt, &shown);
        let options = tree::Store {
            graph,
            report: &report,
            replace: self.replace,
            copies: self.copies.into(),
            walk: self.tree.walk(),
        };
        let folder = amoeba_tree::Folder::open(&path).with_context(|| shown.clone())?;
        let whole = tree::put(&options, folder, directory.as_bytes(), &to, &work)?;
        let rest = to.parent().map(|parent| parent.child(&work).shown()).unwrap_or_default();
        self.tree.finish(context, report, whole, &format!("{} has no such name yet", to.shown()), || {
            format!(
                "the same command goes on from there; `amoeba rm -r --destroy {rest}` gives the room back"
            )
        })
    }
}

/// What a person may say of whole trees, stored or fetched.
#[derive(Args)]
pub(super) struct TreeOptions {
    /// With -r: compare the contents of files that are there already, not their times
    #[arg(short, long, requires = "recursive")]
    checksum: bool,
    /// With -r: finish the tree although some of it failed
    #[arg(long, requires = "recursive")]
    partial: bool,
    /// With -r: files that travel at the same time
    #[arg(short, long, value_name = "N", default_value_t = tree::PARALLEL, value_parser = value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// With -r: print what was done as JSON
    #[arg(long, requires = "recursive")]
    json: bool,
}

impl TreeOptions {
    pub(super) fn walk(&self) -> tree::Walk {
        tree::Walk { checksum: self.checksum, partial: self.partial, parallel: self.jobs }
    }

    /// Tells what has become of a tree; `unfinished` where it does not stand as it should, and `hint` what then.
    pub(super) fn finish(
        &self,
        context: &mut Context<'_>,
        report: Report,
        whole: bool,
        unfinished: &str,
        hint: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let interrupted = report.go_on();
        let summary = report.finish(whole);
        if self.json {
            context.out.json(&summary)?;
        }
        let told = summary.tell(context);
        if !whole {
            let text = format!("amoeba: {unfinished}\nhint: {}\n", hint());
            // Standard error may be closed; the exit code still tells.
            let _ = context.errors.write_all(text.as_bytes());
        }
        interrupted?;
        told
    }
}

/// Refuses a name that is taken, before anything is transferred in vain.
pub(super) fn refuse_taken(graph: &Graph, to: &Place, replace: bool) -> anyhow::Result<()> {
    let Some(found) = graph.lookup_if_there(to)? else { return Ok(()) };
    if !replace {
        return Err(anyhow!("{} exists already", to.shown())).hint("-f replaces it");
    }
    match graph.kind(&found.capability) {
        Ok(Kind::Directory) => bail!("{} is a directory", to.shown()),
        // What does not answer may be replaced too.
        _ => Ok(()),
    }
}

/// Names a new file; if that fails, the file is not kept.
pub(super) fn enter(
    graph: &Graph,
    to: &Place,
    file: CapabilitySet,
    replace: bool,
    attributes: &[u8],
) -> anyhow::Result<()> {
    let entered = graph.enter_with(to, &file, masks::of_object()?, replace, attributes);
    if let Err(error) = &entered
        && !matches!(refusal(error), Some(Refusal::MaybeExecuted(_) | Refusal::BadReply))
    {
        files::discard(graph, &file);
    }
    entered
}

/// A file of the caller's.
struct Local {
    from: Box<dyn Read>,
    size: Option<u64>,
    /// What its row is to say of it: mode, owner, group and times.
    attributes: Vec<u8>,
    /// Its own name, without directories; empty for standard input.
    name: OsString,
    shown: String,
}

/// Whether a standard stream is what Rust's runtime puts where the caller had left it closed: /dev/null, opened to read
/// and to write. `link` is where its descriptor leads, `facts` what /proc/self/fdinfo says of it.
fn was_closed(link: &std::path::Path, facts: &str) -> bool {
    const ACCESS: u32 = 3;
    const READ_AND_WRITE: u32 = 2;
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    link == "/dev/null" && flags.is_some_and(|flags| flags & ACCESS == READ_AND_WRITE)
}

impl Local {
    /// Refuses a standard input that is closed: an empty file is not what anybody meant.
    fn check(&self) -> anyhow::Result<()> {
        if !self.name.is_empty() {
            return Ok(());
        }
        let link = std::fs::read_link("/proc/self/fd/0").unwrap_or_default();
        let facts = std::fs::read_to_string("/proc/self/fdinfo/0").unwrap_or_default();
        if was_closed(&link, &facts) {
            return Err(anyhow!("standard input is closed")).hint("`< /dev/null` makes an empty file");
        }
        Ok(())
    }

    fn open(path: &OsStr) -> anyhow::Result<Local> {
        if path == "-" {
            let from = Box::new(std::io::stdin());
            let (name, shown) = (OsString::new(), "standard input".into());
            return Ok(Local { from, size: None, attributes: Vec::new(), name, shown });
        }
        let shown = path.display().to_string();
        let file = std::fs::File::open(path).with_context(|| shown.clone())?;
        let metadata = file.metadata().with_context(|| shown.clone())?;
        if metadata.is_dir() {
            return Err(anyhow!("{shown} is a directory")).hint("-r stores it with what is in it");
        }
        // Devices and what the kernel makes up say 0.
        let size = Some(metadata.len()).filter(|size| *size > 0);
        let name = std::path::Path::new(path).file_name().unwrap_or_default().to_owned();
        let attributes = tree::attributes_of(&file);
        Ok(Local { from: Box::new(file), size, attributes, name, shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestSystem;

    #[test]
    fn a_closed_standard_input_is_not_an_empty_file() {
        let null = Path::new("/dev/null");
        assert!(was_closed(null, "pos:\t0\nflags:\t0100002\nmnt_id:\t15\n"));
        assert!(!was_closed(null, "pos:\t0\nflags:\t0100000\n"));
        assert!(!was_closed(Path::new("/dev/pts/1"), "pos:\t0\nflags:\t0100002\n"));
        assert!(!was_closed(null, ""));
    }

    #[test]
    fn a_name_that_is_there_is_replaced_only_when_asked() {
        let system = TestSystem::new();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        system.file("/home/taken", b"old");
        let hint = "amoeba: taken exists already\nhint: -f replaces it\n";
        system.run(&["put", "/dev/null", "taken"]).failed(1, hint);
        system.run(&["cat", "taken"]).printed("old");
        system.run(&["put", "-f", "/dev/null", "taken"]).printed("");
        system.run(&["cat", "taken"]).printed("");
        system.run(&["put", file, "/dev/null", "/bin"]).printed("");
        system.run(&["ls", "/bin"]).printed("Cargo.toml\nnull\n");
        system.run(&["put", "-f", "/dev/null", "/home"]).printed("");
        system
            .run(&["put", "-f", "/dev/null", "/home/none/x"])
            .failed(1, "amoeba: /home/none/x: no such name (STD_NOTFOUND)\n");
        let no_directory = "amoeba: taken: not a directory\nhint: make it first: `amoeba mkdir`\n";
        system.run(&["put", "/dev/null", "/dev/null", "taken"]).failed(1, no_directory);
        system
            .run(&["put", "/no/such/file", "x"])
            .failed(1, "amoeba: /no/such/file: No such file or directory (os error 2)\n");
        system.run(&["put", "-", "-"]).failed(1, "amoeba: `-` can stand for standard input only once\n");
    }

    #[test]
    fn a_file_keeps_its_mode_and_times() {
        let system = TestSystem::new();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let kept = |name: &str| {
            let found = system.names().find(name.as_bytes()).expect("it was put");
            amoeba_name::Attributes::from_bytes(&found.attributes).expect("they were just written")
        };
        system.run(&["put", file, "a"]).printed("");
        let metadata = std::fs::metadata(file).expect("it is here");
        let mode = std::os::unix::fs::MetadataExt::mode(&metadata);
        assert_eq!(kept("/home/a").mode, Some(mode));
        assert!(kept("/home/a").modified.is_some() && kept("/home/a").owner.is_some());
        // What takes the place of another file has its own; of what is no file nothing is said.
        system.file("/home/b", b"old");
        system.run(&["put", "-f", file, "b"]).printed("");
        let (old, new) = (kept("/home/a"), kept("/home/b"));
        assert_eq!((new.mode, new.modified, new.owner), (old.mode, old.modified, old.owner));
        system.run(&["put", "/dev/null", "c"]).printed("");
        assert_eq!(system.names().find(b"/home/c").expect("it was put").attributes, b"");
    }

    #[test]
    fn copies_are_on_servers_of_their_own_and_any_of_them_is_the_file() {
        let system = TestSystem::new();
        let too_few = "amoeba: /dev/null: 2 copies are not possible: 1 file server takes one\n\
                       hint: `amoeba ls /profile/cap/bulletsvr` lists them, `amoeba status` tells who answers\n";
        system.run(&["put", "--copies", "2", "/dev/null", "a"]).failed(1, too_few);
        system.add_file_server("bolt");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let contents = std::fs::read_to_string(file).expect("it is here");
        system.run(&["put", "--copies", "2", file, "a"]).printed("");
        let found = system.names().find(b"/home/a").expect("it was put").set;
        let copies: Vec<_> = found.current().copied().collect();
        let [first, second] = copies[..] else { panic!("{copies:?}") };
        assert_ne!(first.port, second.port);
        assert!(system.run(&["stat", "a"]).text().contains("replicas  2\n"));
        let world = system.graph().world().clone();
        amoeba_stubs::standard::destroy(&world, &first).expect("it is ours");
        system.run(&["cat", "a"]).printed(&contents);
        system.run(&["cp", "a", "b"]).printed("");
        system.run(&["rm", "--destroy", "a"]).printed("");
        assert!(amoeba_stubs::bullet::size(&world, &second).is_err());
        system.run(&["cat", "b"]).printed(&contents);
    }
}
