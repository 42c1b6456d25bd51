//! The program as a process of its own: starts, stops, and deaths.
//!
//! The other stories hold an application in their own process. These start the real binary, and end it as a power cut, an
//! operator or a broken database would; the world around it and the database live on.

mod audit_log;
mod by_hand;
mod command_line;
mod database;
mod doctor;
mod emulator;
mod kill;
mod owner_mistakes;
mod program;
mod restore;
mod sender;
mod sender_deaths;
mod vpn;
mod wake;
