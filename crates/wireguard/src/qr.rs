//! QR pictures: a client's file that a phone takes by its camera.
//!
//! The code holds the file's whole text, which is what the WireGuard and AmneziaWG apps expect. Error correction is of
//! level M (15 %): a screen is seldom dirty, but a messenger's compression and a screen's glare are there, and each
//! level more makes the modules smaller. A picture holds the same secrets as the file and is treated alike.

use fast_qr::{ECL, QRBuilder};

/// Light modules around the code on each side (ISO/IEC 18004, "quiet zone"). Without them many cameras find no code.
pub const QUIET: u32 = 4;

/// The largest `scale`. Together with the largest code it keeps the picture below what Telegram takes as a photo
/// (width and height of 10,000 pixels together).
pub const LARGEST_SCALE: u32 = 16;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum QrError {
    /// The text does not fit into a code: at level M it takes 2,331 bytes. Send the file alone.
    #[error("a text of {0} bytes does not fit into a QR code")]
    TooLong(usize),
    /// Pixels per module out of range.
    #[error("{0} pixels per module: must be 1 to {most}", most = LARGEST_SCALE)]
    Scale(u32),
    /// The picture could not be written.
    #[error("the QR code could not be written as a PNG")]
    Png(#[from] png::EncodingError),
}

/// The code's modules without a quiet zone, row by row from the top; true is dark. Rows are as many as columns.
///
/// # Errors
/// `TooLong` when no code is large enough.
pub fn qr_modules(text: &str) -> Result<Vec<Vec<bool>>, QrError> {
    let code = QRBuilder::new(text).ecl(ECL::M).build().map_err(|_| QrError::TooLong(text.len()))?;
    Ok((0..code.size).map(|row| code[row].iter().map(|module| module.value()).collect()).collect())
}

/// The code as a PNG in black and white, with `scale` pixels (1 to [`LARGEST_SCALE`]) per module and a quiet zone of
/// [`QUIET`] modules. 8 is good for a chat: a usual file makes about 650 pixels.
///
/// # Errors
/// `TooLong` when the text does not fit, `Scale` when that is out of range.
pub fn qr_png(text: &str, scale: u32) -> Result<Vec<u8>, QrError> {
    if !(1..=LARGEST_SCALE).contains(&scale) {
        return Err(QrError::Scale(scale));
    }
    let modules = qr_modules(text)?;
    let pixels = Pixels { modules: &modules, scale: scale as usize };
    // At most 185 modules of 16 pixels.
    let width = pixels.width() as u32;

    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, width);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels.packed())?;
    writer.finish()?;
    Ok(file)
}

struct Pixels<'a> {
    modules: &'a [Vec<bool>],
    scale: usize,
}

