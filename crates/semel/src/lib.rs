//! The program: settings, wiring, HTTP server, command line.
//!
//! Everything of the business lives in `semel-shop`; everything that makes it happen once lives in `semel-kernel`. This
//! crate reads settings, puts the parts together, and gives them doors: HTTP, a socket for the owner's commands, and the
//! command line itself, which talks through one of the two.

pub mod api;
pub mod app;
pub mod backup;
pub mod cli;
pub mod local;
pub mod parts;
pub mod server;
pub mod settings;

use semel_kernel::store::migrate::{KERNEL, Migration, Room};

/// The program's own tables.
pub const PROGRAM: Room = Room {
    name: "program",
    steps: &[Migration {
        number: 1,
        name: "tokens",
        sqlite: include_str!("../migrations/sqlite/0001_tokens.sql"),
        postgres: include_str!("../migrations/postgres/0001_tokens.sql"),
    }],
};

/// All rooms of the program's database.
pub const ROOMS: &[Room] = &[KERNEL, semel_shop::SHOP, PROGRAM];

/// Whether these settings are of `semel demo`, which alone may use a database that a demo made.
pub fn is_demo(settings: &settings::Settings) -> bool {
    settings.demo
}
