//! Why a process did not run. The first two are the original's exec library's, the others the process class's.

use amoeba_wire::Status;

pub use amoeba_stubs::process::{BADARCH, NOHOST, NOINPUT, NOLIMIT, NOTEXEC, NOVIEW, NOWORK};

/// No such program.
pub const NOPROG: Status = Status(-1900);
/// The program cannot be read from its Bullet server.
pub const PDREAD: Status = Status(-1902);

/// What a status of these means, for people; `None` for any other.
pub fn why(status: Status) -> Option<&'static str> {
    Some(match status {
        NOPROG => "no such program",
        PDREAD => "the program cannot be read",
        NOTEXEC => "the program was found but cannot be executed",
        BADARCH => "the program is for another CPU type, or needs an option this one lacks",
        NOWORK => "the working directory cannot be entered",
        NOINPUT => "a file for the working directory cannot be brought",
        NOLIMIT => "a limit that was asked for cannot be enforced there",
        NOVIEW => "the file tree that was asked for cannot be shown there",
        NOHOST => "it may not see that host's own files",
        _ => return None,
    })
}

/// The exit code a shell would give for a process that was refused with `status`: 127 not found, 126 cannot
/// execute, 125 anything else.
pub fn exit_code(status: Status) -> u8 {
    match status {
        NOPROG => 127,
        PDREAD | NOTEXEC | BADARCH | NOWORK | NOINPUT | NOLIMIT | NOVIEW | NOHOST => 126,
        _ => 125,
    }
}
