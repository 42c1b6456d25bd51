//! Changing `wg0.conf` so that it is whole at every moment, whoever else is there.
//!
//! Under a lock file the file is read, made anew, and, if it differs, written to a temporary file in the same directory,
//! synced, compared once more with what was read, renamed over the old one, and the directory synced. A crash or a full
//! disk at any step leaves the old file or the new one, never a part. A person who saved the file meanwhile is not
//! overwritten: it is read and made once more. Between that last look and the rename nothing happens, but nothing can be
//! locked either: an editor does not know our lock.
//!
//! Nothing is followed that somebody may have planted: a symbolic link at the lock, at the file or at the temporary name,
//! a lock of another user, a directory in which anybody may rename.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Metadata, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::conf::{Conf, ConfError};

/// How often the file is made anew when somebody else keeps changing it.
const TRIES: usize = 5;
/// How long to wait before the lock is tried again.
const PAUSE: Duration = Duration::from_millis(20);
/// A file beyond this is no `wg0.conf`.
const MOST_BYTES: u64 = 64 << 20;
/// Only the owner reads the keys.
const MODE: u32 = 0o600;

/// Where the file is, and the lock that everybody takes who changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfPath {
    /// The file itself, not a link to it.
    pub file: PathBuf,
    /// The lock file, in a directory where nobody else can put one. It stays when the lock is given back.
    pub lock: PathBuf,
}

/// What became of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Whether it was replaced. False: it was already as it shall be.
    pub changed: bool,
}

