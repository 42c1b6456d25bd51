//! Pictures, as much as Telegram looks at them: which kind, and how large.

/// Width and height together.
const MOST_PIXELS: u32 = 10_000;
/// How many times longer than the other a side may be.
const MOST_RATIO: u32 = 20;

/// The head of a PNG or JPEG.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Its media type.
    pub(crate) mime: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Picture {
    /// Reads the head of a picture; nothing when this is none.
    pub(crate) fn read(bytes: &[u8]) -> Option<Picture> {
        png(bytes).or_else(|| jpeg(bytes))
    }

    /// Whether Telegram shows a picture of this form.
    pub(crate) fn is_shown(&self) -> bool {
        let (long, short) = (self.width.max(self.height), self.width.min(self.height));
        short > 0 && long.saturating_add(short) <= MOST_PIXELS && long <= short.saturating_mul(MOST_RATIO)
    }
}

fn png(bytes: &[u8]) -> Option<Picture> {
    let rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    // The length of the first chunk, its name, then the two sides.
    if rest.get(4..8)? != b"IHDR" {
        return None;
    }
    Some(Picture { mime: "image/png", width: number(rest.get(8..12)?), height: number(rest.get(12..16)?) })
}

fn jpeg(bytes: &[u8]) -> Option<Picture> {
    let mut rest = bytes.strip_prefix(b"\xff\xd8")?;
    loop {
        let head = rest.get(..4)?;
        if head[0] != 0xff {
            return None;
        }
        let length = usize::try_from(number(&head[2..4])).ok()?;
        // The frames' heads, without three kinds of segments that stand between them.
        if matches!(head[1], 0xc0..=0xcf) && !matches!(head[1], 0xc4 | 0xc8 | 0xcc) {
            return Some(Picture {
                mime: "image/jpeg",
                width: number(rest.get(7..9)?),
                height: number(rest.get(5..7)?),
            });
        }
        rest = rest.get(2 + length.max(2)..)?;
    }
}

/// At most four bytes, the highest first.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_of(width: u32, height: u32) -> Vec<u8> {
        [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice(), &width.to_be_bytes(), &height.to_be_bytes()].concat()
    }

    #[test]
    fn the_head_says_kind_and_size() {
        assert_eq!(Picture::read(&png_of(512, 300)), Some(Picture { mime: "image/png", width: 512, height: 300 }));
        // A comment, then the frame: length, precision, height, width.
        let jpeg = b"\xff\xd8\xff\xfe\x00\x04ab\xff\xc0\x00\x11\x08\x01\x00\x02\x00\x03";
        assert_eq!(Picture::read(jpeg), Some(Picture { mime: "image/jpeg", width: 512, height: 256 }));
    }

    #[test]
    fn what_is_cut_or_something_else_is_no_picture() {
        let whole = png_of(512, 512);
        for length in 0..whole.len() {
            assert_eq!(Picture::read(&whole[..length]), None, "{length}");
        }
        for other in [b"[Interface]\n".as_slice(), b"\xff\xd8\xff\xe0\x00\x00", b"\xff\xd8\xff\xda\xff\xff", b"<svg/>"]
        {
            assert_eq!(Picture::read(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_picture_too_large_or_too_thin_is_not_shown() {
        let shown = |width, height| Picture { mime: "image/png", width, height }.is_shown();
        assert!(shown(1, 1) && shown(5000, 5000) && shown(20, 1) && shown(1, 20));
        assert!(!shown(5001, 5000) && !shown(21, 1) && !shown(0, 0) && !shown(u32::MAX, u32::MAX));
    }
}
