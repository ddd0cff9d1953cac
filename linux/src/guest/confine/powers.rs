//! What a guest of root may do that other users may not: the capabilities that Linux splits root's power into.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

/// What a guest of root keeps: the files of all users of the host, as programs that root runs expect (`tar`, `cp -p`,
/// `make install`, a server that gives its rights up), low ports, and signals to its own processes under other users.
///
/// Not among them: devices and raw disks, mounts and name spaces, the network's interfaces and raw sockets, tracing,
/// modules, the clock, priorities, and setting any of these on a file.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// The last capability that this program knows; a kernel that has fewer refuses the others, one that has more is asked.
const LAST: u32 = 63;

/// The calling thread, and whatever it starts, gives up all power but [`KEPT`], for ever. Who has none gives up nothing.
///
/// Neither allocates nor locks.
///
/// # Errors
/// The kernel's.
pub(super) fn give_up() -> io::Result<()> {
    let held = capabilities(None)?;
    if held.permitted.is_empty() {
        return Ok(());
    }
    for number in 0..=LAST {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Beyond the last that this kernel has.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let kept = held.permitted.intersection(KEPT);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_does_not_come_back() {
        if capabilities(None).unwrap().permitted.is_empty() {
            return eprintln!("SKIPPED: this user has nothing to give up");
        }
        std::thread::spawn(|| {
            give_up().unwrap();
            let held = capabilities(None).unwrap();
            assert!(KEPT.contains(held.permitted) && held.inheritable.is_empty());
            assert!(
                set_capabilities(None, CapabilitySets { permitted: KEPT | CapabilitySet::SYS_ADMIN, ..held })
                    .is_err()
            );
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
            let bounding = u64::from_str_radix(bounding.trim(), 16).unwrap();
            assert_eq!(bounding & !KEPT.bits(), 0, "{bounding:x}");
        })
        .join()
        .unwrap();
    }
}
