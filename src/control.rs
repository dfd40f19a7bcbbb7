//! The control plane: everything on tokio. HTTP and WebSockets in front, one task per room behind, the media threads at
//! the far side of [`bridge`].
//!
//! Who owns what: [`registry`] owns which rooms there are, a room task ([`room_task`]) owns its room machine, a
//! WebSocket task ([`ws`]) owns its socket. They meet in bounded channels only. Started by [`Server::start`].

pub mod addresses;
mod admin;
pub mod audit;
pub mod auth;
pub mod bridge;
mod connection;
mod debug;
mod drain;
mod external;
mod health;
mod http;
mod listener;
mod load;
pub mod logging;
mod matrix;
mod metrics;
mod nodes;
mod places;
mod proxies;
mod redact;
mod registry;
mod relay;
mod reports;
mod room_task;
mod seats;
pub mod server;
mod status;
pub mod system;
mod tls;
mod twirp;
mod visitors;
mod webhook;
mod ws;

pub use metrics::reference::page as metrics_reference;
pub use redact::Redacted;
pub use server::{Server, ServerError, Started};

#[cfg(test)]
mod tests;
