//! AmneziaWG: WireGuard whose packets do not look like WireGuard's.
//!
//! The parameters belong to a server. Server and client must agree on them (only `Jc` may differ), so they go into
//! every customer's file. Their ranges are those of the AmneziaWG kernel module's README, "Configuration"; values
//! outside of them are not refused by every client, they just leave a tunnel that does not connect or is recognised.

use serde::{Deserialize, Serialize};

/// The nine parameters of AmneziaWG 1. [`Amnezia::check`] says whether they fit together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amnezia {
    /// How many junk packets precede a handshake: 1 to 128; 3 to 10 are recommended.
    pub jc: u16,
    /// The shortest junk packet, in bytes; 50 is recommended.
    pub jmin: u16,
    /// The longest junk packet, in bytes: more than `jmin`, at most 1280; 1000 is recommended.
    pub jmax: u16,
    /// Junk bytes before the handshake's first message: less than 1280; 15 to 150 are recommended.
    pub s1: u16,
    /// Junk bytes before the handshake's answer: less than 1280, and not `s1` + 56; 15 to 150 are recommended.
    pub s2: u16,
    /// Type of the handshake's first message: at least 5, and no two types equal.
    pub h1: u32,
    /// Type of the handshake's answer.
    pub h2: u32,
    /// Type of the cookie reply.
    pub h3: u32,
    /// Type of the data messages.
    pub h4: u32,
}

/// Which parameter does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmneziaError {
    /// The number of junk packets.
    #[error("Jc is {0}, but must be 1 to 128")]
    JunkCount(u16),
    /// The sizes of junk packets.
    #[error("Jmin is {jmin} and Jmax is {jmax}, but Jmin must be less than Jmax, and Jmax at most 1280")]
    JunkSize {
        /// The shortest.
        jmin: u16,
        /// The longest.
        jmax: u16,
    },
    /// Junk before a handshake message.
    #[error("{name} is {value}, but must be less than 1280")]
    Padding {
        /// `S1` or `S2`.
        name: &'static str,
        /// What it is.
        value: u16,
    },
    /// The handshake's two messages (148 and 92 bytes) would be of equal length, which gives them away.
    #[error("S2 is {s2}, but must not be S1 + 56 = {s2}")]
    EqualHandshake {
        /// The second padding.
        s2: u16,
    },
    /// One of WireGuard's own message types, 1 to 4, or 0.
    #[error("{name} is {value}, but must be at least 5: smaller numbers are WireGuard's own message types")]
    OwnType {
        /// `H1` to `H4`.
        name: &'static str,
        /// What it is.
        value: u32,
    },
    /// Two message types are equal.
    #[error("{one} and {other} are both {value}, but H1 to H4 must differ")]
    EqualTypes {
        /// The first of the two.
        one: &'static str,
        /// The second of the two.
        other: &'static str,
        /// What both are.
        value: u32,
    },
}

impl Amnezia {
    /// Whether the parameters are within the documented ranges and fit together.
    ///
    /// # Errors
    /// The first one that does not, with its value and its range.
    pub fn check(&self) -> Result<(), AmneziaError> {
        if !(1..=128).contains(&self.jc) {
            return Err(AmneziaError::JunkCount(self.jc));
        }
        if self.jmin >= self.jmax || self.jmax > 1280 {
            return Err(AmneziaError::JunkSize { jmin: self.jmin, jmax: self.jmax });
        }
        for (name, value) in [("S1", self.s1), ("S2", self.s2)] {
            if value >= 1280 {
                return Err(AmneziaError::Padding { name, value });
            }
        }
        if self.s1 + 56 == self.s2 {
            return Err(AmneziaError::EqualHandshake { s2: self.s2 });
        }
        self.check_types()
    }

    fn check_types(&self) -> Result<(), AmneziaError> {
        let types = [("H1", self.h1), ("H2", self.h2), ("H3", self.h3), ("H4", self.h4)];
        for (at, (name, value)) in types.into_iter().enumerate() {
            if value < 5 {
                return Err(AmneziaError::OwnType { name, value });
            }
            if let Some((one, _)) = types[..at].iter().find(|(_, before)| *before == value) {
                return Err(AmneziaError::EqualTypes { one, other: name, value });
            }
        }
        Ok(())
    }

