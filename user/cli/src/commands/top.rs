//! `amoeba top`: hosts and processes, again every second.

use std::io;
use std::time::{Duration, Instant};

use amoeba_stubs::process::{ProcessRecord, STATE_EXITED};
use anyhow::Context as _;
use clap::Args;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::host::{self, Host};
use super::ps::{self, Asked};
use crate::failure::Advise;
use crate::launch::pool::Pool;
use crate::out::Out;
use crate::{Context, Standard};

/// How often the screen is drawn anew.
const INTERVAL: Duration = Duration::from_secs(1);
/// Lines that hosts may take of the screen before processes are pushed out.
const HOST_LINES_MAX: usize = 20;

/// Show hosts and processes, again every second
///
/// The processes that have used most processor time come first. `q` ends it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print them once, as plain text
    #[arg(long)]
    once: bool,
}

/// What is shown.
struct View {
    hosts: Vec<Host>,
    asked: Asked,
    now: u64,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let graph = context.graph()?;
        let pool = Pool::new(&graph)?;
        if self.once {
            let (hosts, processes) = View::look(&pool)?.texts()?;
            context.out.bytes(hosts.as_bytes())?;
            context.out.line("")?;
            return context.out.bytes(processes.as_bytes());
        }
        if !context.is_terminal(Standard::Output) || !context.is_terminal(Standard::Input) {
            return Err(anyhow::anyhow!("standard input and output are no terminal"))
                .hint("--once prints it once");
        }
        let mut terminal = ratatui::try_init().context("the terminal")?;
        let shown = watch(&pool, &mut terminal);
        ratatui::try_restore().context("the terminal")?;
        shown
    }
}

fn watch(pool: &Pool, terminal: &mut ratatui::DefaultTerminal) -> anyhow::Result<()> {
    loop {
        let next = Instant::now() + INTERVAL;
        let (hosts, processes) = View::look(pool)?.texts()?;
        terminal.draw(|frame| draw(frame, &hosts, &processes)).context("the terminal")?;
        while let Some(time) = next.checked_duration_since(Instant::now()) {
            if event::poll(time).context("the terminal")? {
                match event::read().context("the terminal")? {
                    event if is_end(&event) => return Ok(()),
                    Event::Resize(..) => {
                        terminal.draw(|frame| draw(frame, &hosts, &processes)).context("the terminal")?;
                    }
                    _ => {}
                }
            }
        }
    }
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

impl View {
    fn look(pool: &Pool) -> anyhow::Result<View> {
        let hosts = pool.hosts()?.iter().map(Host::from).collect();
        let mut asked = ps::everywhere(pool)?;
        asked.records.retain(|(_, record)| record.state != STATE_EXITED);
        asked.records.sort_by_key(|(_, record)| std::cmp::Reverse(processor_time(record)));
        Ok(View { hosts, asked, now: pool.world().clock.unix_time().as_secs() })
    }

    /// The table of hosts and the table of processes.
    fn texts(&self) -> anyhow::Result<(String, String)> {
        let hosts = text(|out| host::print(out, &self.hosts, self.now))?;
        let mut processes = text(|out| ps::print(out, &self.asked.records, true, self.now))?;
        for (host, why) in &self.asked.silent {
            processes.push_str(&format!("host {host} {why}\n"));
        }
        Ok((hosts, processes))
    }
}

fn processor_time(record: &ProcessRecord) -> u64 {
    record.user_microseconds.saturating_add(record.system_microseconds)
}

fn text(print: impl FnOnce(&mut Out<'_>) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    print(&mut Out::new(&mut bytes))?;
    String::from_utf8(bytes).map_err(|error| io::Error::other(error).into())
}

fn draw(frame: &mut Frame<'_>, hosts: &str, processes: &str) {
    let host_lines = u16::try_from(hosts.lines().count().min(HOST_LINES_MAX)).unwrap_or(u16::MAX);
    let areas = [Constraint::Length(host_lines + 1), Constraint::Min(1), Constraint::Length(1)];
    let [above, below, last] = Layout::vertical(areas).areas(frame.area());
    frame.render_widget(table(hosts), above);
    frame.render_widget(table(processes), below);
    frame.render_widget(Line::from("q: quit").style(Style::new().add_modifier(Modifier::DIM)), last);
}

/// A table whose first line stands out.
fn table(text: &str) -> Paragraph<'_> {
    let heading = Style::new().add_modifier(Modifier::REVERSED);
    let line = |(number, line)| if number == 0 { Line::styled(line, heading) } else { Line::from(line) };
    Paragraph::new(text.lines().enumerate().map(line).collect::<Vec<Line<'_>>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyEvent;

    #[test]
    fn hosts_are_above_and_processes_below() {
        let mut terminal = Terminal::new(TestBackend::new(20, 6)).expect("there is room");
        terminal.draw(|frame| draw(frame, "HOST  STATE\nanvil up\n", "ID\n 1\n")).expect("it is drawn");
        let buffer = terminal.backend().buffer();
        let row = |y: u16| (0..20).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        assert_eq!([0, 1, 2, 3, 4, 5].map(row), ["HOST  STATE", "anvil up", "", "ID", " 1", "q: quit"]);
    }

    #[test]
    fn the_keys_that_end_it() {
        let key = |code, modifiers| is_end(&Event::Key(KeyEvent::new(code, modifiers)));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE) && key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(!key(KeyCode::Char('c'), KeyModifiers::NONE) && !is_end(&Event::FocusGained));
    }
}
