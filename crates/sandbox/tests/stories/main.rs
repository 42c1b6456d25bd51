//! Stories about the box as seen from outside: everything goes over real sockets, as a shop and its bot would do it.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test stops where something is wrong, and speaks HTTP itself to see the bare wire"
)]

mod faults;
mod payments;
mod support;
mod telegram;
mod updates;
