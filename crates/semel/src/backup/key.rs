//! The key of backups: 32 random bytes in a file of their own.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use sha2::{Digest, Sha256};

use semel_kernel::clock::Chance;
use semel_kernel::failpoint::check;

use super::files::{self, Scrap, beside};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// A key. It prints as its id only.
pub struct BackupKey([u8; KEY_BYTES]);

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupKey({})", self.id())
    }
}

impl BackupKey {
    /// A key of these bytes.
    pub fn of(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Makes a new key in a file that only its owner reads. Under its name stands a whole key or nothing.
    ///
    /// # Errors
    /// When there is a file already, or it cannot be written.
    pub fn make(path: &Path, chance: &Chance) -> anyhow::Result<Self> {
        let key = Self(chance.bytes());
        let told = || format!("cannot make the key {}", path.display());
        check("backup.create", "key")?;
        let (scrap, mut file) = Scrap::create(beside(path, "part")).with_context(told)?;
        check("backup.created", "key")?;
        file.write_all(&key.0).with_context(told)?;
        check("backup.written", "key")?;
        file.sync_all().with_context(told)?;
        check("backup.synced", "key")?;
        scrap.rename_to_new(path).with_context(told)?;
        check("backup.renamed", "key")?;
        files::sync_folder_of(path).with_context(told)?;
        check("backup.placed", "key")?;
        Ok(key)
    }

    /// Reads a key from its file.
    ///
    /// # Errors
    /// When it cannot be read or holds something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read the key {}", path.display()))?;
        let count = bytes.len();
        let key = <[u8; KEY_BYTES]>::try_from(bytes).ok().map(Self);
        key.with_context(|| {
            let file = path.display();
            format!("{file} holds {count} bytes, and a key has {KEY_BYTES}; `semel backup --new-key PATH` makes one")
        })
    }

    /// Whether others than its owner may read the file.
    pub fn is_open_to_others(path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o077 != 0)
    }

    /// What the key may be called by, in public: it says nothing about the key.
    pub fn id(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(b"semel backup key");
        hasher.update(self.0);
        hex::encode(&hasher.finalize()[..8])
    }

    /// The bytes, for the cipher.
    pub(super) fn bytes(&self) -> [u8; KEY_BYTES] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_private_and_reads_back_and_never_prints() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = BackupKey::make(&path, &Chance::seeded(1)).unwrap();
        assert!(!BackupKey::is_open_to_others(&path));
        let read = BackupKey::read(&path).unwrap();
        assert_eq!(read.bytes(), made.bytes());
        let printed = format!("{read:?}");
        assert!(
            printed.len() == "BackupKey()".len() + 16 && !printed.contains(&hex::encode(&made.bytes()[..8])),
            "{printed}"
        );
        assert!(BackupKey::make(&path, &Chance::seeded(2)).is_err(), "a key is never overwritten");
    }

    #[test]
    fn a_file_that_is_no_key_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "short").unwrap();
        let told = BackupKey::read(&path).unwrap_err().to_string();
        assert!(told.contains("holds 5 bytes, and a key has 32"), "{told}");
    }
}
