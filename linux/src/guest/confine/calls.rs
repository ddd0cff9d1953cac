//! The system calls that a guest never needs, as a filter of the kernel's (seccomp) over numbers and arguments.
//!
//! Whatever is on the list is refused with an error and kills nobody: programs look for such calls and do without. It is made
//! by hand and not by a crate, because those that make filters end a program that uses the processor's other kind of numbers
//! (a 32-bit program of a 64-bit host), or let its calls pass.

use std::io;

use nix::libc::{self, sock_filter};

/// A call is refused so when the guest has no right to it.
const FORBIDDEN: u32 = libc::EPERM as u32;
/// A call is refused so when programs know another way where the kernel lacks it.
const ABSENT: u32 = libc::ENOSYS as u32;
/// Making an Internet socket is refused so, as a firewall does.
const NO_NETWORK: u32 = libc::EACCES as u32;

/// Namespaces that clone and unshare could make: with a user namespace comes every privilege over what is made in it,
/// and with it most of the kernel that only privileged programs reach.
const NAMESPACES: u32 = 0x7E02_0080;

/// `struct seccomp_data`: where the filter finds the number, the kind of numbers, and the low half of an argument.
const NUMBER_AT: u32 = 0;
const KIND_AT: u32 = 4;
const fn argument_at(index: u32) -> u32 {
    16 + 8 * index + if cfg!(target_endian = "big") { 4 } else { 0 }
}

/// What is done about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Refused(u32),
    /// Refused if it asks for a namespace.
    NoNamespaces,
    /// Refused unless the socket is one between processes of this host.
    LocalSockets,
}
use Verdict::{LocalSockets, NoNamespaces, Refused};

/// The numbers of one kind of program.
struct Table {
    /// As the kernel's audit names it.
    kind: u32,
    calls: &'static [(i64, Verdict)],
    /// Calls by which a process looks into others, for a guest that sees processes of others.
    inspection: &'static [i64],
    socket: &'static [(i64, Verdict)],
    /// Numbers from here on belong to yet another kind.
    end: Option<u32>,
}