impl Pixels<'_> {
    fn width(&self) -> usize {
        (self.modules.len() + 2 * QUIET as usize) * self.scale
    }

    fn is_dark(&self, x: usize, y: usize) -> bool {
        let module = |pixel: usize| (pixel / self.scale).checked_sub(QUIET as usize);
        let (Some(column), Some(row)) = (module(x), module(y)) else { return false };
        self.modules.get(row).and_then(|row| row.get(column)).copied().unwrap_or(false)
    }

    /// One bit per pixel, the first in the highest bit, 1 for white; each row begins a byte (PNG, section 7.2).
    fn packed(&self) -> Vec<u8> {
        let width = self.width();
        let in_row = width.div_ceil(8);
        let mut bytes = vec![0xff; in_row * width];
        for (y, row) in bytes.chunks_exact_mut(in_row).enumerate() {
            for x in (0..width).filter(|x| self.is_dark(*x, y)) {
                row[x / 8] &= !(0x80_u8 >> (x % 8));
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// About as long as the longest file that is sold: both families, AmneziaWG, two name servers of each family.
    const FILE: &str = "[Interface]
PrivateKey = WKsIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Gs=
Address = 10.8.0.2/32, fd00:8::2/128
DNS = 1.1.1.1, 8.8.8.8, 2606:4700:4700::1111, 2001:4860:4860::8888
MTU = 1280
Jc = 4
Jmin = 50
Jmax = 1000
S1 = 15
S2 = 100
H1 = 1234567891
H2 = 1987654321
H3 = 2071234567
H4 = 1765432198

[Peer]
PublicKey = hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
PresharedKey = BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
";

    fn read_from_modules(modules: &[Vec<bool>]) -> String {
        let grid = rqrr::SimpleGrid::from_func(modules.len(), |x, y| modules[y][x]);
        rqrr::Grid::new(grid).decode().unwrap().1
    }

    /// Width and grey values, 0 to 255.
    fn read_png(file: &[u8]) -> (usize, Vec<u8>) {
        let mut decoder = png::Decoder::new(Cursor::new(file));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(frame.width, frame.height);
        assert_eq!((frame.color_type, frame.bit_depth), (png::ColorType::Grayscale, png::BitDepth::Eight));
        assert_eq!(pixels.len(), frame.buffer_size());
        (frame.width as usize, pixels)
    }

    /// As a phone does: looks for a code in the picture, then reads it.
    fn read_from_picture(width: usize, pixels: &[u8]) -> String {
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, width, |x, y| pixels[y * width + x]);
        let mut texts = picture.detect_grids().into_iter().filter_map(|grid| grid.decode().ok()).map(|(_, text)| text);
        let text = texts.next().expect("a code that can be read");
        assert_eq!(texts.next(), None, "one code in the picture");
        text
    }

    #[test]
    fn the_modules_hold_the_file() {
        let modules = qr_modules(FILE).unwrap();
        assert!(modules.iter().all(|row| row.len() == modules.len()));
        assert_eq!(read_from_modules(&modules), FILE);
    }

    #[test]
    fn the_picture_holds_the_file_at_every_useful_scale() {
        for scale in [4, 8] {
            let (width, pixels) = read_png(&qr_png(FILE, scale).unwrap());
            assert_eq!(read_from_picture(width, &pixels), FILE, "scale {scale}");
        }
    }

    #[test]
    fn the_picture_is_the_modules_in_a_quiet_zone_of_four() {
        for scale in [1_usize, 3, 8] {
            let modules = qr_modules(FILE).unwrap();
            let (width, pixels) = read_png(&qr_png(FILE, scale as u32).unwrap());
            assert_eq!(width, (modules.len() + 8) * scale);
            for (at, pixel) in pixels.iter().enumerate() {
                let (row, column) = (at / width / scale, at % width / scale);
                let inside = |n: usize| (4..modules.len() + 4).contains(&n);
                let dark = inside(row) && inside(column) && modules[row - 4][column - 4];
                assert_eq!(*pixel, if dark { 0 } else { 255 }, "module {column}, {row}");
            }
            // The corner of the first finder pattern is where the quiet zone ends.
            assert_eq!(pixels[(4 * scale) * width + 4 * scale], 0);
        }
    }

    #[test]
    fn short_texts_and_other_letters_are_read_back() {
        for text in ["x", "12345", "HELLO", "vpn://пример?x=1", "[Interface]\n"] {
            assert_eq!(read_from_modules(&qr_modules(text).unwrap()), text);
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let longest = "a".repeat(2331);
        assert_eq!(read_from_modules(&qr_modules(&longest).unwrap()), longest);
        let longer = "a".repeat(2332);
        assert!(matches!(qr_modules(&longer), Err(QrError::TooLong(2332))));
        assert!(matches!(qr_png(&longer, 4), Err(QrError::TooLong(2332))));
        assert!(matches!(qr_png("x", 0), Err(QrError::Scale(0))));
        assert_eq!(qr_png("x", 17).unwrap_err().to_string(), "17 pixels per module: must be 1 to 16");
    }

    #[test]
    fn the_largest_picture_is_small_enough_for_a_chat() {
        let modules = qr_modules(&"a".repeat(2331)).unwrap();
        let width = (modules.len() + 2 * QUIET as usize) * LARGEST_SCALE as usize;
        assert!(2 * width <= 10_000, "{width}");
    }
}
