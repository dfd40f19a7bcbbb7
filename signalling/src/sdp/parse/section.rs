//! The lines of one media section, collected while reading and put together at its end.

use super::super::{Direction, Limits, SdpError, Section, SectionCodec, SectionKind};
use super::{Credentials, direction};
use crate::media::{ExtensionIds, MediaKind};

/// Longest mid and rid: what a one-byte header extension can carry (RFC 8285, 4.2).
const MAX_ID: usize = 16;
/// Most rids and most SSRCs of one section. Clients use three and six.
const MAX_RIDS: usize = 16;
const MAX_SSRCS: usize = 64;

/// Why a line was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    Syntax(&'static str),
    TooLarge(&'static str),
}

impl Refusal {
    pub(super) const fn at(self, line: usize) -> SdpError {
        match self {
            Self::Syntax(what) => SdpError::Syntax { line, what },
            Self::TooLarge(what) => SdpError::TooLarge(what),
        }
    }
}

impl From<&'static str> for Refusal {
    fn from(what: &'static str) -> Self {
        Self::Syntax(what)
    }
}

/// One `a=rtpmap`.
#[derive(Debug)]
struct RtpMap {
    payload_type: u8,
    name: String,
    clock_rate: u32,
    channels: u8,
}

/// A section while it is being read.
#[derive(Debug)]
pub(super) struct SectionReader {
    section: Section,
    credentials: Credentials,
    payload_types: Vec<u8>,
    direction: Option<Direction>,
    port_zero: bool,
    bundle_only: bool,
    rtpmaps: Vec<RtpMap>,
    fmtps: Vec<(u8, String)>,
    feedback: Vec<(Option<u8>, String)>,
    ssrcs: Vec<u32>,
    flow_groups: Vec<(u32, u32)>,
    secondary: Vec<u32>,
    simulcast_group: Vec<u32>,
    declared_rids: Vec<String>,
    simulcast: Option<Vec<String>>,
    attributes_left: usize,
}

impl SectionReader {
    pub(super) fn new(line: &str, limits: &Limits) -> Result<Self, Refusal> {
        let mut words = line.split_ascii_whitespace();
        let (Some(media), Some(port), Some(protocol)) = (words.next(), words.next(), words.next()) else {
            return Err(Refusal::Syntax("m= with media, port, protocol"));
        };
        let port = port.split('/').next().unwrap_or(port);
        let port: u16 = port.parse().map_err(|_| "a port number")?;
        let kind = match media {
            "audio" => SectionKind::Media(MediaKind::Audio),
            "video" => SectionKind::Media(MediaKind::Video),
            "application" => SectionKind::Application,
            _ => SectionKind::Other,
        };
        let formats: Vec<&str> = words.collect();
        if formats.len() > limits.codecs {
            return Err(Refusal::TooLarge("codecs"));
        }
        let mut payload_types: Vec<u8> = Vec::with_capacity(formats.len());
        if matches!(kind, SectionKind::Media(_)) {
            for format in &formats {
                let payload_type = payload_type(format)?;
                if !payload_types.contains(&payload_type) {
                    payload_types.push(payload_type);
                }
            }
        }
        let section = Section {
            mid: String::new(),
            kind,
            direction: Direction::SendRecv,
            rejected: false,
            codecs: Vec::new(),
            extensions: ExtensionIds::default(),
            msid: None,
            ssrcs: Vec::new(),
            rids: Vec::new(),
            draft_simulcast: false,
            bundled: false,
            media: media.to_owned(),
            protocol: protocol.to_owned(),
            formats: formats.join(" "),
            rtcp_rsize: false,
            allow_mixed: false,
            cname: None,
            max_message_size: 65536,
        };
        Ok(Self {
            section,
            credentials: Credentials::default(),
            payload_types,
            direction: None,
            port_zero: port == 0,
            bundle_only: false,
            rtpmaps: Vec::new(),
            fmtps: Vec::new(),
            feedback: Vec::new(),
            ssrcs: Vec::new(),
            flow_groups: Vec::new(),
            secondary: Vec::new(),
            simulcast_group: Vec::new(),
            declared_rids: Vec::new(),
            simulcast: None,
            attributes_left: limits.attributes,
        })
    }

