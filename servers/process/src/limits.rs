//! How much of its host a process may use with everything it starts, and which of it a host can enforce.
//!
//! A limit that a host cannot enforce is refused there and never ignored. Zero asks for no limit of one's own; the host has
//! bounds of its own for whoever asks for none, as far as it can.

use std::fmt;

use amoeba_stubs::process::{ENFORCES_CPU, ENFORCES_MEMORY, ENFORCES_PROCESSES};
use amoeba_wire::{Malformed, Reader, Writer};

/// The unit of [`Limits::cpu_thousandths`]: this much is one processor.
pub const CPU_THOUSANDTHS_PER_CPU: u32 = 1000;
/// How many processes and threads a guest may have that asked for no limit.
pub const PROCESSES_DEFAULT: u32 = 4096;

/// What a process asked for; zeros are not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, page cache of its own included.
    pub memory: u64,
    /// Processor time a second of real time, in thousandths.
    pub cpu_thousandths: u32,
    /// Processes and threads at one time.
    pub processes: u32,
}

impl Limits {
    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        *self != Limits::default()
    }

    /// What a host must enforce for it.
    pub fn wanted(&self) -> Enforced {
        Enforced { memory: self.memory > 0, cpu: self.cpu_thousandths > 0, processes: self.processes > 0 }
    }

    /// The bytes in a descriptor: memory (u64), processor time (u32), processes (u32).
    pub(crate) fn put(&self, out: &mut Writer) {
        out.put_u64(self.memory).put_u32(self.cpu_thousandths).put_u32(self.processes);
    }

    /// The inverse of [`Limits::put`]; limits that limit nothing have no bytes.
    pub(crate) fn get(input: &mut Reader<'_>) -> Result<Limits, Malformed> {
        let (memory, cpu_thousandths, processes) = (input.get_u64()?, input.get_u32()?, input.get_u32()?);
        let limits = Limits { memory, cpu_thousandths, processes };
        if limits.any() { Ok(limits) } else { Err(Malformed) }
    }
}

impl fmt::Display for Limits {
    /// As in `64 MiB, 1.5 processors, 10 processes`; nothing when nothing is limited.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.memory > 0 {
            parts.push(size_of(self.memory));
        }
        if self.cpu_thousandths > 0 {
            parts.push(format!("{} processors", f64::from(self.cpu_thousandths) / 1000.0));
        }
        if self.processes > 0 {
            parts.push(format!("{} processes", self.processes));
        }
        f.write_str(&parts.join(", "))
    }
}

/// A number of bytes for people, exact.
fn size_of(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift && bytes >> shift > 0) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

/// Which limits a host can enforce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enforced {
    /// Memory of a process with everything it starts.
    pub memory: bool,
    /// Processor time.
    pub cpu: bool,
    /// Processes.
    pub processes: bool,
}

impl Enforced {
    /// What of `limits` cannot be enforced, for people; `None` when all can.
    pub fn lacks(self, limits: &Limits) -> Option<&'static str> {
        match limits.wanted() {
            wanted if wanted.memory && !self.memory => Some("memory"),
            wanted if wanted.cpu && !self.cpu => Some("processor time"),
            wanted if wanted.processes && !self.processes => Some("the number of processes"),
            _ => None,
        }
    }

    /// As the bits that `load` answers.
    pub fn bits(self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.memory, ENFORCES_MEMORY)
            | bit(self.cpu, ENFORCES_CPU)
            | bit(self.processes, ENFORCES_PROCESSES)
    }

    /// The inverse of [`Enforced::bits`]; bits that are not known are not looked at.
    pub fn from_bits(bits: u8) -> Enforced {
        Enforced {
            memory: bits & ENFORCES_MEMORY != 0,
            cpu: bits & ENFORCES_CPU != 0,
            processes: bits & ENFORCES_PROCESSES != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_exactly() {
        let told =
            |memory, cpu_thousandths, processes| Limits { memory, cpu_thousandths, processes }.to_string();
        assert_eq!(told(64 << 20, 1500, 10), "64 MiB, 1.5 processors, 10 processes");
        assert_eq!(told(1 << 30, 0, 0), "1 GiB");
        assert_eq!(told((1 << 20) + 1, 0, 0), "1048577 bytes");
        assert_eq!(told(0, 0, 0), "");
    }

    #[test]
    fn what_cannot_be_enforced_is_named() {
        let all = Enforced { memory: true, cpu: true, processes: true };
        let limits = Limits { memory: 1, cpu_thousandths: 1, processes: 1 };
        assert_eq!(all.lacks(&limits), None);
        assert_eq!(Enforced { memory: false, ..all }.lacks(&limits), Some("memory"));
        assert_eq!(Enforced { cpu: false, ..all }.lacks(&limits), Some("processor time"));
        assert_eq!(
            Enforced::default().lacks(&Limits { processes: 1, ..Limits::default() }),
            Some("the number of processes")
        );
        assert_eq!(Enforced::default().lacks(&Limits::default()), None);
        for bits in 0..8 {
            assert_eq!(Enforced::from_bits(bits).bits(), bits);
        }
    }
}
