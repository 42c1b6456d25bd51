//! The sealed file: a header that anybody may read, then the content in parts, each encrypted and authenticated.
//!
//! ```text
//! SEMELBK1 | length of the header, 4 bytes, big-endian | header, JSON | part | part | … | last part
//! ```
//!
//! The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) over XChaCha20-Poly1305: a part is 64 KiB of content
//! and a tag of 16 bytes; its nonce is the file's 19 random bytes, the number of the part (32 bits, big-endian) and a byte that
//! is 1 for the last part only. So parts cannot be changed, dropped, repeated or put into another order, and a file that was cut
//! off has no last part. All bytes before the first part are associated data of every part: they cannot be changed either.

use std::io::{self, BufRead, BufReader, Read, Write};

use chacha20poly1305::{AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};

use semel_kernel::clock::{Chance, Time};

use super::key::BackupKey;

const MAGIC: &[u8; 8] = b"SEMELBK1";
const SALT_BYTES: usize = 19;
const TAG_BYTES: usize = 16;
/// Content of one part.
const PART_BYTES: usize = 64 * 1024;
/// No header of ours is as long.
const HEADER_BYTES_AT_MOST: u32 = 64 * 1024;

/// What anybody may know about a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `sqlite`: the content is a database file. `postgres`: it is a dump of `pg_dump` in its custom format.
    pub engine: String,
    /// The program that made it.
    pub version: String,
    /// When it was begun: what happened later is not in it.
    pub created_at: Time,
    /// The steps of the schema, as `room/0001`.
    pub schema: Vec<String>,
    /// The id of the key that opens it.
    pub key: String,
    /// Random bytes of this file, in hex: one key seals many files.
    pub salt: String,
}

impl Header {
    /// The header of a new file.
    pub fn new(
        engine: &str,
        version: &str,
        created_at: Time,
        schema: Vec<String>,
        key: &BackupKey,
        chance: &Chance,
    ) -> Self {
        let salt: [u8; SALT_BYTES] = chance.bytes();
        let (engine, version) = (engine.to_owned(), version.to_owned());
        Self { engine, version, created_at, schema, key: key.id(), salt: hex::encode(salt) }
    }
}

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Something else.
    #[error("this is not a backup of semel")]
    Foreign,
    /// Another key made it.
    #[error("this backup was made with the key {wanted}, and the key given is {given}")]
    OtherKey {
        /// The id of the key that opens it.
        wanted: String,
        /// The id of the key that was tried.
        given: String,
    },
    /// Its last part is missing or torn.
    #[error("this backup is cut off, or damaged at its end")]
    CutOff,
    /// Bytes differ from those that were written.
    #[error("this backup is damaged or was changed, in its part {part}")]
    Damaged {
        /// Counted from 1.
        part: u64,
    },
    /// The file cannot be read.
    #[error("the backup cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The cipher on its way through the parts of one file.
struct Parts {
    cipher: XChaCha20Poly1305,
    /// All bytes before the first part.
    head: Vec<u8>,
    salt: [u8; SALT_BYTES],
    number: u32,
}

impl Parts {
    fn new(key: &BackupKey, head: Vec<u8>, salt: [u8; SALT_BYTES]) -> Self {
        Self { cipher: XChaCha20Poly1305::new(&Key::from(key.bytes())), head, salt, number: 0 }
    }

    fn nonce(&self, last: bool) -> XNonce {
        let mut nonce = [0; SALT_BYTES + 5];
        nonce[..SALT_BYTES].copy_from_slice(&self.salt);
        nonce[SALT_BYTES..SALT_BYTES + 4].copy_from_slice(&self.number.to_be_bytes());
        nonce[SALT_BYTES + 4] = u8::from(last);
        XNonce::from(nonce)
    }

    /// Makes content a part, its tag behind it.
    fn encrypt(&self, part: &mut Vec<u8>, last: bool) -> Option<()> {
        let nonce = self.nonce(last);
        let tag = self.cipher.encrypt_inout_detached(&nonce, &self.head, part.as_mut_slice().into()).ok()?;
        part.extend_from_slice(tag.as_slice());
        Some(())
    }

    /// Makes a part content again; `None`, and the part is worth nothing, when it is not the one that was written here.
    fn decrypt(&self, part: &mut Vec<u8>, last: bool) -> Option<()> {
        let length = part.len().checked_sub(TAG_BYTES)?;
        let nonce = self.nonce(last);
        let (content, tag) = part.split_at_mut(length);
        let tag = Tag::try_from(&*tag).ok()?;
        self.cipher.decrypt_inout_detached(&nonce, &self.head, content.into(), &tag).ok()?;
        part.truncate(length);
        Some(())
    }