/// What every guest is refused.
///
/// - Mounts and name spaces: the guest's file tree and what it cannot see are made of them.
/// - Modules, kexec, bpf, perf events, userfaultfd, io_uring: the parts of the kernel that most ways out have led
///   through; io_uring besides does in the kernel what no filter of calls sees. Programs know what to do without.
/// - Keys: rings of keys are not set apart by any name space.
/// - Handles: open_by_handle_at finds files by number, also those that no path leads to.
/// - The rest is the host's administrator's: clock, swap, accounting, quota, restart, ports of the machine, the kernel's log.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const NATIVE: Table = Table {
    #[cfg(target_arch = "x86_64")]
    kind: 0xC000_003E,
    #[cfg(target_arch = "aarch64")]
    kind: 0xC000_00B7,
    #[cfg(target_arch = "riscv64")]
    kind: 0xC000_00F3,
    calls: &[
        (libc::SYS_mount, Refused(FORBIDDEN)),
        (libc::SYS_umount2, Refused(FORBIDDEN)),
        (libc::SYS_pivot_root, Refused(FORBIDDEN)),
        (libc::SYS_chroot, Refused(FORBIDDEN)),
        (libc::SYS_open_tree, Refused(FORBIDDEN)),
        (OPEN_TREE_ATTR, Refused(FORBIDDEN)),
        (libc::SYS_move_mount, Refused(FORBIDDEN)),
        (libc::SYS_fsopen, Refused(FORBIDDEN)),
        (libc::SYS_fsconfig, Refused(FORBIDDEN)),
        (libc::SYS_fsmount, Refused(FORBIDDEN)),
        (libc::SYS_fspick, Refused(FORBIDDEN)),
        (libc::SYS_mount_setattr, Refused(FORBIDDEN)),
        (libc::SYS_setns, Refused(FORBIDDEN)),
        (libc::SYS_unshare, NoNamespaces),
        (libc::SYS_clone, NoNamespaces),
        // Its flags lie in memory, where a filter cannot look; libraries go on with clone.
        (libc::SYS_clone3, Refused(ABSENT)),
        (libc::SYS_init_module, Refused(FORBIDDEN)),
        (libc::SYS_finit_module, Refused(FORBIDDEN)),
        (libc::SYS_delete_module, Refused(FORBIDDEN)),
        (libc::SYS_kexec_load, Refused(FORBIDDEN)),
        #[cfg(not(target_arch = "riscv64"))]
        (libc::SYS_kexec_file_load, Refused(FORBIDDEN)),
        (libc::SYS_bpf, Refused(FORBIDDEN)),
        (libc::SYS_perf_event_open, Refused(FORBIDDEN)),
        (libc::SYS_userfaultfd, Refused(FORBIDDEN)),
        (libc::SYS_io_uring_setup, Refused(ABSENT)),
        (libc::SYS_io_uring_enter, Refused(ABSENT)),
        (libc::SYS_io_uring_register, Refused(ABSENT)),
        (libc::SYS_add_key, Refused(FORBIDDEN)),
        (libc::SYS_request_key, Refused(FORBIDDEN)),
        (libc::SYS_keyctl, Refused(FORBIDDEN)),
        (libc::SYS_open_by_handle_at, Refused(FORBIDDEN)),
        (libc::SYS_fanotify_init, Refused(FORBIDDEN)),
        (libc::SYS_swapon, Refused(FORBIDDEN)),
        (libc::SYS_swapoff, Refused(FORBIDDEN)),
        (libc::SYS_reboot, Refused(FORBIDDEN)),
        (libc::SYS_acct, Refused(FORBIDDEN)),
        (libc::SYS_quotactl, Refused(FORBIDDEN)),
        (libc::SYS_settimeofday, Refused(FORBIDDEN)),
        (libc::SYS_clock_settime, Refused(FORBIDDEN)),
        (libc::SYS_syslog, Refused(FORBIDDEN)),
        (libc::SYS_vhangup, Refused(FORBIDDEN)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_iopl, Refused(FORBIDDEN)),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_ioperm, Refused(FORBIDDEN)),
    ],
    inspection: &[
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_kcmp,
    ],
    socket: &[(libc::SYS_socket, LocalSockets)],
    end: if cfg!(target_arch = "x86_64") { Some(0x4000_0000) } else { None },
};

/// On every machine: the newer calls have one number.
const OPEN_TREE_ATTR: i64 = 467;

