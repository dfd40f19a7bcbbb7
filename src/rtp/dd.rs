//! Dependency descriptor (AV1 RTP specification 1.0, appendix A): which layers a frame belongs to and what may be
//! switched to, where the payload does not tell. Reading only.
//!
//! Frames name a template; the templates come with key frames and are remembered in a [`Reader`], one per RTP stream.

/// Most templates in a structure: ids have 6 bits.
pub const MAX_TEMPLATES: usize = 64;
/// Most decode targets: 5 bits, plus one.
pub const MAX_TARGETS: usize = 32;

/// What a descriptor says of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// First packet of the frame.
    pub start_of_frame: bool,
    /// Last packet of the frame.
    pub end_of_frame: bool,
    /// Frame counter, wraps at 2^16.
    pub number: u16,
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// The descriptor brought a new template structure: the packet belongs to a key frame.
    pub has_structure: bool,
    /// Some decode target may be switched to at this frame.
    pub is_switch: bool,
    /// Bit per decode target the frame belongs to (indication other than "not present").
    pub present: u32,
    /// Bit per decode target that may be switched to here.
    pub switch: u32,
    /// Bit per decode target nothing of which depends on this frame.
    pub discardable: u32,
    /// Decode targets the sender is producing, if this descriptor says; otherwise the last said ones hold.
    pub active: u32,
    /// Size of the frame's spatial layer in pixels, when the structure has sizes.
    pub size: Option<(u16, u16)>,
}
