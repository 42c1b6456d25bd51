//! A list of goods as it comes in from a file or a request, read before any transaction begins.

use std::collections::BTreeSet;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Error;

/// Units in one import; a longer file is sent in parts.
const UNITS_AT_MOST: usize = 10_000;
/// Bytes of one unit. A Telegram message holds 4096 characters.
const UNIT_BYTES: usize = 4096;

/// Sound goods, each once, in the order of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Goods {
    pub(super) units: Vec<Unit>,
    /// Lines that repeat an earlier one.
    pub(super) repeated: usize,
}

/// What one unit holds, and the fingerprint by which it is known for ever.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) hash: String,
    pub(super) content: String,
    /// Its line in the list, from 1.
    pub(super) line: usize,
}

/// The fingerprint of a text.
pub(super) fn fingerprint(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// Goods are secrets: only their number prints.
impl std::fmt::Debug for Goods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Goods({} units, {} repeated)", self.units.len(), self.repeated)
    }
}

/// What became of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// New units on the shelf.
    pub added: usize,
    /// Units that were in this list twice, or in any product's stock before, sold ones too.
    pub duplicates: usize,
}

impl Goods {
    /// How many different ones there are.
    pub(super) fn len(&self) -> usize {
        self.units.len()
    }

    /// Reads one unit an item. Space around an item does not count; its inner lines do.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the number of the line (from 1) that is empty or too long; never with what stands there.
    pub fn read(items: Vec<String>) -> Result<Self, Error> {
        if items.is_empty() || items.len() > UNITS_AT_MOST {
            let reason = format!("an import has 1 to {UNITS_AT_MOST} units, this one has {}", items.len());
            return Err(Error::invalid("items", reason));
        }
        let mut known = BTreeSet::new();
        let mut units = Vec::with_capacity(items.len());
        let lines = items.len();
        for (index, item) in items.into_iter().enumerate() {
            let content = sound(&item, index)?;
            let hash = fingerprint(content);
            if known.insert(hash.clone()) {
                units.push(Unit { hash, content: content.to_owned(), line: index + 1 });
            }
        }
        let repeated = lines - units.len();
        Ok(Self { units, repeated })
    }
}

fn sound(item: &str, index: usize) -> Result<&str, Error> {
    // A mark of byte order at a file's start is nothing that a customer could type: it must not make a second key of one.
    let text = item.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let refuse = |why: String| Err(Error::invalid(format!("items[{index}]"), format!("line {} {why}", index + 1)));
    if text.is_empty() {
        return refuse("is empty".into());
    }
    if text.len() > UNIT_BYTES {
        return refuse(format!("has {} bytes; a unit has at most {UNIT_BYTES}", text.len()));
    }
    // PostgreSQL cannot keep it in a text, and nobody could read it.
    if text.contains('\0') {
        return refuse("holds a zero byte".into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(items: &[&str]) -> Result<Goods, Error> {
        Goods::read(items.iter().map(|item| (*item).to_owned()).collect())
    }

    #[test]
    fn goods_keep_their_order_and_each_comes_once() {
        let goods = read(&["KEY-2", " KEY-1\r\n", "KEY-2 ", "login\npassword"]).unwrap();
        let contents: Vec<&str> = goods.units.iter().map(|unit| unit.content.as_str()).collect();
        assert_eq!(contents, ["KEY-2", "KEY-1", "login\npassword"]);
        assert_eq!(goods.repeated, 1);
    }

    #[test]
    fn the_fingerprint_is_sha_256_of_the_trimmed_text() {
        let goods = read(&[" abc "]).unwrap();
        assert_eq!(goods.units[0].hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number_and_not_by_its_secret() {
        assert_eq!(read(&["KEY-1", "  "]).unwrap_err().to_string(), "items[1]: line 2 is empty");
        let long = "s".repeat(4097);
        assert_eq!(
            read(&[long.as_str()]).unwrap_err().to_string(),
            "items[0]: line 1 has 4097 bytes; a unit has at most 4096"
        );
        assert!(read(&["a\0b"]).unwrap_err().to_string().contains("line 1"));
        assert!(read(&[&long[..4096]]).is_ok());
    }

    #[test]
    fn an_import_is_neither_empty_nor_endless() {
        assert!(read(&[]).is_err());
        let many: Vec<String> = (0..=UNITS_AT_MOST).map(|n| n.to_string()).collect();
        assert!(Goods::read(many[1..].to_vec()).is_ok());
        assert!(Goods::read(many).is_err());
    }

    #[test]
    fn goods_do_not_print() {
        assert_eq!(format!("{:?}", read(&["SECRET"]).unwrap()), "Goods(1 units, 0 repeated)");
    }
}
