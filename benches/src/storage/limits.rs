//! What the machine can do with the same durability, with no server at all: a log that is flushed, and ext4.
//!
//! The log is what a file server of one flush a commit could at best be: bytes appended to a file that was written
//! before, and fdatasync; with several clients one flush for all who wait.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::fs::{Advice, fadvise};

use super::bytes::{Random, touch};
use crate::harness::Figures;
use crate::load::Histogram;
use crate::place::Use;

/// Bytes of the log, which is used round and round.
const LOG_SIZE: u64 = 512 << 20;
const BLOCK: u64 = 4096;
const MIB: usize = 1 << 20;
/// As a client warms up.
const WARM: Duration = Duration::from_millis(150);
/// Files that a reader of ext4 chooses among: as many as one of ours.
pub(crate) const READ_BYTES_MAX: usize = 64 << 20;
const READ_FILES_MAX: usize = 1000;

/// Flushes by which [`Limits::settle`] tells whether the disk is at rest, how long one may take then, and how long that is waited
/// for.
const SETTLE_PROBES: u64 = 15;
const SETTLED: Duration = Duration::from_micros(400);
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// Limits measured in a folder, which lies on the file system of the images.
pub(crate) struct Limits {
    folder: PathBuf,
    log: Log,
    /// Names that were not used yet.
    next: AtomicUsize,
}

impl Limits {
    /// Limits of the file system that this folder lies on.
    pub(crate) fn new(folder: PathBuf) -> Result<Limits> {
        std::fs::create_dir_all(&folder)?;
        let log = Log::make(&folder.join("log"))?;
        Ok(Limits { folder, log, next: AtomicUsize::new(0) })
    }

