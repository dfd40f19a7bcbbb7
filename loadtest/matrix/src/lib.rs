//! Matrix users of the load test: they have accounts, are in rooms, stand in calls as clients do, and hand the keys of
//! their frames to each other as encrypted to-device messages.
//!
//! [`Homeserver`] is plain HTTP: accounts, rooms, tokens, memberships. [`User`] is a device of somebody: the SDK syncs
//! and encrypts for it. What is written and read is in [`wire`], when keys change in [`keys`]; both are pure.
//!
//! All code of the SDK stays in here, so that it is compiled once.
#![recursion_limit = "256"]

pub mod homeserver;
pub mod keys;
pub mod user;
pub mod wire;

pub use homeserver::{Account, Homeserver, Room};
pub use user::{News, Ticket, User};
