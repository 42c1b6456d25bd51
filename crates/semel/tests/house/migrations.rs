//! A migration that was ever merged is never edited: a database that was brought up with another text is refused.
//!
//! The list of those that were merged has a line for each file, as `sha256sum` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::{entries, read, root};

const LIST: &str = "crates/semel/landed_migrations.txt";

#[test]
fn no_migration_that_was_merged_is_edited() {
    let edited: Vec<String> = landed()
        .into_iter()
        .filter(|(file, hash)| hex::encode(Sha256::digest(read(&root().join(file)))) != *hash)
        .map(|(file, _)| file)
        .collect();
    assert!(
        edited.is_empty(),
        "databases were brought up with other texts of {}: take the edit back and write it as a new step",
        edited.join(", ")
    );
}

#[test]
fn migrations_are_merged_in_pairs_and_in_their_order() {
    let mut folders = BTreeMap::<PathBuf, BTreeSet<String>>::new();
    for (file, _) in landed() {
        let path = root().join(&file);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { panic!("{LIST}: {file} is no file") };
        folders.entry(folder.to_owned()).or_default().insert(name.to_string_lossy().into_owned());
    }
    for (folder, landed) in &folders {
        let steps: BTreeSet<String> = entries(folder)
            .iter()
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        assert!(steps.iter().take(landed.len()).eq(landed), "{LIST} leaves out a step of {}", folder.display());
        for engine in ["sqlite", "postgres"] {
            let twin = folder.with_file_name(engine);
            assert_eq!(folders.get(&twin), Some(landed), "{LIST} leaves out a step of {}", twin.display());
        }
    }
}

/// Each file that was merged, from the root of the house, with its hash.
fn landed() -> Vec<(String, String)> {
    let list = read(&root().join(LIST));
    let pair = |line: &str| {
        let (hash, file) = line.split_once("  ").unwrap_or_else(|| panic!("{LIST}: sha256sum writes no line {line:?}"));
        (file.to_owned(), hash.to_owned())
    };
    list.lines().map(pair).collect()
}