    /// Waits until the disk is done with what was written before: until then every flush would wait for that.
    pub(crate) fn settle(&self) -> Result<()> {
        let probe = File::create(self.folder.join("probe"))?;
        let block = vec![1; BLOCK as usize];
        rustix::fs::syncfs(&probe)?;
        let end = Instant::now() + SETTLE_MAX;
        while Instant::now() < end {
            let mut times = Vec::new();
            for number in 0..SETTLE_PROBES {
                let start = Instant::now();
                probe.write_all_at(&block, number * BLOCK)?;
                probe.sync_data()?;
                times.push(start.elapsed());
            }
            times.sort();
            if times[times.len() / 2] < SETTLED {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        eprintln!("the disk does not come to rest: what is measured now waits for others");
        Ok(())
    }

    /// Appends of `size` bytes to a log by so many threads, each durable before the next.
    pub(crate) fn log(&self, size: usize, threads: usize, time: Duration) -> Result<Figures> {
        let data = Random::new(7).bytes(size);
        again(threads, size, time, |_| {
            let data = data.clone(); // as a client of a server hands over bytes of its own
            self.log.append(&data)
        })
    }

    /// Files made in a directory of ext4 (or whatever the folder lies on): written under another name, flushed, renamed.
    pub(crate) fn create(&self, size: usize, threads: usize, time: Duration) -> Result<Figures> {
        // A directory of its own for each run, and nothing is deleted: ext4 walks past deleted inodes at each create.
        let folder = self.folder.join(format!("run-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&folder)?;
        let data = Random::new(7).bytes(size);
        again(threads, size, time, |_| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let temporary = folder.join(format!(".{number}"));
            let file = File::create(&temporary)?;
            file.write_all_at(&data, 0)?;
            file.sync_all()?;
            Ok(std::fs::rename(temporary, folder.join(number.to_string()))?)
        })
    }

    /// Files opened, read into one buffer, every byte looked at, and closed.
    pub(crate) fn read(&self, size: usize, time: Duration) -> Result<Figures> {
        let folder = self.folder.join(format!("read-{size}"));
        let count = (READ_BYTES_MAX / size.max(1)).clamp(1, READ_FILES_MAX);
        let data = Random::new(7).bytes(size);
        if !folder.exists() {
            std::fs::create_dir(&folder)?;
            (0..count).try_for_each(|number| std::fs::write(folder.join(number.to_string()), &data))?;
        }
        let sum = touch(&data);
        let buffer = Mutex::new((vec![0; size], Random::new(3)));
        again(1, size, time, |_| {
            let (buffer, random) = &mut *buffer.lock().expect("no holder of this lock panics");
            let file = File::open(folder.join(random.below(count).to_string()))?;
            let size = usize::try_from(file.metadata()?.len())?;
            file.read_exact_at(&mut buffer[..size], 0)?;
            ensure!(touch(&buffer[..size]) == sum, "a file has changed");
            Ok(())
        })
    }
}

/// How long it takes to read so many bytes of a file from the disk.
pub(crate) fn read_cold(path: &Path, from: u64, size: u64) -> Result<Duration> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    forget(&file)?;
    let mut piece = vec![0; MIB];
    let start = Instant::now();
    let mut done = 0;
    while done < size {
        let wanted = usize::try_from(size - done).map_or(MIB, |left| left.min(MIB));
        let count = file.read_at(&mut piece[..wanted], from + done)?;
        if count == 0 {
            break;
        }
        std::hint::black_box(touch(&piece[..count]));
        done += count as u64;
    }
    Ok(start.elapsed())
}

/// Lets the operating system forget what it has of a file, so that it must be read from the disk.
pub(crate) fn forget(file: &File) -> Result<()> {
    file.sync_all()?;
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

/// Does it again and again on several threads for this time.
fn again(
    threads: usize,
    size: usize,
    time: Duration,
    step: impl Fn(usize) -> Result<()> + Sync,
) -> Result<Figures> {
    let together = Barrier::new(threads);
    let work = |number| -> Result<Histogram> {
        together.wait();
        let start = Instant::now() + WARM;
        let mut histogram = Histogram::default();
        loop {
            let before = Instant::now();
            if before >= start + time && histogram.count > 0 {
                return Ok(histogram);
            }
            step(number)?;
            if before >= start {
                histogram.add(before.elapsed());
            }
        }
    };
    let mut all = Histogram::default();
    let work = &work;
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        for thread in threads {
            all.add_all(&thread.join().map_err(|_| anyhow!("a thread of a limit panicked"))??);
        }
        Ok(())
    })?;
    Ok(all.figures(threads, size, &Use::default()))
}

/// A log with one flush for all who wait: whoever comes first writes and flushes for those who have come since.
struct Log {
    file: File,
    next: AtomicU64,
    state: Mutex<Waiting>,
    change: Condvar,
}

#[derive(Default)]
struct Waiting {
    pending: Vec<(u64, Vec<u8>)>,
    /// Appends that were handed in, and that are durable.
    begun: u64,
    done: u64,
    is_led: bool,
    failed: bool,
}

impl Log {
    /// A log whose every byte was written before, so that appending changes no metadata of the file system.
    fn make(path: &Path) -> Result<Log> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        let ones = vec![1; 4 * MIB];
        for piece in 0..LOG_SIZE / ones.len() as u64 {
            file.write_all_at(&ones, piece * ones.len() as u64)?;
        }
        file.sync_all()?;
        let (state, change) = (Mutex::default(), Condvar::new());
        Ok(Log { file, next: AtomicU64::new(0), state, change })
    }

    fn append(&self, data: &[u8]) -> Result<()> {
        let room = (data.len() as u64).next_multiple_of(BLOCK);
        // No append reaches over the end: the last 64 MiB are for one that begins before them.
        let at = self.next.fetch_add(room, Ordering::Relaxed) % (LOG_SIZE - (64 << 20));
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let mine = state.begun;
        state.begun += 1;
        state.pending.push((at, data.to_vec()));
        loop {
            ensure!(!state.failed, "the log failed");
            if state.done > mine {
                return Ok(());
            }
            if state.is_led {
                state = self.change.wait(state).expect("no holder of this lock panics");
                continue;
            }
            state.is_led = true;
            let (batch, upto) = (std::mem::take(&mut state.pending), state.begun);
            drop(state);
            let written = self.write(&batch);
            state = self.state.lock().expect("no holder of this lock panics");
            (state.is_led, state.done, state.failed) = (false, upto, written.is_err());
            self.change.notify_all();
            written?;
        }
    }

    fn write(&self, batch: &[(u64, Vec<u8>)]) -> Result<()> {
        for (at, data) in batch {
            self.file.write_all_at(data, *at)?;
        }
        Ok(self.file.sync_data()?)
    }
}
