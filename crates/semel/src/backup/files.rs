//! Files that appear whole or not at all: written beside, synced, renamed.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file on its way. Removed when dropped, unless it took its place.
#[derive(Debug)]
pub struct Scrap {
    path: PathBuf,
    placed: bool,
}

impl Scrap {
    /// Makes a file that only its owner reads; there must be none yet.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: PathBuf) -> io::Result<(Scrap, File)> {
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((Scrap { path, placed: false }, file))
    }

    /// Takes a file over that somebody else made.
    pub fn adopt(path: PathBuf) -> Scrap {
        Scrap { path, placed: false }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the file, which must be synced, into its place, over what is there. The place outlives a power cut once its folder
    /// is synced ([`sync_folder_of`]).
    ///
    /// # Errors
    /// What the system says; the file is removed then.
    pub fn rename(mut self, target: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, target)?;
        self.placed = true;
        Ok(())
    }

    /// The same where nothing may be there yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], and what the system says; the file is removed then.
    pub fn rename_to_new(self, target: &Path) -> io::Result<()> {
        // A second name is given to nobody's file, which a rename cannot promise. The first one goes with `self`.
        let Err(error) = std::fs::hard_link(&self.path, target) else { return Ok(()) };
        if error.kind() == io::ErrorKind::AlreadyExists || target.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // Some file systems, such as those of memory sticks, know no second names.
        self.rename(target)
    }
}

impl Drop for Scrap {
    fn drop(&mut self) {
        if !self.placed {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A name beside `path` that no other process uses: `path.word-<number of this process>`.
pub fn beside(path: &Path, word: &str) -> PathBuf {
    with_ending(path, &format!(".{word}-{}", std::process::id()))
}

/// `path` with `ending` behind it.
pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The folder that `path` lies in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Makes the names in the folder of `path` outlive a power cut.
///
/// # Errors
/// What the system says.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_gone_unless_it_took_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("whole");
        let (scrap, mut file) = Scrap::create(beside(&target, "part")).unwrap();
        file.write_all(b"half").unwrap();
        drop(scrap);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

        let (scrap, mut file) = Scrap::create(beside(&target, "part")).unwrap();
        file.write_all(b"all of it").unwrap();
        scrap.rename(&target).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"all of it");
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let (scrap, mut file) = Scrap::create(beside(&target, "part")).unwrap();
        file.write_all(b"another").unwrap();
        let refused = scrap.rename_to_new(&target).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&target).unwrap(), b"all of it");
        let (scrap, _) = Scrap::create(beside(&target, "part")).unwrap();
        scrap.rename_to_new(&folder.path().join("new")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "the two files and nothing beside them");
    }
}
