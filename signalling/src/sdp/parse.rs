//! From text to [`Description`].

use super::{Description, Limits, SdpError};

impl Description {
    /// Reads a description of the far end.
    ///
    /// # Errors
    /// See [`SdpError`].
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, SdpError> {
        let _ = (text, limits);
        Err(SdpError::MissingIce)
    }
}
