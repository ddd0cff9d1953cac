//! Starting cargo and other programs in the project's root.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The project's root folder.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask is a folder of the root").to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Cargo, in the root, the one that started us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// How a person would have typed it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Runs it with our own stdout and stderr; an exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs it and returns its stdout; an exit status other than 0 is an error that quotes stderr.
pub(crate) fn capture(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

/// Runs a command and passes its stdout on line by line, those lines for which `keep` says so; whether it succeeded.
///
/// # Errors
/// It said nothing for as long as `silence`: then where its threads are is told, and it and what it started are killed.
pub(crate) fn stream(
    command: &mut Command,
    silence: Duration,
    mut keep: impl FnMut(&str) -> bool,
) -> Result<bool> {
    println!("$ {}", shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let stdout = child.stdout.take().expect("stdout was piped");
    // One line in flight: a reader that falls behind slows the command down instead of filling memory.
    let (sender, lines) = mpsc::sync_channel::<Vec<u8>>(1);
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
        lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
    });
    let mut out = std::io::stdout().lock();
    loop {
        match lines.recv_timeout(silence) {
            Ok(line) if keep(String::from_utf8_lossy(&line).trim_end()) => {
                out.write_all(&line)?;
                out.write_all(b"\n")?;
            }
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                for line in threads(&tree(child.id())) {
                    writeln!(out, "{line}")?;
                }
                kill_tree(&mut child)?;
                bail!("`{}` was silent for {silence:?} and was killed", shown(command));
            }
        }
    }
    Ok(child.wait()?.success())
}

/// A process and everything it started, parents first.
fn tree(root: u32) -> Vec<u32> {
    let parents = parents();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// What each process is, and the name of each of its threads, its state and where in the kernel it waits: a test's thread has
/// the test's name.
fn threads(processes: &[u32]) -> Vec<String> {
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let mut lines = Vec::new();
    for process in processes {
        let process = Path::new("/proc").join(process.to_string());
        lines.push(format!("{}: {}", process.display(), read(&process.join("cmdline")).replace('\0', " ")));
        for thread in std::fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
            let stat = read(&thread.path().join("stat"));
            let Some((name, rest)) = stat.rsplit_once(')') else { continue };
            let state = rest.split_whitespace().next().unwrap_or_default();
            let name = name.split_once('(').map_or(name, |(_, name)| name);
            lines.push(format!("  {name:<16} {state} {}", read(&thread.path().join("wchan"))));
        }
    }
    lines
}

/// Kills a child and everything it started.
pub(crate) fn kill_tree(child: &mut Child) -> Result<()> {
    let pids = tree(child.id()).into_iter().map(|pid| pid.to_string());
    // Some of them may be gone by now; the child itself cannot be, before it is waited for.
    Command::new("kill")
        .arg("-KILL")
        .args(pids)
        .stderr(Stdio::null())
        .status()
        .context("cannot start `kill`")?;
    child.wait()?;
    Ok(())
}

/// The parent of every process of this machine.
fn parents() -> BTreeMap<u32, u32> {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // pid (name) state parent …; the name may contain anything, but the last parenthesis ends it.
        let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        if let Some(parent) = after_name.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()) {
            parents.insert(pid, parent);
        }
    }
    parents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_are_seen_and_the_end_is_told() {
        let mut seen = Vec::new();
        let mut see = |line: &str| {
            seen.push(line.to_owned());
            false
        };
        assert!(stream(&mut sh("echo a; printf b"), Duration::from_secs(60), &mut see).unwrap());
        assert!(!stream(&mut sh("exit 3"), Duration::from_secs(60), &mut see).unwrap());
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn threads_are_told_by_name() {
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let body = move || {
            begin.send(()).unwrap();
            ended.recv().unwrap_err();
        };
        let thread = std::thread::Builder::new().name("a test".to_owned()).spawn(body).unwrap();
        begun.recv().unwrap();
        let told = threads(&[std::process::id()]);
        assert!(told[0].starts_with("/proc/") && told[0].contains("xtask"), "{told:?}");
        assert!(told.iter().any(|line| line.starts_with("  a test           ")), "{told:?}");
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn silence_ends_a_command_and_its_children() {
        let mut pid = String::new();
        let mut see = |line: &str| {
            pid = line.to_owned();
            false
        };
        let ended = stream(&mut sh("sleep 1000 & echo $!; wait"), Duration::from_millis(300), &mut see);
        assert!(ended.unwrap_err().to_string().contains("silent"));
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while alive() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
