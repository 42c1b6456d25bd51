//! WireGuard access: keys, addresses, the customers' files, and the server's file and interface as we want them.
//!
//! This crate knows no database and no shop. Time and randomness are handed in. Its thoughts are pure functions: which
//! addresses may be given out ([`pool`]), what a customer's file says ([`client`], [`amnezia`], [`name`], [`qr`]), what
//! has to change ([`plan`]). Its deeds are convergent: [`reconcile`] brings `wg0.conf` and the interface to a wanted
//! state, may be repeated at any time, and touches no peer that was never ours.
//!
//! It never puts a secret into an argument, an error or a log, and never acts on a file that it does not understand.

pub mod amnezia;
pub mod client;
pub mod conf;
pub mod dump;
pub mod file;
pub mod key;
pub mod name;
pub mod peer;
pub mod plan;
pub mod pool;
pub mod qr;
pub mod reconcile;
pub mod seal;
pub mod tool;

pub use amnezia::{Amnezia, AmneziaError};
pub use client::{ClientError, ClientFile, Dns, Endpoint, Ipv6};
pub use conf::{Conf, ConfError, Keep};
pub use file::{ConfPath, FileError};
pub use key::{KeyError, PresharedKey, PrivateKey, PublicKey};
pub use name::tunnel_name;
pub use peer::{Peer, PeerName, SeenPeer};
pub use plan::{Plan, Seen};
pub use pool::{Pool, PoolError};
pub use qr::{QrError, qr_modules, qr_png};
pub use reconcile::{Drift, ReconcileError, Report, Target};
pub use seal::{SealError, SealingKey};
pub use tool::{Tool, ToolError};
