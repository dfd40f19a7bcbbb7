//! The room machine: one value per room that owns everything signalling knows about it. Inputs in, outputs out; driven
//! by one task per room in the server, by plain calls in tests. See [`Room`].
//!
//! Why one machine per room and not one per participant: nearly every request touches others (a mute, a subscription, a
//! leave), and one owner needs no lock, no message order between tasks and no shared table.

pub mod api;
