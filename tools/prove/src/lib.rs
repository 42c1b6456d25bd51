//! Proves what tests can only sample.
//!
//! [`models`] holds small abstractions of the protocols that everything rests on. A checker walks through every order in
//! which their steps can happen, with every crash in between, and either meets no state that breaks a promise or says how
//! it came to one. What is proved is the model: whoever changes the product changes the model that mirrors it, and each
//! model says at its top which code that is.
//!
//! The program `semel-prove` (`./prove` at the root) does the rest with the real program: it kills it at every place, cuts
//! its power, breaks the network and the database under several copies of it, simulates years of shop life, and puts known
//! mistakes into its source. [`report`] is the table that comes out.
//!
//! Nothing here runs in the product, and the product knows nothing of it.

pub mod models;
pub mod report;
