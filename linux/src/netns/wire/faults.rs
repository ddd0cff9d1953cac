//! What a wire does to frames, in words and in dice.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// How long a frame is held back that others overtake, or that arrives twice.
const HELD_BACK_MAX: Duration = Duration::from_millis(10);
/// The longest delay that can be asked for.
const DELAY_MAX: Duration = Duration::from_secs(10);
/// Random numbers that one frame costs, whatever happens to it.
const THROWS: usize = 8;

/// Faults of a wire, as text `loss=5%,duplicate=2%,reorder=10%,delay=1ms..20ms,corrupt=1%,rate=100mbit,seed=7`. Every part
/// may be missing; no part is no fault.
///
/// What happens to a frame depends on the seed, its two hosts and how many frames went between them before, and on
/// nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Share of frames that are lost, 0 to 1.
    pub loss: f64,
    /// Share of frames that arrive twice, the second up to 10 ms later.
    pub duplicate: f64,
    /// Share of frames that are held back up to 10 ms more and overtaken meanwhile; all others stay in order.
    pub reorder: f64,
    /// Share of frames in which a bit is turned over. In UDP datagrams the checksum is mended so that the program must
    /// notice; other frames are dropped, as by a network card.
    pub corrupt: f64,
    /// The shortest and the longest time on the wire.
    pub delay: (Duration, Duration),
    /// Bits per second that reach one host; frames queue for it.
    pub rate: Option<u64>,
    /// What decides.
    pub seed: Option<u64>,
}

/// Not a description of faults.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no fault of a wire: loss=, duplicate=, reorder= and corrupt= take a share such as 5% or 0.05, delay= a \
     time of at most 10s or two such as 1ms..20ms, rate= bits a second such as 100mbit, seed= a number"
)]
pub struct FaultsError(String);

impl FromStr for Faults {
    type Err = FaultsError;

    fn from_str(text: &str) -> Result<Faults, FaultsError> {
        let mut faults = Faults::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "none") {
            let known = part.split_once('=').and_then(|(name, value)| faults.set(name, value));
            known.ok_or_else(|| FaultsError(part.to_owned()))?;
        }
        Ok(faults)
    }
}

impl Faults {
    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "loss" => self.loss = share(value)?,
            "duplicate" => self.duplicate = share(value)?,
            "reorder" => self.reorder = share(value)?,
            "corrupt" => self.corrupt = share(value)?,
            "delay" => {
                let (least, most) = value.split_once("..").unwrap_or((value, value));
                self.delay = (time(least)?, time(most)?);
                (self.delay.0 <= self.delay.1).then_some(())?;
            }
            "rate" => self.rate = Some(rate(value)?),
            "seed" => self.seed = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = [
            ("loss", self.loss),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("corrupt", self.corrupt),
        ];
        let mut parts: Vec<String> = Vec::new();
        parts.extend(
            shares.iter().filter(|(_, share)| *share > 0.0).map(|(name, share)| format!("{name}={share}")),
        );
        if self.delay.1 > Duration::ZERO {
            parts.push(format!("delay={}us..{}us", self.delay.0.as_micros(), self.delay.1.as_micros()));
        }
        parts.extend(self.rate.map(|rate| format!("rate={rate}bit")));
        parts.extend(self.seed.map(|seed| format!("seed={seed}")));
        f.write_str(&parts.join(","))
    }
}

fn share(text: &str) -> Option<f64> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// A number and a unit.
fn measure(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let start = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(start);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    let value = number.trim().parse::<f64>().ok()? * factor;
    (value.is_finite() && value >= 0.0).then_some(value)
}

fn time(text: &str) -> Option<Duration> {
    let seconds = measure(text, &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("", 1.0)])?;
    (seconds <= DELAY_MAX.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
}

