//! Congestion control: what can be sent to a transport, and feedback on what it sends us. Pure.

pub mod feedback;
pub mod remb;
