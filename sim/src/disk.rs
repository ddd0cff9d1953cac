//! Disks that lose what was not flushed: at a crash every sector written since the last flush is there in one of its
//! versions or not at all, and one is torn.
//!
//! Operations of a plain disk never park, so that code under foreign locks (redb) may use it. Those of a slow one do:
//! others run in the middle of a write or a flush, and a crash may come there. What is written while a flush runs is
//! not made durable by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use amoeba_world::{Disk, DiskError};

use crate::core::Core;
use crate::host::HostId;
use crate::random::Prng;

/// What a disk writes at once.
pub const SECTOR_SIZE: u64 = 512;
/// The longest that one operation of a slow disk takes.
const SLOW_MAX: Duration = Duration::from_millis(4);
/// Versions of an unflushed sector that a crash chooses from; of more, the middle ones are forgotten.
const VERSIONS_MAX: usize = 4;

type Sector = [u8; SECTOR_SIZE as usize];
const ZEROS: Sector = [0; SECTOR_SIZE as usize];

/// What a sector was made by write number `write`.
struct Version {
    write: u64,
    sector: Box<Sector>,
}

/// The medium: it outlives the host that it is in.
#[derive(Clone)]
pub(crate) struct Medium(Arc<Mutex<Platter>>);

struct Platter {
    size: u64,
    size_durable: u64,
    durable: BTreeMap<u64, Box<Sector>>,
    /// Versions of sectors written since the last flush, oldest first, never empty.
    pending: BTreeMap<u64, Vec<Version>>,
    /// Counts writes.
    written: u64,
    random: Prng,
    /// Counts the host's lives: a handle of an earlier life is dead.
    life: u32,
    flushes_to_fail: u32,
}

impl Medium {
    pub(crate) fn new(size: u64, random: Prng) -> Medium {
        Medium(Arc::new(Mutex::new(Platter {
            size,
            size_durable: size,
            durable: BTreeMap::new(),
            pending: BTreeMap::new(),
            written: 0,
            random,
            life: 0,
            flushes_to_fail: 0,
        })))
    }

    fn platter(&self) -> std::sync::MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Power is gone: what was not flushed is decided by lot, and every handle is dead.
    pub(crate) fn crash(&self) {
        let mut platter = self.platter();
        platter.life += 1;
        platter.lose_pending();
    }

    /// The next `count` flushes fail.
    pub(crate) fn fail_flushes(&self, count: u32) {
        self.platter().flushes_to_fail = count;
    }

    /// A handle for the life the host has now.
    pub(crate) fn open(&self, core: &Arc<Core>, host: HostId, slow: bool) -> Arc<dyn Disk> {
        let life = self.platter().life;
        Arc::new(OpenDisk { medium: self.clone(), life, core: Arc::downgrade(core), host, slow })
    }
}

impl Platter {
    fn sector(&self, index: u64) -> &Sector {
        let written = self.pending.get(&index).and_then(|versions| versions.last());
        written
            .map(|version| &version.sector)
            .or_else(|| self.durable.get(&index))
            .map_or(&ZEROS, |sector| sector)
    }

    fn put(&mut self, index: u64, sector: Sector) {
        let versions = self.pending.entry(index).or_default();
        if versions.len() == VERSIONS_MAX {
            versions.remove(VERSIONS_MAX / 2);
        }
        versions.push(Version { write: self.written, sector: Box::new(sector) });
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.written += 1;
        let mut at = 0;
        while at < bytes.len() {
            let place = offset + at as u64;
            let (index, start) = (place / SECTOR_SIZE, (place % SECTOR_SIZE) as usize);
            let count = (SECTOR_SIZE as usize - start).min(bytes.len() - at);
            let mut sector = *self.sector(index);
            sector[start..start + count].copy_from_slice(&bytes[at..at + count]);
            self.put(index, sector);
            at += count;
        }
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let place = offset + at as u64;
            let start = (place % SECTOR_SIZE) as usize;
            let count = (SECTOR_SIZE as usize - start).min(bytes.len() - at);
            bytes[at..at + count].copy_from_slice(&self.sector(place / SECTOR_SIZE)[start..start + count]);
            at += count;
        }
    }

    /// What lies beyond the end reads as zeros when the disk grows again.
    fn set_size(&mut self, size: u64) {
        self.written += 1;
        if size < self.size {
            let first = size.div_ceil(SECTOR_SIZE);
            let beyond: Vec<u64> = self
                .durable
                .range(first..)
                .map(|(index, _)| *index)
                .chain(self.pending.range(first..).map(|(index, _)| *index))
                .collect();
            for index in beyond {
                self.put(index, ZEROS);
            }
            let (index, start) = (size / SECTOR_SIZE, (size % SECTOR_SIZE) as usize);
            if start > 0 {
                let mut sector = *self.sector(index);
                sector[start..].fill(0);
                self.put(index, sector);
            }
        }
        self.size = size;
    }

    /// Makes the writes up to number `last` durable.
    fn flush(&mut self, last: u64) {
        for (index, versions) in std::mem::take(&mut self.pending) {
            let (flushed, later): (Vec<_>, Vec<_>) =
                versions.into_iter().partition(|version| version.write <= last);
            if let Some(newest) = flushed.into_iter().next_back() {
                self.settle(index, newest.sector);
            }
            if !later.is_empty() {
                self.pending.insert(index, later);
            }
        }
        self.size_durable = self.size;
    }

    fn settle(&mut self, index: u64, sector: Box<Sector>) {
        if *sector == ZEROS {
            self.durable.remove(&index); // what is not there reads as zeros
        } else {
            self.durable.insert(index, sector);
        }
    }

    fn lose_pending(&mut self) {
        // Some crashes lose everything, some nothing, most a part.
        let kept_per_mille = match self.random.below(4) {
            0 => 0,
            1 => 1000,
            _ => self.random.between(1, 999) as u32,
        };
        let pending = std::mem::take(&mut self.pending);
        let torn = pending.len().checked_sub(1).map(|last| self.random.between(0, last as u64) as usize);
        for (position, (index, mut versions)) in pending.into_iter().enumerate() {
            let keep = self.random.chance(kept_per_mille);
            if !keep && torn != Some(position) {
                continue;
            }
            let choice = self.random.below(versions.len() as u64) as usize;
            let mut sector = versions.swap_remove(choice).sector;
            if torn == Some(position) {
                let cut = self.random.between(0, SECTOR_SIZE) as usize;
                let old = self.durable.get(&index).map_or(&ZEROS, |sector| sector);
                sector[cut..].copy_from_slice(&old[cut..]);
            }
            self.settle(index, sector);
        }
        if self.random.chance(500) {
            self.size_durable = self.size;
        }
        self.size = self.size_durable;
        let end = self.size.div_ceil(SECTOR_SIZE);
        self.durable.retain(|index, _| *index < end);
    }
}

