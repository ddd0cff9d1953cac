//! `amoeba cc`: a compiler that runs on the host where it is done soonest, with the same files and the same result as here.
//!
//! [`mod@line`] says whether the command is a compilation that another host can do; everything else runs here at once, and so does
//! a compilation while a processor is free here, by becoming the compiler. [`trees`] says which files it sees elsewhere,
//! [`elsewhere`] runs it there. Whatever goes wrong there, it is compiled here: a compilation can be repeated, and what this
//! host says about it is what the person would have read anyway.

mod elsewhere;
mod line;
mod log;
mod trees;

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use amoeba_place::Need;
use anyhow::Context as _;
use clap::Args;

use crate::failure::Code;
use crate::graph::Graph;
use crate::launch::pool::{Pool, Target};
use crate::launch::{CANNOT_EXECUTE, NOT_FOUND};
use crate::{Context, Slot, Start, Turn};
use elsewhere::Job;
use line::Compilation;
use log::Log;

/// How long a compilation of C is guessed to run, besides its size;
const WORK_C: Duration = Duration::from_millis(60);
/// and of C++, which has more headers;
const WORK_CPP: Duration = Duration::from_millis(600);
/// and for each KiB of source. The guess decides where a compilation runs only when that hardly matters.
const WORK_PER_KIB: Duration = Duration::from_millis(4);
/// Bytes of compiler and headers that a host fetches before its first compilation, and keeps.
const TOOLS_SIZE: u64 = 40 << 20;

/// Run a compiler on whichever host has it done soonest
///
/// `make -j 20 CC="amoeba cc gcc"`: what compiles (-c with sources of C or C++) runs on another host when no processor is free
/// here and the run server expects it to be done sooner there; it sees the same files under the same names. Everything else is
/// the compiler itself, here. What cannot be done elsewhere is compiled here.
#[derive(Args)]
#[command(after_help = "Exit code: the compiler's.")]
pub(crate) struct Arguments {
    /// Append to FILE what ran where, a line of JSON each; also AMOEBA_CC_LOG
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Compile on this host, as long as it can be reached
    #[arg(long, value_name = "HOST")]
    on: Option<String>,
    /// The compiler and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMPILER")]
    command: Vec<OsString>,
}

/// What makes a compilation run here.
struct Here {
    why: String,
    /// Held while the compiler runs.
    slot: Option<Slot>,
}

impl Here {
    fn because(why: impl Into<String>) -> Here {
        Here { why: why.into(), slot: None }
    }
}

impl Arguments {
    /// The arguments after `cc`, if there is no option among them: nobody need parse them.
    pub(crate) fn plain(words: &[OsString]) -> Option<Arguments> {
        let first = words.first()?.to_str()?;
        let plain = !first.is_empty() && !first.starts_with('-');
        plain.then(|| Arguments { log: None, on: None, command: words.to_vec() })
    }

    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let log = Log::new(self.log.clone());
        let variable = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let here = match line::parse(&self.command, variable) {
            Err(why) => Here::because(why),
            Ok(compilation) => match self.compile(context, &log, &compilation)? {
                Ok(code) => return Ok(code),
                Err(here) => here,
            },
        };
        log.here(&self.command, &here.why);
        Err(match become_compiler(&self.command, here.slot) {
            Err(error) => error,
            Ok(never) => match never {},
        })
    }

    /// Compiles elsewhere, unless this host is better.
    ///
    /// # Errors
    /// The person has interrupted it.
    fn compile(
        &self,
        context: &mut Context<'_>,
        log: &Log,
        compilation: &Compilation,
    ) -> anyhow::Result<Result<ExitCode, Here>> {
        let (busy, slot) = match context.system.turn() {
            Turn::Here(slot) if self.on.is_none() => {
                return Ok(Err(Here { why: "a processor is free".into(), slot }));
            }
            Turn::Here(slot) => (0, slot),
            Turn::Ask { busy, slot } => (busy, slot),
        };
        let started = Instant::now();
        let job = match Job::new(&self.command, compilation) {
            Ok(job) => job,
            Err(why) => return Ok(Err(Here { why, slot })),
        };
        let (graph, pool, target) = match self.choose(context, compilation, busy) {
            Ok((_, _, target)) if target.is_here => {
                return Ok(Err(Here { why: "no other host has it done sooner".into(), slot }));
            }
            Ok(chosen) => chosen,
            Err(error) => return Ok(Err(Here { why: format!("{error:#}"), slot })),
        };
        // The processor is somebody else's meanwhile.
        drop(slot);
        let done = job.run(context, &graph, &pool, &target);
        pool.ended(&target);
        match done? {
            Ok(()) => {
                log.elsewhere(&self.command, &target.host, started.elapsed());
                Ok(Ok(ExitCode::SUCCESS))
            }
            Err(why) => Ok(Err(Here::because(format!("{} has not done it: {why}", target.host)))),
        }
    }

    fn choose(
        &self,
        context: &Context<'_>,
        compilation: &Compilation,
        busy: u32,
    ) -> anyhow::Result<(Graph, Pool, Target)> {
        let graph = Graph::new(context.system.connect(Start::Never)?);
        let pool = Pool::new(&graph)?;
        let target = match &self.on {
            Some(host) => pool.on(host)?,
            None => pool.ask(&need(&pool, compilation, busy)).context("nobody says which host")?,
        };
        Ok((graph, pool, target))
    }
}

fn need(pool: &Pool, compilation: &Compilation, busy: u32) -> Need {
    let size = |path: &Vec<u8>| std::fs::metadata(trees::path(path)).map_or(0, |metadata| metadata.len());
    let sources: u64 = compilation.sources.iter().map(size).fold(0, u64::saturating_add);
    let kib = u32::try_from(sources >> 10).unwrap_or(u32::MAX);
    let base = if compilation.is_cpp { WORK_CPP } else { WORK_C };
    Need {
        program: *b"compiler",
        text: TOOLS_SIZE,
        text_here: true,
        ship: sources,
        work: base.saturating_add(WORK_PER_KIB.saturating_mul(kib)),
        busy,
        ..pool.need()
    }
}

/// Becomes the compiler: what it is told, prints and returns is as if nothing had been in front of it. The slot goes with it,
/// and is free again when it has ended.
fn become_compiler(command: &[OsString], _slot: Option<Slot>) -> anyhow::Result<Infallible> {
    let (compiler, arguments) = command.split_first().context("there is no compiler")?;
    let error = Command::new(compiler).args(arguments).exec();
    let code = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE };
    Err(anyhow::Error::from(error).context(Code(code)).context(compiler.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        cc: Arguments,
    }

    #[test]
    fn a_compilers_options_are_its_own_whether_the_line_is_parsed_or_not() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let plain = Arguments::plain(&words("gcc --on x -c --help")).expect("no option of ours");
        assert_eq!((plain.command, plain.on, plain.log), (words("gcc --on x -c --help"), None, None));
        assert!(Arguments::plain(&words("--on x gcc")).is_none() && Arguments::plain(&[]).is_none());
        let line = words("cc --on bolt --log l gcc --on x -c --help -o -- y");
        let parsed = Line::try_parse_from(line).expect("the line is right").cc;
        assert_eq!(parsed.command, words("gcc --on x -c --help -o -- y"));
        assert_eq!((parsed.on.as_deref(), parsed.log), (Some("bolt"), Some("l".into())));
    }
}