/// Why the file was not changed. Unless it says otherwise the old one is in place.
#[derive(Debug, Error)]
pub enum FileError {
    /// Another process holds the lock.
    #[error("{} is held by another process for more than {waited:?}", .lock.display())]
    Busy {
        /// The lock file.
        lock: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Somebody else could have a hand in it.
    #[error("{}: {why}", .path.display())]
    Unsafe {
        /// What was looked at.
        path: PathBuf,
        /// What is wrong with it and what to do.
        why: &'static str,
    },
    /// The file cannot be read as a `wg0.conf`.
    #[error("{}, {problem}", .path.display())]
    Conf {
        /// The file.
        path: PathBuf,
        /// The line and what is wrong with it.
        problem: ConfError,
    },
    /// The file, which describes a running interface, does not say what that interface is. Written by us it would bring up
    /// nothing at the next start of the machine.
    #[error(
        "{} {what}, so peers are not written into it: put it back from your copy (a new one would have another key, and no \
         customer's device would connect)", .path.display()
    )]
    NoInterface {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// What was about to be written is not a whole `wg0.conf`, so it was not.
    #[error("what {} should become is not a whole file", .path.display())]
    NotWhole {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else changes the file all the time.
    #[error("{} was changed by somebody else each time that it was made anew; close the editor", .path.display())]
    KeepsChanging {
        /// The file.
        path: PathBuf,
    },
    /// The system refused a step. After a failed `rename` step it may be done or not; the next run sees which.
    #[error("cannot {step} {}: {cause}", .path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Somebody who wants to know of each step, for tests that break the program there.
pub trait Steps: Send + Sync {
    /// The step that `place` names (one of [`PLACES`]) is about to happen (`….before`) or has happened (`….after`).
    ///
    /// # Errors
    /// The step fails as if the system had said so. Behind a step: it is done, and its answer was lost.
    fn at(&self, place: &'static str) -> io::Result<()>;
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSteps;

impl Steps for NoSteps {
    fn at(&self, _place: &'static str) -> io::Result<()> {
        Ok(())
    }
}

/// All places that are told to [`Steps`], those of the file first, then those of the tool, in the order of a run.
pub const PLACES: [&str; 16] = [
    "lock.before",
    "lock.after",
    "write.before",
    "write.after",
    "sync.before",
    "sync.after",
    "rename.before",
    "rename.after",
    "dirsync.before",
    "dirsync.after",
    "show.before",
    "show.after",
    "remove.before",
    "remove.after",
    "addconf.before",
    "addconf.after",
];

/// Makes the file what `make` makes of it. A file that is not there is empty.
///
/// `make` runs once more each time somebody else changed the file meanwhile. `deadline` bounds the wait for the lock.
/// Blocks: call it where blocking is allowed.
///
/// # Errors
/// Any [`FileError`]; the old file is whole in each case.
pub fn update(paths: &ConfPath, deadline: Duration, make: impl FnMut(&Conf) -> Vec<u8>) -> Result<Written, FileError> {
    update_with(paths, deadline, make, &NoSteps)
}

/// As [`update`], told to `steps`.
///
/// # Errors
/// As [`update`].
pub fn update_with(
    paths: &ConfPath,
    deadline: Duration,
    make: impl FnMut(&Conf) -> Vec<u8>,
    steps: &dyn Steps,
) -> Result<Written, FileError> {
    change(paths, deadline, make, false, steps)
}

/// As [`update_with`], for the file of an interface: one that is not there, or has no `[Interface]`, is not written.
///
/// # Errors
/// As [`update`], and [`FileError::NoInterface`].
pub fn update_of_interface(
    paths: &ConfPath,
    deadline: Duration,
    make: impl FnMut(&Conf) -> Vec<u8>,
    steps: &dyn Steps,
) -> Result<Written, FileError> {
    change(paths, deadline, make, true, steps)
}

fn change(
    paths: &ConfPath,
    deadline: Duration,
    mut make: impl FnMut(&Conf) -> Vec<u8>,
    has_interface: bool,
    steps: &dyn Steps,
) -> Result<Written, FileError> {
    let path = paths.file.as_path();
    check_folder(folder_of(path))?;
    let _held = take_lock(&paths.lock, deadline, steps)?;
    // Whoever left a temporary file behind is dead: the lock is ours.
    sweep(path);
    for _ in 0..TRIES {
        let before = Before::read(path)?;
        let conf = before.conf(path)?;
        if has_interface && !conf.interface().present {
            return Err(no_interface(path, &before));
        }
        let after = Zeroizing::new(make(&conf));
        if *after == *before.bytes && before.is_private() {
            return Ok(Written { changed: false });
        }
        if !Conf::parse(&after).is_ok_and(|conf| conf.whole()) {
            return Err(FileError::NotWhole { path: path.to_owned() });
        }
        if replace(path, &before, &after, steps)? {
            return Ok(Written { changed: true });
        }
    }
    Err(FileError::KeepsChanging { path: path.to_owned() })
}

/// Reads the file as it is now, without the lock: it is whole at every moment. One that is not there is empty.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read(path: &Path) -> Result<Conf, FileError> {
    Before::read(path)?.conf(path)
}

/// As [`read`], for the file of an interface.
///
/// # Errors
/// As [`read`], and [`FileError::NoInterface`].
pub fn read_of_interface(path: &Path) -> Result<Conf, FileError> {
    let before = Before::read(path)?;
    let conf = before.conf(path)?;
    match conf.interface().present {
        true => Ok(conf),
        false => Err(no_interface(path, &before)),
    }
}

fn no_interface(path: &Path, before: &Before) -> FileError {
    let what = if before.meta.is_none() { "is not there any more" } else { "has no [Interface]" };
    FileError::NoInterface { path: path.to_owned(), what }
}

/// Writes the new file beside the old one and puts it in its place. False: somebody else changed the old one meanwhile.
fn replace(path: &Path, before: &Before, after: &[u8], steps: &dyn Steps) -> Result<bool, FileError> {
    let at = |place, step| steps.at(place).map_err(failed(step, path));
    let (mut temp, mut file) = Temp::beside(path)?;
    keep_owner(&file, before).map_err(failed("give to its owner the new", path))?;

    at("write.before", "write")?;
    file.write_all(after).map_err(failed("write", path))?;
    at("write.after", "write")?;

    at("sync.before", "sync")?;
    file.sync_all().map_err(failed("sync", path))?;
    at("sync.after", "sync")?;
    drop(file);

    at("rename.before", "rename")?;
    if !before.still_is(path)? {
        return Ok(false);
    }
    fs::rename(&temp.path, path).map_err(failed("rename", path))?;
    temp.is_gone = true;
    at("rename.after", "rename")?;

    let folder = folder_of(path);
    at("dirsync.before", "sync the directory of")?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the directory of", path))?;
    at("dirsync.after", "sync the directory of")?;
    Ok(true)
}

/// The file as it was read.
#[derive(Default)]
struct Before {
    bytes: Zeroizing<Vec<u8>>,
    /// None: it was not there.
    meta: Option<Metadata>,
}

impl Before {
    fn read(path: &Path) -> Result<Self, FileError> {
        for _ in 0..TRIES {
            let named = match fs::symlink_metadata(path) {
                Ok(named) => named,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
                Err(error) => return Err(failed("look at", path)(error)),
            };
            refuse_planted(path, &named, "this is a symbolic link; name the file that it leads to")?;
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("open", path)(error)),
            };
            let meta = file.metadata().map_err(failed("look at", path))?;
            if !is_same(&named, &meta) {
                continue;
            }
            if meta.len() > MOST_BYTES {
                return Err(FileError::Unsafe { path: path.to_owned(), why: "this is too long for a wg0.conf" });
            }
            // One byte more than there is, so that reading to the end does not let the buffer grow.
            let room = usize::try_from(meta.len()).unwrap_or_default() + 1;
            let mut bytes: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::with_capacity(room));
            file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
            return Ok(Self { bytes, meta: Some(meta) });
        }
        Err(FileError::KeepsChanging { path: path.to_owned() })
    }

    fn conf(&self, path: &Path) -> Result<Conf, FileError> {
        Conf::parse(&self.bytes).map_err(|problem| FileError::Conf { path: path.to_owned(), problem })
    }

    /// Whether only its owner may read it. What is not there shows nothing to anybody.
    fn is_private(&self) -> bool {
        self.meta.as_ref().is_none_or(|meta| meta.mode() & 0o7777 == MODE)
    }

    fn still_is(&self, path: &Path) -> Result<bool, FileError> {
        let now = Self::read(path)?;
        Ok(now.meta.is_some() == self.meta.is_some() && *now.bytes == *self.bytes)
    }
}

