//! The benchmark `build`: make of a project of C with the compilers of three hosts, beside distcc on the same hosts and beside
//! make on one; and what the wrapper costs a compilation that stays here.
//!
//! All hosts share the processors of this machine, so nothing can be won by spreading: the ratio says what spreading costs.

use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::harness::Figures;
use crate::ours::{System, enter};
use crate::report::{Report, Unit};
use crate::rounds::{Beside, Group, Measure, Scope, rounds};

/// Hosts that the benchmark wants.
pub(crate) const HOSTS: usize = 3;
/// First argument of this program when it becomes another one on a host.
pub(crate) const ON_HOST: &str = "on-host";

/// Sources of the project, besides the main program.
const SOURCES: usize = 60;
/// Functions of each.
const FUNCTIONS: usize = 24;
/// Headers that each includes, besides the system's.
const INCLUDES: usize = 8;
/// Compilations at the same time.
const JOBS: &str = "-j6";
/// Small compilations, one after the other, in one timed run.
const SMALL: usize = 20;
const DISTCC_PORT: &str = "3632";
/// How long a compiler's daemon may take to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// What `make` is told to compile with.
#[derive(Clone)]
struct With {
    compiler: String,
    environment: Vec<(String, String)>,
}

/// Measures everything.
pub(crate) fn run(scope: &Scope) -> Result<Report> {
    let system = System::of_environment()?;
    let project = Project::make(&system)?;
    let daemons = Daemons::start(&system)?;
    let mut rows = Vec::new();
    for group in groups(&system, &project, &daemons) {
        if group.name.contains(&scope.pattern) {
            rows.extend(rounds(&system, &group, scope.rounds)?);
        }
    }
    let method = format!(
        "median of {} rounds after a first one that does not count, {SOURCES} sources, make {JOBS}; results compared byte for byte; \
         {HOSTS} {}, all on the same processors",
        scope.rounds,
        system.place()
    );
    Ok(Report { name: "build", method, rows })
}

/// What this program does as a process on another host: becomes `command` there.
pub(crate) fn on_host(directory: &Path, command: &[&str]) -> Result<()> {
    enter(directory)?;
    let [program, arguments @ ..] = command else { bail!("there is no command") };
    Err(Command::new(program).args(arguments).exec()).with_context(|| (*program).to_owned())
}

fn groups<'a>(system: &'a System, project: &'a Project, daemons: &'a Daemons) -> Vec<Group<'a>> {
    let seconds = |figures: &Figures| figures.p50 / 1e3;
    let group = |name: &str, ours: Measure<'a>, besides| Group {
        name: name.to_owned(),
        unit: Unit::Millis,
        value: seconds,
        ours,
        path: &["UDP packets sent"],
        besides,
    };
    let here = || project.with("gcc", &[]);
    let wrapped = |options: &str| {
        let compiler = format!("{} cc {options}gcc", system.binary().display());
        project.with(&compiler, &[("AMOEBA_STATE", system.directory(0)), ("AMOEBA_CC_LOG", &project.log())])
    };
    let distcc = |hosts: &str| {
        let folder = project.folder.join("distcc");
        project.with("distcc gcc", &[("DISTCC_HOSTS", Path::new(hosts)), ("DISTCC_DIR", &folder)])
    };
    let beside = |name, target, measure| Beside { name, target: Some(target), measure };
    let mut all = vec![beside("make on one host", 1.05, project.build(here()))];
    let mut others = vec![beside("make on one host", 2.0, project.build(here()))];
    let mut small = vec![beside("the compiler alone", 1.05, project.small(here()))];
    if let Some(addresses) = daemons.addresses() {
        let spread = format!("localhost/2 {}", addresses.join(" "));
        all.push(beside("distcc, the same hosts", 1.0, project.build(distcc(&spread))));
        others.push(beside("distcc, the same host", 1.0, project.build(distcc(&addresses[0]))));
        small.push(beside("distcc, on this host", 1.0, project.small(distcc("localhost"))));
    }
    let only = format!("--on {} ", system.name(1));
    vec![
        group("make -j6, three hosts", project.build(wrapped("")), all),
        group("make -j6, all on one other host", project.build(wrapped(&only)), others),
        group("20 small files, one by one, here", project.small(wrapped("")), small),
    ]
}

