//! Names of tunnels on the customers' devices.
//!
//! The name of the file becomes the name of the tunnel, and on Linux that of a network interface: at most 15 bytes
//! (`IFNAMSIZ` less the final zero, netdevice(7)), and wg-quick(8) takes only letters and digits of ASCII and `_=+.-`.
//! The phones' apps follow the same rule. A name outside of it is a file that cannot be imported.

/// The longest name, in bytes.
pub const LONGEST: usize = 15;

/// A tunnel's name: as much of `prefix` as fits, then the customer's Telegram id in base 36, then the number of the
/// device among all that the customer was ever given: `lisa-21i3v9-1`. A Russian prefix is transliterated, other letters are left out.
///
/// For ids up to 52 bits (Telegram's promise) and numbers of up to four digits, different pairs have different names; beyond
/// that only the id's last digits are kept.
pub fn tunnel_name(prefix: &str, telegram_id: i64, device: u32) -> String {
    let device = format!("-{device}");
    let id = base36(telegram_id.unsigned_abs());
    let id = &id[id.len().saturating_sub(LONGEST - device.len())..];
    let tail = format!("{id}{device}");

    let prefix = latin(prefix);
    // The hyphen between prefix and id takes one byte.
    let room = (LONGEST - tail.len()).saturating_sub(1).min(prefix.len());
    let prefix = prefix[..room].trim_matches(['-', '.']);
    if prefix.is_empty() { tail } else { format!("{prefix}-{tail}") }
}

fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = Vec::new();
    loop {
        digits.push(char::from(DIGITS[(number % 36) as usize]));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// The text in ASCII that a name may hold, without hyphens and dots at its front: an interface called `-l` or `..`
/// would be taken for something else.
fn latin(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '=' | '+' | '.' | '-' => out.push(letter),
            _ if letter.is_whitespace() => out.push('-'),
            _ => push_russian(&mut out, letter),
        }
    }
    out.trim_start_matches(['-', '.']).to_owned()
}

fn push_russian(out: &mut String, letter: char) {
    let latin = letter.to_lowercase().next().map_or("", russian);
    let mut letters = latin.chars();
    match letters.next() {
        Some(first) if letter.is_uppercase() => {
            out.push(first.to_ascii_uppercase());
            out.push_str(letters.as_str());
        }
        _ => out.push_str(latin),
    }
}

/// As in Russian passports, but with a plain `y` for й and nothing for the signs.
fn russian(letter: char) -> &'static str {
    match letter {
        'а' => "a",
        'б' => "b",
        'в' => "v",
        'г' => "g",
        'д' => "d",
        'е' | 'ё' | 'э' => "e",
        'ж' => "zh",
        'з' => "z",
        'и' => "i",
        'й' | 'ы' => "y",
        'к' => "k",
        'л' => "l",
        'м' => "m",
        'н' => "n",
        'о' => "o",
        'п' => "p",
        'р' => "r",
        'с' => "s",
        'т' => "t",
        'у' => "u",
        'ф' => "f",
        'х' => "kh",
        'ц' => "ts",
        'ч' => "ch",
        'ш' => "sh",
        'щ' => "shch",
        'ю' => "yu",
        'я' => "ya",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_shows_shop_customer_and_device() {
        assert_eq!(tunnel_name("vpn", 123_456_789, 1), "vpn-21i3v9-1");
        assert_eq!(tunnel_name("vpn", 7_000_000_001, 2), "vpn-37rmakh-2");
        assert_eq!(tunnel_name("", 123_456_789, 10), "21i3v9-10");
        assert_eq!(tunnel_name("vpn", 0, 1), "vpn-0-1");
    }

    #[test]
    fn russian_is_written_in_latin_letters() {
        assert_eq!(tunnel_name("Лиса", 123_456_789, 1), "Lisa-21i3v9-1");
        assert_eq!(tunnel_name("Ёж", 123_456_789, 1), "Ezh-21i3v9-1");
        assert_eq!(tunnel_name("Щука", 123_456_789, 1), "Shchuk-21i3v9-1");
        assert_eq!(tunnel_name("объём", 123_456_789, 1), "obem-21i3v9-1");
    }

    #[test]
    fn what_no_interface_may_be_called_is_left_out() {
        assert_eq!(tunnel_name("--help", 123_456_789, 1), "help-21i3v9-1");
        assert_eq!(tunnel_name("../x", 123_456_789, 1), "x-21i3v9-1");
        assert_eq!(tunnel_name("my vpn", 123_456_789, 1), "my-vpn-21i3v9-1");
        assert_eq!(tunnel_name("狐\u{1f98a}\n[Peer]", 123_456_789, 1), "Peer-21i3v9-1");
        assert_eq!(tunnel_name("狐", 123_456_789, 1), "21i3v9-1");
        assert_eq!(tunnel_name("abcde fgh", 123_456_789, 1), "abcde-21i3v9-1", "no two hyphens where it was cut");
    }

    #[test]
    fn the_largest_numbers_still_fit() {
        let largest = (1_i64 << 52) - 1;
        assert_eq!(tunnel_name("vpn", largest, 10).len(), 14);
        assert_eq!(tunnel_name("vpn", i64::MIN, u32::MAX), "e8e8-4294967295");
        assert_eq!(tunnel_name("vpn", i64::MIN, 1).len(), 15);
    }

    proptest! {
        #[test]
        fn every_name_can_be_an_interface(prefix in "\\PC{0,30}", id in any::<i64>(), device in any::<u32>()) {
            let name = tunnel_name(&prefix, id, device);
            prop_assert!((1..=15).contains(&name.len()), "{name}");
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=+.-".contains(&b)), "{name}");
            prop_assert!(!name.starts_with(['-', '.']), "{name}");
        }

        #[test]
        fn two_devices_never_share_a_name(
            one in (0_i64..1 << 52, 1_u32..100),
            other in (0_i64..1 << 52, 1_u32..100),
            prefix in "[a-z]{0,8}",
        ) {
            let same = tunnel_name(&prefix, one.0, one.1) == tunnel_name(&prefix, other.0, other.1);
            prop_assert_eq!(same, one == other);
        }
    }
}
