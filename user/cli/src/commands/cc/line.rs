//! What a compiler's command line asks for: whether it is a compilation that another host can do as well as this one, and
//! then which files it names.
//!
//! Whatever is not known here for certain stays on this host: an option that is not in these tables costs a chance, never a
//! wrong result.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Options whose argument is the next word, and which name no file that matters.
const WITH_WORD: [&str; 8] = ["-D", "-U", "-MT", "-MQ", "-l", "-L", "-Xlinker", "--param"];
/// Options that name a file or directory to be read, in the same word or in the next.
const READING: [&str; 9] =
    ["-I", "-isystem", "-iquote", "-idirafter", "-include", "-imacros", "-isysroot", "--sysroot", "-B"];
/// Options that name a file to be written.
const WRITING: [&str; 2] = ["-o", "-MF"];
/// Options of one word that change what is compiled but not where it can be.
const HARMLESS: [&str; 29] = [
    "-c",
    "-S",
    "-MD",
    "-MMD",
    "-MP",
    "-w",
    "-pipe",
    "-pthread",
    "-ansi",
    "-s",
    "-static",
    "-shared",
    "-pie",
    "-no-pie",
    "-rdynamic",
    "-static-libgcc",
    "-static-libstdc++",
    "-undef",
    "-trigraphs",
    "-nostdinc",
    "-nostdinc++",
    "-nostdlib",
    "-nostartfiles",
    "-nodefaultlibs",
    "-ffreestanding",
    "-pg",
    "-H",
    "-Qunused-arguments",
    "-C",
];
/// Beginnings of options of one word, likewise.
const HARMLESS_PREFIXES: [&str; 11] =
    ["-D", "-U", "-O", "-W", "-f", "-g", "-m", "-std=", "--std=", "-pedantic", "--param="];
/// Beginnings of options that look harmless and are not: they write elsewhere, read what is not named, tell times, or run a
/// program of the caller's.
const HERE_PREFIXES: [&str; 12] = [
    "-fplugin",
    "-fdump",
    "-fmodule",
    "-fpch",
    "-fprofile-use",
    "-fauto-profile",
    "-ftime",
    "-fmem-report",
    "-fopt-info",
    "-fcallgraph-info",
    "-fdirectives-only",
    "-fpreprocessed",
];
/// Options with a path in them that is only text.
const PATH_IS_TEXT: [&str; 5] = [
    "-ffile-prefix-map=",
    "-fdebug-prefix-map=",
    "-fmacro-prefix-map=",
    "-fprofile-prefix-map=",
    "-frandom-seed=",
];
/// What an assembler may be told.
const ASSEMBLER_HARMLESS: [&str; 5] = ["--noexecstack", "--execstack", "--gdwarf", "-g", "-m"];
/// Names of compilers, without the machine in front and the version behind.
const COMPILERS: [&str; 8] = ["gcc", "g++", "cc", "c++", "c89", "c99", "clang", "clang++"];
/// Endings of sources, and whether they are C++.
const SOURCES: [(&str, bool); 11] = [
    ("c", false),
    ("i", false),
    ("cc", true),
    ("cp", true),
    ("cxx", true),
    ("cpp", true),
    ("c++", true),
    ("C", true),
    ("CPP", true),
    ("ii", true),
    ("cppm", true),
];
/// Environment strings that have a compiler write more than its line says.
const WRITING_VARIABLES: [&str; 2] = ["DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"];

/// A compilation that any host can do which has these files, the compiler and its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compilation {
    /// At least one.
    pub(super) sources: Vec<Vec<u8>>,
    /// Files and directories that are read, as far as the line names them.
    pub(super) reads: Vec<Vec<u8>>,
    /// Files that are written, as far as the line names them; others lie beside them or in the working directory.
    pub(super) writes: Vec<Vec<u8>>,
    /// Whether it is C++, whose headers take longer.
    pub(super) is_cpp: bool,
    /// Whether the line says whether diagnostics are coloured.
    pub(super) says_colour: bool,
}

/// What `words`, a compiler's name and its arguments, ask for.
///
/// # Errors
/// A clause for people: why this host has to do it.
pub(super) fn parse(
    words: &[OsString],
    variable: impl Fn(&str) -> bool,
) -> Result<Compilation, &'static str> {
    let [compiler, arguments @ ..] = words else { return Err("there is no compiler") };
    if !is_compiler(compiler) {
        return Err("it is no compiler that is known");
    }
    if WRITING_VARIABLES.iter().any(|name| variable(name)) {
        return Err("the environment has it write dependencies");
    }
    let mut line = Line::default();
    let mut words = arguments.iter().map(|word| word.as_bytes());
    while let Some(word) = words.next() {
        line.take(word, &mut words)?;
    }
    line.end()
}

/// What was read so far.
#[derive(Default)]
struct Line {
    found: Compilation,
    compiles: bool,
    language: Option<bool>,
}

