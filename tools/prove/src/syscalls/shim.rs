//! The shim between the program and its disk (`shim/disk.c`), and the page of memory through which it is steered.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};

const SOURCE: &str = include_str!("../../shim/disk.c");
const PAGE: usize = 4096;

/// What a program does to its files. The numbers are the shim's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Kind {
    /// `write`, `writev`, `pwrite64`.
    Write = 1,
    /// `fsync`, `fdatasync`, of a file or of the folder.
    Sync = 2,
    /// `ftruncate`.
    Resize = 3,
    /// `open` that makes a file.
    Create = 4,
    /// `unlink`.
    Unlink = 5,
    /// `rename`.
    Rename = 6,
}

impl Kind {
    /// All of them; writes, which are by far the most, last.
    pub const ALL: [Kind; 6] = [Kind::Sync, Kind::Resize, Kind::Create, Kind::Unlink, Kind::Rename, Kind::Write];
}

/// What happens at the call that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Action {
    /// The process dies before the call is made.
    Death = 1,
    /// The call is not made and answers EIO.
    Failure = 2,
}

/// Builds the shim in `folder`; answers the library.
///
/// # Errors
/// There is no C compiler, or it does not like the shim.
pub fn build(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, library) = (folder.join("disk.c"), folder.join("disk.so"));
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    fs::write(&source, SOURCE).with_context(|| format!("cannot write {}", source.display()))?;
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).args(["-ldl", "-lpthread"]);
    let said = command.stdin(Stdio::null()).output();
    let said = said.context("the crashes from outside need a C compiler: install one that answers to `cc`")?;
    if !said.status.success() {
        bail!("the C compiler does not take the disk shim:\n{}", String::from_utf8_lossy(&said.stderr));
    }
    Ok(library)
}

/// The page that the campaign and one program share. Clones are the same page.
#[derive(Clone)]
pub struct Control {
    page: Arc<File>,
    path: PathBuf,
}

/// The places of its words.
mod word {
    pub(super) const COUNTING: u64 = 0;
    pub(super) const NTH: u64 = 1;
    pub(super) const HITS: u64 = 4;
    pub(super) const ARMED: u64 = 5;
    pub(super) const ACKNOWLEDGED: u64 = 6;
    pub(super) const COUNTS: u64 = 8;
}

impl Control {
    /// A fresh page in the file `path`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(path: PathBuf) -> io::Result<Control> {
        fs::write(&path, [0_u8; PAGE])?;
        let page = File::options().read(true).write(true).open(&path)?;
        Ok(Control { page: Arc::new(page), path })
    }

    /// The environment in which a program on the database in `folder` runs with the shim; its changes go to `log`.
    pub fn environment(&self, library: &Path, folder: &Path, log: Option<&Path>) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        // SQLite follows symbolic links before it opens anything.
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let mut all = vec![
            ("LD_PRELOAD", text(library)),
            ("DISK_SHIM_FOLDER", text(&folder)),
            ("DISK_SHIM_CONTROL", text(&self.path)),
        ];
        all.extend(log.map(|log| ("DISK_SHIM_LOG", text(log))));
        all
    }

    /// Counts calls from now on.
    pub fn count(&self) {
        self.put(word::COUNTING, &[1]);
    }

    /// How many calls of a kind were counted.
    pub fn counted(&self, kind: Kind) -> u64 {
        self.get(word::COUNTS + kind as u64)
    }

    /// Lets `action` happen at the `nth` call of this kind from now on.
    pub fn arm(&self, kind: Kind, nth: u64, action: Action) {
        self.put(word::NTH, &[nth, action as u64, 0, 0]);
        self.put(word::ARMED, &[kind as u64]);
    }

    /// Whether what was armed has happened.
    pub fn has_struck(&self) -> bool {
        self.get(word::HITS) > 0
    }

    fn acknowledged(&self, count: usize) {
        self.put(word::ACKNOWLEDGED, &[count as u64]);
    }

    fn put(&self, at: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.page.write_all_at(&bytes, at * 8).expect("the shared page can be written");
    }

    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.page.read_exact_at(&mut bytes, at * 8).expect("the shared page can be read");
        u64::from_le_bytes(bytes)
    }
}

/// Something that the program said yes to, so that it must never be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// A webhook, by its provider and event.
    Hook {
        /// Who sent it.
        provider: String,
        /// The event.
        event: String,
    },
    /// An order that was made, by its id.
    Order(String),
    /// A message of a campaign that Telegram took, by its id. The program must know that it had begun to send it.
    News(String),
}

/// Everything that was acknowledged, in its order. The shim's log says of each change how much that was before it.
pub struct Acks {
    control: Control,
    list: Mutex<Vec<Acknowledged>>,
    wrong: Mutex<Vec<String>>,
}

impl Acks {
    /// None yet.
    pub fn new(control: Control) -> Acks {
        Acks { control, list: Mutex::default(), wrong: Mutex::default() }
    }

    /// Notes an acknowledgement that has just been heard.
    pub fn note(&self, what: Acknowledged) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(what);
        self.control.acknowledged(list.len());
    }

    /// Whether the disk has failed already: from then on nothing that is asked may be acknowledged.
    pub fn disk_has_failed(&self) -> bool {
        self.control.has_struck()
    }

    /// Notes what must not have happened.
    pub fn complain(&self, sentence: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(sentence);
    }

    /// The complaints so far.
    pub fn complaints(&self) -> Vec<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<Acknowledged> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
