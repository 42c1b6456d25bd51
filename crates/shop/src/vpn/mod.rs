//! VPN access: servers, their addresses, the peers of subscriptions, and bringing file and interface to what is wanted.
//!
//! The database says which peers there shall be; [`apply`](Apply) brings `wg0.conf` and the interface to it and then looks
//! whether they are. Everything that changes what is wanted raises the server's number `wanted` in its own transaction, and
//! an apply that succeeds writes that number back as `applied`: where both are equal, nothing is left to do.
//!
//! - One statement claims an address, and a unique key guards it ([`addresses`]). A freed address rests before anybody else
//!   gets it, and it comes free only when the interface is known to have let its old peer go.
//! - Private keys stand in rows sealed under a key from outside the database, or not at all. They are opened only to write a
//!   file that its owner asked for, and to apply.
//! - Only the server named in the settings is applied by this program, and only by the copy that has its file ([`Vpn::target`]).
//!   Nothing else here assumes that an interface is local.
//! - Nothing is sold on a server before one apply has seen whose addresses are in use there, and no address, key or peer is
//!   taken from somebody who is not ours.

pub mod addresses;
mod apply;
pub mod downloads;
pub mod files;
pub mod hand_out;
pub mod http;
pub mod import;
mod model;
pub mod new_keys;
pub mod peers;
mod replace;
mod samples;
mod scene;
pub mod servers;
mod sql;
mod steps;
mod traffic;
pub mod view;

use semel_kernel::jobs::Workers;

pub use addresses::ReleaseAddresses;
pub use apply::Apply;
pub use model::*;
pub use samples::{PeerSample, Samples, samples};
pub use sql::STATEMENTS;
pub use traffic::ReadTraffic;

use crate::{Error, Shop};

/// What other features may do with peers.
pub mod flows {
    pub use super::apply::{Drift, drift, now as apply_now, soon};
    pub use super::peers::{close, connected_once, issue, of_subscription, open};
    pub use super::replace::{own_key, rotate};
    pub use super::servers::prepare;
}

/// Teaches `workers` this feature's jobs; those that need file and interface only where they are (`applies`).
pub fn jobs(workers: Workers<Shop>, applies: bool) -> Workers<Shop> {
    let workers = workers.with::<ReleaseAddresses>();
    if applies { workers.with::<Apply>().with::<ReadTraffic>() } else { workers }
}

/// The VPN part of this shop.
///
/// # Errors
/// [`Error::Conflict`] when the settings name none, with what to do about it.
pub fn of(shop: &Shop) -> Result<&Vpn, Error> {
    shop.vpn.as_ref().ok_or_else(|| {
        Error::Conflict("VPN access is not set up on this server: set the [vpn] section of the settings".into())
    })
}
