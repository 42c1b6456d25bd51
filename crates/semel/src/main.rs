//! `semel`: the back office of a Telegram business.

use std::process::ExitCode;

fn main() -> ExitCode {
    semel::cli::main()
}
