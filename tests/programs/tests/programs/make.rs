//! A program of sixty files, built by make and the C compiler.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::place::Place;
use crate::shell::{have, sh};
use crate::tree::{Depth, same};

const FILES: usize = 60;
/// Of which so many include the second header.
const SOME: usize = FILES / 3;

const MAKEFILE: &str = "\
SOURCES := $(wildcard part*.c)
OBJECTS := $(SOURCES:.c=.o)
CFLAGS := -O1 -Wall -MMD

program: main.o libparts.a
\t$(CC) -o $@ main.o libparts.a

libparts.a: $(OBJECTS)
\trm -f $@
\t$(AR) rcD $@ $^

install: program
\tmkdir -p root/bin
\tinstall -m 755 -s program root/bin/program

clean:
\trm -f program libparts.a *.o *.d

-include $(wildcard *.d)
";

/// Objects as a local build makes them; only what depends on a changed file is built again.
pub(crate) fn builds_what_has_changed(place: &mut Place) {
    if !have(&["make", "gcc", "ar"]) {
        return;
    }
    let [mounted, local] = place.twins("build");
    for folder in [&mounted, &local] {
        write_program(folder);
    }
    let script = format!(
        "
make -s -j4
./program
make -q
sleep 0.02
touch some.h
test $(make -n | grep -c -e -MMD) = {SOME}
make -s -j4
make -q
make -s install
root/bin/program
rm *.d
sha256sum *.o program root/bin/program libparts.a"
    );
    assert_eq!(sh(&mounted, &script), sh(&local, &script));
    same(&mounted, &local, Depth::Contents);
    sh(&mounted, "make -s clean; test ! -e program");
}

fn write_program(folder: &Path) {
    let mut main =
        String::from("#include <stdio.h>\n#include \"all.h\"\nint main(void) {\n    long sum = 0;\n");
    let mut all = String::from("#pragma once\n");
    for index in 0..FILES {
        let include = if index % 3 == 0 { "#include \"some.h\"\n" } else { "#define FACTOR 3\n" };
        let text = format!(
            "#include \"all.h\"\n{include}
long part{index}(long x) {{
    for (int i = 0; i < {index}; i++)
        x = (x * FACTOR + i) % 1000003;
    return x;
}}
"
        );
        fs::write(folder.join(format!("part{index}.c")), text).expect("there is room");
        writeln!(all, "long part{index}(long x);").expect("a string grows");
        writeln!(main, "    sum += part{index}(sum + {index});").expect("a string grows");
    }
    main += "    printf(\"%ld\\n\", sum);\n    return 0;\n}\n";
    for (name, text) in
        [("main.c", main.as_str()), ("all.h", &all), ("some.h", "#define FACTOR 7\n"), ("Makefile", MAKEFILE)]
    {
        fs::write(folder.join(name), text).expect("there is room");
    }
}
