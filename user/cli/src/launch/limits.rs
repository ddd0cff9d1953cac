//! How much of its host a command may use, as people say it.

use amoeba_process::{CPU_THOUSANDTHS_PER_CPU, Limits, ProcessDescriptor};
use clap::Args;

const UNITS: [(&str, u32); 5] = [("", 0), ("K", 10), ("M", 20), ("G", 30), ("T", 40)];
/// The least memory that a process can begin in.
const MEMORY_MIN: u64 = 1 << 20;

/// What a person may say about what a command is held to.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LimitOptions {
    /// Give it no more processor time than so many processors have: 0.5, 2
    #[arg(long, value_name = "N", value_parser = parse_processors)]
    cpus: Option<u32>,
    /// End it when it uses more memory, with everything it starts: 64M, 2G
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    mem: Option<u64>,
    /// Let it have no more processes and threads at one time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pids: Option<u32>,
    /// Let it use the network of its host; without this it has a loopback interface of its own and nothing else
    #[arg(long)]
    net: bool,
}

impl LimitOptions {
    /// Puts it into a descriptor.
    pub(crate) fn describe(&self, descriptor: &mut ProcessDescriptor) {
        descriptor.limits = self.limits();
        descriptor.network = self.net;
    }

    /// What is limited.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            memory: self.mem.unwrap_or(0),
            cpu_thousandths: self.cpus.unwrap_or(0),
            processes: self.pids.unwrap_or(0),
        }
    }
}

/// Processors as people write them, in thousandths.
fn parse_processors(text: &str) -> Result<u32, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = text.parse::<f64>().ok().filter(|_| digits);
    let thousandths = number.map(|number| number * f64::from(CPU_THOUSANDTHS_PER_CPU));
    // Less is less than the kernel measures out.
    let meant = thousandths.filter(|thousandths| (10.0..=1e9).contains(thousandths));
    meant
        .map(|thousandths| thousandths as u32)
        .ok_or_else(|| "processors are written 0.5, 1, 12; at least 0.01".into())
}

/// A size as people write it: bytes, or with K, M, G or T in powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let upper = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
    let unit_at = upper.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(upper.len());
    let (number, unit) = upper.split_at(unit_at);
    let shift = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, shift)| *shift);
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let size = number.parse::<u64>().ok().filter(|_| digits).zip(shift);
    let size = size.and_then(|(number, shift)| number.checked_mul(1 << shift));
    size.filter(|size| *size >= MEMORY_MIN).ok_or_else(|| "a size is written 64M, 2G; at least 1M".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_sizes_and_processors_in_many_ways() {
        let sizes = ["64M", "2g", "1048576", "64MiB", "1GB"].map(|text| parse_size(text).ok());
        assert_eq!(sizes, [Some(64 << 20), Some(2 << 30), Some(1 << 20), Some(64 << 20), Some(1 << 30)]);
        assert_eq!(
            ["", "M", "-1M", "1.5G", "1X", "100", "99999999999G"].map(|text| parse_size(text).ok()),
            [None; 7]
        );
        let processors = ["0.5", "2", "1.25", ".1"].map(|text| parse_processors(text).ok());
        assert_eq!(processors, [Some(500), Some(2000), Some(1250), Some(100)]);
        assert_eq!(
            ["", "0", "x", "-1", "1e3", "inf", "0.001"].map(|text| parse_processors(text).ok()),
            [None; 7]
        );
    }
}
