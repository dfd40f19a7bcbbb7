//! Congestion control: what can be sent to a transport, and feedback on what it sends us. Pure.

mod delay;
pub mod estimator;
pub mod feedback;
mod loss;
pub mod pacer;
mod probe;
mod rate;
pub mod remb;
mod sent;
mod throughput;
