//! Groups of processes whose memory, processor time and number the host limits: Linux's control groups, version 1 or 2.
//!
//! ```text
//! where the process server itself is / amoeba-PID / one group for each warden's guests
//! ```
//!
//! The group in the middle bounds all guests together, so that the host's own processes always have something left; in the
//! groups below it are the limits that a guest asked for. A group outlives its processes and is emptied by nobody else, so
//! a warden's group serves one guest after the other.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use amoeba_process::{Enforced, Limits, PROCESSES_DEFAULT};
use rustix::fs::{Mode, OFlags, open};

/// What our groups' names begin with; the number of the process that made them follows.
const PREFIX: &str = "amoeba-";
/// Of the host's memory this part is kept from all guests together, and no less than that many bytes.
const RESERVED_PART: u64 = 16;
const RESERVED_MIN: u64 = 128 << 20;
/// The period over which processor time is measured out, in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// The shortest share of it that the kernel takes.
const CPU_QUOTA_MIN: u64 = 1000;

/// What a group limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
    Processes,
}

impl Controller {
    const ALL: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Processes];

    /// As the kernel calls it.
    fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Processes => "pids",
        }
    }
}

/// A directory of a hierarchy of groups, and what it limits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    directory: PathBuf,
    /// Whether it is of version 2, which has all controllers in one hierarchy.
    unified: bool,
    controllers: Vec<Controller>,
}

/// Where the groups of this process server's guests are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    seats: Vec<Seat>,
}

impl Groups {
    /// The groups that this process may make, below those that it is in. None where it may make none.
    pub(crate) fn make() -> Groups {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let places = places(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let name = format!("{PREFIX}{}", std::process::id());
        let seats: Vec<Seat> = places.into_iter().filter_map(|place| place.make(&name)).collect();
        let groups = Groups { seats };
        groups.bound(&read("/proc/meminfo"), &read("/proc/sys/kernel/pid_max"));
        groups
    }

    /// What limits on these groups are worth.
    pub(crate) fn enforced(&self) -> Enforced {
        enforced(&self.seats)
    }

    /// The groups for the guests of one warden.
    ///
    /// # Errors
    /// The kernel makes no more groups.
    pub(crate) fn group(&self, name: &str) -> io::Result<Group> {
        let mut group = Group::default();
        for seat in &self.seats {
            let directory = seat.directory.join(name);
            fs::create_dir(&directory).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            group.open.push(open(&directory, flags, Mode::empty())?);
            group.seats.push(Seat { directory, ..seat.clone() });
        }
        Ok(group)
    }

    /// What limits all guests together. What cannot be set is as the host has it.
    fn bound(&self, meminfo: &str, pid_max: &str) {
        let kibibytes = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kibibytes =
            kibibytes.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        let total = kibibytes.unwrap_or(0) * 1024;
        let memory = total.saturating_sub((total / RESERVED_PART).max(RESERVED_MIN));
        let processes = pid_max.trim().parse::<u32>().unwrap_or(0) / 2;
        for seat in &self.seats {
            let _ = seat.limit(&Limits { memory, cpu_thousandths: 0, processes }, 0);
        }
    }

    /// Removes everything, when nobody is left in it.
    pub(crate) fn remove(&self) {
        for seat in &self.seats {
            remove_tree(&seat.directory);
        }
    }
}

fn enforced(seats: &[Seat]) -> Enforced {
    let has = |controller| seats.iter().any(|seat| seat.controllers.contains(&controller));
    Enforced {
        memory: has(Controller::Memory),
        cpu: has(Controller::Cpu),
        processes: has(Controller::Processes),
    }
}

/// Removes a group and those below it, as far as they are empty.
fn remove_tree(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// A place of this process in a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Where the hierarchy is mounted.
    root: PathBuf,
    /// Where in it this process is.
    own: PathBuf,
    unified: bool,
    controllers: Vec<Controller>,
}

/// The hierarchies that can limit something, from `/proc/self/mountinfo` and `/proc/self/cgroup`.
fn places(mountinfo: &str, cgroup: &str) -> Vec<Place> {
    let own = |wanted: &str| {
        cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let names = fields.next()?;
            names.split(',').any(|name| name == wanted).then(|| fields.next().unwrap_or("/"))
        })
    };
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, source)) = line.split_once(" - ") else { continue };
        let mount: Vec<&str> = mount.split(' ').collect();
        let source: Vec<&str> = source.split(' ').collect();
        let (Some(top), Some(point), Some(kind)) = (mount.get(3), mount.get(4), source.first()) else {
            continue;
        };
        let options = source.get(2).copied().unwrap_or_default();
        let (unified, controllers, path) = match *kind {
            "cgroup2" => (true, Controller::ALL.to_vec(), own("")),
            "cgroup" => {
                let has =
                    |controller: &Controller| options.split(',').any(|option| option == controller.name());
                let controllers: Vec<Controller> = Controller::ALL.into_iter().filter(has).collect();
                let path = controllers.first().and_then(|controller| own(controller.name()));
                (false, controllers, path)
            }
            _ => continue,
        };
        // A mount may show only a part of the hierarchy.
        let below = path.and_then(|path| Path::new(path).strip_prefix(top).ok().map(Path::to_owned));
        if let Some(below) = below.filter(|_| !controllers.is_empty()) {
            let root = PathBuf::from(point);
            let own = if below.as_os_str().is_empty() { root.clone() } else { root.join(below) };
            found.push(Place { own, root, unified, controllers });
        }
    }
    found
}

