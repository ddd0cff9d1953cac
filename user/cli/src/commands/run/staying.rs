//! What stays behind of `run -d` when the process sees files of this host: the same command once more, in the background. It
//! serves them until the process has ended, and its log says what could not be brought home.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};

use amoeba_world::World;
use anyhow::{Context as _, anyhow, bail};

use crate::Context;
use crate::failure::{Advise, FAILED, Told};
use crate::launch::{Launcher, Started};
use crate::place::Place;

/// The option of the one that stays.
pub(super) const OPTION: &str = "--stay";
/// Commands of one user that stay at the same time.
const STAYING_MAX: usize = 256;
/// Stands behind what is printed when the process runs.
const END: u8 = 0;
/// Bytes of a log that are repeated when the start fails.
const SAID_MAX: u64 = 1 << 16;

/// Starts the same command again, to stay; returns when the process runs. `command` is the process's own.
///
/// # Errors
/// It does not run; why was told.
pub(super) fn leave_behind(context: &mut Context<'_>, command: &[OsString]) -> anyhow::Result<ExitCode> {
    let staying = context.system.staying().context("nothing can stay behind here")?;
    let mut log = match staying.folder()? {
        Some(folder) => take_log(&folder).with_context(|| folder.display().to_string())?,
        None => amoeba_tree::nameless()?,
    };
    let (words, capability) = line(std::env::args_os().collect(), command)?;
    let mut staying = staying.command()?;
    staying.args(words).stdout(Stdio::piped()).stderr(log.try_clone()?);
    staying.stdin(if capability.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = staying.spawn().context("cannot start what is to stay behind")?;
    if let (Some(mut input), Some(capability)) = (child.stdin.take(), capability) {
        // If it has ended already, it has said why.
        let _ = input.write_all(capability.as_bytes());
    }
    let started = what_it_prints(&mut child)?;
    log.seek(SeekFrom::Start(0))?;
    let mut said = Vec::new();
    log.take(SAID_MAX).read_to_end(&mut said)?;
    // Standard error may be closed; the exit code still tells.
    let _ = io::stderr().write_all(&said);
    let Some(started) = started else {
        let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
        return Err(Told(code.unwrap_or(super::OUR_FAULT)).into());
    };
    let printed = context.out.bytes(&started).and_then(|()| context.out.flush());
    printed.context("the process runs, but that cannot be said").code(FAILED)?;
    Ok(ExitCode::SUCCESS)
}

/// Says that the process runs, and serves it to its end if it needs that.
pub(super) fn stay(
    context: &mut Context<'_>,
    world: &World,
    launcher: &Launcher,
    started: &Started,
    json: bool,
) {
    // Whoever started this one may be gone; the process runs all the same.
    let _ = context.out.bytes(&[END]).and_then(|()| context.out.flush());
    if !started.needs_us {
        return;
    }
    if let Some(staying) = context.system.staying() {
        staying.enter_background();
    }
    // However it has ended, or if nobody knows: there is nothing more to serve.
    let _ = started.target.wait(world, &started.process);
    if let Some(sight) = &launcher.sight {
        sight.tell(json);
    }
}

/// The words of the command that stays, and what it is to read: a capability that is read here it gets by its standard input.
fn line(mut words: Vec<OsString>, command: &[OsString]) -> anyhow::Result<(Vec<OsString>, Option<String>)> {
    let program = words.len().checked_sub(command.len()).filter(|at| *at >= 2);
    let program = program.context("the command is no longer on the line")?;
    let mut capability = None;
    if words[program] == "-" || words[program].as_bytes().starts_with(b"fd:") {
        let Place::Capability(read, ..) = Place::parse(&words[program])? else {
            bail!("{} is no capability", words[program].display());
        };
        capability = Some(read.to_text());
        words[program] = "-".into();
    }
    // Behind the name of the program and `run`.
    words.insert(2, OPTION.into());
    words.remove(0);
    Ok((words, capability))
}

/// What it prints when the process runs; `None` if it has ended instead.
fn what_it_prints(child: &mut Child) -> anyhow::Result<Option<Vec<u8>>> {
    let mut printed = Vec::new();
    let output = child.stdout.take().expect("it was asked for");
    BufReader::new(output).read_until(END, &mut printed)?;
    Ok(if printed.pop() == Some(END) { Some(printed) } else { None })
}

/// An empty log that nobody else has: whoever writes to it holds the lock, as long as it runs.
fn take_log(folder: &Path) -> anyhow::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for number in 0..STAYING_MAX {
        let path = folder.join(format!("{number}.log"));
        let mut options = File::options();
        let log = options.read(true).append(true).create(true).mode(0o600).open(&path)?;
        match log.try_lock() {
            Ok(()) => {
                log.set_len(0)?;
                return Ok(log);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Err(anyhow!("{STAYING_MAX} detached processes see files of this host"))
        .hint("wait for one of them, or let it see its host's own files: `--view host`")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_same_line_stays_and_a_capability_is_not_on_it() {
        let (line_of, command) = (words("amoeba run -d --with /srv -- make -j"), words("make -j"));
        let (staying, capability) = line(line_of, &command).expect("the command is there");
        assert_eq!((staying, capability), (words("run --stay -d --with /srv -- make -j"), None));
        assert!(line(words("amoeba run"), &words("a b c")).is_err());
        let text = "1:2:3:4:5:6/7(FF)/A:B:C:D:E:F";
        let file = std::env::temp_dir().join(format!("amoeba-cli-staying-{}", std::process::id()));
        fs::write(&file, text).expect("the temporary folder is ours");
        let open = File::open(&file).expect("it was just written");
        let word = format!("fd:{}", std::os::fd::AsRawFd::as_raw_fd(&open));
        let (staying, capability) =
            line(words(&format!("amoeba run -d {word} x")), &words(&format!("{word} x"))).expect("it is one");
        assert_eq!((staying, capability.as_deref()), (words("run --stay -d - x"), Some(text)));
        fs::remove_file(&file).expect("it is ours");
    }

    #[test]
    fn logs_are_taken_once_and_given_back() {
        let folder = std::env::temp_dir().join(format!("amoeba-cli-logs-{}", std::process::id()));
        let mut taken: Vec<File> = (0..STAYING_MAX).map(|_| take_log(&folder).expect("it is free")).collect();
        assert!(take_log(&folder).is_err());
        taken[7].write_all(b"what went wrong").expect("it is ours");
        let other = taken[7].try_clone().expect("descriptors are not so few");
        drop(taken.remove(7));
        assert!(take_log(&folder).is_err(), "whoever stays still has it");
        drop(other);
        assert_eq!(take_log(&folder).expect("it is free").metadata().expect("it is open").len(), 0);
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}
