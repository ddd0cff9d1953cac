//! Rows of `mount` for what people do with files all day: a clone of a repository, and a build, beside the same on the local file
//! system.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::report::{Row, Unit};

/// Files of the repository and commits in which they came.
const FILES: usize = 2000;
const COMMITS: usize = 10;
/// Sources of the program, and functions of each.
const SOURCES: usize = 60;
const FUNCTIONS: usize = 40;
const LOCAL: &str = "local file system";

/// Both rows, in two new directories.
pub(crate) fn rows(ours: &Path, local: &Path) -> Result<Vec<Row>> {
    repository(&local.join("repository"))?;
    let source = format!("file://{}/repository", local.display());
    let clone = |folder: &Path| timed(folder, "git", &["clone", "-q", &source, "clone"]);
    let (cloned, beside) = (clone(ours)?, clone(local)?);
    sources(ours)?;
    sources(local)?;
    let make = |folder: &Path| timed(folder, "make", &["-s", "-j2"]);
    let (made, made_locally) = (make(ours)?, make(local)?);
    let built = |folder: &Path| fs::read(folder.join("program"));
    ensure!(built(ours)? == built(local)?, "the two programs differ");
    let row = |name, ours, beside, target| Row {
        target: Some(target),
        ..Row::new(name, Unit::Millis, ours, LOCAL, beside)
    };
    Ok(vec![
        row("graph: git clone of 2,000 files", cloned, beside, 2.0),
        row("graph: make -j2 of 60 files of C", made, made_locally, 1.3),
    ])
}

/// Milliseconds until it has ended well.
fn timed(folder: &Path, program: &str, arguments: &[&str]) -> Result<f64> {
    let start = Instant::now();
    run(folder, program, arguments)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "a").env(format!("GIT_{role}_EMAIL"), "a@b");
    }
    let status = command.env("GIT_CONFIG_GLOBAL", "/dev/null").status()?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}

fn repository(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    run(folder, "git", &["init", "-q"])?;
    for index in 0..FILES {
        let directory = folder.join(format!("d{}", index % 50));
        fs::create_dir_all(&directory)?;
        let text: String = (0..index % 200).map(|line| format!("line {line} of file {index}\n")).collect();
        fs::write(directory.join(format!("f{index}")), text)?;
        if (index + 1) % (FILES / COMMITS) == 0 {
            run(folder, "git", &["add", "-A"])?;
            run(folder, "git", &["commit", "-q", "-m", "more"])?;
        }
    }
    Ok(())
}

fn sources(folder: &Path) -> Result<()> {
    let mut main =
        String::from("#include <stdio.h>\n#include \"all.h\"\nint main(void) {\n    long x = 1;\n");
    let mut all = String::from("#pragma once\n#include <stdlib.h>\n#include <string.h>\n");
    for file in 0..SOURCES {
        let mut text = String::from("#include \"all.h\"\n");
        for function in 0..FUNCTIONS {
            let name = format!("f{file}_{function}");
            writeln!(
                text,
                "long {name}(long x) {{\n    char text[64];\n    memset(text, (int)x, sizeof text);"
            )?;
            writeln!(text, "    for (int i = 0; i < 64; i++)\n        x = x * 31 + text[i] + {function};")?;
            writeln!(text, "    return labs(x);\n}}")?;
            writeln!(all, "long {name}(long x);")?;
            writeln!(main, "    x = {name}(x);")?;
        }
        fs::write(folder.join(format!("part{file}.c")), text)?;
    }
    main += "    printf(\"%ld\\n\", x);\n    return 0;\n}\n";
    fs::write(folder.join("main.c"), main)?;
    fs::write(folder.join("all.h"), all)?;
    let rules = "OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))\nCFLAGS := -O1 -MMD\n\
                 program: $(OBJECTS)\n\t$(CC) -o $@ $^\n-include $(wildcard *.d)\n";
    Ok(fs::write(folder.join("Makefile"), rules)?)
}