/// The same for 32-bit programs on this processor, by the numbers of `arch/x86/entry/syscalls/syscall_32.tbl`.
#[cfg(target_arch = "x86_64")]
const OTHERS: &[Table] = &[Table {
    kind: 0x4000_0003,
    calls: &[
        (21, Refused(FORBIDDEN)),  // mount
        (22, Refused(FORBIDDEN)),  // umount
        (52, Refused(FORBIDDEN)),  // umount2
        (217, Refused(FORBIDDEN)), // pivot_root
        (61, Refused(FORBIDDEN)),  // chroot
        (428, Refused(FORBIDDEN)), // open_tree
        (467, Refused(FORBIDDEN)), // open_tree_attr
        (429, Refused(FORBIDDEN)), // move_mount
        (430, Refused(FORBIDDEN)), // fsopen
        (431, Refused(FORBIDDEN)), // fsconfig
        (432, Refused(FORBIDDEN)), // fsmount
        (433, Refused(FORBIDDEN)), // fspick
        (442, Refused(FORBIDDEN)), // mount_setattr
        (346, Refused(FORBIDDEN)), // setns
        (310, NoNamespaces),       // unshare
        (120, NoNamespaces),       // clone
        (435, Refused(ABSENT)),    // clone3
        (128, Refused(FORBIDDEN)), // init_module
        (350, Refused(FORBIDDEN)), // finit_module
        (129, Refused(FORBIDDEN)), // delete_module
        (283, Refused(FORBIDDEN)), // kexec_load
        (357, Refused(FORBIDDEN)), // bpf
        (336, Refused(FORBIDDEN)), // perf_event_open
        (374, Refused(FORBIDDEN)), // userfaultfd
        (425, Refused(ABSENT)),    // io_uring_setup
        (426, Refused(ABSENT)),    // io_uring_enter
        (427, Refused(ABSENT)),    // io_uring_register
        (286, Refused(FORBIDDEN)), // add_key
        (287, Refused(FORBIDDEN)), // request_key
        (288, Refused(FORBIDDEN)), // keyctl
        (342, Refused(FORBIDDEN)), // open_by_handle_at
        (338, Refused(FORBIDDEN)), // fanotify_init
        (87, Refused(FORBIDDEN)),  // swapon
        (115, Refused(FORBIDDEN)), // swapoff
        (88, Refused(FORBIDDEN)),  // reboot
        (51, Refused(FORBIDDEN)),  // acct
        (131, Refused(FORBIDDEN)), // quotactl
        (25, Refused(FORBIDDEN)),  // stime
        (79, Refused(FORBIDDEN)),  // settimeofday
        (264, Refused(FORBIDDEN)), // clock_settime
        (404, Refused(FORBIDDEN)), // clock_settime64
        (103, Refused(FORBIDDEN)), // syslog
        (111, Refused(FORBIDDEN)), // vhangup
        (110, Refused(FORBIDDEN)), // iopl
        (101, Refused(FORBIDDEN)), // ioperm
        (166, Refused(FORBIDDEN)), // vm86
    ],
    inspection: &[26, 347, 348, 438, 349], // ptrace, process_vm_readv, process_vm_writev, pidfd_getfd, kcmp
    // The arguments of socketcall (102) lie in memory, where a filter cannot look.
    socket: &[(359, LocalSockets), (102, Refused(NO_NETWORK))],
    end: None,
}];
#[cfg(not(target_arch = "x86_64"))]
const OTHERS: &[Table] = &[];

/// What a guest is refused beside what all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strictness {
    /// It sees processes that are not its own, and may not look into them.
    pub(super) no_inspection: bool,
    /// It has the host's network interfaces before it, and may not use them.
    pub(super) no_network: bool,
}

/// A filter as the kernel takes it.
#[derive(Debug)]
pub(super) struct Filter(Vec<sock_filter>);

impl Filter {
    pub(super) fn new(strictness: Strictness) -> Filter {
        let mut code = vec![load(KIND_AT)];
        for table in std::iter::once(&NATIVE).chain(OTHERS) {
            let body = table.code(strictness);
            code.extend(skip_unless_equal(table.kind, body));
        }
        // Some other kind of numbers, of which we have no list.
        code.push(answer(Some(ABSENT)));
        Filter(code)
    }

    /// From here on the calling thread, and whatever it starts, is held to the filter.
    ///
    /// Neither allocates nor locks. Needs `no_new_privs`.
    ///
    /// # Errors
    /// The kernel has no filters, or may not be asked for one.
    pub(super) fn apply(&self) -> io::Result<()> {
        let len = u16::try_from(self.0.len()).expect("a filter has a few hundred instructions");
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the program, which lives in self and is not written to.
        let set = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&program))
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Table {
    fn code(&self, strictness: Strictness) -> Vec<sock_filter> {
        let mut calls: Vec<(u32, Verdict)> = Vec::new();
        let number = |number: i64| u32::try_from(number).expect("numbers of calls are small");
        calls.extend(self.calls.iter().map(|(call, verdict)| (number(*call), *verdict)));
        if strictness.no_inspection {
            calls.extend(self.inspection.iter().map(|call| (number(*call), Refused(FORBIDDEN))));
        }
        if strictness.no_network {
            calls.extend(self.socket.iter().map(|(call, verdict)| (number(*call), *verdict)));
        }
        calls.sort_unstable_by_key(|(call, _)| *call);
        let mut code = vec![load(NUMBER_AT)];
        if let Some(end) = self.end {
            code.extend([jump(libc::BPF_JGE, end, 0, 1), answer(Some(ABSENT))]);
        }
        code.extend(search(&calls));
        code
    }
}

