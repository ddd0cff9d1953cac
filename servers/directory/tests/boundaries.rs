//! A crash at every boundary between two writes, of either disk, while updates are made and checkpoints run behind them.
//!
//! Everything that both disks were asked for is written down in its order; then each beginning of that story is taken for
//! all that happened before a crash: what was flushed is there, of the rest any sectors, one torn.

mod support;

use std::sync::{Arc, Mutex};

use amoeba_cap::{Capability, CapabilitySet, Private};
use amoeba_directory::checkpoint;
use amoeba_directory::update::Install;
use amoeba_directory::{Name, Outcome, Store, Update};
use amoeba_world::{Disk, DiskError};
use support::{CrashDisk, OPEN, Random, Service};

/// Updates of the story: more than one checkpoint falls into it.
const UPDATES: u64 = 48;
const ROWS: u64 = 3;

/// What happened, in order.
enum Event {
    Write {
        disk: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Size {
        disk: usize,
        size: u64,
    },
    Flush {
        disk: usize,
    },
    /// The client of this update has heard that it is done.
    Acknowledged(u64),
}

type Story = Arc<Mutex<Vec<Event>>>;

/// A disk that writes down what it does.
struct Recorded {
    number: usize,
    disk: Arc<CrashDisk>,
    story: Story,
}

impl Recorded {
    /// Does it and writes it down, with nothing of the other disk between.
    fn tell(&self, event: Event, work: impl FnOnce() -> Result<(), DiskError>) -> Result<(), DiskError> {
        let mut story = self.story.lock().unwrap();
        work()?;
        story.push(event);
        Ok(())
    }
}

impl Disk for Recorded {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        self.tell(Event::Size { disk: self.number, size }, || self.disk.set_size(size))
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read(offset, bytes)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let event = Event::Write { disk: self.number, offset, bytes: bytes.to_vec() };
        self.tell(event, || self.disk.write(offset, bytes))
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.tell(Event::Flush { disk: self.number }, || self.disk.flush())
    }
}

fn name(number: u64, row: u64) -> Name {
    Name::new(format!("{number:03}-{row}").as_bytes()).unwrap()
}

/// Update `number`: an install of rows, or (each third) the deletion of those of the update before.
fn update(root: Private, number: u64) -> Update {
    let deletes = number % 3 == 2;
    let value = |number: u64, row: u64| {
        let mut bytes = [0xFF; 16];
        bytes[6..14].copy_from_slice(&(number << 8 | row).to_le_bytes());
        Capability::from_bytes(bytes)
    };
    let install = |row| Install {
        directory: root,
        name: name(if deletes { number - 1 } else { number }, row),
        new: if deletes { CapabilitySet::default() } else { CapabilitySet::singleton(value(number, row)) },
        old: deletes.then(|| value(number - 1, row)),
        keep: false,
        masks: OPEN,
        kind: Capability::NULL,
        attributes: Vec::new(),
        restricted: Vec::new(),
    };
    Update::Install((0..ROWS).map(install).collect())
}

/// How many rows of update `number` there are after `done` updates.
fn expected(number: u64, done: u64) -> u64 {
    let deleted = number % 3 == 1 && number + 1 < done;
    if number % 3 != 2 && number < done && !deleted { ROWS } else { 0 }
}

/// Both disks as a crash after these events leaves them, and how many updates were acknowledged.
fn crashed(base: &[Vec<u8>; 2], events: &[Event], random: &mut Random) -> ([Arc<CrashDisk>; 2], u64) {
    let disks = [CrashDisk::of(base[0].clone()), CrashDisk::of(base[1].clone())];
    let mut acknowledged = 0;
    for event in events {
        match event {
            Event::Write { disk, offset, bytes } => disks[*disk].write(*offset, bytes).unwrap(),
            Event::Size { disk, size } => disks[*disk].set_size(*size).unwrap(),
            Event::Flush { disk } => disks[*disk].flush().unwrap(),
            Event::Acknowledged(number) => acknowledged = number + 1,
        }
    }
    (disks.map(|disk| disk.crash(random)), acknowledged)
}

fn check(store: &Store, root: Private, acknowledged: u64) -> Result<(), String> {
    let all = |done: u64| {
        (0..UPDATES).all(|number| {
            let there = |row: &u64| store.row(root.object, &name(number, *row)).unwrap().is_some();
            (0..ROWS).filter(there).count() as u64 == expected(number, done)
        })
    };
    // One update may be under way: it is there whole or not at all.
    if all(acknowledged) || all(acknowledged + 1) {
        Ok(())
    } else {
        Err(format!(
            "{acknowledged} updates were acknowledged, and what is there is neither these nor one more"
        ))
    }
}

#[test]
fn a_crash_between_any_two_writes_loses_nothing_acknowledged_and_shows_nothing_half_done() {
    crash_everywhere(false);
}

/// Whose writes come between whose is then a matter of luck; the story that came about is the one that is checked.
#[test]
fn nor_does_one_while_a_checkpoint_runs_in_the_background() {
    crash_everywhere(true);
}

/// `attended`: checkpoints run on a thread of their own, as in a server at work.
fn crash_everywhere(attended: bool) {
    let service = Service::new();
    let root = service.root().private;
    let story = Story::default();
    let base = [service.tables.image(), service.log.image()];
    let recorded = [service.tables.clone(), service.log.clone()];
    let [tables, log] = [0, 1].map(|number| {
        let disk = recorded[number].clone();
        Arc::new(Recorded { number, disk, story: story.clone() }) as Arc<dyn Disk>
    });
    let store = Arc::new(Store::open(&service.world, tables, log, service.options).unwrap());
    if attended {
        checkpoint::attend(&store).unwrap();
    }
    for number in 0..UPDATES {
        assert_eq!(store.update(update(root, number)), Ok(Outcome::Done));
        story.lock().unwrap().push(Event::Acknowledged(number));
        if number == UPDATES / 2 {
            store.checkpoint().unwrap();
        }
    }
    drop(store);
    let events = std::mem::take(&mut *story.lock().unwrap());
    let flushes = |wanted: usize| {
        let of = |event: &&Event| matches!(event, Event::Flush { disk } if *disk == wanted);
        events.iter().filter(of).count()
    };
    assert!(flushes(0) > 1 && flushes(1) > 10, "no checkpoint falls into the story");
    let seeds = std::env::var("AMOEBA_SEEDS").ok().and_then(|text| text.parse::<u64>().ok());
    let variants = seeds.map_or(1, |seeds| seeds.div_ceil(100));
    for boundary in 0..=events.len() {
        for variant in 0..variants {
            let mut random = Random(boundary as u64 * 1000 + variant);
            let ([tables, log], acknowledged) = crashed(&base, &events[..boundary], &mut random);
            let story = || format!("event {boundary} of {}, variant {variant}", events.len());
            let store = Store::open(&service.world, tables, log, service.options)
                .unwrap_or_else(|error| panic!("{}: {error}", story()));
            check(&store, root, acknowledged).unwrap_or_else(|error| panic!("{}: {error}", story()));
        }
    }
}
