//! Everything at full speed for long: memory and descriptors of every daemon stay what they are.
//!
//! The servers' caches are set small, so that they are full early, and what a server says is in them is not counted as
//! growth: a leak is what no cache explains. All of a server's memory, leak or not, must stay within what is documented.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use amoeba::{World, bullet, directory};

use super::client::{Disk, Servers};
use super::{Error, Stage};

const CLIENTS: u64 = 6;
/// Samples of each quarter of a run.
const SAMPLES: u32 = 45;
const MIB: u64 = 1 << 20;
/// What a daemon's memory may be more in the last quarter of a run than in the one before, with its caches and without them:
/// a cache that fills makes the first larger, one that a destroyed file leaves the second, and a leak both. Medians are
/// compared: both servers' memory goes up and down by some MiB with what is under way and with the gaps in the heap.
const GROWTH_MAX: u64 = 8 * MIB;
/// What the two servers' caches are set to: less than the clients' files together, so that it is full in every run.
const BULLET_CACHE: u64 = 64 * MIB;
const DIRECTORY_CACHE: u64 = 32 * MIB;
/// What a server may have beside its cache setting: see "In memory" of `docs/bullet.md` and of `docs/directory.md`.
const BESIDE_CACHE: u64 = 96 * MIB;
/// What a daemon without a cache may have.
const SMALL: u64 = 64 * MIB;
/// Descriptors that clients come and go with.
const DESCRIPTORS_SLACK: u64 = 8;

/// What a daemon holds at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Its memory, in bytes: what is its own, and its share of what is not; files of the system left out.
    memory: u64,
    /// Of it: what it says that its caches have.
    cached: u64,
    descriptors: u64,
}

/// Works for this long; then kills everything, and compares too.
///
/// # Errors
/// A promise that was broken, or what grew.
pub fn run(seed: u64, time: Duration) -> Result<(), Error> {
    let mut stage = Stage::new(seed, CLIENTS, Disk::Sound)?;
    let config = format!("\n[bullet]\ncache = {BULLET_CACHE}\n[directory]\ncache = {DIRECTORY_CACHE}\n");
    let mut file = OpenOptions::new().create(true).append(true).open(stage.host.state.join("config.toml"))?;
    file.write_all(config.as_bytes())?;
    stage.host.lose(); // the next daemons read it
    let world = stage.revive()?;
    let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    let servers = stage.servers;
    let outcome = stage.work(|host| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            std::thread::sleep(time / (4 * SAMPLES));
            for (role, pid) in host.daemons() {
                let cached = cached(&world, &servers, &role);
                let sample = sample(pid).zip(cached);
                let sample = sample.map(|(sample, cached)| Sample { cached, ..sample });
                samples.entry(role).or_default().extend(sample);
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

/// The most that a daemon may have.
fn memory_max(role: &str) -> u64 {
    match role {
        "bullet" => BULLET_CACHE + BESIDE_CACHE,
        "directory" => DIRECTORY_CACHE + BESIDE_CACHE,
        _ => SMALL,
    }
}

/// Compares the last quarter of a run with the one before, and everything with what is documented.
fn judge(samples: &BTreeMap<String, Vec<Sample>>) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (role, samples) in samples {
        let quarter = samples.len() / 4;
        if quarter == 0 {
            return Err(format!("{role} was never looked at"));
        }
        let quarters: Vec<&[Sample]> = samples.chunks_exact(quarter).take(4).collect();
        let memory: Vec<u64> =
            quarters.iter().map(|samples| median(samples, |sample| sample.memory)).collect();
        let other =
            |samples: &[Sample]| median(samples, |sample| sample.memory.saturating_sub(sample.cached));
        let other: Vec<u64> = quarters.iter().map(|samples| other(samples)).collect();
        let descriptors: Vec<u64> =
            quarters.iter().map(|samples| median(samples, |sample| sample.descriptors)).collect();
        let most = samples.iter().map(|sample| sample.memory).max().unwrap_or(0);
        println!(
            "{role:<12} MiB {:?}, at most {}; caches left out {:?}; descriptors {descriptors:?}",
            memory.iter().map(|size| size / MIB).collect::<Vec<_>>(),
            most / MIB,
            other.iter().map(|size| size / MIB).collect::<Vec<_>>(),
        );
        if most > memory_max(role) {
            wrong.push(format!("{role}: {most} bytes, more than {}", memory_max(role)));
        }
        if memory[3] > memory[2] + GROWTH_MAX && other[3] > other[2] + GROWTH_MAX {
            wrong.push(format!("{role}: {} bytes beside its cache, then {}", other[2], other[3]));
        }
        if descriptors[3] > descriptors[2] + DESCRIPTORS_SLACK {
            wrong.push(format!("{role}: {} descriptors, then {}", descriptors[2], descriptors[3]));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("not flat: {}", wrong.join("; "))) }
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// What a daemon says that its caches have; `None` when it does not answer.
fn cached(world: &World, servers: &Servers, role: &str) -> Option<u64> {
    match role {
        "bullet" => {
            let usage = bullet::usage(world, &servers.bullet).ok()?;
            Some(usage.cached + usage.unwritten + usage.uncommitted)
        }
        "directory" => {
            let usage = directory::usage(world, &servers.root).ok()?;
            Some(usage.cache_used + usage.waiting)
        }
        _ => Some(0),
    }
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
    Some(Sample { memory, cached: 0, descriptors })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge_of(role: &str, memory: [u64; 4], cached: [u64; 4], descriptors: [u64; 4]) -> Result<(), String> {
        let of = |quarter: usize| Sample {
            memory: memory[quarter] * MIB,
            cached: cached[quarter] * MIB,
            descriptors: descriptors[quarter],
        };
        let samples = (0..4).flat_map(|quarter| vec![of(quarter); 5]).collect();
        judge(&BTreeMap::from([(role.to_owned(), samples)]))
    }

    #[test]
    fn only_what_grows_after_its_warm_up_and_beside_its_cache_is_a_leak() {
        let steady = [9; 4];
        assert_eq!(judge_of("kernel", [1, 30, 40, 43], [0; 4], [9, 9, 20, 20]), Ok(()));
        assert_eq!(judge_of("kernel", [50, 50, 50, 10], [0; 4], [20, 20, 20, 9]), Ok(()));
        assert!(judge_of("kernel", [10, 10, 10, 20], [0; 4], steady).unwrap_err().contains("then"));
        assert!(
            judge_of("kernel", [10, 10, 10, 10], [0; 4], [9, 9, 9, 40]).unwrap_err().contains("descriptors")
        );
        assert!(judge_of("kernel", [90, 10, 10, 10], [0; 4], steady).unwrap_err().contains("more than"));
        assert_eq!(judge_of("bullet", [10, 20, 40, 80], [0, 10, 30, 70], steady), Ok(()));
        assert!(
            judge_of("bullet", [10, 20, 40, 80], [0, 10, 30, 60], steady).unwrap_err().contains("beside")
        );
        assert!(
            judge_of("bullet", [10, 20, 40, 300], [0, 10, 30, 290], steady)
                .unwrap_err()
                .contains("more than")
        );
    }

    /// One moment in which much is under way is not growth.
    #[test]
    fn the_median_of_a_quarter_counts() {
        let mut samples = vec![Sample { memory: 10 * MIB, ..Sample::default() }; 40];
        samples[38].memory = 50 * MIB;
        assert_eq!(judge(&BTreeMap::from([("kernel".to_owned(), samples)])), Ok(()));
    }
}