/// A project of C in a folder of its own.
struct Project {
    folder: PathBuf,
}

impl Project {
    /// Makes the project, and builds it once with the compiler of this host.
    fn make(system: &System) -> Result<Project> {
        let folder =
            std::env::temp_dir().canonicalize()?.join(format!("amoeba-bench-build-{}", std::process::id()));
        let project = Project { folder };
        for part in ["tree/src", "tree/include", "distcc"] {
            std::fs::create_dir_all(project.folder.join(part))?;
        }
        let tree = project.tree();
        for number in 0..SOURCES {
            std::fs::write(tree.join(format!("include/part{number}.h")), header(number))?;
            std::fs::write(tree.join(format!("src/part{number}.c")), source(number))?;
        }
        std::fs::write(tree.join("src/main.c"), main_source())?;
        std::fs::write(tree.join("Makefile"), MAKEFILE)?;
        eprintln!("on {}: the first build", system.name(0));
        project.make_all(&project.with("gcc", &[]))?;
        std::fs::rename(tree.join("out"), project.folder.join("expected"))?;
        Ok(project)
    }

    fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Where `amoeba cc` tells what ran where.
    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn with(&self, compiler: &str, environment: &[(&str, &Path)]) -> With {
        let text = |(name, value): &(&str, &Path)| ((*name).to_owned(), value.display().to_string());
        With { compiler: compiler.to_owned(), environment: environment.iter().map(text).collect() }
    }

    fn command(&self, program: &str, with: &With) -> Command {
        let mut command = Command::new(program);
        let tree = self.tree();
        command.current_dir(&tree).env("PWD", &tree).envs(with.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn make_all(&self, with: &With) -> Result<Duration> {
        let start = Instant::now();
        let status =
            self.command("make", with).args([JOBS, "-s", &format!("CC={}", with.compiler)]).status()?;
        ensure!(status.success(), "make with {} ended with {status}", with.compiler);
        Ok(start.elapsed())
    }

    /// A timed build of all, whose objects are compared; the first one does not count.
    fn build<'a>(&'a self, with: With) -> Measure<'a> {
        let warm = std::cell::Cell::new(false);
        Box::new(move || {
            if !warm.replace(true) {
                self.build_once(&with)?;
            }
            let time = self.build_once(&with)?;
            self.tell_places();
            Ok(Figures { p50: time.as_secs_f64() * 1e6, ..Figures::default() })
        })
    }

    fn build_once(&self, with: &With) -> Result<Duration> {
        let out = self.tree().join("out");
        match std::fs::remove_dir_all(&out) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let _ = std::fs::remove_file(self.log());
        let time = self.make_all(with)?;
        // distcc preprocesses here and compiles what comes of it: other debug information is its right.
        if !with.compiler.starts_with("distcc") {
            self.compare()?;
        }
        Ok(time)
    }

    fn compare(&self) -> Result<()> {
        for entry in std::fs::read_dir(self.folder.join("expected"))? {
            let entry = entry?;
            let made = std::fs::read(self.tree().join("out").join(entry.file_name()))?;
            ensure!(made == std::fs::read(entry.path())?, "{} is another file", entry.file_name().display());
        }
        Ok(())
    }

