//! The original's forms: commands 2100 to 2112 with SOAP's encodings and bounds. They do what the newer operations do,
//! so a directory can be used through both at once.
//!
//! New rows must have names that the original could have made; rows that cannot be shown in its forms are left out
//! of lists.
//!
//! # Source
//! Amoeba 5.3, soap(L).

use amoeba_cap::{Capability, CapabilitySet, Private};
use amoeba_server::Call;
use amoeba_stubs::directory::{
    CLASSIC_SIZE_MAX, ClassicInstallRow, ClassicListReply, ClassicRowName, InstallRow,
};
use amoeba_wire::{Status, Writer};

use crate::row::{COLUMNS_MAX, Name, Row};
use crate::serve::{DirectoryServer, good_name};
use crate::update::Refusal;

/// The number of the row after the last one.
const NO_MORE: u16 = 0xFFFF;

/// Rows that are read at once for a list.
const LIST_CHUNK: usize = 1024;

/// Whether the original would have made a row of this name.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if good_name(name)?.is_classic() { Ok(()) } else { Err(Refusal::BadArgument) }
}

/// Masks as the original sends them: 32 bits each, missing ones 0.
pub(crate) fn masks(masks: &[i32]) -> [u8; COLUMNS_MAX] {
    std::array::from_fn(|index| masks.get(index).map_or(0, |&mask| mask as u8))
}

/// A page of rows from number `first` on.
pub(crate) fn list(server: &DirectoryServer, call: &Call, first: u16) -> Result<ClassicListReply, Refusal> {
    let directory = server.admitted(call)?;
    let columns = directory.columns.len();
    let head = 4 + directory.columns.iter().map(|name| name.len() + 1).sum::<usize>();
    let (mut rows, mut count, mut number, mut next) = (Writer::new(), 0i16, 0u16, NO_MORE);
    server.store().rows_after(call.capability().object(), None, LIST_CHUNK, |name, row| {
        if !name.is_classic() || number < first {
            number += u16::from(name.is_classic());
            return number < NO_MORE;
        }
        if head + rows.len() + name.as_bytes().len() + 1 + 4 * columns > CLASSIC_SIZE_MAX {
            next = number;
            return false;
        }
        put_row(&mut rows, &name, &row, columns);
        (count, number) = (count + 1, number + 1);
        number < NO_MORE
    })?;
    let mut page = Writer::new();
    page.put_i16(columns as i16).put_i16(count);
    directory.columns.iter().for_each(|name| {
        page.put_string(name);
    });
    page.raw(&rows.finish());
    Ok(ClassicListReply { next, page: page.finish() })
}

fn put_row(rows: &mut Writer, name: &Name, row: &Row, columns: usize) {
    rows.put_string(name.as_bytes());
    row.masks[..columns].iter().for_each(|mask| {
        rows.put_i32(mask.bits().into());
    });
}

/// Several rows at one moment.
pub(crate) fn setlookup(
    server: &DirectoryServer,
    call: &Call,
    rows: &[ClassicRowName],
) -> Result<Vec<u8>, Status> {
    let wanted: Vec<_> = rows.iter().map(|row| (own(server, &row.directory), row.name.as_slice())).collect();
    let mut writer = Writer::new();
    for found in server.find_rows(call, &wanted)? {
        match found {
            Ok(row) => {
                let seconds = i32::try_from(row.time / 1_000_000_000).unwrap_or(i32::MAX);
                writer.put_i16(0).put_cap(&row.kind).put_i32(seconds).put_capset(&row.set);
            }
            Err(status) => {
                writer.put_i16(status.0);
            }
        }
    }
    Ok(writer.finish())
}

/// The rows of an install, all of them in directories of this service. A new row lets every column see everything.
pub(crate) fn install_rows(
    server: &DirectoryServer,
    rows: Vec<ClassicInstallRow>,
) -> Result<Vec<(Private, InstallRow)>, Refusal> {
    let convert = |row: ClassicInstallRow| {
        check_name(&row.name)?;
        let directory = own(server, &row.directory).ok_or(Refusal::BadArgument)?;
        let ClassicInstallRow { name, set, old, .. } = row;
        let (masks, kind, attributes) = ([0xFF; COLUMNS_MAX], Capability::NULL, Vec::new());
        Ok((directory, InstallRow { directory, name, set, old, keep: true, masks, kind, attributes }))
    };
    rows.into_iter().map(convert).collect()
}

/// The member of a directory's set that is ours.
fn own(server: &DirectoryServer, set: &CapabilitySet) -> Option<Private> {
    let port = server.store().port();
    set.current().find(|member| member.port == port).map(|member| member.private)
}
