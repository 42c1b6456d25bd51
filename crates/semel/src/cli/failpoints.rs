//! `semel failpoints`: every place at which a test build can be broken on purpose.

use std::process::ExitCode;

use semel_kernel::failpoint;

use super::out;

/// All names, one a line, sorted. `crates/semel/tests/house.rs` compares them with the sources.
const NAMES: &str = include_str!("../../failpoints.txt");

/// Prints the names; what this build makes of them goes to standard error, so that a pipe gets names alone.
pub fn failpoints() -> anyhow::Result<ExitCode> {
    out::say(NAMES)?;
    if !failpoint::BUILT_IN {
        out::complain("this build does not react at any of them: only one with the feature `failpoints` does");
    }
    Ok(ExitCode::SUCCESS)
}
