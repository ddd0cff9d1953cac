//! Harm, drawn from the seed: storms, partitions, killed processes, hosts that crash in the middle of a disk write.

use std::time::Duration;

use crate::host::HostId;
use crate::network::Faults;
use crate::random::Prng;
use crate::sim::Sim;

/// What may be harmed.
#[derive(Clone, Debug, Default)]
pub struct Nemesis {
    /// Hosts that may crash; each comes back within three seconds.
    pub hosts: Vec<HostId>,
    /// Programs of which a process may be killed; it comes back within a second.
    pub programs: Vec<(HostId, String)>,
    /// Whether the network may storm.
    pub storms: bool,
    /// Whether hosts may be cut off from each other, at most for three seconds.
    pub partitions: bool,
    /// The longest pause between two harms; at least a millisecond.
    pub pause: Duration,
}

impl Nemesis {
    /// Does harm for `time`, then undoes all of it: every host is up, the link is whole and quiet.
    pub fn torment(&self, sim: &Sim, time: Duration) {
        let mut random = sim.random("nemesis");
        let end = sim.now() + time;
        while sim.now() < end {
            let pause = random.between(0, self.pause.as_micros() as u64).max(1000);
            sim.sleep(Duration::from_micros(pause).min(end - sim.now()));
            self.harm(sim, &mut random);
        }
        sim.heal();
        sim.set_faults(Faults::NONE);
        for &host in &self.hosts {
            sim.restart_host(host);
        }
    }

    fn harm(&self, sim: &Sim, random: &mut Prng) {
        match random.below(6) {
            0 | 1 if !self.programs.is_empty() => self.kill(sim, random),
            2 if !self.hosts.is_empty() => self.crash(sim, random),
            3 if self.partitions => {
                let sides = random.word();
                sim.partition(|host| (sides >> (host.0 % 64) & 1) as u32);
                sim.sleep(Duration::from_millis(random.between(10, 3000)));
                sim.heal();
            }
            _ if self.storms => {
                let calm = random.chance(300);
                sim.set_faults(if calm { Faults::NONE } else { storm(random) });
            }
            _ => {}
        }
    }

    fn kill(&self, sim: &Sim, random: &mut Prng) {
        let (host, name) = random.pick(&self.programs);
        let living = sim.processes(*host, name);
        if !living.is_empty() {
            let process = *random.pick(&living);
            sim.crash_process(process, Duration::from_millis(random.between(0, 1000)));
        }
        // What a killed server wrote and did not flush is still with its host; a crash after its restart takes it.
        if self.hosts.contains(host) && random.chance(250) {
            sim.sleep(Duration::from_millis(random.between(0, 1200)));
            self.crash_one(sim, random, *host);
        }
    }

    fn crash(&self, sim: &Sim, random: &mut Prng) {
        let host = *random.pick(&self.hosts);
        self.crash_one(sim, random, host);
    }

    fn crash_one(&self, sim: &Sim, random: &mut Prng, host: HostId) {
        if random.chance(500) {
            sim.crash_host_at_disk_operation(host, random.between(0, 40));
            sim.sleep(Duration::from_millis(random.between(0, 500)));
        }
        sim.crash_host(host);
        sim.sleep(Duration::from_millis(random.between(0, 3000)));
        sim.restart_host(host);
    }
}

/// Some bad weather, up to [`Faults::STORM`].
fn storm(random: &mut Prng) -> Faults {
    let worst = Faults::STORM;
    let high = random.between(worst.delay.0.as_nanos() as u64, worst.delay.1.as_nanos() as u64);
    Faults {
        delay: (worst.delay.0, Duration::from_nanos(high)),
        loss: random.between(0, u64::from(worst.loss)) as u32,
        duplicate: random.between(0, u64::from(worst.duplicate)) as u32,
        late: random.between(0, u64::from(worst.late)) as u32,
    }
}