fn rate(text: &str) -> Option<u64> {
    let bits = measure(text, &[("", 1.0), ("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)])?;
    (1.0..1e15).contains(&bits).then_some(bits as u64)
}

/// What becomes of one frame.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fate {
    pub(super) lost: bool,
    /// How much later than the first its copy arrives.
    pub(super) copy: Option<Duration>,
    /// How long it is held back while others overtake it.
    pub(super) held_back: Option<Duration>,
    pub(super) delay: Duration,
    /// Which bit is turned over, to be taken modulo their number.
    pub(super) damage: Option<u64>,
}

/// The luck of the frames from one host to another.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, from: usize, to: usize) -> Dice {
        let path = (from as u64) << 32 | to as u64;
        let mut dice = Dice(seed ^ path.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.throw();
        dice
    }

    /// The fate of the next frame.
    pub(super) fn fate(&mut self, faults: &Faults) -> Fate {
        let throws: [u64; THROWS] = std::array::from_fn(|_| self.throw());
        let unit = |throw: u64| (throw >> 11) as f64 / (1u64 << 53) as f64;
        let happens = |throw: u64, share: f64| unit(throw) < share;
        let (least, most) = faults.delay;
        Fate {
            lost: happens(throws[0], faults.loss),
            copy: happens(throws[1], faults.duplicate).then(|| HELD_BACK_MAX.mul_f64(unit(throws[2]))),
            held_back: happens(throws[3], faults.reorder).then(|| HELD_BACK_MAX.mul_f64(unit(throws[4]))),
            delay: least + (most - least).mul_f64(unit(throws[5])),
            damage: happens(throws[6], faults.corrupt).then_some(throws[7]),
        }
    }

    /// SplitMix64: small, even, and the same for ever.
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_written() {
        let text = "loss=5%,duplicate=2%,reorder=10%,delay=1ms..20ms,corrupt=1%,rate=100mbit,seed=7";
        let faults: Faults = text.parse().unwrap();
        assert_eq!((faults.loss, faults.duplicate, faults.reorder, faults.corrupt), (0.05, 0.02, 0.1, 0.01));
        assert_eq!(faults.delay, (Duration::from_millis(1), Duration::from_millis(20)));
        assert_eq!((faults.rate, faults.seed), (Some(100_000_000), Some(7)));
        assert_eq!(faults.to_string().parse(), Ok(faults));
        assert_eq!("".parse(), Ok(Faults::default()));
        assert_eq!("none,seed=1".parse(), Ok(Faults { seed: Some(1), ..Faults::default() }));
        for wrong in [
            "loss",
            "loss=",
            "loss=101%",
            "loss=-1%",
            "loss=nan",
            "delay=2ms..1ms",
            "delay=1h",
            "delay=11s",
            "rate=0",
            "seed=x",
            "luck=5%",
        ] {
            assert_eq!(wrong.parse::<Faults>(), Err(FaultsError(wrong.to_owned())), "{wrong}");
        }
    }

    #[test]
    fn no_text_panics_and_what_is_read_is_written_alike() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Ok(faults) = text.parse::<Faults>() {
                let again: Faults = faults.to_string().parse().expect("what we write is read");
                assert_eq!((again.loss, again.seed, again.rate), (faults.loss, faults.seed, faults.rate));
            }
        });
    }

    #[test]
    fn a_seed_decides_and_paths_differ() {
        let faults: Faults = "loss=50%,delay=0s..1s,corrupt=50%".parse().unwrap();
        let fates = |seed, from, to| {
            let mut dice = Dice::new(seed, from, to);
            (0..100).map(|_| dice.fate(&faults)).collect::<Vec<_>>()
        };
        assert_eq!(fates(7, 0, 1), fates(7, 0, 1));
        assert_ne!(fates(7, 0, 1), fates(7, 1, 0));
        assert_ne!(fates(7, 0, 1), fates(8, 0, 1));
    }

    #[test]
    fn shares_are_met_and_one_fault_does_not_change_the_others() {
        let faults: Faults = "loss=5%,reorder=10%,delay=1ms..20ms".parse().unwrap();
        let fates = |faults: &Faults| {
            let mut dice = Dice::new(1, 0, 1);
            (0..100_000).map(|_| dice.fate(faults)).collect::<Vec<_>>()
        };
        let with = fates(&faults);
        let share = |met: fn(&Fate) -> bool| with.iter().filter(|fate| met(fate)).count() as f64 / 1e5;
        assert!((0.045..0.055).contains(&share(|fate| fate.lost)));
        assert!((0.09..0.11).contains(&share(|fate| fate.held_back.is_some())));
        assert!(with.iter().all(|fate| fate.copy.is_none() && fate.damage.is_none()));
        let (least, most) = faults.delay;
        assert!(with.iter().all(|fate| (least..=most).contains(&fate.delay)));
        let without = fates(&Faults { reorder: 0.0, ..faults });
        assert!(with.iter().zip(&without).all(|(a, b)| (a.lost, a.delay) == (b.lost, b.delay)));
    }
}
