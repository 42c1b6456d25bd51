//! A link of the chain, and the chain as somebody reads it who trusts nothing.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use semel_kernel::clock::Time;

/// The hash before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub(super) const ACTOR_CHARS: usize = 80;
pub(super) const SUBJECT_CHARS: usize = 160;
pub(super) const DETAIL_CHARS: usize = 1_000;

/// One action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 1 without gaps.
    pub seq: i64,
    /// The hash of the entry before.
    pub prev_hash: String,
    /// Lowercase SHA-256 over all other members.
    pub hash: String,
    /// Who: a token's id, `first` for the one from the settings, `operator` for the owner at the machine.
    pub actor: String,
    /// What was done: `order.refund`.
    pub action: String,
    /// To what: an id; empty where it had none yet.
    pub subject: String,
    /// What else there is to say; empty where there is nothing.
    pub detail: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

impl Entry {
    /// The entry after `head`.
    pub(super) fn after(head: &Head, actor: &str, action: &str, subject: &str, detail: &str, at: Time) -> Self {
        let mut entry = Self {
            seq: head.seq + 1,
            prev_hash: head.hash.clone(),
            hash: String::new(),
            actor: actor.into(),
            action: action.into(),
            subject: subject.into(),
            detail: detail.into(),
            at_ms: at.millis(),
        };
        entry.hash = entry.linked();
        entry
    }

    /// The hash that belongs to this entry: SHA-256 over its canonical form, in lowercase hex.
    ///
    /// The canonical form is the netstrings (`<length in bytes>:<bytes>,`) of prev_hash, seq, at_ms, actor, action, subject
    /// and detail, in this order, with numbers in decimal: no two entries have the same one.
    pub fn linked(&self) -> String {
        let (seq, at) = (self.seq.to_string(), self.at_ms.to_string());
        let mut text = String::new();
        for part in [&self.prev_hash, &seq, &at, &self.actor, &self.action, &self.subject, &self.detail] {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}:{part},", part.len());
        }
        hex::encode(Sha256::digest(text.as_bytes()))
    }
}

/// The last link of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number; zero when nothing was done yet.
    pub seq: i64,
    /// Its hash.
    pub hash: String,
}

impl Head {
    /// The head of an empty chain.
    pub fn genesis() -> Self {
        Self { seq: 0, hash: GENESIS.to_owned() }
    }
}

/// Where a chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq}: {why}")]
pub struct Broken {
    /// The first entry that does not fit.
    pub seq: i64,
    /// What is wrong with it.
    pub why: String,
}

/// A chain on its way through a reader: entries go in by their number, and each hash is computed anew.
#[derive(Clone, Debug)]
pub struct Chain {
    head: Head,
    anchor: Option<String>,
    anchored: bool,
}

impl Chain {
    /// An empty chain, which shall pass through the hash `anchor` if there is one.
    pub fn new(anchor: Option<String>) -> Self {
        let anchor = anchor.map(|anchor| anchor.trim().to_ascii_lowercase());
        let anchored = anchor.as_deref().is_none_or(|anchor| anchor == GENESIS);
        Self { head: Head::genesis(), anchor, anchored }
    }

    /// The link that was read last.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// [`Broken`] when it is not the next one, does not point at the one before, or is not what its hash says.
    pub fn take(&mut self, entry: &Entry) -> Result<(), Broken> {
        let broken = |why: &str| Err(Broken { seq: entry.seq, why: why.to_owned() });
        if entry.seq != self.head.seq + 1 {
            return Err(Broken { seq: self.head.seq + 1, why: format!("it is missing: {} comes next", entry.seq) });
        }
        if entry.prev_hash != self.head.hash {
            return broken("it does not follow the entry before");
        }
        if entry.hash != entry.linked() {
            return broken("it was changed: its hash is another");
        }
        self.anchored |= self.anchor.as_deref() == Some(entry.hash.as_str());
        self.head = Head { seq: entry.seq, hash: entry.hash.clone() };
        Ok(())
    }