/// A medium as one life of its host sees it.
struct OpenDisk {
    medium: Medium,
    life: u32,
    core: Weak<Core>,
    host: HostId,
    slow: bool,
}

impl OpenDisk {
    /// The platter, if this life goes on. A planned crash happens here, before the operation.
    fn operate(
        &self,
        operation: &'static str,
        offset: u64,
        size: u64,
    ) -> Result<std::sync::MutexGuard<'_, Platter>, DiskError> {
        let core = self.core.upgrade().ok_or(DiskError::Failed)?;
        self.wait(&core);
        core.disk_operation(self.host, operation, offset, size);
        let platter = self.medium.platter();
        if platter.life == self.life { Ok(platter) } else { Err(DiskError::Failed) }
    }
}

impl OpenDisk {
    /// Lets others run for as long as a slow disk may take.
    fn wait(&self, core: &Core) {
        if self.slow && core.check_alive() {
            let time = self.medium.platter().random.between(0, SLOW_MAX.as_nanos() as u64);
            let deadline = core.state().now + Duration::from_nanos(time);
            while core.state().now < deadline {
                core.park(Some(deadline));
            }
        }
    }
}

fn within(platter: &Platter, offset: u64, size: usize) -> Result<(), DiskError> {
    match offset.checked_add(size as u64) {
        Some(end) if end <= platter.size => Ok(()),
        _ => Err(DiskError::Full),
    }
}

impl Disk for OpenDisk {
    fn size(&self) -> u64 {
        self.medium.platter().size
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        self.operate("set_size", 0, size)?.set_size(size);
        Ok(())
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        let platter = self.operate("read", offset, bytes.len() as u64)?;
        within(&platter, offset, bytes.len())?;
        platter.read(offset, bytes);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut platter = self.operate("write", offset, bytes.len() as u64)?;
        within(&platter, offset, bytes.len())?;
        platter.write(offset, bytes);
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        let last = self.medium.platter().written;
        let mut platter = self.operate("flush", 0, 0)?;
        if platter.flushes_to_fail > 0 {
            platter.flushes_to_fail -= 1;
            platter.lose_pending();
            return Err(DiskError::Failed);
        }
        platter.flush(last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platter(medium: &Medium) -> std::sync::MutexGuard<'_, Platter> {
        medium.platter()
    }

    #[test]
    fn what_was_flushed_survives_and_the_rest_is_old_or_new() {
        for seed in 0..200 {
            let medium = Medium::new(1 << 20, Prng::new(seed, "disk", 0));
            platter(&medium).write(100, &[1; 5000]);
            platter(&medium).flush(1);
            platter(&medium).write(3000, &[2; 4000]);
            platter(&medium).write(3000, &[3; 4000]);
            medium.crash();
            let mut bytes = vec![9; 8000];
            platter(&medium).read(0, &mut bytes);
            assert!(bytes[..100].iter().all(|byte| *byte == 0));
            assert!(bytes[100..3000].iter().all(|byte| *byte == 1));
            assert!(bytes[3000..5100].iter().all(|byte| [1, 2, 3].contains(byte)));
            assert!(bytes[5100..7000].iter().all(|byte| [0, 2, 3].contains(byte)));
            assert!(bytes[7000..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn crashes_differ() {
        let survivors = |seed| {
            let medium = Medium::new(1 << 20, Prng::new(seed, "disk", 0));
            platter(&medium).write(0, &[1; 512 * 64]);
            medium.crash();
            platter(&medium).durable.len()
        };
        let counts: std::collections::BTreeSet<usize> = (0..100).map(survivors).collect();
        assert!(counts.len() > 10, "{counts:?}");
        assert!(counts.contains(&64) && counts.iter().any(|count| *count <= 1), "{counts:?}");
    }
}
