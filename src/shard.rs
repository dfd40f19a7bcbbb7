//! The top of the pure core: all rooms and transports of one media thread, as a value.
//!
//! `handle_*` takes an input and the time and pushes packets and events into an [`outbox::Outbox`] the caller lends.

pub mod command;
pub mod event;
pub mod outbox;