impl Place {
    /// Makes the group of all guests. With version 2 no group may have both processes and groups below it that limit
    /// something, so there it may have to be further up.
    fn make(&self, name: &str) -> Option<Seat> {
        let highest = if self.unified { self.root.as_path() } else { self.own.as_path() };
        let tried = self.own.ancestors().take_while(|directory| directory.starts_with(highest));
        tried.into_iter().find_map(|above| self.make_in(above, name))
    }

    fn make_in(&self, above: &Path, name: &str) -> Option<Seat> {
        remove_left_over(above);
        let directory = above.join(name);
        fs::create_dir(&directory).ok()?;
        let mut seat = Seat { directory, unified: self.unified, controllers: self.controllers.clone() };
        if self.unified {
            seat.controllers.retain(|controller| {
                let enable = |directory: &Path| {
                    put(directory, "cgroup.subtree_control", &format!("+{}", controller.name())).is_ok()
                };
                enable(above) && enable(&seat.directory)
            });
        } else {
            seat.controllers.retain(|controller| seat.directory.join(file_of(*controller, false)).exists());
        }
        // Without the right to move a process from here to there nothing is won.
        let enter = if self.unified { "cgroup.procs" } else { "tasks" };
        let door = fs::File::options().write(true).open(seat.directory.join(enter));
        if seat.controllers.is_empty() || door.is_err() {
            let _ = fs::remove_dir(&seat.directory);
            return None;
        }
        Some(seat)
    }
}

/// Groups of process servers that were killed.
fn remove_left_over(above: &Path) {
    for entry in fs::read_dir(above).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            remove_tree(&entry.path());
        }
    }
}

/// The file that tells whether a group has a controller.
fn file_of(controller: Controller, unified: bool) -> &'static str {
    match (controller, unified) {
        (Controller::Memory, false) => "memory.limit_in_bytes",
        (Controller::Memory, true) => "memory.max",
        (Controller::Cpu, false) => "cpu.cfs_quota_us",
        (Controller::Cpu, true) => "cpu.max",
        (Controller::Processes, _) => "pids.max",
    }
}

fn put(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::File::options().write(true).open(directory.join(file))?.write_all(value.as_bytes())
}

