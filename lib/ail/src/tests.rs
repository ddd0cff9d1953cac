//! The language, rule by rule: what is accepted, and what a complaint says.

use crate::model::{Class, On, Place, Type};
use crate::{Library, RustOptions, markdown, rust};

const HEAD: &str = "class probe = 15000..15099 \"A probe.\"\n";

fn compile(body: &str) -> Result<Class, String> {
    compile_whole(&format!("{HEAD}{body}"))
}

fn compile_whole(text: &str) -> Result<Class, String> {
    let mut library = Library::new();
    library.add("probe", "probe.class", text);
    library.compile("probe").map_err(|diagnostic| diagnostic.to_string())
}

/// Checks that `body`, which begins in line 2, draws this complaint.
#[track_caller]
fn complains(body: &str, wanted: &str) {
    match compile(body) {
        Ok(_) => panic!("`{body}` should draw: {wanted}"),
        Err(complaint) => assert!(complaint.contains(wanted), "`{body}` drew: {complaint}"),
    }
}

fn options() -> RustOptions {
    RustOptions { runtime: "rt".to_owned(), classes: "super".to_owned(), origin: "a test".to_owned() }
}

#[test]
fn an_operation_says_all_there_is_to_know() {
    let class = compile(
        "right READ = 1 \"r\"\nlimit MAX = 2 * 3 + 1 << 4 \"m\"\n
         op read [READ, object, idempotent] = 15001 (offset: u64 \"where\", size: u16 @size)
           -> (end: bool @extra, data: rest(max MAX - 1))\n \"Reads\n    a file.\"",
    )
    .unwrap();
    let read = &class.operations[0];
    assert_eq!((read.name.as_str(), read.number, read.rights_bits, read.on), ("read", 15001, 1, On::Object));
    assert!(read.idempotent && !read.deferred);
    assert_eq!(read.doc, "Reads a file.");
    assert_eq!((read.params[0].doc.as_str(), read.params[1].place), ("where", Place::Size));
    assert_eq!(read.results[1].ty, Type::Rest { max: 21 });
    assert_eq!(class.limits[0].value, 22);
}

#[test]
fn std_is_inherited_whole_and_its_rights_can_be_changed() {
    let class = compile("right KILL = 0x20 \"k\"\ninherits std { destroy [KILL] status [] }").unwrap();
    assert_eq!(class.standard.len(), 10);
    let rights = |name: &str| {
        let operation = class.standard.iter().find(|operation| operation.name == name).unwrap();
        (operation.rights_bits, operation.on)
    };
    assert_eq!(rights("destroy"), (0x20, On::Any));
    assert_eq!(rights("status"), (0, On::Any));
    assert_eq!(rights("age"), (0xFF, On::Super));
    assert_eq!(rights("restrict"), (0, On::Any));
    assert!(compile("").unwrap().standard.is_empty());
}

#[test]
fn a_complaint_says_where_and_what() {
    assert_eq!(
        compile("op read [READ] = 15001 () \"r\"").unwrap_err(),
        "probe.class:2:10: no right `READ` was declared above; \
         attributes are idempotent, deferred, shared, super, object and unchecked"
    );
    let complaint = compile("right A = 1 \"a\"\nright B = 2 b").unwrap_err();
    assert_eq!(
        complaint,
        "probe.class:3:13: expected the documentation of the right, a text in quotes, found `b`"
    );
    complains("op a = 15001 () \"a\"", "2:6: expected `[` and the rights this needs");
    complains("operation a", "2:1: expected inherits, right, limit, error, constant, record or op");
    complains("op a [] = 15001 (", "2:18: expected the name of a field, found the end of the file");
    complains("right A = 1 \"é\" ?", "2:17: `?` means nothing in a class file");
    complains("right A = 1 \"never closed", "2:13: this text has no closing quote");
    complains("right A = 1x \"a\"", "2:11: `1x` is no number");
    complains("right A = 99999999999999999999 \"a\"", "is no number");
}

#[test]
fn numbers_stay_in_their_ranges_and_are_given_once() {
    complains("op a [] = 2000 () \"a\"", "2000 is outside the range of this class, 15000..15099");
    complains("op a [] = 15001 () \"a\" op b [] = 15001 () \"b\"", "15001 is already the number of `a`");
    complains("op a [] = 15001 () \"a\" op a [] = 15002 () \"b\"", "there are two operations `a`");
    complains("error FULL = -2000 \"f\"", "-2000 is not an error of this class: they are -15000 to -15099");
    complains("error A = -15000 \"f\" error B = -15000 \"g\"", "-15000 is already the error `A`");
    complains("right A = 0 \"a\"", "0 is no right");
    complains("right A = 256 \"a\"", "256 is no right");
    complains("right A = 1 \"a\" limit A = 1 \"a\"", "`A` was declared before, in line 2");
    complains("limit A = 0 \"a\"", "0 is no size");
    complains("limit A = 1 << 31 \"a\"", "is no size");
    complains("limit A = 1 << 64 \"a\"", "does not fit 63 bits");
    complains("limit A = 4611686018427387904 * 4 \"a\"", "does not fit 63 bits");
    complains("limit A = B \"a\"", "no limit or constant `B` was declared above");
    complains("constant A: u8 = 256 \"a\"", "256 does not fit u8");
    complains("constant A: cap = 2 \"a\"", "`cap` is no integer type");
    let backwards = compile_whole("class probe = 15099..15000 \"p\"").unwrap_err();
    assert!(backwards.contains("the range ends before it begins"), "{backwards}");
    let low = compile_whole("class probe = 100..200 \"p\"").unwrap_err();
    assert!(low.contains("100 is no command number"), "{low}");
}

#[test]
fn fields_have_one_place_that_fits() {
    let op = |fields: &str| format!("op a [] = 15001 ({fields}) \"a\"");
    complains(&op("x: u16 @size, y: u16 @size"), "two fields in one place of the header");
    complains(&op("x: u64 @offset"), "does not fit `@offset`");
    complains(&op("x: u32 @extra"), "does not fit `@extra`");
    complains(&op("x: cap @header"), "`@header` is not possible here");
    complains(&op("x: u8 @body"), "`@body`? Places are");
    complains(&op("x: u8, x: u8"), "there are two fields `x`");
    complains(&op("x: rest(max 4), y: u8"), "nothing can follow `x`");
    complains(&op("x: list(u8, max 4) until end, y: u8"), "nothing can follow `x`");
    complains(&op("x: list(rest(max 4), max 4)"), "only the last element could go on");
    complains(&op("x: bytes"), "`bytes` needs a bound");
    complains(&op("x: cap(4)"), "`cap` takes no size");
    complains(&op("x: string(max 0)"), "0 is no size");
    complains(&op("x: thing"), "no type or record `thing` was declared above");
    complains(
        &op("x: list(list(list(list(list(list(u8, max 2), max 2), max 2), max 2), max 2), max 2)"),
        "nested",
    );
    assert!(compile(&op("x: rest(max 4), y: u8 @extra")).is_ok(), "the header is not the data");
}

#[test]
fn names_are_words_that_every_language_can_take() {
    complains("op Read [] = 15001 () \"a\"", "`Read` should be lower case");
    complains("op read_ [] = 15001 () \"a\"", "`read_` should be lower case");
    complains("op yield [] = 15001 () \"a\"", "`yield` is a word of a language");
    complains("op serve [] = 15001 () \"a\"", "calls a function of its own `serve`");
    complains("op a [] = 15001 (object: u8) \"a\"", "`object` is a word");
    complains("right read = 1 \"a\"", "`read` cannot be its name");
    complains("limit CMD_READ = 1 \"a\"", "`CMD_READ` cannot be its name");
    complains("record vec \"v\" { x: u8 }", "`vec` is the name of a type");
    complains("record list_reply \"v\" { x: u8 }", "for the results of operations");
    complains("record empty \"v\" { }", "a record has at least one field");
    complains("record r \"v\" { x: rest(max 2) }", "only an operation's last field may");
    complains("record r \"v\" { x: u8 @size }", "`@size` is not possible here");
    complains("record r \"v\" { x: r }", "no type or record `r` was declared above");
}

#[test]
fn a_shared_reply_stays_shared_where_it_is_inherited() {
    let inheriting = |attributes: &str| {
        let mut library = Library::new();
        let basis =
            "class basis = 15100..15199 \"b\" op fetch [shared] = 15100 () -> data: rest(max 9) \"f\"";
        library.add("basis", "basis.class", basis);
        library.add("probe", "probe.class", &format!("{HEAD}inherits basis {{ fetch [{attributes}] }}"));
        library.compile("probe").map_err(|diagnostic| diagnostic.to_string())
    };
    assert!(inheriting("").unwrap().operations[0].shared);
    assert!(inheriting("deferred").unwrap_err().contains("a shared reply cannot be deferred"));
}

#[test]
fn inheritance_names_what_there_is() {
    complains("inherits nobody", "there is no class `nobody`");
    complains("inherits std { fly [] }", "class `std` has no operation `fly`");
    complains("inherits std { info [] info [] }", "`info` is chosen twice");
    complains("inherits std inherits std", "std is inherited twice");
    complains("right A = 1 \"a\" inherits std { ntouch [A] }", "looks at no object");
    complains("inherits std { info [deferred] }", "neither deferred nor unchecked");
    complains("inherits std { info [shared] }", "what is idempotent or shared is said where");
    for results in ["u8", "(a: u8, b: rest(max 9))", "(a: u8 @extra, b: rest(max 9))"] {
        let result = if results == "u8" { "a: u8" } else { results };
        complains(&format!("op a [shared] = 15001 () -> {result} \"a\""), "that gives one rest");
    }
    complains("op a [shared, deferred] = 15001 () -> a: rest(max 9) \"a\"", "and at once");
    complains("op a [super, object] = 15001 () \"a\"", "only one of super, object and unchecked");
    complains("right A = 1 \"a\" op a [A, unchecked] = 15001 () \"a\"", "nobody checks them");
    complains("inherits probe", "in a circle");
}

#[test]
fn a_class_lies_in_the_file_of_its_name() {
    let complaint = compile_whole("class other = 15000..15099 \"o\"").unwrap_err();
    assert_eq!(complaint, "probe.class:1:7: this file is named for class `probe`, but declares `other`");
    let large = format!("{HEAD}{}", " ".repeat(crate::FILE_SIZE_MAX));
    assert!(compile_whole(&large).unwrap_err().contains("a class file has at most"));
}

#[test]
fn the_example_of_the_manual_is_a_class() {
    let manual = include_str!("../../../docs/classes.md");
    let example = manual.split("```").nth(1).expect("the manual begins with an example");
    let mut library = Library::new();
    library.add("mailbox", "mailbox.class", example);
    let class = library.compile("mailbox").unwrap();
    assert_eq!(class.operations.len(), 4);
    assert!(rust(&class, &options()).contains("pub fn leave<'t>("));
}

#[test]
fn no_text_makes_the_compiler_panic() {
    // Random bytes rarely get past the first word, so they also choose among pieces of class files.
    const PIECES: &[&str] = &[
        "op ",
        "a ",
        "b ",
        "[",
        "]",
        "= ",
        "15001 ",
        "15002 ",
        "(",
        ") ",
        "-> ",
        ": ",
        ", ",
        "u16 ",
        "cap ",
        "rest(max ",
        "list(",
        "max ",
        "until end ",
        "@size ",
        "@header ",
        "\"text\" ",
        "record ",
        "right ",
        "READ ",
        "limit ",
        "MAX ",
        "error ",
        "- ",
        "constant ",
        "inherits std ",
        "{ ",
        "} ",
        "<< ",
        "* ",
        "9223372036854775807 ",
        "idempotent ",
    ];
    bolero::check!().for_each(|bytes: &[u8]| {
        let pieces: String = bytes.iter().map(|byte| PIECES[usize::from(*byte) % PIECES.len()]).collect();
        for text in [String::from_utf8_lossy(bytes).into_owned(), format!("{HEAD}{pieces}")] {
            if let Ok(class) = compile_whole(&text) {
                let _ = (rust(&class, &options()), markdown(&class, "a test"));
            }
        }
    });
}
