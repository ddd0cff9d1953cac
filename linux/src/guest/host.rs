//! What this host says of itself under `/proc`.

use std::collections::BTreeSet;
use std::time::Duration;

use amoeba_process::HostLoad;

/// How busy the host is. What cannot be read is zero.
pub(super) fn load() -> HostLoad {
    let memory = read("/proc/meminfo");
    let kibibytes =
        |name: &str| field(&memory, name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    HostLoad {
        cpus: std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        memory_free: kibibytes("MemAvailable") * 1024,
        memory_total: kibibytes("MemTotal") * 1024,
        kips: field(&read("/proc/cpuinfo"), "bogomips")
            .and_then(|value| value.parse::<f64>().ok())
            .map_or(0, |mips| (mips * 1000.0) as u32),
    }
}

/// The options of this host's processors, by the names that Linux gives them.
pub(super) fn cpu_options() -> BTreeSet<Vec<u8>> {
    let cpuinfo = read("/proc/cpuinfo");
    let flags = field(&cpuinfo, "flags").or_else(|| field(&cpuinfo, "Features"));
    flags.unwrap_or("").split_ascii_whitespace().map(|flag| flag.as_bytes().to_vec()).collect()
}

/// The number on this host of the child of `warden` that its namespace knows as `inner`.
pub(super) fn child(warden: u32, inner: u32) -> Option<u32> {
    children(warden).into_iter().find(|pid| {
        let status = read(&format!("/proc/{pid}/status"));
        field(&status, "NSpid").and_then(|pids| pids.split_ascii_whitespace().next_back()?.parse().ok())
            == Some(inner)
    })
}

/// Not every kernel has `/proc/PID/task/TID/children`, so every process is asked for its parent.
fn children(parent: u32) -> Vec<u32> {
    let Ok(directory) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = directory.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat_fields(*pid).is_some_and(|fields| fields.get(1) == Some(&parent.to_string())))
        .collect()
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything: state, parent, group and so on.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end_of_name + 1..]).ok()?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Processor time of a process and of its children that have ended: in their own code, in the kernel.
pub(super) fn times(pid: u32) -> Option<(Duration, Duration)> {
    let fields = stat_fields(pid)?;
    let mut fields = fields.iter().skip(11).map_while(|field| field.parse::<u64>().ok());
    let [user, system, child_user, child_system] = std::array::from_fn(|_| fields.next().unwrap_or(0));
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let time = |ticks: u64| Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second);
    Some((time(user + child_user), time(system + child_system)))
}

fn read(path: &str) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The value of `name: value` or `name : value unit`, without a unit of kB.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))?.1;
    Some(value.trim().trim_end_matches("kB").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_processors_and_memory() {
        let load = load();
        assert!(load.cpus > 0 && load.memory_total > 0 && load.memory_free <= load.memory_total);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:   100 kB\nflags\t\t: fpu sse\n";
        assert_eq!(field(text, "MemTotal"), Some("100"));
        assert_eq!(field(text, "flags"), Some("fpu sse"));
        assert_eq!(field(text, "Mem"), None);
    }

    #[test]
    fn our_own_times_are_known() {
        assert!(times(std::process::id()).is_some());
        assert_eq!(times(0), None);
    }
}
