//! `amoeba kill`: a signal to a process.

use std::ffi::OsString;

use amoeba_stubs::process;
use clap::Args;

use super::processes;
use crate::Context;
use crate::out::Out;

/// Linux's signals by their numbers, from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// The largest number of a signal.
const SIGNAL_MAX: u8 = 64;

/// Send a signal to processes
///
/// KILL ends a process with everything it has started.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The signal, by name or number; `-KILL` and `-9` mean the same as `-s KILL`
    #[arg(short, long, value_name = "SIGNAL", default_value = "TERM", value_parser = parse_signal)]
    signal: u8,
    /// List the signals, with their numbers
    #[arg(short, long, conflicts_with = "processes")]
    list: bool,
    /// NUMBER or HOST:NUMBER as `amoeba ps -a` shows them, or paths or capabilities of processes
    #[arg(required_unless_present = "list", value_name = "PROCESS")]
    processes: Vec<OsString>,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        if self.list {
            return list(&mut context.out);
        }
        processes::for_each(context, &self.processes, |graph, process| {
            process::signal(graph.world(), process, self.signal)
        })
    }
}

fn list(out: &mut Out<'_>) -> anyhow::Result<()> {
    SIGNALS.iter().zip(1..).try_for_each(|(name, number)| out.line(format!("{number:>2} {name}")))
}

/// The number of a signal that is written `9`, `KILL`, `SIGKILL`, in either case.
pub(super) fn parse_signal(text: &str) -> Result<u8, String> {
    if let Ok(number) = text.parse::<u8>() {
        return if (1..=SIGNAL_MAX).contains(&number) {
            Ok(number)
        } else {
            Err("signals are 1 to 64".into())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let index = SIGNALS.iter().position(|known| *known == name);
    index
        .and_then(|index| u8::try_from(index + 1).ok())
        .ok_or_else(|| "no such signal; TERM, KILL, INT, HUP are some".into())
}

/// `kill -9 1` as people type it, in the form `kill --signal=9 1`.
pub(crate) fn signal_as_option(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|word| word == "kill") {
        let signal = arguments.get(2).and_then(|word| word.to_str()).and_then(|word| word.strip_prefix('-'));
        if let Some(number) = signal.and_then(|signal| parse_signal(signal).ok()) {
            arguments[2] = format!("--signal={number}").into();
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        let parse = |text| parse_signal(text).ok();
        assert_eq!(
            ["9", "KILL", "sigkill", "TERM", "WINCH", "64"].map(parse),
            [9, 9, 9, 15, 28, 64].map(Some)
        );
        assert_eq!(["0", "65", "KIL", "", "-9", "SIG"].map(parse), [None; 6]);
    }

    #[test]
    fn signals_are_listed_without_a_process() {
        let system = crate::testing::TestSystem::new();
        let ran = system.run(&["kill", "-l"]);
        assert!(ran.text().contains("\n 9 KILL\n") && ran.text().ends_with("31 SYS"), "{ran:?}");
        system.run(&["kill"]).failed(2, "");
    }

    #[test]
    fn a_dash_and_a_signal_is_an_option_of_kill_alone() {
        let rewritten = |words: &[&str]| {
            let words = signal_as_option(words.iter().map(OsString::from).collect());
            words.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(rewritten(&["am", "kill", "-9", "1"]), "am kill --signal=9 1");
        assert_eq!(rewritten(&["am", "kill", "-KILL", "1"]), "am kill --signal=9 1");
        assert_eq!(rewritten(&["am", "kill", "-s", "9"]), "am kill -s 9");
        assert_eq!(rewritten(&["am", "run", "-9"]), "am run -9");
        assert_eq!(rewritten(&["am"]), "am");
    }
}