/// A temporary file, deleted unless it went into its place.
struct Temp {
    path: PathBuf,
    is_gone: bool,
}

/// Tells the temporary files of one process apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Temp {
    /// Makes a new file that only we can read. One that is there already, whatever it is, is never opened.
    fn beside(path: &Path) -> Result<(Self, File), FileError> {
        let mut last = None;
        for _ in 0..TRIES {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let mut name = temp_prefix(path);
            name.push(format!("{}-{number}", std::process::id()));
            let temp = folder_of(path).join(name);
            match File::options().write(true).create_new(true).mode(MODE).open(&temp) {
                Ok(file) => {
                    let temp = Self { path: temp, is_gone: false };
                    // The umask may have taken more away.
                    file.set_permissions(Permissions::from_mode(MODE)).map_err(failed("make private", &temp.path))?;
                    return Ok((temp, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(temp),
                Err(error) => return Err(failed("make", &temp)(error)),
            }
        }
        let why = "somebody puts files where the new wg0.conf shall be written; look who may write to this directory";
        Err(FileError::Unsafe { path: last.unwrap_or_else(|| path.to_owned()), why })
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.is_gone
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(file = %self.path.display(), %error, "cannot delete a temporary file; the next run will");
        }
    }
}

/// `.wg0.conf.semel-`; the process and a number follow.
fn temp_prefix(path: &Path) -> OsString {
    let mut prefix = b".".to_vec();
    prefix.extend_from_slice(path.file_name().unwrap_or_default().as_bytes());
    prefix.extend_from_slice(b".semel-");
    OsString::from_vec(prefix)
}

/// Deletes the temporary files that dead runs left behind. They hold secrets.
fn sweep(path: &Path) {
    let prefix = temp_prefix(path);
    let Ok(entries) = fs::read_dir(folder_of(path)) else { return };
    for entry in entries.flatten() {
        if is_temp(&entry.file_name(), &prefix)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(file = %entry.path().display(), %error, "cannot delete the temporary file of a dead run");
        }
    }
}

