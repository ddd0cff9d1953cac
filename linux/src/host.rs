//! What daemons ask of the host they run on.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::InterfaceFlags;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal, setsid};
use rustix::time::{ClockId, clock_gettime};

/// What this host is called, without its domain.
pub fn name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default();
    if short.is_empty() { "localhost".to_owned() } else { short.to_owned() }
}

/// The addresses by which others may reach this host, IPv4 first: those of interfaces that are up, without those of the
/// loopback network and of one link alone. Empty where there is no other network.
///
/// # Errors
/// The operating system does not tell.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for interface in getifaddrs()?.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP)) {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())));
        let reachable = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
            IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
        };
        addresses.extend(ip.filter(reachable).filter(|ip| !addresses.contains(ip)));
    }
    addresses.sort();
    Ok(addresses)
}

/// Which start of the operating system this is, and how long it has run, with the time it slept.
///
/// # Errors
/// The operating system does not tell.
pub fn boot_time() -> io::Result<(String, Duration)> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok((boot, Duration::new(seconds, nanos)))
}

/// Whether this process may do everything on the host that root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The numbers of users in the user name space of a whole host, as Linux shows them.
const ALL_USERS: [&str; 3] = ["0", "0", "4294967295"];

/// Whether this process has its rights in a user name space that is not the host's, which it never changes from now on.
pub(crate) fn is_in_user_name_space() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        // A kernel without user name spaces has no such file.
        let map = std::fs::read_to_string("/proc/self/uid_map");
        map.is_ok_and(|map| map.split_whitespace().ne(ALL_USERS))
    })
}

/// Asks a process to end. It may have ended already.
pub fn terminate(pid: u32) {
    send(pid, Signal::TERM);
}

/// Ends a process. It may have ended already.
pub fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

/// Whether a process with this number is there and has not ended.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state is the first letter behind the name, which stands in parentheses and may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Leaves the session of whoever started this process, so that closing a terminal does not end it.
///
/// # Errors
/// It leads a session already.
pub fn leave_session() -> io::Result<()> {
    setsid()?;
    Ok(())
}

/// Marks every descriptor above standard error to be closed in the programs that this process starts: whoever started
/// this process may have left some of its own open, and a daemon would keep them so for as long as it runs.
///
/// # Errors
/// The operating system cannot, nor can it list the descriptors.
pub fn keep_descriptors() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: sets a flag of descriptors, and closes none.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, flags) } == 0 {
        return Ok(());
    }
    // A kernel before 5.11, or a sandbox without the call.
    let names = std::fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name());
    let numbers: Vec<i32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: borrowed for one call, which fails without harm when the descriptor is closed by now.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
    Ok(())
}

/// Lets this process hear SIGTERM when the process `parent`, which started it, ends.
///
/// # Errors
/// That process has ended already.
pub fn end_with(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if now == Some(parent) { Ok(()) } else { Err(io::Error::other("the parent process has ended already")) }
}