    /// False when the number of parts is used up: no nonce may come twice.
    fn step(&mut self) -> bool {
        match self.number.checked_add(1) {
            Some(next) => {
                self.number = next;
                true
            }
            None => false,
        }
    }
}

/// Writes a sealed file. Without [`Sealer::finish`] it has no last part, and nobody takes it for a backup.
pub struct Sealer<W: Write> {
    out: W,
    parts: Parts,
    /// Content of the part that is not sealed yet: it may be the last.
    part: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    /// Begins a file with its header.
    ///
    /// # Errors
    /// What writing says.
    pub fn new(mut out: W, key: &BackupKey, header: &Header) -> io::Result<Self> {
        let salt = salt_of(header).ok_or_else(|| io::Error::other("the header has no salt"))?;
        let json = serde_json::to_vec(header)?;
        let length = u32::try_from(json.len()).map_err(io::Error::other)?;
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&length.to_be_bytes());
        head.extend_from_slice(&json);
        out.write_all(&head)?;
        Ok(Self { out, parts: Parts::new(key, head, salt), part: Vec::with_capacity(PART_BYTES + TAG_BYTES) })
    }

    /// Seals the last part.
    ///
    /// # Errors
    /// What writing says.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        self.parts.encrypt(&mut self.part, last).ok_or_else(|| io::Error::other("a part could not be encrypted"))?;
        self.out.write_all(&self.part)?;
        self.part.clear();
        if self.parts.step() || last {
            Ok(())
        } else {
            Err(io::Error::other("the database is too large for one backup"))
        }
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.len() == PART_BYTES && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads a sealed file.
pub struct Opener<R: Read> {
    input: BufReader<R>,
    parts: Parts,
    header: Header,
    over: bool,
}

impl<R: Read> Opener<R> {
    /// Reads the header and looks whether the key fits.
    ///
    /// # Errors
    /// [`Unreadable::Foreign`], [`Unreadable::OtherKey`], [`Unreadable::CutOff`] within the header.
    pub fn new(input: R, key: &BackupKey) -> Result<Self, Unreadable> {
        let mut input = BufReader::with_capacity(PART_BYTES + TAG_BYTES, input);
        let mut head = vec![0; MAGIC.len() + 4];
        read_whole(&mut input, &mut head, Unreadable::Foreign)?;
        let (magic, length) = head.split_at(MAGIC.len());
        let length = u32::from_be_bytes(length.try_into().map_err(|_| Unreadable::Foreign)?);
        if magic != MAGIC || length > HEADER_BYTES_AT_MOST {
            return Err(Unreadable::Foreign);
        }
        let mut json = vec![0; usize::try_from(length).map_err(|_| Unreadable::Foreign)?];
        read_whole(&mut input, &mut json, Unreadable::CutOff)?;
        let header: Header = serde_json::from_slice(&json).map_err(|_| Unreadable::Foreign)?;
        let salt = salt_of(&header).ok_or(Unreadable::Foreign)?;
        if header.key != key.id() {
            return Err(Unreadable::OtherKey { wanted: header.key, given: key.id() });
        }
        head.extend_from_slice(&json);
        Ok(Self { input, parts: Parts::new(key, head, salt), header, over: false })
    }

    /// What the file says about itself. Believed once a part was read: until then somebody may have changed it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The content of the next part; `None` behind the last.
    ///
    /// # Errors
    /// [`Unreadable::CutOff`] or [`Unreadable::Damaged`]: what came before is worth nothing then.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, Unreadable> {
        if self.over {
            return Ok(None);
        }
        let mut part = Vec::with_capacity(PART_BYTES + TAG_BYTES);
        let most = u64::try_from(PART_BYTES + TAG_BYTES).unwrap_or(u64::MAX);
        self.input.by_ref().take(most).read_to_end(&mut part)?;
        let last = self.input.fill_buf()?.is_empty();
        if part.is_empty() {
            return Err(Unreadable::CutOff);
        }
        // A part that is the last of the file and was not written as the last: what followed is gone.
        let cut_off = last && {
            let mut as_middle = part.clone();
            self.parts.decrypt(&mut as_middle, false).is_some()
        };
        let number = u64::from(self.parts.number) + 1;
        if cut_off {
            return Err(Unreadable::CutOff);
        }
        if self.parts.decrypt(&mut part, last).is_none() {
            let torn = last && part.len() < PART_BYTES + TAG_BYTES;
            return Err(if torn { Unreadable::CutOff } else { Unreadable::Damaged { part: number } });
        }
        self.over = last;
        if !last && !self.parts.step() {
            return Err(Unreadable::Damaged { part: number });
        }
        Ok(Some(part))
    }

    /// Writes all of the content; answers how many bytes. `told` hears how many bytes of the content are done.
    ///
    /// # Errors
    /// As [`Opener::next_part`], and what writing says: what was written then is worth nothing.
    pub fn write_to(&mut self, out: &mut impl Write, mut told: impl FnMut(u64)) -> Result<u64, Unreadable> {
        let mut bytes = 0;
        while let Some(part) = self.next_part()? {
            out.write_all(&part)?;
            bytes += u64::try_from(part.len()).unwrap_or(0);
            told(bytes);
        }
        out.flush()?;
        Ok(bytes)
    }
}