    pub(super) fn attribute(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        self.attributes_left = self.attributes_left.checked_sub(1).ok_or(Refusal::TooLarge("attributes"))?;
        if self.credentials.read(name, value)? {
            return Ok(());
        }
        match name {
            "mid" => self.section.mid = identifier(value, "a mid of 1 to 16 characters")?,
            "bundle-only" => self.bundle_only = true,
            "rtcp-rsize" => self.section.rtcp_rsize = true,
            "extmap-allow-mixed" => self.section.allow_mixed = true,
            "msid" => self.section.msid = Some(msid(value)),
            "rtpmap" => self.rtpmap(value)?,
            "fmtp" => {
                let (format, params) = value.split_once(' ').unwrap_or((value, ""));
                // Data channels of old clients and unknown formats have fmtp lines too.
                if let Ok(payload_type) = payload_type(format) {
                    self.fmtps.push((payload_type, params.trim().to_owned()));
                }
            }
            "rtcp-fb" => {
                let (format, what) = value.split_once(' ').ok_or("rtcp-fb with payload type and value")?;
                let format = if format == "*" { None } else { Some(payload_type(format)?) };
                self.feedback.push((format, what.trim().to_owned()));
            }
            "extmap" => self.extension(value)?,
            "rid" => self.rid(value)?,
            "simulcast" => self.simulcast(value)?,
            "ssrc" => self.ssrc(value)?,
            "ssrc-group" => self.ssrc_group(value)?,
            "max-message-size" => {
                let size: u64 = value.trim().parse().map_err(|_| "a message size")?;
                // Zero means any size (RFC 8841, 6.1).
                self.section.max_message_size =
                    if size == 0 { u32::MAX } else { u32::try_from(size).unwrap_or(u32::MAX) };
            }
            _ => self.direction = direction(name).or(self.direction),
        }
        Ok(())
    }

    fn rtpmap(&mut self, value: &str) -> Result<(), Refusal> {
        const EXPECTED: Refusal = Refusal::Syntax("rtpmap with payload type, name, clock rate");
        let (format, encoding) = value.split_once(' ').ok_or(EXPECTED)?;
        let mut parts = encoding.trim().split('/');
        let (Some(name), Some(clock)) = (parts.next(), parts.next()) else { return Err(EXPECTED) };
        if name.is_empty() || name.len() > 64 {
            return Err(EXPECTED);
        }
        self.rtpmaps.push(RtpMap {
            payload_type: payload_type(format)?,
            name: name.to_owned(),
            clock_rate: clock.parse().map_err(|_| EXPECTED)?,
            channels: parts.next().map_or(Ok(1), str::parse).map_err(|_| EXPECTED)?,
        });
        Ok(())
    }

    fn extension(&mut self, value: &str) -> Result<(), Refusal> {
        let mut words = value.split_ascii_whitespace();
        let (Some(id), Some(uri)) = (words.next(), words.next()) else {
            return Err(Refusal::Syntax("extmap with id and URI"));
        };
        let (id, direction) = id.split_once('/').unwrap_or((id, ""));
        let id: u16 = id.parse().map_err(|_| "an extmap id")?;
        let id = u8::try_from(id).ok().filter(|id| *id != 0 && *id != 15);
        if direction != "inactive"
            && let (Some(id), Some(slot)) = (id, super::super::write::extension_slot(&mut self.section.extensions, uri))
        {
            *slot = Some(id);
        }
        Ok(())
    }

    fn rid(&mut self, value: &str) -> Result<(), Refusal> {
        let mut words = value.split_ascii_whitespace();
        let (Some(rid), Some(way)) = (words.next(), words.next()) else {
            return Err(Refusal::Syntax("rid with name and direction"));
        };
        if way == "send" {
            push_rid(&mut self.declared_rids, rid)?;
        }
        Ok(())
    }

