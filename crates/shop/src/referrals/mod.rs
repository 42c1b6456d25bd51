//! Referrals: who sent a customer gets a share of that customer's first payment, on the balance.
//!
//! One reward a customer, for ever: its row is keyed by the customer. A refund takes it back as far as the balance goes;
//! what was spent stays spent, because no balance passes its floor.

pub mod flows;
mod job;
mod sql;

pub use job::RewardReferrer;
pub use sql::STATEMENTS;
