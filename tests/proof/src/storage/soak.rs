//! Everything at full speed for long: memory and descriptors of every daemon stay what they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::client::Disk;
use super::{Error, Stage};

const CLIENTS: u64 = 6;
/// Samples of each third of a run at least.
const SAMPLES: u32 = 60;
const MIB: u64 = 1 << 20;
/// What a daemon's memory may be more in the last third of a run than in the one before.
const GROWTH_MAX: u64 = 8 * MIB;
/// What the two servers' caches are set to: up to this their memory may grow for as long as it takes to fill them.
const CACHE: u64 = 256 * MIB;
/// Descriptors that clients come and go with.
const DESCRIPTORS_SLACK: u64 = 8;

/// What a daemon holds at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Its memory, in bytes: what is its own, and its share of what is not; files of the system left out.
    memory: u64,
    descriptors: u64,
}

/// Works for this long; then kills everything, and compares too.
///
/// # Errors
/// A promise that was broken, or what grew.
pub fn run(seed: u64, time: Duration) -> Result<(), Error> {
    let mut stage = Stage::new(seed, CLIENTS, Disk::Sound)?;
    stage.revive()?;
    let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    let outcome = stage.work(|host| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::thread::sleep(time / (3 * SAMPLES));
            for (role, pid) in host.daemons() {
                samples.entry(role).or_default().extend(sample(pid));
            }
        }
        Ok(())
    });
    let tally = stage.tally();
    println!("seed {seed}: {tally:?}, {:.0} operations a second", tally.done as f64 / time.as_secs_f64());
    let grown = judge(&samples);
    stage.host.lose();
    let outcome = outcome.and_then(|()| stage.revive()).and_then(|world| stage.verify(&world));
    if let Err(error) = outcome {
        println!("{}", stage.report());
        return Err(format!("seed {seed}: {error}").into());
    }
    grown.map_err(Error::from)
}

/// Compares the last third of a run with the one before.
fn judge(samples: &BTreeMap<String, Vec<Sample>>) -> Result<(), String> {
    let mut grown = Vec::new();
    for (role, samples) in samples {
        let third = samples.len() / 3;
        if third == 0 {
            return Err(format!("{role} was never looked at"));
        }
        let most = |samples: &[Sample]| Sample {
            memory: samples.iter().map(|sample| sample.memory).max().unwrap_or(0),
            descriptors: samples.iter().map(|sample| sample.descriptors).max().unwrap_or(0),
        };
        let (first, middle, last) =
            (most(&samples[..third]), most(&samples[third..2 * third]), most(&samples[2 * third..]));
        println!(
            "{role:<12} memory {:>4} {:>4} {:>4} MiB, descriptors {:>3} {:>3} {:>3}",
            first.memory / MIB,
            middle.memory / MIB,
            last.memory / MIB,
            first.descriptors,
            middle.descriptors,
            last.descriptors
        );
        let has_cache = ["bullet", "directory"].contains(&role.as_str());
        let flat = middle.memory + middle.memory / 20 + GROWTH_MAX;
        if last.memory > if has_cache { flat.max(CACHE) } else { flat } {
            grown.push(format!("{role}: {} bytes, then {}", middle.memory, last.memory));
        }
        if last.descriptors > middle.descriptors + DESCRIPTORS_SLACK {
            grown.push(format!("{role}: {} descriptors, then {}", middle.descriptors, last.descriptors));
        }
    }
    if grown.is_empty() { Ok(()) } else { Err(format!("not flat: {}", grown.join("; "))) }
}

/// `None` when it is no more, or is not ours to look at.
fn sample(pid: i32) -> Option<Sample> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let memory = (field("Pss_Anon:")? + field("Pss_Shmem:")?) << 10;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Sample { memory, descriptors })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(role: &str, memory: [u64; 3], descriptors: [u64; 3]) -> BTreeMap<String, Vec<Sample>> {
        let of = |third: usize| Sample { memory: memory[third] * MIB, descriptors: descriptors[third] };
        let samples = (0..3).flat_map(|third| vec![of(third); 5]).collect();
        BTreeMap::from([(role.to_owned(), samples)])
    }

    #[test]
    fn only_what_grows_after_its_warm_up_is_a_leak() {
        let judge = |role, memory, descriptors| judge(&run_of(role, memory, descriptors));
        assert_eq!(judge("kernel", [10, 300, 305], [9, 20, 20]), Ok(()));
        assert_eq!(judge("kernel", [300, 300, 10], [20, 20, 9]), Ok(()));
        assert!(judge("kernel", [10, 100, 120], [9, 9, 9]).unwrap_err().contains("bytes"));
        assert!(judge("kernel", [10, 10, 10], [9, 9, 40]).unwrap_err().contains("descriptors"));
        assert_eq!(judge("bullet", [10, 100, 200], [9, 9, 9]), Ok(()));
        assert!(judge("bullet", [10, 240, 300], [9, 9, 9]).unwrap_err().contains("bytes"));
    }
}
