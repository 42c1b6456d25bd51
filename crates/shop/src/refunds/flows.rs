//! What happens to refunds. Each step stands in the file of its subject; this is the door for the other rooms.

pub use super::begin::begin;
pub use super::look::{look, sweep};
pub use super::outside::found;
pub use super::rows::{find, given_back, is_running};
