//! Reads `wg0.conf` line by line, as `wg` and wg-quick do: a line ends with `\n`, `#` begins a comment, blanks inside of
//! a setting do not count, names of sections and settings may be written in any case.

use std::collections::BTreeSet;
use std::ops::Range;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::{BEGIN, BOM, ConfError, END, Fence, Found, HASH, Interface, Problem, hash};
use crate::key::{PresharedKey, PublicKey};
use crate::peer::{FRIENDLY_NAME, NO_PRESHARED, PeerName, SeenPeer, network};

pub(super) struct Parts {
    pub(super) fence: Option<Fence>,
    pub(super) peers: Vec<Found>,
    pub(super) interface: Interface,
}

pub(super) fn read(bytes: &[u8]) -> Result<Parts, ConfError> {
    let mut reader = Reader::default();
    let mut from = if bytes.starts_with(BOM) { BOM.len() } else { 0 };
    for line in bytes[from..].split_inclusive(|byte| *byte == b'\n') {
        let text = from..from + line.len();
        from = text.end;
        reader.number += 1;
        reader.line(line, text)?;
    }
    reader.end(bytes)
}

#[derive(Default)]
struct Reader {
    /// The line that is being read, from 1.
    number: usize,
    section: Section,
    /// The `[Peer]` that is being read.
    open: Option<Open>,
    /// The comment lines right before this line.
    comment: Option<Comment>,
    begin: Option<Mark>,
    end: Option<Mark>,
    peers: Vec<Found>,
    interface: Interface,
}

#[derive(Default, Clone, Copy)]
enum Section {
    #[default]
    None,
    Interface,
    Peer,
    Unknown,
    BelowFence,
}

struct Comment {
    from: usize,
    /// The words of the last line.
    words: String,
}

/// A fence line.
struct Mark {
    line: usize,
    text: Range<usize>,
    /// What stands behind its first words.
    rest: Vec<u8>,
}

struct Open {
    line: usize,
    from: usize,
    inside: bool,
    name: Option<String>,
    is_friendly: bool,
    has_settings: bool,
    public_key: Option<PublicKey>,
    preshared: Option<PresharedKey>,
    allowed: BTreeSet<IpNet>,
    endpoint: Option<String>,
}

impl Reader {
    fn line(&mut self, line: &[u8], text: Range<usize>) -> Result<(), ConfError> {
        let content = trim(line);
        match content.first() {
            None => {
                self.comment = None;
                Ok(())
            }
            Some(b'#') => self.comment(trim(&content[1..]), text),
            Some(_) => {
                let comment = self.comment.take();
                let said = content.split(|byte| *byte == b'#').next().unwrap_or_default();
                let bare: Zeroizing<Vec<u8>> =
                    Zeroizing::new(said.iter().copied().filter(|byte| !is_blank(*byte)).collect());
                if bare.first() == Some(&b'[') {
                    self.header(&bare, text.start, comment)
                } else {
                    self.setting(&bare, said)
                }
            }
        }
    }

    fn comment(&mut self, words: &[u8], text: Range<usize>) -> Result<(), ConfError> {
        if let Some(rest) = after(words, BEGIN) {
            return self.begin(rest, text);
        }
        if let Some(rest) = after(words, END) {
            return self.end_of_fence(rest, text);
        }
        let words = String::from_utf8_lossy(words).into_owned();
        // Behind the first setting a comment may as well belong to the next peer.
        if let Some(open) = self.open.as_mut().filter(|open| !open.has_settings) {
            open.note(&words);
        }
        let from = self.comment.as_ref().map_or(text.start, |comment| comment.from);
        self.comment = Some(Comment { from, words });
        Ok(())
    }

    fn begin(&mut self, rest: &[u8], text: Range<usize>) -> Result<(), ConfError> {
        if let Some(first) = &self.begin {
            return Err(self.problem(Problem::SecondFence { first: first.line }));
        }
        self.close_peer(text.start)?;
        self.comment = None;
        self.section = Section::None;
        self.begin = Some(Mark { line: self.number, text, rest: rest.to_vec() });
        Ok(())
    }

