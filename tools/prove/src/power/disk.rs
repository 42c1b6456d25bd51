//! A disk and the cache before it, by the rules that a database may count on and by no others.
//!
//! What was synced is there. Of what was written since, each write is there or not, whole or by sectors, whatever came before
//! or after it: bytes beside a write stay what they were. Lengths and names follow the same rule; names are synced with their
//! folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::trace::{Change, Record, Trace, counts};

/// What the power cut makes of everything that was not synced.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Nothing of it was written.
    Nothing,
    /// All of it.
    Everything,
    /// The first of it, in its order: this share, in percent.
    First(u32),
    /// Each write with this chance, in percent, whole.
    Each(u32),
    /// Each sector of each write with this chance.
    Torn {
        /// In percent.
        chance: u32,
        /// Bytes of a sector.
        sector: usize,
    },
    /// Each write with this chance; where it is missing, the file is as long as if it were there, with zeros.
    Zeros(u32),
}

impl Manner {
    /// One by chance.
    pub fn any(rng: &mut fastrand::Rng) -> Manner {
        let chance = [10, 50, 90][rng.usize(0..3)];
        match rng.u32(0..8) {
            0 => Manner::Nothing,
            1 => Manner::Everything,
            2 => Manner::First(rng.u32(0..=100)),
            3 | 4 => Manner::Each(chance),
            5 => Manner::Torn { chance, sector: 512 },
            6 => Manner::Torn { chance, sector: 4096 },
            _ => Manner::Zeros(chance),
        }
    }
}

/// The files after a power cut.
#[derive(Clone, Debug, Default)]
pub struct Image {
    files: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// Writes the files into `folder`, which is made.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        self.files.iter().try_for_each(|(name, bytes)| fs::write(folder.join(name), bytes))
    }
}

/// A change that is not synced yet, and when it was made.
#[derive(Clone)]
struct Open<T> {
    at: usize,
    what: T,
}

#[derive(Clone)]
enum Bytes {
    Written { offset: usize, data: Range<usize> },
    Resized(usize),
}

#[derive(Clone)]
enum Name {
    Is(String, usize),
    Gone(String),
    Moved(String, String),
}

#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    open: Vec<Open<Bytes>>,
}

/// The disk at one moment of a trace.
#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<File>,
    /// The files by their number; a number may be given again after its file is gone.
    numbers: BTreeMap<u64, usize>,
    synced_names: BTreeMap<String, usize>,
    open_names: Vec<Open<Name>>,
    /// Records that were taken.
    taken: usize,
}

