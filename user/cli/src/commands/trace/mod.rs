//! `amoeba trace`: transactions and FLIP packets as they pass the kernel of this host.

mod decode;
mod pcap;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_wire::trace::Event;
use anyhow::{Context as _, anyhow};
use clap::Args;

use crate::failure::Advise;
use crate::place::Place;
use crate::progress::Interrupt;
use crate::{Context, TraceBatch, TraceOptions};
use pcap::Pcap;

/// How long one look takes when nothing passes.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Show transactions and packets as they pass the kernel of this host
///
/// For as long as it runs, no channel and no flow is introduced, so that transactions pass the kernel and are slower for
/// it; those that were there before go on unseen, unless --all ends them. Check fields, get-ports and data are not shown;
/// with --data, data are, and capabilities may be among them. What comes faster than it can be written is counted and
/// left out. It needs the system's secret: only the user whose system it is may do this. Ctrl-C ends it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the packets to a file too, for programs that analyse networks
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Only what the process of this number on this host does
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// Only transactions with this port: as in `1:2:3:4:5:6`, or the PATH of an object of the server
    #[arg(long)]
    port: Option<OsString>,
    /// End after so many lines
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Show the beginning of data too, with whatever secrets there are in them
    #[arg(long)]
    data: bool,
    /// End channels and flows that are there already: a transaction under way over one then fails, and may have been
    /// executed
    #[arg(long)]
    all: bool,
    /// Print JSON: an object a line
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let port = self.port.as_ref().map(|port| port_of(context, port)).transpose()?;
        let options = TraceOptions { pid: self.pid, port, data: self.data, all: self.all };
        let diagnosis = context.system.diagnosis().ok_or_else(|| anyhow!("nothing can be traced here"))?;
        let mut trace = diagnosis.trace(&options).hint(
            "it needs a system that runs, `amoeba up` starts one, and at most eight can look on at the same time",
        )?;
        let mut pcap = self.pcap.as_ref().map(create).transpose()?;
        let threads = context.graph()?.world().threads.clone();
        let interrupt = Interrupt::catch(context.system.console(), &threads)?;
        let (mut shown, mut dropped) = (0, 0);
        while interrupt.check().is_ok() && self.count.is_none_or(|count| shown < count) {
            let batch = trace.next(LOOK_INTERVAL)?;
            dropped += batch.dropped;
            shown += self.show(context, &batch, self.count.map(|count| count - shown), pcap.as_mut())?;
            if let Some(pcap) = &mut pcap {
                pcap.flush().context("the file of packets")?;
            }
            context.out.flush()?;
        }
        if dropped > 0 {
            // Standard error may be closed; the lines that are missing say so themselves.
            let _ = writeln!(context.errors, "amoeba: {dropped} records came too fast and were left out");
        }
        Ok(())
    }

    /// Shows at most `limit` records; how many.
    fn show(
        &self,
        context: &mut Context<'_>,
        batch: &TraceBatch,
        limit: Option<u64>,
        mut pcap: Option<&mut Pcap<BufWriter<std::fs::File>>>,
    ) -> anyhow::Result<u64> {
        if batch.dropped > 0 {
            let line = match self.json {
                true => serde_json::json!({ "dropped": batch.dropped }).to_string(),
                false => format!("({} records came too fast and were left out)", batch.dropped),
            };
            context.out.line(line)?;
        }
        let mut shown = 0;
        for record in &batch.records {
            if limit.is_some_and(|limit| shown >= limit) {
                break;
            }
            if let (Some(pcap), Event::Packet { inward, link, peer, size, bytes }) =
                (pcap.as_deref_mut(), &record.event)
            {
                let packet = pcap::Packet { inward: *inward, link: *link, peer, size: *size, bytes };
                pcap.write(record.time, &packet).context("the file of packets")?;
            }
            let line = match self.json {
                true => decode::json(record).to_string(),
                false => decode::line(record),
            };
            context.out.line(line)?;
            shown += 1;
        }
        Ok(shown)
    }
}

/// A port in words, or that of an object.
fn port_of(context: &Context<'_>, text: &OsString) -> anyhow::Result<PutPort> {
    if let Some(port) = text.to_str().and_then(|text| text.parse().ok()) {
        return Ok(port);
    }
    let graph = context.graph()?;
    let found = graph.lookup(&graph.place(text)?);
    let found = found.with_context(|| format!("--port {}", Place::argument_shown(text)))?;
    Ok(found.capability.port)
}

/// The file of packets, for its owner alone.
fn create(path: &PathBuf) -> anyhow::Result<Pcap<BufWriter<std::fs::File>>> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    Pcap::new(BufWriter::new(file)).with_context(|| path.display().to_string())
}
