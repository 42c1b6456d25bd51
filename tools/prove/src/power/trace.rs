//! What the shim wrote down: every change of the database's files, in the order in which they were made.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, bail};

const MAGIC: u32 = 0x6b73_6964;
const HEAD: usize = 48;
/// Files that hold nothing of the database: the index of its log, which is made anew, the lock and the socket.
const BESIDE: &[&str] = &["-shm", ".lock", ".sock"];

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Bytes were written.
    Write,
    /// The file was synced.
    Sync,
    /// The file was cut or made longer.
    Resize,
    /// The file was made.
    Create,
    /// The name was removed.
    Unlink,
    /// The name was changed.
    Rename,
    /// The folder was synced.
    SyncFolder,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Record {
    /// What.
    pub change: Change,
    /// The file's number on its disk; zero where only a name changes.
    pub inode: u64,
    /// Where bytes were written, or the new length.
    pub offset: usize,
    /// The bytes, in [`Trace::bytes`].
    pub data: Range<usize>,
    /// How much had been acknowledged when it was done.
    pub acknowledged: usize,
    /// The file's name.
    pub name: String,
    /// Its new name, after a rename.
    pub renamed: String,
}

/// A run's changes.
#[derive(Default)]
pub struct Trace {
    /// In their order.
    pub records: Vec<Record>,
    /// All logs, one after the other.
    pub bytes: Vec<u8>,
}

/// Whether a file holds a part of the database.
pub fn counts(name: &str) -> bool {
    !BESIDE.iter().any(|end| name.ends_with(end))
}

impl Trace {
    /// Reads the logs of programs that ran one after the other. The last record of a program that was killed may be cut
    /// off; nothing relied on it.
    ///
    /// # Errors
    /// A log cannot be read, or is none.
    pub fn read(logs: &[PathBuf]) -> anyhow::Result<Trace> {
        let mut trace = Trace::default();
        for log in logs {
            let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
            let from = trace.bytes.len();
            trace.bytes.extend_from_slice(&bytes);
            trace.take(from)?;
        }
        Ok(trace)
    }

    fn take(&mut self, from: usize) -> anyhow::Result<()> {
        let mut at = from;
        while self.bytes.len() >= at + HEAD {
            let (magic, kind) = (self.word32(at), self.word32(at + 4));
            if magic != MAGIC {
                bail!("the disk log is broken at byte {at}");
            }
            let names = at + HEAD;
            let data = names + self.word32(at + 40) as usize;
            let end = data + usize::try_from(self.word64(at + 24))?;
            if end > self.bytes.len() {
                break;
            }
            let text = String::from_utf8_lossy(&self.bytes[names..data]).into_owned();
            let (name, renamed) = match text.split_once('/') {
                Some((old, new)) => (old.to_owned(), new.to_owned()),
                None => (text, String::new()),
            };
            let record = Record {
                change: change(kind)?,
                inode: self.word64(at + 8),
                offset: usize::try_from(self.word64(at + 16))?,
                data: data..end,
                acknowledged: usize::try_from(self.word64(at + 32))?,
                name,
                renamed,
            };
            if counts(&record.name) {
                self.records.push(record);
            }
            at = end;
        }
        Ok(())
    }

    fn word32(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    fn word64(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_le_bytes(bytes)
    }
}

fn change(kind: u32) -> anyhow::Result<Change> {
    Ok(match kind {
        1 => Change::Write,
        2 => Change::Sync,
        3 => Change::Resize,
        4 => Change::Create,
        5 => Change::Unlink,
        6 => Change::Rename,
        7 => Change::SyncFolder,
        other => bail!("the disk log has a change of the unknown kind {other}"),
    })
}
