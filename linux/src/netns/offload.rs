//! Lets an interface send frames as they are on a cable: small enough, with whole checksums.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

use crate::packet::request_about;

// <linux/sockios.h>, <linux/ethtool.h>
const SIOCETHTOOL: u32 = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;

/// A question of ethtool about one switch.
#[repr(C)]
struct Switch {
    command: u32,
    value: u32,
}

/// Switches off what the operating system would leave to a network card: cutting large packets and summing. `socket`
/// is any socket in the namespace of the interface.
pub(super) fn switch_off(socket: impl AsFd, interface: &str) -> io::Result<()> {
    for command in [ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM] {
        let mut switch = Switch { command, value: 0 };
        let mut request = request_about(interface)?;
        request.ifr_ifru.ifru_data = (&raw mut switch).cast();
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the request is a whole `ifreq` and names a whole `Switch`; both outlive the call.
        if unsafe { libc::ioctl(fd, SIOCETHTOOL as _, &raw mut request) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
