//! MatrixRTC's meaning, as pure code: what room state says about a call, and how clients ask for tokens.
//!
//! - [`identity`]: room names and participant identities of every generation in the field.
//! - [`request`]: bodies of the token and delegation endpoints, in every shape.
//! - [`event`]: a Matrix event as pushed or fetched, reduced to what matters for a call.
//! - [`power`]: power levels. [`view`]: one Matrix room folded into who may do what. [`policy`]: moderation lists.
//! - [`server_name`]: server names and addresses that must never be asked.
//! - [`delayed`]: delegated delayed leaves.
//!
//! Nothing here does I/O or reads a clock. "Member" is a word of this module only; the SFU knows participants.

pub mod delayed;
pub mod event;
pub mod identity;
pub mod policy;
pub mod power;
pub mod request;
pub mod server_name;
pub mod view;