/// The value after `name` in a file of `name value` lines.
fn counter(directory: &Path, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

impl Seat {
    fn limit(&self, limits: &Limits, own_threads: u32) -> io::Result<()> {
        for controller in &self.controllers {
            match (controller, self.unified) {
                (Controller::Memory, true) => {
                    put(&self.directory, "memory.max", &or(limits.memory, "max"))?;
                    // Where there is swap, a limit of memory is one of memory and swap.
                    let swap = if limits.memory > 0 { "0" } else { "max" };
                    let _ = put(&self.directory, "memory.swap.max", swap);
                }
                (Controller::Memory, false) => self.limit_memory_of_old(limits.memory)?,
                (Controller::Cpu, _) => self.limit_cpu(limits.cpu_thousandths)?,
                (Controller::Processes, _) => {
                    // With version 2 threads are where their process is.
                    let own_threads = if self.unified { 0 } else { own_threads };
                    let most = limits.processes.saturating_add(own_threads);
                    let most = if limits.processes == 0 { 0 } else { u64::from(most) };
                    put(&self.directory, "pids.max", &or(most, "max"))?;
                }
            }
        }
        Ok(())
    }

    /// The limit of memory and swap can never be below that of memory alone.
    fn limit_memory_of_old(&self, memory: u64) -> io::Result<()> {
        let value = or(memory, "-1");
        let _ = put(&self.directory, "memory.memsw.limit_in_bytes", "-1");
        put(&self.directory, "memory.limit_in_bytes", &value)?;
        let _ = put(&self.directory, "memory.memsw.limit_in_bytes", &value);
        Ok(())
    }

    fn limit_cpu(&self, thousandths: u32) -> io::Result<()> {
        let quota = (u64::from(thousandths) * CPU_PERIOD / 1000).max(CPU_QUOTA_MIN);
        let quota = if thousandths == 0 { 0 } else { quota };
        match self.unified {
            true => put(&self.directory, "cpu.max", &format!("{} {CPU_PERIOD}", or(quota, "max"))),
            false => {
                put(&self.directory, "cpu.cfs_period_us", &CPU_PERIOD.to_string())?;
                put(&self.directory, "cpu.cfs_quota_us", &or(quota, "-1"))
            }
        }
    }
}

/// A number, or the word that means none.
fn or(number: u64, none: &str) -> String {
    if number == 0 { none.into() } else { number.to_string() }
}

/// The groups of one warden's guests. Their files are reached through descriptors that the keeper opened: for a warden,
/// and so for its guests, everything below `/sys` is read-only.
#[derive(Debug, Default)]
pub(crate) struct Group {
    seats: Vec<Seat>,
    /// Where `seats` are to be found by those who see them read-only.
    open: Vec<OwnedFd>,
}

/// What a group has met so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Met {
    /// Processes that the kernel ended because the group had no memory left.
    pub(crate) out_of_memory: u64,
    /// Processes that were not made because there were too many.
    pub(crate) out_of_processes: u64,
}

impl Group {
    /// Limits whoever is in the group, in which `own_threads` of the warden are, too, that may start some of them; who asked for no limit
    /// of processes has [`PROCESSES_DEFAULT`].
    ///
    /// # Errors
    /// The kernel does not take a limit: it is below what is used already, or makes no sense.
    pub(crate) fn limit(&self, limits: &Limits, own_threads: u32) -> io::Result<()> {
        let processes = if limits.processes == 0 { PROCESSES_DEFAULT } else { limits.processes };
        self.reached().try_for_each(|seat| seat.limit(&Limits { processes, ..*limits }, own_threads))
    }

    /// The seats by the way that stays open.
    fn reached(&self) -> impl Iterator<Item = Seat> {
        self.seats.iter().zip(&self.open).map(|(seat, open)| Seat {
            directory: PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())),
            ..seat.clone()
        })
    }

    /// Which limits it enforces.
    pub(crate) fn enforces(&self) -> Enforced {
        enforced(&self.seats)
    }

    /// What was met so far, by all guests of the group.
    pub(crate) fn met(&self) -> Met {
        let mut met = Met::default();
        for Seat { directory, unified, controllers } in self.reached() {
            for controller in controllers {
                match controller {
                    Controller::Memory => {
                        let file = if unified { "memory.events" } else { "memory.oom_control" };
                        met.out_of_memory += counter(&directory, file, "oom_kill");
                    }
                    Controller::Processes => {
                        met.out_of_processes += counter(&directory, "pids.events", "max")
                    }
                    Controller::Cpu => {}
                }
            }
        }
        met
    }

    /// What a process, or a thread of one, enters the group by.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn doors(&self) -> io::Result<Doors> {
        let mut doors = Doors::default();
        for Seat { directory, unified, .. } in self.reached() {
            let door = |file| fs::File::options().write(true).open(directory.join(file)).map(OwnedFd::from);
            match unified {
                true => doors.of_process.push(door("cgroup.procs")?),
                false => doors.of_thread.push(door("tasks")?),
            }
        }
        Ok(doors)
    }

    /// Removes the group. Whoever was in it must have been reaped.
    pub(crate) fn remove(&self) {
        for seat in &self.seats {
            let _ = fs::remove_dir(&seat.directory);
        }
    }
}

/// See [`Group::doors`]. Entering a group waits for all processors, up to 20 ms, unless somebody has just done so. With
/// version 1 one thread of a warden enters beforehand, and what that thread starts is in the group from its birth.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    of_thread: Vec<OwnedFd>,
    of_process: Vec<OwnedFd>,
}