impl Disk {
    /// A disk on which the files of `folder` are safe.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn of(folder: &Path) -> io::Result<Disk> {
        let mut disk = Disk::default();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.file_type()?.is_file() || !counts(&name) {
                continue;
            }
            let number = disk.files.len();
            disk.files.push(File { synced: fs::read(entry.path())?, open: Vec::new() });
            disk.numbers.insert(entry.metadata()?.ino(), number);
            disk.synced_names.insert(name, number);
        }
        Ok(disk)
    }

    /// Takes the changes of the trace up to the first `records` of it. Time does not go back.
    pub fn advance(&mut self, trace: &Trace, records: usize) {
        while self.taken < records.min(trace.records.len()) {
            self.take(&trace.records[self.taken], &trace.bytes);
            self.taken += 1;
        }
    }

    fn take(&mut self, record: &Record, bytes: &[u8]) {
        let at = self.taken;
        let file = self.numbers.get(&record.inode).copied();
        match (record.change, file) {
            (Change::Create, _) => {
                let number = self.files.len();
                self.files.push(File::default());
                self.numbers.insert(record.inode, number);
                self.open_names.push(Open { at, what: Name::Is(record.name.clone(), number) });
            }
            (Change::Unlink, _) => self.open_names.push(Open { at, what: Name::Gone(record.name.clone()) }),
            (Change::Rename, _) => {
                let what = Name::Moved(record.name.clone(), record.renamed.clone());
                self.open_names.push(Open { at, what });
            }
            (Change::SyncFolder, _) => {
                for open in std::mem::take(&mut self.open_names) {
                    apply_name(&mut self.synced_names, &open.what);
                }
            }
            (Change::Write, Some(file)) => {
                let what = Bytes::Written { offset: record.offset, data: record.data.clone() };
                self.files[file].open.push(Open { at, what });
            }
            (Change::Resize, Some(file)) => {
                self.files[file].open.push(Open { at, what: Bytes::Resized(record.offset) })
            }
            (Change::Sync, Some(file)) => {
                let file = &mut self.files[file];
                for open in std::mem::take(&mut file.open) {
                    match open.what {
                        Bytes::Written { offset, data } => put(&mut file.synced, offset, &bytes[data]),
                        Bytes::Resized(length) => file.synced.resize(length, 0),
                    }
                }
            }
            (Change::Write | Change::Resize | Change::Sync, None) => {}
        }
    }

    /// The files with all that was synced and nothing else.
    pub fn synced(&self) -> Image {
        let files = self.synced_names.iter();
        Image { files: files.map(|(name, file)| (name.clone(), self.files[*file].synced.clone())).collect() }
    }

    /// The files as a power cut at this moment may leave them.
    pub fn image(&self, trace: &Trace, manner: Manner, rng: &mut fastrand::Rng) -> Image {
        let last_kept = self.last_kept(manner);
        let mut names = self.synced_names.clone();
        for open in &self.open_names {
            if is_kept(manner, open.at, last_kept, rng) {
                apply_name(&mut names, &open.what);
            }
        }
        let mut image = Image::default();
        for (name, number) in names {
            let file = &self.files[number];
            let mut bytes = file.synced.clone();
            for open in &file.open {
                match &open.what {
                    Bytes::Written { offset, data } => {
                        let data = &trace.bytes[data.clone()];
                        write_some(&mut bytes, *offset, data, manner, open.at, last_kept, rng);
                    }
                    Bytes::Resized(length) => {
                        if is_kept(manner, open.at, last_kept, rng) {
                            bytes.resize(*length, 0);
                        }
                    }
                }
            }
            image.files.push((name, bytes));
        }
        image
    }

    /// For [`Manner::First`]: changes before this one are kept.
    fn last_kept(&self, manner: Manner) -> usize {
        let Manner::First(percent) = manner else { return 0 };
        let names = self.open_names.iter().map(|open| open.at);
        let mut open: Vec<usize> = self.files.iter().flat_map(|file| file.open.iter().map(|open| open.at)).collect();
        open.extend(names);
        open.sort_unstable();
        let kept = open.len() * percent as usize / 100;
        open.get(kept).copied().unwrap_or(usize::MAX)
    }
}

/// Whether a change that is kept or not as a whole is kept.
fn is_kept(manner: Manner, at: usize, last_kept: usize, rng: &mut fastrand::Rng) -> bool {
    match manner {
        Manner::Nothing => false,
        Manner::Everything => true,
        Manner::First(_) => at < last_kept,
        Manner::Each(chance) | Manner::Torn { chance, .. } | Manner::Zeros(chance) => rng.u32(0..100) < chance,
    }
}

/// Writes what the manner leaves of one write.
fn write_some(
    file: &mut Vec<u8>,
    offset: usize,
    data: &[u8],
    manner: Manner,
    at: usize,
    last_kept: usize,
    rng: &mut fastrand::Rng,
) {
    if let Manner::Torn { chance, sector } = manner {
        let mut from = offset;
        while from < offset + data.len() {
            let to = ((from / sector + 1) * sector).min(offset + data.len());
            if rng.u32(0..100) < chance {
                put(file, from, &data[from - offset..to - offset]);
            }
            from = to;
        }
    } else if is_kept(manner, at, last_kept, rng) {
        put(file, offset, data);
    } else if matches!(manner, Manner::Zeros(_)) && file.len() < offset + data.len() {
        file.resize(offset + data.len(), 0);
    }
}

fn put(file: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(data);
}

fn apply_name(names: &mut BTreeMap<String, usize>, change: &Name) {
    match change {
        Name::Is(name, file) => {
            names.insert(name.clone(), *file);
        }
        Name::Gone(name) => {
            names.remove(name);
        }
        Name::Moved(old, new) => {
            if let Some(file) = names.remove(old) {
                names.insert(new.clone(), file);
            }
        }
    }
}
