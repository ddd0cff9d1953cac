//! Pages made by hand: a directory of very many rows, and what no honest service would export. `AMOEBA_ROWS=n` makes the directory
//! that large; `cargo xtask long` says ten million.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use amoeba_cap::{Capability, CheckField, GetPort, ObjectNumber, PutPort, ServerSecret};
use amoeba_directory::export::{Item, Service, sealed_page};
use amoeba_directory::store::Formatted;
use amoeba_directory::{Directory, ImportError, Importer, Name, Options, Row, start};
use amoeba_stubs::directory::{self, LIST_MAX};
use amoeba_wire::Writer;
use amoeba_world::{Disk, DiskError, World};
use support::{CrashDisk, OPEN, Random};

const ROWS_DEFAULT: u64 = 20_000;
/// Rows of a page of an import.
const PAGE_ROWS: u64 = 8_000;
const CACHE_SIZE: usize = 32 << 20;
const ROOT: u32 = 1;

fn service() -> Item {
    Item::Service(Service {
        get_port: GetPort::from_bytes(*b"many!!"),
        secret: ServerSecret::from_bytes([7; 32]),
        super_random: CheckField::from_bytes([8; 6]),
        applied: 9,
        next_object: 10,
        tick: 0,
    })
}

fn object(number: u32) -> ObjectNumber {
    ObjectNumber::new(number).unwrap()
}

fn directory(number: u32, rows: u64) -> Item {
    let directory = Directory {
        random: CheckField::from_bytes([number as u8; 6]),
        sequence: 1,
        time: 2,
        rows,
        touched: 0,
        owner: PutPort::NULL,
        columns: vec![b"owner".to_vec()],
    };
    Item::Directory(object(number), directory)
}

/// The name of a row: the rows of a directory come in the order of their numbers.
fn name(number: u64) -> String {
    format!("row{number:09}")
}