    /// Ends the reading at the `head` that the database names.
    ///
    /// # Errors
    /// [`Broken`] when the chain ends elsewhere, or never passed through the anchor.
    pub fn end(&self, head: &Head) -> Result<(), Broken> {
        if self.head != *head {
            let why = format!("the chain ends at {} and its head says {}", self.head.seq, head.seq);
            return Err(Broken { seq: self.head.seq.min(head.seq) + 1, why });
        }
        if !self.anchored {
            let why =
                "the anchor does not lie on this chain: it was written anew, or the anchor is of another database";
            return Err(Broken { seq: 1, why: why.to_owned() });
        }
        Ok(())
    }
}

/// Text for one line of the log: no control characters, and not longer than `most`.
pub(super) fn clean(text: &str, most: usize) -> String {
    text.chars().take(most).map(|sign| if sign.is_control() { ' ' } else { sign }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Entry> {
        let mut head = Head::genesis();
        let mut entries = Vec::new();
        for (n, action) in (1..).zip(["product.create", "stock.import", "order.refund"]) {
            let entry = Entry::after(&head, "first", action, "prd_1", "title Ключ", Time::from_millis(1000 * n));
            head = Head { seq: entry.seq, hash: entry.hash.clone() };
            entries.push(entry);
        }
        entries
    }

    fn read(entries: &[Entry], anchor: Option<&str>, head: &Head) -> Result<(), Broken> {
        let mut chain = Chain::new(anchor.map(str::to_owned));
        entries.iter().try_for_each(|entry| chain.take(entry))?;
        chain.end(head)
    }

    fn head_of(entries: &[Entry]) -> Head {
        let last = entries.last().expect("entries");
        Head { seq: last.seq, hash: last.hash.clone() }
    }

    #[test]
    fn a_whole_chain_is_whole_and_passes_through_each_of_its_hashes() {
        let entries = chain();
        let head = head_of(&entries);
        assert_eq!(read(&entries, None, &head), Ok(()));
        for entry in &entries {
            assert_eq!(read(&entries, Some(&entry.hash.to_uppercase()), &head), Ok(()));
        }
        assert_eq!(read(&entries, Some(GENESIS), &head), Ok(()));
        assert_eq!(read(&[], None, &Head::genesis()), Ok(()));
    }

    #[test]
    fn every_change_of_an_entry_breaks_the_chain_there() {
        let changes: [fn(&mut Entry); 7] = [
            |entry| entry.seq = 7,
            |entry| entry.prev_hash = GENESIS.into(),
            |entry| entry.hash = GENESIS.into(),
            |entry| entry.actor = "somebody".into(),
            |entry| entry.action = "order.cancel".into(),
            |entry| entry.detail.push('!'),
            |entry| entry.at_ms += 1,
        ];
        for change in changes {
            let mut entries = chain();
            let head = head_of(&entries);
            change(&mut entries[1]);
            assert_eq!(read(&entries, None, &head).map_err(|broken| broken.seq), Err(2));
        }
    }

    #[test]
    fn what_is_missing_and_what_was_written_anew_is_told() {
        let entries = chain();
        let head = head_of(&entries);
        assert_eq!(read(&entries[1..], None, &head).map_err(|broken| broken.seq), Err(1));
        assert_eq!(read(&entries[..2], None, &head).map_err(|broken| broken.seq), Err(3));
        let another = Entry::after(&Head::genesis(), "first", "job.retry", "job_1", "", Time::from_millis(1));
        let forged = [another];
        let told = read(&forged, Some(&entries[0].hash), &head_of(&forged)).expect_err("another chain");
        assert!(told.to_string().contains("the anchor does not lie on this chain"), "{told}");
    }

    #[test]
    fn a_border_between_members_cannot_be_moved() {
        let mut one = chain().remove(0);
        let mut other = one.clone();
        (one.actor, one.action) = ("ab".into(), "c".into());
        (other.actor, other.action) = ("a".into(), "bc".into());
        assert_ne!(one.linked(), other.linked());
    }

    #[test]
    fn a_line_of_the_log_stays_one_line() {
        assert_eq!(clean("a\nb\u{0}c", 10), "a b c");
        assert_eq!(clean("Ключ", 2), "Кл");
    }
}
