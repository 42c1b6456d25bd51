//! Stories about the whole program as its owner, its customers and the providers see it: an application in this process
//! on a real database, with the outside world in a box. The name of a story is the rule that it tells.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test stops where something is wrong")]

mod api;
mod app;
mod backup;
mod bot;
mod bot_bad_days;
mod bot_words;
mod campaigns;
mod dead_letters;
mod hints;
mod money_path;
mod outcomes;
mod policy;
mod process;
mod refunds;
mod refunds_outside;
mod retention;
mod sales;
mod self_audit;
mod sender_bad_days;
mod stars;
mod stock;
mod talk_proof;
mod upgrade;
mod vpn;
mod words;
