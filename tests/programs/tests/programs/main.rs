//! Real programs on our mounts: what everybody uses must work there as on a local disk, byte for byte.
//!
//! Each scenario does the same on the mount and on a local file system and compares; what it needs and does not find is said
//! loudly and skipped (`cargo xtask programs` installs all of it).
//!
//! - [`place`]: the mounts: of the directory graph by `amoeba mount`, and of the file system in memory, which tells faults of the
//!   mount from faults of the graph; [`system`]: the built binary.
//! - [`shell`]: scripts as people write them, ended when they hang; [`tree`]: what two trees have different.
//! - [`git`], [`make`], [`sqlite`], [`archives`], [`python`], [`vim`], [`data`]: the programs.
//! - [`bad_days`]: the mount and the servers are killed while programs write.
//! - [`posix`]: the POSIX suite, and [`sqlite_suite`]: SQLite's own; and the lists of what fails.
#![forbid(unsafe_code)]

mod archives;
mod bad_days;
mod data;
mod git;
mod make;
mod place;
mod posix;
mod python;
mod shell;
mod sqlite;
mod sqlite_suite;
mod system;
mod tree;
mod vim;

/// Every scenario, on one kind of mount.
macro_rules! scenarios {
    ($kind:ident) => {
        mod $kind {
            use crate::place::Place;
            use crate::{archives, data, git, make, posix, python, sqlite, sqlite_suite, vim};

            scenarios! { $kind:
                git_keeps_its_history => git::keeps_its_history,
                git_clones => git::clones,
                make_builds_what_has_changed => make::builds_what_has_changed,
                sqlite_keeps_its_journals => sqlite::keeps_its_journals,
                sqlite_writers_take_turns => sqlite::writers_take_turns,
                sqlite_survives_its_writer => sqlite::survives_its_writer,
                tar_brings_a_tree_there_and_back => archives::tar,
                rsync_brings_a_tree_there_and_back => archives::rsync,
                sqlite_passes_its_own_tests => sqlite_suite::own_tests,
                python_runs_in_an_environment => python::runs_in_an_environment,
                vim_edits => vim::edits,
                vim_recovers => vim::recovers,
                fio_reads_what_it_wrote => data::fio,
                fsx_finds_nothing => data::fsx,
                posix_is_kept_but_for_the_list => posix::suite,
            }
        }
    };
    ($kind:ident: $($name:ident => $scenario:path,)*) => {
        $(
            #[test]
            fn $name() {
                if let Some(mut place) = Place::$kind() {
                    $scenario(&mut place);
                    place.survives_a_new_mount();
                }
            }
        )*
    };
}

scenarios!(memory);
scenarios!(graph);
