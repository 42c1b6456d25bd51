//! `semel`: the back office of a Telegram business.

use std::process::ExitCode;

/// A request's memory is taken by one thread and given back by another; this allocator is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    semel::cli::main()
}