/// Finds the verdict by halving. The kernel runs this once for every number when the filter is set, to remember the
/// numbers that are always allowed; so its length counts there and nowhere else.
fn search(calls: &[(u32, Verdict)]) -> Vec<sock_filter> {
    const FEW: usize = 3;
    if calls.len() <= FEW {
        let found = calls.iter().flat_map(|(call, verdict)| skip_unless_equal(*call, verdict.code()));
        return found.chain([answer(None)]).collect();
    }
    let (low, high) = calls.split_at(calls.len() / 2);
    let (low_code, high_code) = (search(low), search(high));
    let over = u8::try_from(low_code.len()).expect("the lists are short enough for one jump");
    let mut code = vec![jump(libc::BPF_JGE, high[0].0, over, 0)];
    code.extend(low_code);
    code.extend(high_code);
    code
}

impl Verdict {
    fn code(self) -> Vec<sock_filter> {
        match self {
            Refused(error) => vec![answer(Some(error))],
            NoNamespaces => vec![
                load(argument_at(0)),
                jump(libc::BPF_JSET, NAMESPACES, 0, 1),
                answer(Some(FORBIDDEN)),
                answer(None),
            ],
            LocalSockets => vec![
                load(argument_at(0)),
                jump(libc::BPF_JEQ, libc::AF_UNIX as u32, 0, 1),
                answer(None),
                answer(Some(NO_NETWORK)),
            ],
        }
    }
}

/// `body` if what is loaded is `value`.
fn skip_unless_equal(value: u32, body: Vec<sock_filter>) -> Vec<sock_filter> {
    let mut code = match u8::try_from(body.len()) {
        Ok(over) => vec![jump(libc::BPF_JEQ, value, 0, over)],
        Err(_) => {
            let over = u32::try_from(body.len()).expect("a filter has a few hundred instructions");
            vec![jump(libc::BPF_JEQ, value, 1, 0), instruction(libc::BPF_JMP | libc::BPF_JA, over, 0, 0)]
        }
    };
    code.extend(body);
    code
}

fn load(at: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0)
}

fn jump(condition: u32, value: u32, if_so: u8, if_not: u8) -> sock_filter {
    instruction(libc::BPF_JMP | condition | libc::BPF_K, value, if_so, if_not)
}

fn answer(error: Option<u32>) -> sock_filter {
    let verdict = error.map_or(libc::SECCOMP_RET_ALLOW, |error| libc::SECCOMP_RET_ERRNO | error);
    instruction(libc::BPF_RET | libc::BPF_K, verdict, 0, 0)
}

