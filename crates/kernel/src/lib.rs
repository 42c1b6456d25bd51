//! Semel's kernel: what makes a thing happen once.
//!
//! Everything that must happen once is an *apply* (a change that commits together with its receipt), an *effect* (a
//! call to the outside whose intent was written first) or a *claim* (the right to do something alone). This crate
//! knows no shop; it could serve a library or a hospital.

pub mod clock;
pub mod cron;
pub mod failpoint;
pub mod history;
pub mod ids;
pub mod inbox;
pub mod jobs;
pub mod keys;
pub mod leases;
pub mod outbound;
pub mod retention;
pub mod store;
pub mod supervise;
#[cfg(feature = "testing")]
pub mod testing;