    /// `send q;h;f`, or in the draft that old Firefox speaks ` send rid=q;h;f`.
    fn simulcast(&mut self, value: &str) -> Result<(), Refusal> {
        let mut words = value.split_ascii_whitespace();
        while let (Some(way), Some(streams)) = (words.next(), words.next()) {
            if way != "send" {
                continue;
            }
            let (streams, draft) = streams.strip_prefix("rid=").map_or((streams, false), |streams| (streams, true));
            let mut rids = Vec::new();
            for stream in streams.split(';') {
                // Alternatives of one stream are separated by commas: the first one is what the client likes best.
                let rid = stream.split(',').next().unwrap_or(stream);
                push_rid(&mut rids, rid.strip_prefix('~').unwrap_or(rid))?;
            }
            self.section.draft_simulcast = draft;
            self.simulcast = Some(rids);
        }
        Ok(())
    }

    fn ssrc(&mut self, value: &str) -> Result<(), Refusal> {
        let (ssrc, attribute) = value.split_once(' ').unwrap_or((value, ""));
        let ssrc: u32 = ssrc.parse().map_err(|_| "an ssrc number")?;
        if !self.ssrcs.contains(&ssrc) {
            if self.ssrcs.len() >= MAX_SSRCS {
                return Err(Refusal::TooLarge("ssrcs"));
            }
            self.ssrcs.push(ssrc);
        }
        if let Some(cname) = attribute.strip_prefix("cname:") {
            self.section.cname.get_or_insert_with(|| cname.to_owned());
        } else if let Some(ids) = attribute.strip_prefix("msid:") {
            self.section.msid.get_or_insert_with(|| msid(ids));
        }
        Ok(())
    }

    fn ssrc_group(&mut self, value: &str) -> Result<(), Refusal> {
        let mut words = value.split_ascii_whitespace();
        let semantics = words.next().unwrap_or("");
        let mut ssrcs = Vec::new();
        for word in words {
            if ssrcs.len() >= MAX_SSRCS {
                return Err(Refusal::TooLarge("ssrcs"));
            }
            ssrcs.push(word.parse::<u32>().map_err(|_| "an ssrc number")?);
        }
        match (semantics, ssrcs.as_slice()) {
            ("FID", [primary, retransmission]) => self.flow_groups.push((*primary, *retransmission)),
            ("SIM", _) => self.simulcast_group = ssrcs,
            // Forward error correction is never negotiated; its SSRC is no encoding.
            ("FEC" | "FEC-FR", [_, repair @ ..]) => self.secondary.extend_from_slice(repair),
            _ => {}
        }
        if self.flow_groups.len() + self.secondary.len() > 2 * MAX_SSRCS {
            return Err(Refusal::TooLarge("ssrcs"));
        }
        Ok(())
    }

    /// The whole section, and the credentials it gives. `bundled` is left to the caller.
    pub(super) fn finish(mut self, session_direction: Option<Direction>) -> (Section, Credentials) {
        self.section.direction = self.direction.or(session_direction).unwrap_or(Direction::SendRecv);
        self.section.rejected = self.port_zero && !self.bundle_only;
        self.section.codecs = self.codecs();
        if matches!(self.section.direction, Direction::SendRecv | Direction::SendOnly) {
            self.section.ssrcs = self.encodings();
            // A single rid may come without a simulcast line.
            let single = |mut rids: Vec<String>| {
                rids.truncate(1);
                rids
            };
            self.section.rids =
                self.simulcast.take().unwrap_or_else(|| single(std::mem::take(&mut self.declared_rids)));
        }
        (self.section, self.credentials)
    }