impl Line {
    fn take<'a>(
        &mut self,
        word: &'a [u8],
        rest: &mut impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), &'static str> {
        let Some(text) = std::str::from_utf8(word).ok().filter(|text| !text.is_empty()) else {
            return Err("an argument is not UTF-8, or empty");
        };
        if !text.starts_with('-') {
            return self.source(text);
        }
        match text {
            "-" => return Err("it reads the standard input"),
            "-c" | "-S" => self.compiles = true,
            "-x" => return self.language(rest.next()),
            _ => {}
        }
        if let Some(name) = names(text, &READING, rest)? {
            self.found.reads.push(name);
        } else if let Some(name) = names(text, &WRITING, rest)? {
            self.found.writes.push(name);
        } else if WITH_WORD.contains(&text) {
            rest.next().ok_or("its last option lacks an argument")?;
        } else if let Some(list) = text.strip_prefix("-Wp,") {
            self.for_preprocessor(list)?;
        } else if let Some(list) = text.strip_prefix("-Wa,") {
            for_assembler(list)?;
        } else if let Some(language) = text.strip_prefix("-x") {
            self.language(Some(language.as_bytes()))?;
        } else {
            self.plain(text)?;
        }
        Ok(())
    }

    fn plain(&mut self, text: &str) -> Result<(), &'static str> {
        if text.starts_with("-fdiagnostics-color") || text.starts_with("-fno-diagnostics-color") {
            self.found.says_colour = true;
        }
        if ["-march", "-mtune", "-mcpu"].iter().any(|name| text.strip_prefix(name) == Some("=native")) {
            return Err("it compiles for this very processor");
        }
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        let known = HARMLESS.contains(&text) || begins(&HARMLESS_PREFIXES);
        if !known || begins(&HERE_PREFIXES) {
            return Err("it has an option that only this host is known to carry out");
        }
        let names_file =
            !text.starts_with("-D") && text.split_once('=').is_some_and(|(_, value)| value.contains('/'));
        if names_file && !begins(&PATH_IS_TEXT) {
            return Err("it has an option that names a file");
        }
        Ok(())
    }

    fn source(&mut self, text: &str) -> Result<(), &'static str> {
        if text.starts_with('@') {
            return Err("its arguments are in a file");
        }
        let ending = text.rsplit_once('.').map_or("", |(_, ending)| ending);
        let by_ending = SOURCES.iter().find(|(known, _)| *known == ending).map(|(_, is_cpp)| *is_cpp);
        let is_cpp = self.language.or(by_ending).ok_or("it takes what is no source of C or C++")?;
        self.found.is_cpp |= is_cpp;
        self.found.sources.push(text.as_bytes().to_vec());
        Ok(())
    }

    fn language(&mut self, name: Option<&[u8]>) -> Result<(), &'static str> {
        self.language = match name {
            Some(b"c" | b"cpp-output") => Some(false),
            Some(b"c++" | b"c++-cpp-output") => Some(true),
            Some(b"none") => None,
            _ => return Err("it compiles another language"),
        };
        Ok(())
    }

    /// What the Linux kernel's makefiles say: `-Wp,-MMD,FILE`.
    fn for_preprocessor(&mut self, list: &str) -> Result<(), &'static str> {
        match list.split(',').collect::<Vec<&str>>()[..] {
            ["-MD" | "-MMD", file] => self.found.writes.push(file.as_bytes().to_vec()),
            [word] if word.starts_with("-D") || word.starts_with("-U") => {}
            _ => return Err("it has an option that only this host is known to carry out"),
        }
        Ok(())
    }

    fn end(self) -> Result<Compilation, &'static str> {
        if !self.compiles {
            return Err("it does more than compile, or less");
        }
        if self.found.sources.is_empty() {
            return Err("it names no source");
        }
        if self.found.writes.iter().any(|file| file == b"-" || file.starts_with(b"/dev/")) {
            return Err("it writes to what is no file");
        }
        Ok(self.found)
    }
}

/// The argument of `text`, if it is one of `options`, in the same word or in the next.
fn names<'a>(
    text: &str,
    options: &[&str],
    rest: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<Option<Vec<u8>>, &'static str> {
    // The longest first, so that `-includex` is not `-I` of something.
    let option = options.iter().filter(|option| text.starts_with(**option)).max_by_key(|option| option.len());
    let Some(option) = option else { return Ok(None) };
    let joined = &text[option.len()..];
    let joined = joined.strip_prefix('=').filter(|_| option.starts_with("--")).unwrap_or(joined);
    let name = match joined {
        "" => rest.next().ok_or("its last option lacks an argument")?.to_vec(),
        joined => joined.as_bytes().to_vec(),
    };
    // `-I-` splits the list; `=` and `$SYSROOT` stand for a directory that is named elsewhere.
    if name.is_empty() || name == b"-" && *option == "-I" || name.starts_with(b"=") || name.starts_with(b"$")
    {
        return Err("it has an option that only this host is known to carry out");
    }
    Ok(Some(name))
}