fn is_temp(name: &OsStr, prefix: &OsStr) -> bool {
    let Some(rest) = name.as_bytes().strip_prefix(prefix.as_bytes()) else { return false };
    !rest.is_empty() && rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
}

/// As root we write for whoever owns the file.
fn keep_owner(file: &File, before: &Before) -> io::Result<()> {
    let Some(old) = &before.meta else { return Ok(()) };
    let new = file.metadata()?;
    if new.uid() == 0 && (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    Ok(())
}

/// Takes the lock, and holds it as long as the file is open.
fn take_lock(path: &Path, deadline: Duration, steps: &dyn Steps) -> Result<File, FileError> {
    let folder = folder_of(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("make the directory", folder))?;
    check_folder(folder)?;
    steps.at("lock.before").map_err(failed("lock", path))?;
    let mut left = deadline;
    loop {
        if let Some(file) = open_lock(path)? {
            match file.try_lock() {
                // A lock on a file that was deleted meanwhile keeps nobody out.
                Ok(()) if is_named(&file, path) => {
                    steps.at("lock.after").map_err(failed("lock", path))?;
                    return Ok(file);
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
            }
        }
        if left.is_zero() {
            return Err(FileError::Busy { lock: path.to_owned(), waited: deadline });
        }
        let pause = PAUSE.min(left);
        thread::sleep(pause);
        left -= pause;
    }
}

/// Opens or makes the lock file. None: it came or went just now, look again.
fn open_lock(path: &Path) -> Result<Option<File>, FileError> {
    match File::options().write(true).create_new(true).mode(MODE).open(path) {
        Ok(file) => return Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("make", path)(error)),
    }
    let named = match fs::symlink_metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("look at", path)(error)),
    };
    refuse_planted(path, &named, "this is a symbolic link where the lock shall be; somebody planted it, delete it")?;
    if own_user().is_some_and(|own| own != named.uid()) {
        let why = "this lock belongs to another user, who could hold it for ever; delete it or name another lock";
        return Err(FileError::Unsafe { path: path.to_owned(), why });
    }
    let file = match File::options().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let meta = file.metadata().map_err(failed("look at", path))?;
    if !is_same(&named, &meta) {
        return Ok(None);
    }
    // Who can open it can hold it.
    if meta.mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(MODE)).map_err(failed("make private", path))?;
    }
    Ok(Some(file))
}

/// Refuses what is not a plain file: a link to somewhere else, a pipe that would hold us up.
fn refuse_planted(path: &Path, named: &Metadata, link: &'static str) -> Result<(), FileError> {
    let why = match named.file_type() {
        kind if kind.is_symlink() => link,
        kind if !kind.is_file() => "this is not a plain file",
        _ => return Ok(()),
    };
    Err(FileError::Unsafe { path: path.to_owned(), why })
}

/// Refuses a directory in which anybody may delete and rename what belongs to others.
fn check_folder(folder: &Path) -> Result<(), FileError> {
    let meta = fs::metadata(folder).map_err(failed("look at", folder))?;
    if meta.mode() & 0o002 != 0 && meta.mode() & 0o1000 == 0 {
        let why = "everybody may delete and rename files in this directory; take that right away (chmod o-w)";
        return Err(FileError::Unsafe { path: folder.to_owned(), why });
    }
    Ok(())
}

/// Whether the name still leads to the open file.
fn is_named(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => is_same(&open, &named),
        _ => false,
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The user that we act as. Where the system does not tell, owners are not compared.
fn own_user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    // The real one, then the effective one.
    users.split_whitespace().nth(1)?.parse().ok()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(step: &'static str, path: &Path) -> impl Fn(io::Error) -> FileError {
    let path = path.to_owned();
    move |cause| FileError::Io { step, path: path.clone(), cause }
}

#[cfg(test)]
mod tests;