    fn end_of_fence(&mut self, rest: &[u8], text: Range<usize>) -> Result<(), ConfError> {
        if !self.is_inside() {
            return Err(self.problem(Problem::NeverBegan));
        }
        self.close_peer(text.start)?;
        self.comment = None;
        self.section = Section::BelowFence;
        self.end = Some(Mark { line: self.number, text, rest: rest.to_vec() });
        Ok(())
    }

    fn header(&mut self, bare: &[u8], from: usize, comment: Option<Comment>) -> Result<(), ConfError> {
        let from = comment.as_ref().map_or(from, |comment| comment.from);
        self.close_peer(from)?;
        if bare.eq_ignore_ascii_case(b"[peer]") {
            let mut open = Open::new(self.number, from, self.is_inside());
            if let Some(comment) = comment {
                open.note(&comment.words);
            }
            self.open = Some(open);
            self.section = Section::Peer;
            return Ok(());
        }
        if self.is_inside() {
            return Err(self.problem(Problem::SectionInside));
        }
        self.section = if bare.eq_ignore_ascii_case(b"[interface]") {
            self.interface.present = true;
            Section::Interface
        } else {
            Section::Unknown
        };
        Ok(())
    }

    /// `bare` is what the line says without any blanks, `said` is the same with them.
    fn setting(&mut self, bare: &[u8], said: &[u8]) -> Result<(), ConfError> {
        match self.section {
            Section::Unknown => return Ok(()),
            Section::None => return Err(self.problem(Problem::NoSection)),
            Section::BelowFence => return Err(self.problem(Problem::SettingBelowFence)),
            Section::Interface | Section::Peer => {}
        }
        let Some(equals) = bare.iter().position(|byte| *byte == b'=') else {
            return Err(self.problem(Problem::NoSetting));
        };
        let (name, value) = (&bare[..equals], &bare[equals + 1..]);
        match &mut self.open {
            Some(open) => {
                let line = self.number;
                open.setting(name, value).map_err(|problem| ConfError { line, problem })
            }
            None => {
                self.interface_setting(name, value, said);
                Ok(())
            }
        }
    }

    fn interface_setting(&mut self, name: &[u8], value: &[u8], said: &[u8]) {
        if name.eq_ignore_ascii_case(b"Address") {
            // wg-quick takes commas or blanks between addresses, so the blanks count here.
            let list = said.splitn(2, |byte| *byte == b'=').nth(1).unwrap_or_default();
            let each = list.split(|byte| *byte == b',' || is_blank(*byte));
            self.interface.addresses.extend(each.filter_map(|part| str::from_utf8(part).ok()).filter_map(address));
        } else if name.eq_ignore_ascii_case(b"ListenPort") {
            self.interface.listen_port = str::from_utf8(value).ok().and_then(|port| port.parse().ok());
        } else if name.eq_ignore_ascii_case(b"PrivateKey") {
            self.interface.has_private_key = !value.is_empty();
        } else if name.eq_ignore_ascii_case(b"SaveConfig") {
            self.interface.save_config = value.eq_ignore_ascii_case(b"true");
        }
    }

    /// Ends the peer that is being read; its section goes up to `to`.
    fn close_peer(&mut self, to: usize) -> Result<(), ConfError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let Some(public_key) = open.public_key else {
            return Err(ConfError { line: open.line, problem: Problem::NoPublicKey });
        };
        let peer = SeenPeer {
            public_key,
            preshared: open.preshared,
            allowed: open.allowed.into_iter().collect(),
            endpoint: open.endpoint,
            handshake: None,
            received: 0,
            sent: 0,
            name: open.name.map(|name| PeerName::clean(&name)).filter(|name| !name.is_empty()),
        };
        self.peers.push(Found { peer, inside: open.inside, text: open.from..to });
        Ok(())
    }

    fn end(mut self, bytes: &[u8]) -> Result<Parts, ConfError> {
        self.close_peer(bytes.len())?;
        let fence = match (self.begin, self.end) {
            (None, _) => None,
            (Some(begin), None) => return Err(ConfError { line: begin.line, problem: Problem::NeverEnds }),
            (Some(begin), Some(end)) => {
                let between = &bytes[begin.text.end..end.text.start];
                let whole = end.rest.strip_prefix(HASH.as_bytes()) == Some(hash(between).as_bytes());
                Some(Fence { text: begin.text.start..end.text.end, whole })
            }
        };
        Ok(Parts { fence, peers: self.peers, interface: self.interface })
    }

    fn is_inside(&self) -> bool {
        self.begin.is_some() && self.end.is_none()
    }

    fn problem(&self, problem: Problem) -> ConfError {
        ConfError { line: self.number, problem }
    }
}