/// What it stands for.
fn target(number: u64) -> Capability {
    let mut bytes = [0xFF; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Capability::from_bytes(bytes)
}

fn row(of: u32, number: u64) -> Item {
    let (kind, set) = (Capability::NULL, target(number).into());
    let row = Row { time: number, kind, masks: OPEN, set, attributes: Vec::new() };
    Item::Row(object(of), Name::new(name(number).as_bytes()).unwrap(), row)
}

fn page(number: u32, items: impl IntoIterator<Item = Item>) -> Vec<u8> {
    let mut writer = Writer::new();
    items.into_iter().for_each(|item| item.emit(&mut writer));
    sealed_page(9, number, &writer.finish())
}

fn importer(world: &World) -> Importer {
    Importer::new(CrashDisk::new(), &*CrashDisk::new(), &*world.entropy, 0).unwrap()
}

#[test]
fn what_no_honest_service_exports_is_refused() {
    let world = amoeba_loopback::world();
    let import = |items: Vec<Item>| -> Result<Formatted, ImportError> {
        let mut importer = importer(&world);
        importer.page(&page(0, items))?;
        importer.finish()
    };
    let two = || vec![directory(ROOT, 2), directory(3, 1), row(ROOT, 1), row(ROOT, 2), row(3, 1)];
    let whole = |items: Vec<Item>| [vec![service()], items, vec![Item::End(2, 3)]].concat();
    assert!(import(whole(two())).is_ok());
    let refused = |what: &str, change: &dyn Fn(&mut Vec<Item>)| {
        let mut items = two();
        change(&mut items);
        let outcome = import(whole(items)).map(drop);
        assert!(matches!(outcome, Err(ImportError::Inconsistent(_))), "{what}: {outcome:?}");
    };
    refused("a row twice", &|items| items[3] = row(ROOT, 1));
    refused("rows the wrong way round", &|items| items.swap(2, 3));
    refused("rows of a later directory first", &|items| items.rotate_right(1));
    refused("a directory twice", &|items| items[1] = directory(ROOT, 1));
    refused("directories the wrong way round", &|items| items.swap(0, 1));
    refused("the server as a directory", &|items| items[0] = directory(0, 2));
    refused("a row of no directory", &|items| items[4] = row(5, 1));
    refused("one directory's rows in another", &|items| items[3] = row(3, 0));
    refused("more rows than there can be", &|items| items[0] = directory(ROOT, u64::MAX));
    let with = |change: &dyn Fn(&mut Service)| {
        let Item::Service(mut bad) = service() else { unreachable!("it is one") };
        change(&mut bad);
        let mut items = whole(two());
        items[0] = Item::Service(bad);
        assert!(matches!(import(items), Err(ImportError::Inconsistent(_))));
    };
    with(&|service| service.applied = u64::MAX);
    with(&|service| service.tick = u64::MAX);
    with(&|service| service.next_object = u32::MAX);
}

/// A file of the test's own.
struct Scratch(File);

impl Scratch {
    fn new(folder: &std::path::Path, name: &str) -> Arc<Scratch> {
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(folder.join(name)).unwrap();
        Arc::new(Scratch(file))
    }
}

fn failed(_: std::io::Error) -> DiskError {
    DiskError::Failed
}

impl Disk for Scratch {
    fn size(&self) -> u64 {
        self.0.metadata().map_or(0, |metadata| metadata.len())
    }

    fn set_size(&self, size: u64) -> Result<(), DiskError> {
        self.0.set_len(size).map_err(failed)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        self.0.read_exact_at(bytes, offset).map_err(failed)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.0.write_all_at(bytes, offset).map_err(failed)
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(()) // no crash is part of this test
    }
}

/// A folder that goes when the test ends.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A served service whose root has so many rows; the root's capability.
fn serve(world: &World, folder: &Folder, rows: u64) -> Capability {
    let (tables, log) = (Scratch::new(&folder.0, "tables"), Scratch::new(&folder.0, "log"));
    let mut importer = Importer::new(tables.clone(), &*log, &*world.entropy, 0).unwrap();
    importer.page(&page(0, [service(), directory(ROOT, rows)])).unwrap();
    let mut number = 1;
    for first in (0..rows).step_by(PAGE_ROWS as usize) {
        let last = rows.min(first + PAGE_ROWS);
        importer.page(&page(number, (first..last).map(|at| row(ROOT, at)))).unwrap();
        number += 1;
    }
    importer.page(&page(number, [Item::End(1, rows)])).unwrap();
    let formatted = importer.finish().unwrap();
    let options = Options { cache_size: CACHE_SIZE, ..Options::default() };
    start(world, tables, log, options, 4).unwrap();
    let port = world.transactions.put_port(&formatted.identity.get_port).unwrap();
    formatted.root_capability(port)
}

#[test]
fn a_directory_of_very_many_rows_is_listed_in_pages_and_looked_up() {
    let rows = std::env::var("AMOEBA_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROWS_DEFAULT);
    let world = amoeba_loopback::world();
    let folder = Folder(std::env::temp_dir().join(format!("amoeba-many-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let root = serve(&world, &folder, rows);
    assert_eq!(directory::describe(&world, &root).unwrap().rows, rows);
    let (mut after, mut count) = (Vec::new(), 0);
    loop {
        let page = directory::list(&world, &root, &after, LIST_MAX as u32).unwrap();
        for row in &page.rows {
            assert_eq!((row.name.as_slice(), row.time), (name(count).as_bytes(), count));
            count += 1;
        }
        match page.rows.last() {
            Some(last) if page.more => after.clone_from(&last.name),
            _ => break,
        }
    }
    assert_eq!(count, rows);
    let mut random = Random(rows);
    for _ in 0..2000 {
        let at = random.below(rows);
        let found = directory::lookup(&world, &root, name(at).as_bytes()).unwrap();
        assert_eq!(found.set.first(), Some(&target(at)));
    }
    // A page in the middle costs no walk from the beginning, and is changed rows too.
    let middle = rows / 2;
    directory::delete(&world, &root, name(middle).as_bytes()).unwrap();
    let new = format!("{}+", name(middle));
    directory::append(&world, &root, new.as_bytes(), &target(0).into(), &[0xFF; 4], b"").unwrap();
    let page = directory::list_full(&world, &root, name(middle - 1).as_bytes(), 2).unwrap();
    let names: Vec<_> = page.rows.iter().map(|row| String::from_utf8_lossy(&row.name).into_owned()).collect();
    assert_eq!(names, [new, name(middle + 1)]);
    assert_eq!(page.rows[1].set.first(), Some(&target(middle + 1)));
    let usage = directory::usage(&world, &root).unwrap();
    assert!(usage.cache_used <= CACHE_SIZE as u64, "{} bytes", usage.cache_used);
}