    /// The lines of `[Interface]`, by name, in the order that the AmneziaWG tools print them.
    pub fn lines(&self) -> [(&'static str, u32); 9] {
        [
            ("Jc", self.jc.into()),
            ("Jmin", self.jmin.into()),
            ("Jmax", self.jmax.into()),
            ("S1", self.s1.into()),
            ("S2", self.s2.into()),
            ("H1", self.h1),
            ("H2", self.h2),
            ("H3", self.h3),
            ("H4", self.h4),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::{Error as ValueError, MapDeserializer};

    use super::*;

    fn right() -> Amnezia {
        Amnezia { jc: 4, jmin: 50, jmax: 1000, s1: 15, s2: 100, h1: 5, h2: 2_147_483_647, h3: 1_000_000_007, h4: 77 }
    }

    #[test]
    fn the_documented_ranges_are_kept_to_their_ends() {
        assert_eq!(right().check(), Ok(()));
        let check = |change: fn(&mut Amnezia)| {
            let mut amnezia = right();
            change(&mut amnezia);
            amnezia.check()
        };
        assert_eq!(check(|a| a.jc = 1), Ok(()));
        assert_eq!(check(|a| a.jc = 128), Ok(()));
        assert_eq!(check(|a| a.jc = 0), Err(AmneziaError::JunkCount(0)));
        assert_eq!(check(|a| a.jc = 129), Err(AmneziaError::JunkCount(129)));

        assert_eq!(check(|a| (a.jmin, a.jmax) = (1279, 1280)), Ok(()));
        assert_eq!(
            check(|a| (a.jmin, a.jmax) = (50, 50)),
            Err(AmneziaError::JunkSize { jmin: 50, jmax: 50 }),
            "equal is not less"
        );
        assert_eq!(check(|a| a.jmax = 1281), Err(AmneziaError::JunkSize { jmin: 50, jmax: 1281 }));

        assert_eq!(check(|a| (a.s1, a.s2) = (0, 0)), Ok(()));
        assert_eq!(check(|a| (a.s1, a.s2) = (1279, 1279)), Ok(()));
        assert_eq!(check(|a| a.s1 = 1280), Err(AmneziaError::Padding { name: "S1", value: 1280 }));
        assert_eq!(check(|a| a.s2 = u16::MAX), Err(AmneziaError::Padding { name: "S2", value: u16::MAX }));
        assert_eq!(check(|a| (a.s1, a.s2) = (44, 100)), Err(AmneziaError::EqualHandshake { s2: 100 }));
        assert_eq!(check(|a| (a.s1, a.s2) = (100, 44)), Ok(()), "only this way round the lengths meet");

        assert_eq!(check(|a| a.h3 = 4), Err(AmneziaError::OwnType { name: "H3", value: 4 }));
        assert_eq!(check(|a| a.h4 = 5), Err(AmneziaError::EqualTypes { one: "H1", other: "H4", value: 5 }));
        assert_eq!(check(|a| a.h2 = u32::MAX), Ok(()));
    }

    #[test]
    fn an_error_says_what_to_write() {
        let wrong = Amnezia { s1: 44, ..right() };
        assert_eq!(wrong.check().unwrap_err().to_string(), "S2 is 100, but must not be S1 + 56 = 100");
    }

    #[test]
    fn the_stored_form_has_all_nine_and_nothing_else() {
        let all = [("jc", 4), ("jmin", 50), ("jmax", 1000), ("s1", 15), ("s2", 100)];
        let types = [("h1", 5), ("h2", 2_147_483_647), ("h3", 1_000_000_007), ("h4", 77_u32)];
        let read = |extra: &[(&'static str, u32)]| {
            let pairs: Vec<(&'static str, u32)> = all.iter().chain(&types).chain(extra).copied().collect();
            Amnezia::deserialize(MapDeserializer::<'static, _, ValueError>::new(pairs.into_iter()))
        };
        assert_eq!(read(&[]).unwrap(), right());
        assert!(read(&[("s3", 10)]).is_err());
        let short = vec![("jc", 4_u32)].into_iter();
        assert!(Amnezia::deserialize(MapDeserializer::<'static, _, ValueError>::new(short)).is_err());
    }
}