fn salt_of(header: &Header) -> Option<[u8; SALT_BYTES]> {
    hex::decode(&header.salt).ok()?.try_into().ok()
}

fn read_whole(input: &mut impl Read, bytes: &mut [u8], short: Unreadable) -> Result<(), Unreadable> {
    match input.read_exact(bytes) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(short),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> BackupKey {
        BackupKey::of([number; 32])
    }

    fn sealed(content: &[u8]) -> Vec<u8> {
        let at = Time::from_millis(1_772_355_600_000);
        let header = Header::new("sqlite", "0.1.0", at, vec!["kernel/0001".into()], &key(1), &Chance::seeded(7));
        let mut sealer = Sealer::new(Vec::new(), &key(1), &header).unwrap();
        sealer.write_all(content).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(file: &[u8], key: &BackupKey) -> Result<Vec<u8>, Unreadable> {
        let mut content = Vec::new();
        Opener::new(file, key)?.write_to(&mut content, |_| ())?;
        Ok(content)
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[test]
    fn what_was_sealed_comes_out_again_at_every_length() {
        for length in [0, 1, 100, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 3 * PART_BYTES + 5] {
            let content = content(length);
            let file = sealed(&content);
            assert!(opened(&file, &key(1)).unwrap() == content, "{length} bytes");
            let tail = &content[content.len().saturating_sub(64)..];
            let shows = tail.len() == 64 && file.windows(64).any(|window| window == tail);
            assert!(!shows, "{length} bytes leave the file as they are");
        }
    }

    #[test]
    fn the_header_is_for_everybody_and_the_wrong_key_is_named() {
        let file = sealed(b"secret");
        let header = Opener::new(&file[..], &key(1)).unwrap().header().clone();
        assert_eq!((header.engine.as_str(), header.version.as_str()), ("sqlite", "0.1.0"));
        let told = opened(&file, &key(2)).unwrap_err();
        assert!(
            matches!(&told, Unreadable::OtherKey { wanted, given } if *wanted == key(1).id() && *given == key(2).id())
        );
        assert!(matches!(opened(b"SQLite format 3\0 and more", &key(1)), Err(Unreadable::Foreign)));
        assert!(matches!(opened(b"", &key(1)), Err(Unreadable::Foreign)));
    }

    #[test]
    fn no_byte_can_be_changed() {
        let file = sealed(&content(PART_BYTES + 100));
        let step = 997;
        for at in (0..file.len()).step_by(step).chain([file.len() - 1]) {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(opened(&changed, &key(1)).is_err(), "byte {at} was changed, and nobody saw it");
        }
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_told() {
        let file = sealed(&content(2 * PART_BYTES));
        let head = file.len() - 2 * (PART_BYTES + TAG_BYTES);
        for length in [head, head + 1, head + PART_BYTES, head + PART_BYTES + TAG_BYTES, file.len() - 1] {
            let told = opened(&file[..length], &key(1));
            assert!(matches!(told, Err(Unreadable::CutOff)), "cut at {length} of {}: {told:?}", file.len());
        }
        for length in 0..head {
            assert!(opened(&file[..length], &key(1)).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn parts_cannot_change_places_or_come_twice_or_get_company() {
        let file = sealed(&content(3 * PART_BYTES));
        let part = PART_BYTES + TAG_BYTES;
        let head = file.len() - 3 * part;
        let piece = |n: usize| &file[head + n * part..head + (n + 1) * part];
        let swapped = [&file[..head], piece(1), piece(0), piece(2)].concat();
        let twice = [&file[..head], piece(0), piece(0), piece(1), piece(2)].concat();
        let left_out = [&file[..head], piece(0), piece(2)].concat();
        let company = [&file[..], b"more"].concat();
        for wrong in [swapped, twice, left_out, company] {
            assert!(matches!(opened(&wrong, &key(1)), Err(Unreadable::Damaged { .. } | Unreadable::CutOff)));
        }
    }
}
