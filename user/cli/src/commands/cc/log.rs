//! What ran where, for people who want to know: a line of JSON for each command, appended to a file.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// The environment string that names the file.
const VARIABLE: &str = "AMOEBA_CC_LOG";

/// See the module. A log that cannot be written stops no compilation.
pub(super) struct Log(Option<PathBuf>);

#[derive(Serialize)]
struct Line<'a> {
    /// Null: this host.
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    command: Vec<String>,
}

impl Log {
    /// The file, or the one that the environment names.
    pub(super) fn new(file: Option<PathBuf>) -> Log {
        let named = || std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        Log(file.or_else(named))
    }

    /// It runs here, and why.
    pub(super) fn here(&self, command: &[OsString], why: &str) {
        self.line(|command| Line { host: None, ms: None, why: Some(why), command }, command);
    }

    /// It ran on `host` and took so long.
    pub(super) fn elsewhere(&self, command: &[OsString], host: &str, time: Duration) {
        let ms = u64::try_from(time.as_millis()).ok();
        self.line(|command| Line { host: Some(host), ms, why: None, command }, command);
    }

    fn line<'a>(&self, line: impl FnOnce(Vec<String>) -> Line<'a>, command: &[OsString]) {
        let Some(path) = &self.0 else { return };
        let words = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let Ok(text) = serde_json::to_string(&line(words)) else { return };
        // One write, so that lines of several do not mix.
        let file = File::options().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()));
    }
}
