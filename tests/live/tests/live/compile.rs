//! Compilers on other hosts: the same files come out, whatever happens on the way.

use crate::dev::script;
use crate::system::System;

/// Makes a project of C in `project`: sources with headers of their own and of the system, debug information, dependencies.
const PROJECT: &str = r##"
    project() {
        mkdir -p $1/src/part $1/include && cd $1
        for i in $(seq 24); do
            echo "#pragma once
    struct s$i { int a, b[$i]; };
    int f$i(struct s$i *s);" > include/m$i.h
            echo "#include \"m$i.h\"
    #include \"m$((i % 24 + 1)).h\"
    #include \"part/local.h\"
    #include <stdio.h>
    #include <string.h>
    int f$i(struct s$i *s) { int unused; printf(\"%s %d %zu\", __FILE__, LOCAL, strlen(\"x\")); return s->b[$i - 1] + $i; }" > src/m$i.c
        done
        echo '#define LOCAL 7' > src/part/local.h
        echo 'int main(void) { return 0; }' > src/main.c
        printf '%b\n' 'CFLAGS = -g -O1 -Wall -Iinclude -Isrc -MMD -MP' \
            'O = $(patsubst src/%.c,out/%.o,$(wildcard src/*.c))' \
            'out/program: $O' '\t$(CC) -o $@ $^' \
            'out/%.o: src/%.c' '\t@mkdir -p out' '\t@$(CC) $(CFLAGS) -c -o $@ $<' > Makefile
    }
    all_up() { while [ $(amoeba host ls | grep -c ' up ') != 3 ]; do sleep 0.1; done; }
"##;

/// The lines of a log of `amoeba cc`.
fn log(system: &System, name: &str) -> Vec<serde_json::Value> {
    let path = system.state().with_file_name("home").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn is_compilation(line: &serde_json::Value) -> bool {
    line["command"].as_array().is_some_and(|words| words.iter().any(|word| word == "-c"))
}

#[test]
fn what_other_hosts_compile_is_what_this_one_would_have() {
    let system = System::new();
    let text = r#"
        project $HOME/project
        make -j2 CC=gcc > /dev/null 2> $HOME/here && mv out $HOME/here.out
        all_up
        for host in bolt chisel; do
            AMOEBA_CC_LOG=$HOME/$host make -j4 CC="amoeba cc --on $host gcc" > /dev/null 2> $HOME/there
            diff -r out $HOME/here.out
            sort $HOME/here > $HOME/a; sort $HOME/there | diff $HOME/a -
            rm -r out
        done
        AMOEBA_CC_LOG=$HOME/any make -j8 CC="amoeba cc gcc" > /dev/null 2>&1
        diff -r out $HOME/here.out
        echo same
    "#;
    script(&system, &["3"], &[PROJECT, text].concat()).ok().printed("same\n");
    for host in ["bolt", "chisel"] {
        let (compiled, other): (Vec<_>, Vec<_>) = log(&system, host).into_iter().partition(is_compilation);
        assert_eq!((compiled.len(), other.len()), (25, 1), "{compiled:?} {other:?}");
        assert!(compiled.iter().all(|line| line["host"] == host), "{compiled:?}");
        assert!(other[0]["host"].is_null(), "it links here: {other:?}");
    }
    assert_eq!(log(&system, "any").len(), 26);
}

#[test]
fn a_compilation_that_fails_elsewhere_is_done_here() {
    let system = System::new();
    let text = r#"
        project $HOME/project
        export AMOEBA_CC_LOG=$HOME/log
        all_up
        echo 'int f(void) { return x; }' > bad.c
        gcc -c bad.c 2> here && exit 1
        amoeba cc --on bolt gcc -c bad.c 2> there && exit 1
        [ $? = 1 ] && cmp here there && [ ! -e bad.o ]
        # A header that only this host sees, behind a link.
        mkdir $HOME/outside && echo '#define X 5' > $HOME/outside/x.h && ln -s $HOME/outside/x.h x.h
        echo '#include "x.h"
        int x = X;' > linked.c
        amoeba cc --on bolt gcc -c linked.c && [ -s linked.o ]
        amoeba cc --on nowhere gcc -c src/main.c && [ -s main.o ]
        make -j6 CC="amoeba cc --on chisel gcc" > /dev/null 2>&1 &
        made=$!
        sleep 0.3
        # One of them may just have ended by itself.
        kill -9 $(AMOEBA_STATE=$(dirname $AMOEBA_STATE)/chisel amoeba status | awk '$2 ~ /^[0-9]+$/ { print $2 }') || true
        wait $made
        mv out there.out && make -j2 CC=gcc > /dev/null 2>&1 && diff -r out there.out
        echo done
    "#;
    script(&system, &["3"], &[PROJECT, text].concat()).ok().printed("done\n");
    let lines = log(&system, "log");
    assert_eq!(lines.len(), 3 + 26, "{lines:?}");
    let whys: Vec<&str> = lines.iter().filter_map(|line| line["why"].as_str()).collect();
    let failed = "bolt has not done it: exit code 1: bad.c:1:";
    assert!(whys.iter().any(|why| why.starts_with(failed)), "{whys:?}");
    assert!(whys.iter().any(|why| why.contains("there is no host nowhere")), "{whys:?}");
}

#[test]
fn an_interrupt_ends_the_compiler_where_it_runs() {
    let system = System::new();
    let text = r#"
        mkdir $HOME/project && cd $HOME/project
        all_up
        # Takes minutes, and more memory than time.
        for i in $(seq 6000); do
            echo "int f$i(int *a, int n) { int r = $i; for (int i = 0; i < n; i++) for (int j = 0; j < i; j++) r += a[i] * a[j] ^ r >> 3; return r; }"
        done > long.c
        amoeba cc --on bolt gcc -O3 -c long.c &
        until amoeba ps -a | grep -q '^bolt.*running.*long.c'; do sleep 0.1; done
        kill -INT $!
        wait $! && exit 1
        [ $? = 130 ]
        while amoeba ps -a | grep -q 'running.*long.c'; do sleep 0.1; done
        ls -A | cat
    "#;
    script(&system, &["3"], &[PROJECT, text].concat()).ok().printed("long.c\n").told("amoeba: interrupted");
}

#[test]
fn nothing_stands_between_make_and_a_compiler_of_this_host() {
    let system = System::up();
    let run = |words: &[&str]| {
        let mut command = system.command(&[&["cc"][..], words].concat());
        command.output().expect("the binary starts")
    };
    let plain = std::process::Command::new("gcc").arg("--version").output().expect("there is a compiler");
    let version = run(&["gcc", "--version"]);
    assert_eq!((version.status.code(), version.stdout), (Some(0), plain.stdout));
    system.write("a.c", b"int a;\n");
    assert_eq!(run(&["gcc", "-c", "a.c", "-o", "a.o"]).status.code(), Some(0));
    assert_eq!(run(&["gcc", "-c", "none.c"]).status.code(), Some(1));
    assert_eq!(run(&["no-such-compiler", "-c", "a.c"]).status.code(), Some(127));
    assert_eq!(run(&["sh", "-c", "exit 7"]).status.code(), Some(7));
    assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status.code(), None, "it is the compiler that died");
}
