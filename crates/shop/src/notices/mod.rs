//! What customers are told: the owner's own words in place of ours, and what a customer does not want to hear.
//!
//! A text is checked when it is saved, with its placeholders and its HTML, so that no notice can fail for its words when it is
//! needed. It counts from the next notice on, in every copy of the program, because it is read in the transaction that writes the
//! notice. Notices about money and paid goods cannot be switched off.

pub mod flows;
pub mod html;
pub mod http;
mod model;
mod sql;

pub use model::*;
pub use sql::STATEMENTS;