    /// Small compilations, one after the other, through the same words that make uses.
    fn small<'a>(&'a self, with: With) -> Measure<'a> {
        Box::new(move || {
            std::fs::write(self.tree().join("small.c"), "int small;\n")?;
            let words: Vec<&str> = with.compiler.split(' ').collect();
            let start = Instant::now();
            for _ in 0..SMALL {
                let mut command = self.command(words[0], &with);
                let status = command.args(&words[1..]).args(["-c", "-o", "small.o", "small.c"]).status()?;
                ensure!(status.success(), "{} ended with {status}", with.compiler);
            }
            Ok(Figures { p50: start.elapsed().as_secs_f64() * 1e6, ..Figures::default() })
        })
    }

    /// Says on which hosts the last build ran.
    fn tell_places(&self) {
        let Ok(log) = std::fs::read_to_string(self.log()) else { return };
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut places = std::collections::BTreeMap::new();
        for line in lines {
            *places.entry(line["host"].as_str().unwrap_or("here").to_owned()).or_insert(0) += 1;
        }
        let told: Vec<String> = places.iter().map(|(place, count)| format!("{place} {count}")).collect();
        eprintln!("  compiled: {}", told.join(", "));
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The daemons of distcc on the other hosts, where it is installed.
struct Daemons {
    children: Vec<Child>,
    addresses: Vec<String>,
}

impl Daemons {
    fn start(system: &System) -> Result<Daemons> {
        let mut daemons = Daemons { children: Vec::new(), addresses: Vec::new() };
        if Command::new("distccd").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("distcc is not installed, and left out");
            return Ok(daemons);
        }
        for host in 1..HOSTS {
            let address = system.address(host).to_string();
            let directory = system.directory(host).display().to_string();
            let mut command = Command::new(std::env::current_exe()?);
            command.args([ON_HOST, &directory, "distccd", "--daemon", "--no-detach", "--listen", &address]);
            command.args([
                "--port",
                DISTCC_PORT,
                "--allow",
                "0.0.0.0/0",
                "--jobs",
                "4",
                "--log-level",
                "critical",
            ]);
            command.args(["--enable-tcp-insecure", "--log-stderr"]).env("TMPDIR", "/tmp").process_group(0);
            daemons.children.push(command.stdin(Stdio::null()).spawn().context("starting distccd")?);
            daemons.wait_for(&address)?;
            daemons.addresses.push(format!("{address}:{DISTCC_PORT}/4"));
        }
        Ok(daemons)
    }

    fn wait_for(&self, address: &str) -> Result<()> {
        let start = Instant::now();
        while std::net::TcpStream::connect(format!("{address}:{DISTCC_PORT}")).is_err() {
            ensure!(start.elapsed() < START_MAX, "distccd does not listen on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn addresses(&self) -> Option<&[String]> {
        (!self.addresses.is_empty()).then_some(&self.addresses)
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
                // Its children, which compile, are in a group with it.
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
        }
    }
}

const MAKEFILE: &str = "\
CFLAGS = -g -O2 -Wall -Iinclude -MMD -MP
OBJECTS = $(patsubst src/%.c,out/%.o,$(wildcard src/*.c))
out/program: $(OBJECTS)
\tgcc -o $@ $^
out/%.o: src/%.c
\t@mkdir -p out
\t$(CC) $(CFLAGS) -c -o $@ $<
";

fn header(number: usize) -> String {
    format!(
        "#pragma once\n#include <stddef.h>\nstruct part{number} {{ int values[{}]; char *name; }};\n\
         int use{number}(struct part{number} *part, size_t count);\n",
        number + 3
    )
}

fn source(number: usize) -> String {
    let mut text =
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n".to_owned();
    for other in 0..INCLUDES {
        writeln!(text, "#include \"part{}.h\"", (number + other) % SOURCES)
            .expect("a string takes everything");
    }
    let mut sum = String::new();
    for function in 0..FUNCTIONS {
        write!(
            text,
            "static int step{function}(const int *a, size_t n, int k) {{\n\
             \x20   int r = {number};\n\
             \x20   for (size_t i = 0; i < n; i++) {{\n\
             \x20       for (int j = 0; j < k; j++) r += a[i] * a[(size_t)j % n] ^ (r >> {});\n\
             \x20       switch (r & 15) {{ case 1: r *= 3; break; case 2: r -= {function}; break; default: r ^= k * 7; }}\n\
             \x20   }}\n\
             \x20   return r;\n}}\n",
            function % 7
        )
        .expect("a string takes everything");
        write!(sum, " + step{function}(part->values, count, {function})").expect("a string takes everything");
    }
    write!(
        text,
        "int use{number}(struct part{number} *part, size_t count) {{\n\
         \x20   printf(\"%s:%d %s %zu\\n\", __FILE__, __LINE__, part->name, strlen(part->name));\n\
         \x20   return 0{sum};\n}}\n"
    )
    .expect("a string takes everything");
    text
}

fn main_source() -> String {
    let includes: String = (0..SOURCES).map(|number| format!("#include \"part{number}.h\"\n")).collect();
    format!("{includes}int main(void) {{ return 0; }}\n")
}