    fn codecs(&self) -> Vec<SectionCodec> {
        let fmtp = |payload_type| {
            self.fmtps.iter().find(|(of, _)| *of == payload_type).map_or("", |(_, params)| params.as_str())
        };
        let mut codecs: Vec<SectionCodec> = Vec::new();
        let mut repairs: Vec<(u8, u8)> = Vec::new();
        for &payload_type in &self.payload_types {
            let Some((name, clock_rate, channels)) = self.encoding(payload_type) else { continue };
            if name.eq_ignore_ascii_case("rtx") {
                let apt = super::super::codec::parameter(fmtp(payload_type), "apt");
                repairs.extend(apt.and_then(|apt| apt.parse().ok()).map(|apt: u8| (apt, payload_type)));
                continue;
            }
            // Redundancy and error correction are never negotiated; tones and comfort noise are no codec of a track.
            const LEFT_OUT: [&str; 6] = ["red", "ulpfec", "flexfec-03", "flexfec", "telephone-event", "CN"];
            if LEFT_OUT.iter().any(|left_out| left_out.eq_ignore_ascii_case(name)) {
                continue;
            }
            codecs.push(SectionCodec {
                payload_type,
                name: name.to_owned(),
                clock_rate,
                channels,
                fmtp: fmtp(payload_type).to_owned(),
                feedback: self
                    .feedback
                    .iter()
                    .filter(|(of, _)| of.is_none_or(|of| of == payload_type))
                    .map(|(_, what)| what.clone())
                    .collect(),
                rtx: None,
            });
        }
        for (apt, rtx) in repairs {
            if let Some(codec) = codecs.iter_mut().find(|codec| codec.payload_type == apt) {
                codec.rtx.get_or_insert(rtx);
            }
        }
        codecs
    }

    fn encoding(&self, payload_type: u8) -> Option<(&str, u32, u8)> {
        let mapped = self.rtpmaps.iter().find(|map| map.payload_type == payload_type);
        // Static payload types need no rtpmap (RFC 3551, 6).
        mapped.map(|map| (map.name.as_str(), map.clock_rate, map.channels)).or(match payload_type {
            0 => Some(("PCMU", 8000, 1)),
            8 => Some(("PCMA", 8000, 1)),
            9 => Some(("G722", 8000, 1)),
            _ => None,
        })
    }

    fn encodings(&self) -> Vec<(u32, Option<u32>)> {
        let repair = |ssrc: u32| self.flow_groups.iter().find(|(primary, _)| *primary == ssrc).map(|(_, rtx)| *rtx);
        let is_secondary =
            |ssrc: &u32| self.secondary.contains(ssrc) || self.flow_groups.iter().any(|(_, rtx)| rtx == ssrc);
        let primaries = if self.simulcast_group.is_empty() { &self.ssrcs } else { &self.simulcast_group };
        primaries.iter().filter(|ssrc| !is_secondary(ssrc)).map(|ssrc| (*ssrc, repair(*ssrc))).collect()
    }
}

fn payload_type(format: &str) -> Result<u8, &'static str> {
    format.parse().ok().filter(|number| *number < 128).ok_or("a payload type from 0 to 127")
}

/// A token (RFC 8866, 9) that fits into a header extension.
fn identifier(value: &str, expected: &'static str) -> Result<String, &'static str> {
    let value = value.trim();
    let fits = !value.is_empty() && value.len() <= MAX_ID && value.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(value.to_owned()) } else { Err(expected) }
}

fn push_rid(rids: &mut Vec<String>, rid: &str) -> Result<(), Refusal> {
    let rid = identifier(rid, "a rid of 1 to 16 characters")?;
    if !rid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return Err(Refusal::Syntax("a rid of letters and digits"));
    }
    if rids.len() >= MAX_RIDS {
        return Err(Refusal::TooLarge("rids"));
    }
    if !rids.contains(&rid) {
        rids.push(rid);
    }
    Ok(())
}

/// Stream and track id; a missing track id is empty.
fn msid(value: &str) -> (String, String) {
    let mut words = value.split_ascii_whitespace();
    let mut next = || words.next().unwrap_or("").to_owned();
    (next(), next())
}
