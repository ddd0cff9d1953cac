//! Operations on the whole volume: compaction, usage, backup and restore.

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, Rights, ServerSecret};
use amoeba_server::Call;
use amoeba_stubs::bullet::{CompactReply, FileRecord, IdentityReply, LIST_MAX, ListReply, UsageReply};
use amoeba_wire::Status;

use crate::store::{BLOCK_SIZE, FileId, Identity, Store, StoreError};

pub(crate) fn compact(store: &Store) -> Result<CompactReply, Status> {
    let compacted = store.compact().map_err(StoreError::status)?;
    Ok(CompactReply {
        moved_files: compacted.moved_files,
        moved_size: compacted.moved_size,
        hole_count: compacted.hole_count,
        hole_size_max: compacted.hole_size_max,
    })
}

pub(crate) fn usage(store: &Store) -> UsageReply {
    let usage = store.usage();
    let (compact_done, compact_all) = usage.compaction.unwrap_or((0, 0));
    UsageReply {
        block_size: BLOCK_SIZE as u32,
        blocks: usage.blocks,
        blocks_free: usage.blocks_free,
        hole_count: usage.hole_count,
        hole_size_max: usage.hole_blocks_max * BLOCK_SIZE,
        files: usage.files,
        files_max: usage.files_max,
        cache_size: usage.cache_size,
        cached: usage.cached,
        unwritten: usage.unwritten,
        uncommitted: usage.uncommitted,
        uncommitted_files: usage.uncommitted_files,
        damaged_files: usage.damaged_files,
        write_protected: usage.write_protected,
        compacting: usage.compaction.is_some(),
        compact_done,
        compact_all,
    }
}

pub(crate) fn list(store: &Store, after: u32) -> ListReply {
    let (files, next) = store.list(after, LIST_MAX);
    let record = |listed: crate::store::Listed| FileRecord {
        number: listed.file.object.get(),
        size: listed.size,
        sequence: listed.sequence,
        owner: listed.owner,
        random: listed.file.random.to_bytes(),
    };
    ListReply { files: files.into_iter().map(record).collect(), next }
}

pub(crate) fn identity(store: &Store) -> IdentityReply {
    let identity = store.identity();
    IdentityReply {
        get_port: identity.get_port.to_bytes(),
        random: identity.super_random.to_bytes(),
        secret: identity.secret.to_bytes(),
    }
}

pub(crate) fn adopt(
    store: &Store,
    get_port: [u8; 6],
    random: [u8; 6],
    secret: [u8; 32],
) -> Result<(), Status> {
    let identity = Identity {
        get_port: GetPort::from_bytes(get_port),
        super_random: CheckField::from_bytes(random),
        secret: ServerSecret::from_bytes(secret),
    };
    store.adopt(&identity).map_err(StoreError::status)
}

pub(crate) fn restore(
    store: &Store,
    call: &Call,
    number: u32,
    random: [u8; 6],
    owner: u64,
    data: Vec<u8>,
) -> Result<Capability, Status> {
    let object = ObjectNumber::new(number).ok_or(Status::STD_ARGBAD)?;
    let file = FileId { object, random: CheckField::from_bytes(random) };
    store.restore(file, data, owner).map_err(StoreError::status)?;
    Ok(store.secret().capability(call.port(), file.object, Rights::ALL, file.random))
}
