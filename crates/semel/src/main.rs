//! `semel`: the back office of a Telegram business.

use std::process::ExitCode;

/// A request's memory is taken by one thread and given back by another; this allocator is made for that. SQLite takes its
/// memory from it, too (the feature `override`): the C library's own was a seventh of the writer's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    semel::cli::main()
}
