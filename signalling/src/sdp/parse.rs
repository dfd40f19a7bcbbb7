//! From text to [`Description`]. Own line reader instead of a general SDP library: every size is bounded before
//! anything is kept, unknown lines are skipped, and only what WebRTC clients write has to be understood.
//!
//! `section` collects the lines of one media section; here is what holds for the session: limits, bundle, and which ICE
//! credentials and certificate count.

use super::{Description, Direction, Limits, SdpError, Setup};
use crate::media::{DtlsRole, RemoteParams};

mod section;

use section::SectionReader;

/// SHA-256 of a certificate and ICE fragment, as far as one level of the description gives them.
#[derive(Clone, Debug, Default)]
struct Credentials {
    ufrag: Option<String>,
    fingerprint: Option<[u8; 32]>,
    setup: Option<Setup>,
}

impl Credentials {
    /// Takes an attribute if it is one of ours. Other hash functions than SHA-256 are passed over: a certificate may be
    /// named several times (RFC 8122, 5).
    fn read(&mut self, name: &str, value: &str) -> Result<bool, &'static str> {
        match name {
            "ice-ufrag" => {
                if !(4..=256).contains(&value.len()) || !value.bytes().all(is_ice_char) {
                    return Err("ice-ufrag of 4 to 256 ice-chars");
                }
                self.ufrag = Some(value.to_owned());
            }
            "fingerprint" => {
                let (hash, hex) = value.split_once(' ').ok_or("fingerprint with hash and value")?;
                if hash.eq_ignore_ascii_case("sha-256") {
                    self.fingerprint = Some(fingerprint(hex.trim()).ok_or("fingerprint of 32 bytes")?);
                }
            }
            "setup" => {
                self.setup = match value {
                    "actpass" => Some(Setup::ActPass),
                    "active" => Some(Setup::Active),
                    "passive" => Some(Setup::Passive),
                    _ => None,
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What stands before the first `m=` line.
#[derive(Debug, Default)]
struct Session {
    credentials: Credentials,
    direction: Option<Direction>,
    bundle: Option<Vec<String>>,
    allow_mixed: bool,
    ice_lite: bool,
}

impl Session {
    fn read(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        if self.credentials.read(name, value)? {
            return Ok(());
        }
        match name {
            "group" => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") && self.bundle.is_none() {
                    self.bundle = Some(words.map(str::to_owned).collect());
                }
            }
            "extmap-allow-mixed" => self.allow_mixed = true,
            "ice-lite" => self.ice_lite = true,
            _ => self.direction = direction(name).or(self.direction),
        }
        Ok(())
    }
}

impl Description {
    /// Reads a description of the far end.
    ///
    /// # Errors
    /// Over a limit, a line that cannot be read, no ICE fragment, no SHA-256 fingerprint, or a far end that is ICE-lite
    /// as we are.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, SdpError> {
        if text.len() > limits.bytes {
            return Err(SdpError::TooLarge("bytes"));
        }
        let mut session = Session::default();
        let mut readers: Vec<SectionReader> = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            let syntax = |what| SdpError::Syntax { line: index + 1, what };
            let line = line.strip_suffix('\r').unwrap_or(line).trim_end();
            if line.is_empty() {
                continue;
            }
            if line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
                return Err(syntax("no control characters"));
            }
            let (key, value) = line.split_once('=').ok_or_else(|| syntax("a letter and ="))?;
            match key {
                "m" if readers.len() >= limits.sections => return Err(SdpError::TooLarge("sections")),
                "m" => readers.push(SectionReader::new(value, limits).map_err(|refusal| refusal.at(index + 1))?),
                "a" => {
                    let (name, value) = value.split_once(':').unwrap_or((value, ""));
                    match readers.last_mut() {
                        Some(reader) => reader.attribute(name, value).map_err(|refusal| refusal.at(index + 1))?,
                        None => session.read(name, value).map_err(syntax)?,
                    }
                }
                _ if key.len() == 1 => {}
                _ => return Err(syntax("a letter and =")),
            }
        }
        finish(session, readers)
    }
}

impl Description {
    /// Keeps the DTLS role of a transport there is already, where this description leaves it open: a new offer says
    /// `actpass`, but the association is the old one (RFC 8842, 5.3).
    pub fn keep_role(&mut self, before: Option<&RemoteParams>) {
        if self.setup == Setup::ActPass
            && let Some(before) = before
        {
            self.remote.dtls = before.dtls;
        }
    }
}

fn finish(session: Session, readers: Vec<SectionReader>) -> Result<Description, SdpError> {
    if session.ice_lite {
        return Err(SdpError::Role("ice-lite on both sides"));
    }
    let mut bundle_alone = session.bundle.is_none();
    let mut credentials = Credentials::default();
    let mut sections = Vec::with_capacity(readers.len());
    let mut mids = std::collections::BTreeSet::new();
    for (index, reader) in readers.into_iter().enumerate() {
        let (mut section, own) = reader.finish(session.direction);
        if !section.mid.is_empty() && !mids.insert(section.mid.clone()) {
            return Err(SdpError::Mismatch { index, what: "mid is used twice" });
        }
        section.bundled = match &session.bundle {
            Some(bundle) => !section.mid.is_empty() && bundle.contains(&section.mid),
            // Without a bundle there is one transport for one section.
            None => !section.rejected && std::mem::take(&mut bundle_alone),
        };
        // The first usable section names the transport; bundle-only ones may leave it out (RFC 8843, 7.1.3).
        if section.bundled && !section.rejected {
            credentials.ufrag = credentials.ufrag.or(own.ufrag);
            credentials.fingerprint = credentials.fingerprint.or(own.fingerprint);
            credentials.setup = credentials.setup.or(own.setup);
        }
        sections.push(section);
    }
    let ufrag = credentials.ufrag.or(session.credentials.ufrag).ok_or(SdpError::MissingIce)?;
    let fingerprint =
        credentials.fingerprint.or(session.credentials.fingerprint).ok_or(SdpError::MissingFingerprint)?;
    let setup = credentials.setup.or(session.credentials.setup).unwrap_or_default();
    let dtls = if setup == Setup::Passive { DtlsRole::Active } else { DtlsRole::Passive };
    Ok(Description {
        remote: RemoteParams { ufrag, fingerprint, dtls },
        sections,
        setup,
        allow_mixed: session.allow_mixed,
        has_bundle: session.bundle.is_some(),
    })
}

fn direction(name: &str) -> Option<Direction> {
    match name {
        "sendrecv" => Some(Direction::SendRecv),
        "sendonly" => Some(Direction::SendOnly),
        "recvonly" => Some(Direction::RecvOnly),
        "inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

/// RFC 8839, 5.1, and what is needed for base64url, which some stacks write.
const fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

fn fingerprint(hex: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let mut pairs = hex.split(':');
    for byte in &mut out {
        let pair = pairs.next().filter(|pair| pair.len() == 2)?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests;
