//! What goes to stdout: lines, bytes, tables, or JSON.

use std::io::{self, Write};

use anyhow::Context;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

/// Standard output, or in a test what stands for it.
pub(crate) struct Out<'a> {
    to: Box<dyn Write + 'a>,
}

/// How the cells of a column are aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

impl<'a> Out<'a> {
    pub(crate) fn new(to: impl Write + 'a) -> Out<'a> {
        Out { to: Box::new(to) }
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.to.write_all(bytes).context("standard output")
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, line: impl AsRef<[u8]>) -> anyhow::Result<()> {
        self.bytes(line.as_ref())?;
        self.bytes(b"\n")
    }

    /// Prints a value as JSON, for programs: one document and a newline.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(value).context("cannot be said in JSON")?;
        self.line(text)
    }

    /// As [`Out::json`], but what is printed is never in memory as a whole; it may be fetched meanwhile.
    pub(crate) fn json_streamed(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut to = io::BufWriter::new(&mut *self.to);
        serde_json::to_writer_pretty(&mut to, value).map_err(|error| match error.is_io() {
            true => anyhow::Error::from(io::Error::from(error)).context("standard output"),
            false => anyhow::anyhow!("{error}"),
        })?;
        to.write_all(b"\n").and_then(|()| to.flush()).context("standard output")
    }

    /// Prints a table: columns by their headings, without frames, so that tools for text can cut it.
    pub(crate) fn table(&mut self, headings: &[(&str, Align)], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if headings.iter().any(|(heading, _)| !heading.is_empty()) {
            table.set_header(headings.iter().map(|(heading, _)| *heading));
        }
        table.add_rows(rows);
        for (column, (_, align)) in table.column_iter_mut().zip(headings) {
            column.set_padding((0, 2));
            if *align == Align::Right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.to_string().lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Hands over what is still on its way.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.to.flush().context("standard output")
    }
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A name for people: UTF-8, and nothing in it that a terminal would obey.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.chars().any(char::is_control) {
        text.chars()
            .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
            .collect()
    } else {
        text.into_owned()
    }
}

/// Bytes as people count them: three digits and a unit of 1024.
pub(crate) fn human_size(size: u64) -> String {
    let mut value = size as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1023.5 {
            let decimals = usize::from(unit != "B" && value < 9.95);
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// How many of something, in words.
pub(crate) fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

#[cfg(test)]
pub(crate) fn printed(print: impl FnOnce(&mut Out<'_>) -> anyhow::Result<()>) -> String {
    let mut bytes = Vec::new();
    print(&mut Out::new(&mut bytes)).expect("a vector takes every byte");
    String::from_utf8(bytes).expect("commands print UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_frames_and_no_spaces_at_the_end() {
        let rows = vec![vec!["1".into(), "sleep 1000".into()], vec!["12".into(), "x".into()]];
        let text = printed(|out| out.table(&[("PID", Align::Right), ("COMMAND", Align::Left)], rows));
        assert_eq!(text, "PID  COMMAND\n  1  sleep 1000\n 12  x\n");
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(printable("ü b".as_bytes()), "ü b");
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }

    #[test]
    fn sizes_have_three_digits() {
        let sizes = [0, 1023, 1024, 1536, 10 << 10, 1 << 20, (1 << 20) - 1, 1 << 40];
        let texts = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 KiB", "1.0 MiB", "1.0 MiB", "1.0 TiB"];
        assert_eq!(sizes.map(human_size), texts);
    }
}