impl Doors {
    /// The calling thread enters, as far as threads can.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn enter_as_thread(&self) -> io::Result<()> {
        self.of_thread.iter().try_for_each(|door| enter(door.as_fd()))
    }

    /// The calling process enters what only processes can. Neither allocates nor locks.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn enter_as_process(&self) -> io::Result<()> {
        self.of_process.iter().try_for_each(|door| enter(door.as_fd()))
    }
}

fn enter(door: BorrowedFd<'_>) -> io::Result<()> {
    // Zero stands for whoever writes it.
    rustix::io::write(door, b"0")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
33 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 /box /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn places_are_found_in_both_versions() {
        let own = "4:memory:/box/mine\n3:cpuset:/\n2:cpu,cpuacct:/\n0::/user.slice/a\n";
        let found = places(OLD, own);
        let shown: Vec<_> = found
            .iter()
            .map(|place| (place.own.to_str().unwrap(), place.unified, place.controllers.len()))
            .collect();
        assert_eq!(
            shown,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", false, 1),
                ("/sys/fs/cgroup/memory/mine", false, 1),
                ("/sys/fs/cgroup/unified/user.slice/a", true, 3)
            ]
        );
        // A process outside of what is mounted has no place there.
        assert_eq!(places(OLD, "4:memory:/other\n").len(), 0);
        assert_eq!(places("garbage\n1 2 - cgroup\n", own).len(), 0);
    }

    /// A directory with the files of a group.
    fn fake(name: &str, files: &[&str]) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("amoeba-groups-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        for file in files {
            fs::write(directory.join(file), "").unwrap();
        }
        directory
    }

    #[test]
    fn version_2_is_told_in_its_own_words() {
        let files = ["memory.max", "memory.swap.max", "cpu.max", "pids.max"];
        let directory = fake("unified", &files);
        let controllers = Controller::ALL.to_vec();
        let opened = open(&directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let seats = vec![Seat { directory: directory.clone(), unified: true, controllers }];
        let group = Group { seats, open: vec![opened] };
        let told = || files.map(|file| fs::read_to_string(directory.join(file)).unwrap());
        group.limit(&Limits { memory: 1 << 20, cpu_thousandths: 1500, processes: 10 }, 1).unwrap();
        assert_eq!(told(), ["1048576", "0", "150000 100000", "10"]);
        for file in files {
            fs::write(directory.join(file), "").unwrap();
        }
        group.limit(&Limits::default(), 1).unwrap();
        assert_eq!(told(), ["max", "max", "max 100000", "4096"]);
        fs::write(directory.join("memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
        fs::write(directory.join("pids.events"), "max 5\n").unwrap();
        assert_eq!(group.met(), Met { out_of_memory: 2, out_of_processes: 5 });
        fs::remove_dir_all(directory).unwrap();
    }

    /// `None`, loudly, where this process may make no groups.
    fn real() -> Option<Groups> {
        let groups = Groups::make();
        if groups.enforced() == Enforced::default() {
            eprintln!("SKIPPED: no control groups can be made here");
            return None;
        }
        Some(groups)
    }

    #[test]
    fn a_thread_in_a_group_starts_processes_in_it_and_no_more_than_it_may() {
        let Some(groups) = real().filter(|groups| groups.enforced().processes) else { return };
        let group = groups.group("test").unwrap();
        let doors = group.doors().unwrap();
        group.limit(&Limits { processes: 3, ..Limits::default() }, 1).unwrap();
        if !doors.of_thread.is_empty() {
            let refused = std::thread::scope(|scope| {
                let inside = scope.spawn(|| {
                    doors.enter_as_thread().unwrap();
                    let start = || std::process::Command::new("sleep").arg("60").spawn();
                    let mut children: Vec<_> = (0..20).map_while(|_| start().ok()).collect();
                    let count = children.len();
                    for child in &mut children {
                        child.kill().unwrap();
                        child.wait().unwrap();
                    }
                    count
                });
                inside.join().unwrap()
            });
            assert_eq!(refused, 3);
            assert!(group.met().out_of_processes > 0);
        }
        group.remove();
        let directories: Vec<PathBuf> = groups.seats.iter().map(|seat| seat.directory.clone()).collect();
        groups.remove();
        assert!(directories.iter().all(|directory| !directory.exists()));
    }
}