fn for_assembler(list: &str) -> Result<(), &'static str> {
    let harmless = |word: &str| {
        !word.contains(['=', '/']) && ASSEMBLER_HARMLESS.iter().any(|prefix| word.starts_with(prefix))
    };
    if list.split(',').all(harmless) { Ok(()) } else { Err("it tells the assembler what is not known here") }
}

/// Whether a program of this name is a compiler whose options are known: `gcc`, `x86_64-linux-gnu-g++-12`.
fn is_compiler(word: &OsStr) -> bool {
    let name = word.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let version =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let name = match name.rsplit_once('-') {
        Some((name, behind)) if version(behind) => name,
        _ => name,
    };
    let name = name.rsplit('-').next().unwrap_or(name);
    COMPILERS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Compilation, &'static str> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        parse(&words, |_| false)
    }

    fn list(words: &[Vec<u8>]) -> String {
        words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_make_and_cmake_say_goes_elsewhere() {
        let made = parsed(
            "gcc -g -O2 -Wall -DX=\"a/b\" -Iinclude -I ../x -MMD -MP -MF out/a.d -c -o out/a.o src/a.c",
        )
        .unwrap();
        assert_eq!(
            (list(&made.sources), list(&made.reads), list(&made.writes), made.is_cpp),
            ("src/a.c".into(), "include ../x".into(), "out/a.d out/a.o".into(), false)
        );
        let kernel = "x86_64-linux-gnu-gcc-12 -Wp,-MMD,drivers/.a.o.d -nostdinc -I./arch/x86/include -include ./kconfig.h \
                      -D__KERNEL__ -fmacro-prefix-map=./= -std=gnu11 -mno-sse -Wa,--noexecstack -c -o a.o a.c";
        let kernel = parsed(kernel).unwrap();
        assert_eq!(list(&kernel.writes), "drivers/.a.o.d a.o");
        assert_eq!(list(&kernel.reads), "./arch/x86/include ./kconfig.h");
        let cpp = parsed(
            "/usr/bin/clang++-14 -isystem /opt/x -std=c++17 -fdiagnostics-color=always -xc++ -c a.weird b.cc",
        )
        .unwrap();
        assert_eq!((list(&cpp.sources), cpp.is_cpp, cpp.says_colour), ("a.weird b.cc".into(), true, true));
        assert_eq!(list(&cpp.reads), "/opt/x");
    }

    #[test]
    fn everything_else_stays_here() {
        for line in [
            "gcc -o program a.o b.o",
            "gcc a.c",
            "gcc -E a.c",
            "gcc -M a.c",
            "gcc --version",
            "gcc -v -c a.c",
            "gcc -c a.c -o",
            "gcc -c",
            "gcc -c a.S",
            "gcc -c a.f90",
            "gcc -c a.c b.o",
            "gcc -c -",
            "gcc -c @list",
            "gcc -xfortran -c a.c",
            "gcc -c a.c -march=native",
            "gcc -c a.c -o /dev/null",
            "gcc -c a.c -o -",
            "gcc -c a.c -fplugin=x",
            "gcc -c a.c -fdump-tree-all",
            "gcc -c a.c -fsanitize-ignorelist=/x",
            "gcc -c a.c -specs=x",
            "gcc -c a.c -wrapper gdb",
            "gcc -c a.c -no-such-option",
            "gcc -c a.c -I-",
            "gcc -c a.c -I=x",
            "gcc -c a.c -Wa,-al=list",
            "gcc -c a.c -Wp,-MD",
            "gcc -c a.h",
            "g++ -c a.cc -fmodules-ts",
            "ccache gcc -c a.c",
            "rustc -c a.c",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        let words = ["gcc", "-c", "a.c"].map(OsString::from);
        assert!(parse(&words, |name| name == "DEPENDENCIES_OUTPUT").is_err());
        assert!(parse(&words, |_| false).is_ok());
    }

    #[test]
    fn compilers_are_known_by_their_names() {
        for name in
            ["gcc", "/usr/bin/cc", "gcc-12", "arm-none-eabi-g++", "x86_64-linux-gnu-gcc-12.2", "clang++"]
        {
            assert!(is_compiler(OsStr::new(name)), "{name}");
        }
        for name in ["", "/", "gccgo", "gcc-ar", "ld", "gcc.exe", "make", "-", "12"] {
            assert!(!is_compiler(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn no_line_panics() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let words = bytes.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).to_owned());
            let words: Vec<OsString> =
                [OsString::from("gcc"), OsString::from("-c")].into_iter().chain(words).collect();
            if let Ok(found) = parse(&words, |_| false) {
                assert!(!found.sources.is_empty());
            }
        });
    }
}