impl Open {
    fn new(line: usize, from: usize, inside: bool) -> Self {
        Self {
            line,
            from,
            inside,
            name: None,
            is_friendly: false,
            has_settings: false,
            public_key: None,
            preshared: None,
            allowed: BTreeSet::new(),
            endpoint: None,
        }
    }

    /// Hears a comment at the peer: a friendly name counts most, else the first comment.
    fn note(&mut self, words: &str) {
        if let Some(rest) = words.strip_prefix(FRIENDLY_NAME) {
            let rest = rest.trim_start();
            self.name = Some(rest.strip_prefix(['=', ':']).unwrap_or(rest).to_owned());
            self.is_friendly = true;
        } else if !self.is_friendly && self.name.is_none() {
            self.name = Some(words.to_owned());
        }
    }

    fn setting(&mut self, name: &[u8], value: &[u8]) -> Result<(), Problem> {
        self.has_settings = true;
        if name.eq_ignore_ascii_case(b"PublicKey") {
            let key = str::from_utf8(value).ok().and_then(|text| text.parse::<PublicKey>().ok());
            self.public_key = Some(key.ok_or(Problem::PublicKey)?);
        } else if name.eq_ignore_ascii_case(b"PresharedKey") {
            self.preshared = if value == NO_PRESHARED.as_bytes() {
                None
            } else {
                let key = str::from_utf8(value).ok().and_then(|text| text.parse::<PresharedKey>().ok());
                Some(key.ok_or(Problem::PresharedKey)?)
            };
        } else if name.eq_ignore_ascii_case(b"AllowedIPs") {
            self.allow(str::from_utf8(value).map_err(|_| Problem::AllowedIps)?)?;
        } else if name.eq_ignore_ascii_case(b"Endpoint") {
            self.endpoint = Some(String::from_utf8_lossy(value).into_owned());
        }
        Ok(())
    }

    /// Several lines add up. `+` before a network is what is meant anyway, `-` takes it away.
    fn allow(&mut self, list: &str) -> Result<(), Problem> {
        for part in list.split(',').filter(|_| !list.is_empty()) {
            if let Some(gone) = part.strip_prefix('-') {
                self.allowed.remove(&network(gone).ok_or(Problem::AllowedIps)?);
            } else {
                let added = part.strip_prefix('+').unwrap_or(part);
                self.allowed.insert(network(added).ok_or(Problem::AllowedIps)?);
            }
        }
        Ok(())
    }
}

/// An address of the server, with its host part.
fn address(text: &str) -> Option<IpNet> {
    if text.contains('/') { text.parse().ok() } else { text.parse::<std::net::IpAddr>().ok().map(IpNet::from) }
}

/// What follows `words` in a fence line: nothing, or a blank and the rest.
fn after<'a>(line: &'a [u8], words: &str) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(words.as_bytes())?;
    match rest.first() {
        None => Some(rest),
        Some(byte) if is_blank(*byte) => Some(trim(rest)),
        Some(_) => None,
    }
}

/// What `wg` takes for a blank, and the zero byte, which a shell drops.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0)
}

fn trim(line: &[u8]) -> &[u8] {
    let from = line.iter().position(|byte| !is_blank(*byte)).unwrap_or(line.len());
    let to = line.iter().rposition(|byte| !is_blank(*byte)).map_or(from, |last| last + 1);
    &line[from..to]
}
