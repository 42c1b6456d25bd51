//! The failpoints inside of an apply: at each step of the file and around each call of the tool.

use std::io;

use semel_kernel::failpoint::{fail, told};
use semel_wireguard::file::Steps;

/// Tells the failpoints of each step. In a build without them it does nothing.
pub(super) struct Failpoints;

impl Steps for Failpoints {
    fn at(&self, place: &'static str) -> io::Result<()> {
        let fails = match place {
            "lock.before" => fail("vpn.file", "lock.before"),
            "lock.after" => fail("vpn.file", "lock.after"),
            "write.before" => fail("vpn.file", "write.before"),
            "write.after" => fail("vpn.file", "write.after"),
            "sync.before" => fail("vpn.file", "sync.before"),
            "sync.after" => fail("vpn.file", "sync.after"),
            "rename.before" => fail("vpn.file", "rename.before"),
            "rename.after" => fail("vpn.file", "rename.after"),
            "dirsync.before" => fail("vpn.file", "dirsync.before"),
            "dirsync.after" => fail("vpn.file", "dirsync.after"),
            "show.before" => fail("vpn.tool", "show.before"),
            "show.after" => fail("vpn.tool", "show.after"),
            "remove.before" => fail("vpn.tool", "remove.before"),
            "remove.after" => fail("vpn.tool", "remove.after"),
            "addconf.before" => fail("vpn.tool", "addconf.before"),
            "addconf.after" => fail("vpn.tool", "addconf.after"),
            _ => false,
        };
        if fails { Err(io::Error::other(told("vpn", place))) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use semel_wireguard::file::PLACES;

    #[test]
    fn every_step_has_its_failpoint() {
        let text = include_str!("steps.rs");
        for place in PLACES {
            assert!(text.contains(&format!("\"{place}\" => fail(\"vpn.")), "{place}");
        }
    }
}
