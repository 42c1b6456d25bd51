//! The business: one folder per feature.
//!
//! A feature keeps its statements to itself; others meet it through its `model` and `flows`. A flow that takes a
//! transaction decides and writes; a flow that takes a [`Shop`] talks to the outside and writes what came of it.

pub mod alerts;
pub mod audit;
pub mod bot;
pub mod campaigns;
pub mod catalog;
pub mod checkout;
pub mod customers;
mod error;
pub mod events;
pub mod ledger;
pub mod messages;
pub mod notices;
pub mod orders;
pub mod owner_log;
pub mod referrals;
pub mod refunds;
pub mod retention;
pub mod safety;
mod shop;
pub mod stars;
pub mod subscriptions;
pub mod vpn;
pub mod web;

pub use error::Error;
pub use shop::{EventsOut, Lanes, Rules, Shop, ShopParts};

use semel_kernel::store::migrate::{KERNEL, Migration, Room};

/// The shop's tables.
pub const SHOP: Room = Room {
    name: "shop",
    steps: &[
        Migration {
            number: 1,
            name: "base",
            sqlite: include_str!("../migrations/sqlite/0001_base.sql"),
            postgres: include_str!("../migrations/postgres/0001_base.sql"),
        },
        Migration {
            number: 2,
            name: "audit",
            sqlite: include_str!("../migrations/sqlite/0002_audit.sql"),
            postgres: include_str!("../migrations/postgres/0002_audit.sql"),
        },
        Migration {
            number: 3,
            name: "self_audit",
            sqlite: include_str!("../migrations/sqlite/0003_self_audit.sql"),
            postgres: include_str!("../migrations/postgres/0003_self_audit.sql"),
        },
        Migration {
            number: 4,
            name: "vpn",
            sqlite: include_str!("../migrations/sqlite/0004_vpn.sql"),
            postgres: include_str!("../migrations/postgres/0004_vpn.sql"),
        },
        Migration {
            number: 5,
            name: "bot",
            sqlite: include_str!("../migrations/sqlite/0005_bot.sql"),
            postgres: include_str!("../migrations/postgres/0005_bot.sql"),
        },
        Migration {
            number: 6,
            name: "campaigns",
            sqlite: include_str!("../migrations/sqlite/0006_campaigns.sql"),
            postgres: include_str!("../migrations/postgres/0006_campaigns.sql"),
        },
    ],
};

/// All rooms of a shop's database, in the order in which they are brought up.
pub const ROOMS: &[Room] = &[KERNEL, SHOP];
