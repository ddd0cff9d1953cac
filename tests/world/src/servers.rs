//! A system with one Bullet server and one directory server, each on a host of its own, on disks that outlive them.

use std::time::Duration;

use amoeba_bullet::Settings;
use amoeba_cap::{Capability, ObjectNumber, Rights};
use amoeba_directory::Options;
use amoeba_sim::{HostId, Nemesis, Place, Sim};

const BULLET_DISK_SIZE: u64 = 6 << 20;
const THREADS: usize = 4;

/// The hosts of a system and the capabilities that its maker got.
#[derive(Clone)]
pub struct Servers {
    /// Where the Bullet server runs.
    pub bullet_host: HostId,
    /// Where the directory server runs.
    pub directory_host: HostId,
    /// Where clients run.
    pub client_hosts: Vec<HostId>,
    /// The Bullet server's own capability.
    pub bullet: Capability,
    /// The root directory, with all rights.
    pub root: Capability,
}

impl Servers {
    /// Formats the disks and starts both servers. Call it from a thread of the test.
    pub fn start(sim: &Sim) -> Servers {
        let bullet_host = sim.add_host();
        let directory_host = sim.add_host();
        let client_hosts = vec![sim.add_host(), sim.add_host()];
        let bullet = sim.spawn(bullet_host, "format", format_bullet).join().expect("nothing crashes yet");
        let root = sim.spawn(directory_host, "format", format_directory).join().expect("nothing crashes yet");
        sim.program(bullet_host, "bullet", serve_bullet);
        sim.program(directory_host, "directory", serve_directory);
        Servers { bullet_host, directory_host, client_hosts, bullet, root }
    }

    /// Every harm to the servers' hosts and to the network; clients live.
    pub fn every_harm(&self) -> Nemesis {
        Nemesis {
            hosts: vec![self.bullet_host, self.directory_host],
            programs: vec![
                (self.bullet_host, "bullet".to_owned()),
                (self.directory_host, "directory".to_owned()),
            ],
            storms: true,
            partitions: true,
            pause: Duration::from_millis(900),
        }
    }
}

fn format_bullet(place: Place) -> Capability {
    let disk = place.disk("bullet", BULLET_DISK_SIZE);
    let made = amoeba_bullet::format(&*disk, &*place.world.entropy, &Default::default());
    let made = made.expect("an empty disk is large enough");
    let port = place.world.transactions.put_port(&made.get_port).expect("F is always there");
    made.secret.capability(port, ObjectNumber::SUPER, Rights::ALL, made.super_random)
}

fn serve_bullet(place: Place) {
    let disk = place.slow_disk("bullet", BULLET_DISK_SIZE);
    let settings = Settings {
        cache_size: 1 << 20,
        sweep_interval: Duration::from_secs(5),
        uncommitted_life: Duration::from_secs(600),
    };
    // On a dead disk this panics unheard; on a living one it is the end of the test.
    let running = amoeba_bullet::start(&place.world, disk, settings, THREADS);
    let running = running.unwrap_or_else(|error| panic!("Bullet does not start: {error}"));
    let closed = running.join();
    panic!("nobody closed Bullet: {closed:?}");
}

fn format_directory(place: Place) -> Capability {
    let (tables, log) = (place.disk("tables", 0), place.disk("log", 0));
    let format = amoeba_directory::Format { log_size: 4 << 20, ..Default::default() };
    let time = place.world.clock.unix_time().as_nanos() as u64;
    let made = amoeba_directory::format(tables, &*log, &*place.world.entropy, time, &format);
    let made = made.unwrap_or_else(|error| panic!("no directory service can be made: {error}"));
    let port = place.world.transactions.put_port(&made.identity.get_port).expect("F is always there");
    made.root_capability(port)
}

fn serve_directory(place: Place) {
    // redb reads its tables under locks of its own, so they are on a disk that never parks.
    let (tables, log) = (place.disk("tables", 0), place.slow_disk("log", 0));
    // Few entries a checkpoint, so that crashes meet checkpoints.
    let options = Options { cache_size: 1 << 20, checkpoint_entries: 12 };
    let running = amoeba_directory::start(&place.world, tables, log, options, THREADS);
    let running = running.unwrap_or_else(|error| panic!("the directory server does not start: {error}"));
    running.join();
    panic!("nobody closed the directory server");
}
