//! Wire formats of RTP and RTCP: bytes in, values out, and back.
//!
//! Stateless but for [`seq`] (unwrapping) and [`dd`] (templates of the stream). Every parser is bounded by its input,
//! allocates nothing and gives `None` or a [`crate::base::DropReason`] for what it cannot read. Nothing here reads past
//! a codec's payload descriptor and the header bytes that end-to-end encryption leaves in clear.

#![warn(clippy::indexing_slicing)]

pub mod codec;
mod cursor;
pub mod dd;
pub mod demux;
pub mod ext;
pub mod header;
pub mod ntp;
pub mod packet;
pub mod rtcp;
pub mod seq;
pub mod twcc;
