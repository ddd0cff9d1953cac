//! Rows of `mount` for file systems of others: NFS, 9P and sshfs on this host, by the harness of the storage peers.
//!
//! Equal durability twice: files that are durable under their names when each is done (written, synced, renamed), by the
//! harness's own load for all; and files that are written and closed, beside sshfs, which promises as little then.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::graph_mount::{Rate, Step};
use crate::report::{Row, Unit};
use crate::rounds::Scope;
use crate::storage::peers::{Peers, Table};

const KIB: usize = 1 << 10;
const WRITERS: usize = 8;
/// What the harness calls them, and what people do.
const NAMES: [(&str, &str); 3] = [("nfs3", "NFS v3 (ganesha)"), ("9p", "9P (diod)"), ("sshfs", "sshfs")];

/// Those that start here.
pub(crate) struct FilePeers {
    peers: Option<Peers>,
    there: Vec<(&'static str, &'static str)>,
}

impl FilePeers {
    /// Starts them; one that does not start is told and left out. Their data goes to `data`.
    pub(crate) fn start(data: PathBuf) -> FilePeers {
        let peers = Peers::find(data);
        let mut there = Vec::new();
        for (name, title) in NAMES {
            let options = peers.as_ref().map(|peers| peers.options(Table::Files, name));
            match options {
                Some(Ok(_)) => there.push((name, title)),
                Some(Err(error)) => eprintln!("mount: {title} is left out: {error:#}"),
                None => eprintln!("mount: {title} is left out: the harness is not there"),
            }
        }
        FilePeers { peers, there }
    }

    /// Every row; `home` is a directory of ours.
    pub(crate) fn rows(&self, scope: &Scope, home: &Path, local: &Path, rate: Rate) -> Result<Vec<Row>> {
        let Some(peers) = &self.peers else { return Ok(Vec::new()) };
        let files = |directory: &Path| {
            let options = ["kind=mount".to_owned(), format!("dir={}", directory.display())];
            peers.load(Table::Files, ("mount", &options), "create", (KIB, WRITERS), scope.time)
        };
        let row = |name, ours, beside, value| Row {
            target: Some(0.5),
            ..Row::new(name, Unit::PerSecond, ours, beside, value)
        };
        let durable = "graph: write 1 KiB, sync, rename, 8 writers";
        let (ours, limit) = (files(home)?.rate, files(local)?.rate);
        let mut rows = vec![Row { target: None, ..row(durable, ours, "local file system", limit) }];
        for (name, title) in &self.there {
            let theirs = peers.measure(Table::Files, name, "create", (KIB, WRITERS), scope.time)?.rate;
            rows.push(row(durable, ours, title, theirs));
        }
        if self.there.iter().any(|(name, _)| *name == "sshfs") {
            let options = peers.options(Table::Files, "sshfs")?;
            let place = options.iter().find_map(|option| option.strip_prefix("dir="));
            let create: Step =
                |directory, index| std::fs::write(directory.join(format!("closed{index}")), [7; KIB]);
            let place = Path::new(place.unwrap_or_default());
            let (ours, theirs) = (rate(scope, home, WRITERS, create)?, rate(scope, place, WRITERS, create)?);
            rows.push(row("graph: create, write 1 KiB, close, 8 writers", ours, "sshfs", theirs));
        }
        Ok(rows)
    }
}