fn instruction(code: u32, value: u32, if_so: u8, if_not: u8) -> sock_filter {
    let code = u16::try_from(code).expect("codes of instructions have 16 bits");
    sock_filter { code, jt: if_so, jf: if_not, k: value }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAX: Strictness = Strictness { no_inspection: false, no_network: false };
    const STRICT: Strictness = Strictness { no_inspection: true, no_network: true };

    /// What the filter says, by a machine as plain as the kernel's: the error, or `None` when the call is allowed.
    fn run(filter: &Filter, kind: u32, number: u32, argument: u32) -> Option<u32> {
        let (mut at, mut loaded) = (0usize, 0u32);
        loop {
            let sock_filter { code, jt, jf, k } = filter.0[at];
            at += 1;
            let code = u32::from(code);
            let mut branch = |condition: bool| at += usize::from(if condition { jt } else { jf });
            match code {
                _ if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    loaded = match k {
                        NUMBER_AT => number,
                        KIND_AT => kind,
                        at if at == argument_at(0) => argument,
                        _ => panic!("loads from {k}"),
                    }
                }
                _ if code == libc::BPF_JMP | libc::BPF_JEQ => branch(loaded == k),
                _ if code == libc::BPF_JMP | libc::BPF_JGE => branch(loaded >= k),
                _ if code == libc::BPF_JMP | libc::BPF_JSET => branch(loaded & k != 0),
                _ if code == libc::BPF_JMP | libc::BPF_JA => at += k as usize,
                _ if code == libc::BPF_RET => {
                    let refused = k & 0xFFFF_0000 == libc::SECCOMP_RET_ERRNO;
                    assert!(refused || k == libc::SECCOMP_RET_ALLOW);
                    return refused.then_some(k & 0xFFFF);
                }
                _ => panic!("unknown instruction {code:x}"),
            }
        }
    }

    #[test]
    fn every_number_has_the_verdict_of_its_list_and_no_other() {
        for strictness in [LAX, STRICT] {
            let filter = Filter::new(strictness);
            for table in std::iter::once(&NATIVE).chain(OTHERS) {
                for number in 0..700u32 {
                    let listed = table.calls.iter().find(|(call, _)| *call == i64::from(number));
                    let mut expected = listed.and_then(|(_, verdict)| match verdict {
                        Refused(error) => Some(*error),
                        _ => None,
                    });
                    if strictness.no_inspection && table.inspection.contains(&i64::from(number)) {
                        expected = Some(FORBIDDEN);
                    }
                    if strictness.no_network
                        && let Some((_, verdict)) =
                            table.socket.iter().find(|(call, _)| *call == i64::from(number))
                    {
                        expected = Some(if let Refused(error) = verdict { *error } else { NO_NETWORK });
                    }
                    assert_eq!(run(&filter, table.kind, number, 0), expected, "call {number}");
                }
            }
        }
    }

    #[test]
    fn threads_and_forks_are_made_but_no_namespaces() {
        let filter = Filter::new(LAX);
        let clone = libc::SYS_clone as u32;
        let thread = (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u32;
        for flags in [libc::SIGCHLD as u32, thread, (libc::CLONE_VM | libc::CLONE_VFORK) as u32] {
            assert_eq!(run(&filter, NATIVE.kind, clone, flags), None);
        }
        let kinds = [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
        ];
        for kind in kinds {
            for call in [clone, libc::SYS_unshare as u32] {
                assert_eq!(run(&filter, NATIVE.kind, call, kind as u32), Some(FORBIDDEN));
            }
        }
        assert_eq!(run(&filter, NATIVE.kind, libc::SYS_unshare as u32, libc::CLONE_FILES as u32), None);
    }

    #[test]
    fn sockets_are_refused_only_to_who_may_have_none_but_local_ones() {
        let socket = libc::SYS_socket as u32;
        for family in [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET] {
            assert_eq!(run(&Filter::new(LAX), NATIVE.kind, socket, family as u32), None);
            assert_eq!(run(&Filter::new(STRICT), NATIVE.kind, socket, family as u32), Some(NO_NETWORK));
        }
        assert_eq!(run(&Filter::new(STRICT), NATIVE.kind, socket, libc::AF_UNIX as u32), None);
    }

    #[test]
    fn other_kinds_of_numbers_lead_nowhere() {
        let filter = Filter::new(LAX);
        assert_eq!(run(&filter, 0x1234_5678, 0, 0), Some(ABSENT));
        if let Some(end) = NATIVE.end {
            let disguised = end | libc::SYS_mount as u32;
            assert_eq!(run(&filter, NATIVE.kind, disguised, 0), Some(ABSENT));
        }
    }

    #[test]
    fn the_kernel_takes_the_filter_and_keeps_to_it() {
        std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            Filter::new(STRICT).apply().unwrap();
            // SAFETY: the call is refused before it looks at its arguments, and would be by its arguments as well.
            let unshared = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
            assert_eq!((unshared, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
            let refused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
            std::os::unix::net::UnixDatagram::unbound().unwrap();
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        })
        .join()
        .unwrap();
    }
}
