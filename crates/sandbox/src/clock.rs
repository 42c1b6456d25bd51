//! The sandbox's own clock and chance: the outside world does not run on the time that a test hands in.
//!
//! This is a fake of foreign servers, so the system clock and ad-hoc randomness have a home here and nowhere else in the crate.
//! A simulation takes both over ([`ByHand`]); then nothing here is by accident any more.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the fake world keeps its own time and throws its own dice"
)]

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::options::ByHand;

/// Heleket and CrystalPay print their times in Moscow.
const MOSCOW: Offset = Offset::constant(3);

struct Hand {
    world: ByHand,
    dice: fastrand::Rng,
}

thread_local! {
    /// One for a thread, because such a box lives on a runtime of one thread, and its functions are called from all over.
    static HAND: RefCell<Option<Hand>> = const { RefCell::new(None) };
}

/// From now on this thread's time and dice are those of `world`, or the machine's again.
pub(crate) fn hand_in(world: Option<ByHand>) {
    HAND.set(world.map(|world| Hand { dice: fastrand::Rng::with_seed(world.seed), world }));
}

/// Lets time pass in a world that is moved by hand. False where time passes by itself.
pub(crate) fn pass(ms: u64) -> bool {
    HAND.with_borrow(|hand| match hand {
        Some(hand) => {
            (hand.world.pass_ms)(ms);
            true
        }
        None => false,
    })
}

/// Milliseconds since 1970, UTC.
pub(crate) fn now_ms() -> i64 {
    HAND.with_borrow(|hand| match hand {
        Some(hand) => (hand.world.now_ms)(),
        None => system_ms(),
    })
}

/// A number below `limit`, which is not zero.
fn below(limit: u64) -> u64 {
    HAND.with_borrow_mut(|hand| match hand {
        Some(hand) => hand.dice.u64(..limit),
        None => fastrand::u64(..limit),
    })
}

fn system_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn stamp(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `2026-03-01T09:00:00.123Z`, as YooKassa prints it.
pub(crate) fn utc(ms: i64) -> String {
    stamp(ms).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// `2026-03-01T12:00:00+03:00`, as Heleket prints it in answers.
pub(crate) fn moscow_iso(ms: i64) -> String {
    MOSCOW.to_datetime(stamp(ms)).strftime("%Y-%m-%dT%H:%M:%S+03:00").to_string()
}

/// `2026-03-01 12:00:00`, as CrystalPay prints it and as Heleket takes it in filters.
pub(crate) fn moscow(ms: i64) -> String {
    MOSCOW.to_datetime(stamp(ms)).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Reads what [`moscow`] prints.
pub(crate) fn from_moscow(text: &str) -> Option<i64> {
    let local = DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    Some(MOSCOW.to_timestamp(local).ok()?.as_millisecond())
}

/// Reads an ISO 8601 instant with its zone.
pub(crate) fn from_iso(text: &str) -> Option<i64> {
    Some(text.parse::<Timestamp>().ok()?.as_millisecond())
}

/// That many characters of an alphabet.
fn draw(alphabet: &[u8], length: usize) -> String {
    let one = |_| alphabet[usize::try_from(below(alphabet.len() as u64)).unwrap_or(0)];
    (0..length).map(one).map(char::from).collect()
}

/// Lower-case hexadecimal characters.
pub(crate) fn hex(length: usize) -> String {
    draw(b"0123456789abcdef", length)
}

/// Letters and digits.
pub(crate) fn letters(length: usize) -> String {
    draw(b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", length)
}

/// A nine-digit number as text, without a leading zero.
pub(crate) fn nine_digits() -> String {
    (100_000_000 + below(900_000_000)).to_string()
}

/// A random (version 4) UUID.
pub(crate) fn uuid() -> String {
    format!("{}-{}-4{}-8{}-{}", hex(8), hex(4), hex(3), hex(3), hex(12))
}

/// A YooKassa object id: 36 characters, the first eight count seconds.
pub(crate) fn yookassa_id(ms: i64, kind: char) -> String {
    format!("{:08x}-000f-5000-{kind}{}-{}", (ms / 1000).rem_euclid(0xffff_ffff), hex(3), hex(12))
}

/// A random number of milliseconds below `limit`; nothing when the limit is nothing.
pub(crate) fn up_to_ms(limit: u64) -> u64 {
    if limit == 0 { 0 } else { below(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_each_provider_prints_them() {
        let at = from_iso("2026-03-01T09:00:00.123Z").unwrap();
        assert_eq!(utc(at), "2026-03-01T09:00:00.123Z");
        assert_eq!(utc(at - 123), "2026-03-01T09:00:00.000Z");
        assert_eq!(moscow_iso(at), "2026-03-01T12:00:00+03:00");
        assert_eq!(moscow(at), "2026-03-01 12:00:00");
        assert_eq!(from_moscow("2026-03-01 12:00:00"), Some(at - 123));
    }

    #[test]
    fn a_world_that_is_moved_by_hand_is_the_same_each_time() {
        let draw = || {
            hand_in(Some(ByHand {
                now_ms: std::sync::Arc::new(|| 1_772_355_600_123),
                pass_ms: std::sync::Arc::new(|_| ()),
                seed: 7,
            }));
            (now_ms(), pass(40), uuid(), nine_digits(), letters(10))
        };
        assert_eq!(draw(), draw());
        hand_in(None);
        assert!(!pass(40) && now_ms() != 1_772_355_600_123);
    }

    #[test]
    fn ids_have_the_documented_shape() {
        assert_eq!(yookassa_id(1_772_355_600_123, '9').len(), 36);
        assert_eq!(uuid().len(), 36);
        assert_eq!(nine_digits().len(), 9);
    }
}
