//! Session descriptions written by hand, and the little that is read of the server's.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::Context;

use crate::light::shape::{AUDIO_LEVEL, Shape, TRANSPORT_CC};

/// A section of our offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// To receive a track in.
    Receive(Shape),
    /// Our track, with its SSRC.
    Send(Shape, u32),
}

/// Name of our track of a shape, in descriptions and requests.
pub const fn track(shape: Shape) -> &'static str {
    if shape.is_video() { "light" } else { "light-voice" }
}

/// Payload type of retransmissions (RFC 4588), as the offers have it.
pub const REPAIR: u8 = 97;

/// ICE and DTLS of this end.
#[derive(Clone, Debug)]
pub struct Local {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub password: String,
    /// SHA-256 of the certificate as descriptions write it.
    pub fingerprint: String,
}

/// ICE of the far end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub password: String,
    /// UDP candidates in order.
    pub candidates: Vec<SocketAddr>,
}

/// An offer of these sections; `version` counts them.
pub fn write(local: &Local, version: u32, sections: &[Section]) -> String {
    let mids: Vec<String> = (0..sections.len()).map(|n| n.to_string()).collect();
    let mut sdp = format!(
        "v=0\r\no=- 4611731400430051336 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n",
        mids.join(" ")
    );
    for (mid, section) in sections.iter().enumerate() {
        let (Section::Receive(shape) | Section::Send(shape, _)) = *section;
        let (media, formats) = if shape.is_video() { ("video", "96 97") } else { ("audio", "111") };
        // Writing to a String cannot fail.
        let _ = write!(
            sdp,
            "m={media} 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\n\
             a=setup:actpass\r\na=mid:{mid}\r\n\
             a=extmap:{TRANSPORT_CC} http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n",
            local.ufrag, local.password, local.fingerprint
        );
        if shape == Shape::Audio {
            let _ = write!(sdp, "a=extmap:{AUDIO_LEVEL} urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n");
        }
        match section {
            Section::Receive(_) => sdp.push_str("a=recvonly\r\n"),
            Section::Send(_, _) => {
                let _ = write!(sdp, "a=sendonly\r\na=msid:{0} {0}\r\n", track(shape));
            }
        }
        sdp.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
        sdp.push_str(match shape {
            Shape::Video | Shape::Small => {
                "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 transport-cc\r\na=rtcp-fb:96 ccm fir\r\na=rtcp-fb:96 nack\r\n\
                 a=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
            }
            Shape::Audio => {
                "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"
            }
        });
        if let Section::Send(_, ssrc) = section {
            let _ = write!(sdp, "a=ssrc:{ssrc} cname:light\r\na=ssrc:{ssrc} msid:{0} {0}\r\n", track(shape));
        }
    }
    sdp
}

/// What an answer says of the far end.
pub fn read(sdp: &str) -> anyhow::Result<Remote> {
    let value = |name: &str| sdp.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned());
    Ok(Remote {
        ufrag: value("a=ice-ufrag:").context("an answer without ice-ufrag")?,
        password: value("a=ice-pwd:").context("an answer without ice-pwd")?,
        candidates: sdp.lines().filter_map(|line| candidate(line.strip_prefix("a=")?)).collect(),
    })
}

/// The address of a `candidate:` line, if it is UDP.
pub fn candidate(line: &str) -> Option<SocketAddr> {
    let mut words = line.trim().strip_prefix("candidate:")?.split(' ');
    let transport = words.nth(2)?;
    let (address, port) = (words.nth(1)?, words.next()?);
    let is_udp = transport.eq_ignore_ascii_case("udp");
    is_udp.then(|| Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_matters_of_an_answer() {
        let sdp = "v=0\r\nm=video 9 X 96\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n\
                   a=candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host\r\n\
                   a=candidate:2 1 tcp 1 127.0.0.1 7881 typ host tcptype passive\r\n";
        let candidates = vec![SocketAddr::from(([127, 0, 0, 1], 7882))];
        assert_eq!(read(sdp).unwrap(), Remote { ufrag: "u".into(), password: "p".into(), candidates });
        assert!(read("v=0\r\n").is_err());
    }
}
