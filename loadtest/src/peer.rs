//! One peer connection of the `rtc` crate with its UDP socket.
//!
//! Works around what that crate gets wrong: subscribed streams are told apart by the SSRCs of the server's description,
//! not by its track events, which come again at every renegotiation.

mod feedback;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Context, anyhow};
use bytes::BytesMut;
use rtc::data_channel::{RTCDataChannelId, RTCDataChannelInit};
use rtc::interceptor::{Registry, Slot};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::configuration::{RTCConfigurationBuilder, RTCOfferOptions};
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{
    CandidateConfig, CandidateHostConfig, RTCDtlsRole, RTCIceCandidate, RTCIceCandidateInit,
};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpSenderId, RTCRtpTransceiverDirection, RTCRtpTransceiverId, RTCRtpTransceiverInit};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use tokio::net::UdpSocket;

use crate::send::{Encoding, Wiring};

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// What a peer reports.
#[derive(Debug)]
pub enum PeerEvent {
    /// ICE and DTLS are through.
    Connected,
    /// It will not work any more.
    Failed,
    /// A data channel opened.
    ChannelOpen(String),
    /// A message on the channel of this label.
    Data(String, BytesMut),
    /// A packet of a subscribed track.
    Rtp(rtc::rtp::Packet),
    /// The server wants a key frame of this stream of ours.
    KeyFrameWanted(u32),
}

/// A stream the server's description announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Sid of the track it carries.
    pub track: String,
    /// Video rather than audio.
    pub is_video: bool,
}

/// A peer connection.
pub struct Peer {
    pc: RTCPeerConnection,
    /// Its socket, to wait on.
    pub socket: UdpSocket,
    local: SocketAddr,
    has_remote: bool,
    /// Candidates that came before the description.
    early: Vec<RTCIceCandidateInit>,
    channels: BTreeMap<String, RTCDataChannelId>,
    /// By SSRC.
    pub announced: BTreeMap<u32, Announced>,
    /// ICE and DTLS are through.
    pub connected: bool,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Peer {
    /// With a socket on loopback. `active`: it answers as DTLS client whoever asks; otherwise towards an ICE-lite server as
    /// DTLS server, which is what the `rtc` crate and pion do unasked.
    pub async fn new(active: bool) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let local = socket.local_addr()?;
        let mut engine = media_engine()?;
        // Nearest to the application: the interceptors below act on it first.
        let registry = Registry::new().with(Slot::from(14_000), feedback::ShowFeedback::default());
        let registry = register_default_interceptors(registry, &mut engine)?;
        let settings = SettingEngineBuilder::new();
        let settings = if active { settings.with_answering_dtls_role(RTCDtlsRole::Client) } else { settings };
        let settings = settings.build();
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_setting_engine(settings)
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(engine)
            .with_interceptor_registry(registry)
            .build(now())?;
        let base_config = CandidateConfig {
            network: "udp".to_owned(),
            address: local.ip().to_string(),
            port: local.port(),
            component: 1,
            ..Default::default()
        };
        let candidate = CandidateHostConfig { base_config, ..Default::default() }.new_candidate_host()?;
        pc.add_local_candidate(RTCIceCandidate::from(&candidate).to_json()?)?;
        Ok(Self {
            pc,
            socket,
            local,
            has_remote: false,
            early: Vec::new(),
            channels: BTreeMap::new(),
            announced: BTreeMap::new(),
            connected: false,
        })
    }

    /// The three channels of LiveKit.
    pub fn open_channels(&mut self) -> anyhow::Result<()> {
        for (label, ordered) in [("_reliable", true), ("_lossy", false), ("_data_track", false)] {
            let init = RTCDataChannelInit { ordered, max_retransmits: (!ordered).then_some(0), ..Default::default() };
            let id = self.pc.create_data_channel(label, Some(init))?.id();
            self.channels.insert(label.to_owned(), id);
        }
        Ok(())
    }

    /// Add sections to receive in.
    pub fn receive_more(&mut self, audios: u32, videos: u32) -> anyhow::Result<()> {
        for (kind, count) in [(RtpCodecKind::Audio, audios), (RtpCodecKind::Video, videos)] {
            for _ in 0..count {
                self.pc.add_transceiver_from_kind(kind, None)?;
            }
        }
        Ok(())
    }

    /// Add a sending section for a track.
    pub fn publish(&mut self, cid: &str, is_video: bool, encodings: &[Encoding]) -> anyhow::Result<RTCRtpSenderId> {
        let (kind, codec) = if is_video { (RtpCodecKind::Video, vp8()) } else { (RtpCodecKind::Audio, opus()) };
        let coding = |encoding: &Encoding| RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                rid: encoding.rid.clone().unwrap_or_default(),
                ssrc: Some(encoding.ssrc),
                ..Default::default()
            },
            codec: codec.rtp_codec.clone(),
            ..Default::default()
        };
        let codings: Vec<_> = encodings.iter().map(coding).collect();
        let track = MediaStreamTrack::new(format!("s-{cid}"), cid.to_owned(), cid.to_owned(), kind, codings.clone());
        let init = RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Sendonly,
            streams: vec![],
            send_encodings: codings,
        };
        let id: RTCRtpTransceiverId = self.pc.add_transceiver_from_track(track, Some(init))?;
        let transceiver = self.pc.rtp_transceiver(id).context("the transceiver just made")?;
        transceiver.sender().ok_or_else(|| anyhow!("a sending transceiver without a sender"))
    }

    /// Stop sending a track.
    pub fn unpublish(&mut self, sender: RTCRtpSenderId) -> anyhow::Result<()> {
        Ok(self.pc.remove_track(sender)?)
    }

    /// What negotiation decided about a track, once it has.
    pub fn wiring(&mut self, sender: RTCRtpSenderId, is_video: bool) -> Option<Wiring> {
        let mid = self.mid_of(sender)?;
        let mut sender = self.pc.rtp_sender(sender)?;
        let parameters = &sender.get_parameters().rtp_parameters;
        let mime = if is_video { MIME_TYPE_VP8 } else { MIME_TYPE_OPUS };
        let payload_type =
            parameters.codecs.iter().find(|c| c.rtp_codec.mime_type.eq_ignore_ascii_case(mime))?.payload_type;
        let id = |uri: &str| {
            let found = parameters.header_extensions.iter().find(|e| e.uri == uri);
            found.and_then(|e| u8::try_from(e.id).ok())
        };
        Some(Wiring { payload_type, mid: id(MID).zip(Some(mid)), rid: id(RID), level: id(LEVEL) })
    }

    fn mid_of(&mut self, sender: RTCRtpSenderId) -> Option<String> {
        let ids: Vec<_> = self.pc.get_transceivers().collect();
        ids.into_iter().find_map(|id| {
            let transceiver = self.pc.rtp_transceiver(id)?;
            (transceiver.sender() == Some(sender)).then(|| transceiver.mid().clone()).flatten()
        })
    }

    /// Offer; with `restart`, with new ICE credentials.
    pub fn offer(&mut self, restart: bool) -> anyhow::Result<String> {
        let offer = self.pc.create_offer(Some(RTCOfferOptions { ice_restart: restart }))?;
        self.pc.set_local_description(now(), offer)?;
        self.local_sdp()
    }

    /// Take the server's offer and answer it.
    pub fn answer_to(&mut self, offer: &str) -> anyhow::Result<String> {
        self.pc.set_remote_description(now(), RTCSessionDescription::offer(offer.to_owned())?)?;
        self.after_remote(offer, &BTreeMap::new())?;
        let answer = self.pc.create_answer(None)?;
        self.pc.set_local_description(now(), answer)?;
        self.local_sdp()
    }

    /// Take the server's answer; `tracks` names the track of each mid.
    pub fn accept(&mut self, answer: &str, tracks: &BTreeMap<String, String>) -> anyhow::Result<()> {
        self.pc.set_remote_description(now(), RTCSessionDescription::answer(answer.to_owned())?)?;
        self.after_remote(answer, tracks)
    }

    /// Our description as it stands.
    pub fn local_sdp(&self) -> anyhow::Result<String> {
        Ok(self.pc.local_description().context("no local description")?.sdp)
    }

    fn after_remote(&mut self, sdp: &str, tracks: &BTreeMap<String, String>) -> anyhow::Result<()> {
        self.has_remote = true;
        self.announced = announced(sdp, tracks);
        for candidate in std::mem::take(&mut self.early) {
            self.pc.add_remote_candidate(candidate)?;
        }
        Ok(())
    }

    /// A candidate by trickle (JSON).
    pub fn candidate(&mut self, json: &str) -> anyhow::Result<()> {
        let candidate: RTCIceCandidateInit = serde_json::from_str(json).context("candidateInit")?;
        // The socket is UDP; the `rtc` crate would try to dial TCP through it.
        if candidate.candidate.to_ascii_lowercase().contains(" tcp ") {
            return Ok(());
        }
        if self.has_remote {
            self.pc.add_remote_candidate(candidate)?;
        } else {
            self.early.push(candidate);
        }
        Ok(())
    }

    /// Send a packet of a published track.
    pub fn send_rtp(&mut self, sender: RTCRtpSenderId, packet: rtc::rtp::Packet) -> anyhow::Result<()> {
        let mut sender = self.pc.rtp_sender(sender).context("no such sender")?;
        Ok(sender.write_rtp(now(), packet)?)
    }

    /// `false`: the channel is not open.
    pub fn send_data(&mut self, label: &str, data: &[u8]) -> bool {
        let Some(id) = self.channels.get(label) else { return false };
        self.pc.data_channel(*id).is_some_and(|mut channel| channel.send(now(), data.into()).is_ok())
    }

    /// When [`Self::timeout`] wants to be called.
    pub fn deadline(&mut self) -> Option<Instant> {
        self.pc.poll_timeout()
    }

    /// Do what is due.
    pub fn timeout(&mut self) {
        // It reports what went wrong by its events.
        let _ = self.pc.handle_timeout(now());
    }

    /// Take a datagram.
    pub fn datagram(&mut self, from: SocketAddr, datagram: &[u8]) {
        let transport = TransportContext {
            local_addr: self.local,
            peer_addr: from,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        let _ = self.pc.handle_read(TaggedBytesMut { now: now(), transport, message: datagram.into() });
    }

    /// Send what is to be sent and collect what happened.
    pub async fn pump(&mut self, events: &mut Vec<PeerEvent>) {
        while let Some(message) = self.pc.poll_write() {
            // A failure is a lost datagram.
            let _ = self.socket.send_to(&message.message, message.transport.peer_addr).await;
        }
        while let Some(event) = self.pc.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(RTCPeerConnectionState::Connected) => {
                    self.connected = true;
                    events.push(PeerEvent::Connected);
                }
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(RTCPeerConnectionState::Failed) => {
                    events.push(PeerEvent::Failed);
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) => {
                    if let Some(label) = self.pc.data_channel(id).map(|channel| channel.label().to_owned()) {
                        self.channels.insert(label.clone(), id);
                        events.push(PeerEvent::ChannelOpen(label));
                    }
                }
                _ => {}
            }
        }
        while let Some(message) = self.pc.poll_read() {
            match message.message {
                RTCMessage::RtpPacket(_, packet) => events.push(PeerEvent::Rtp(packet)),
                RTCMessage::RtcpPacket(_, packets) => {
                    for packet in packets {
                        if let Some(pli) = packet.as_any().downcast_ref::<PictureLossIndication>() {
                            events.push(PeerEvent::KeyFrameWanted(pli.media_ssrc));
                        } else if let Some(fir) = packet.as_any().downcast_ref::<FullIntraRequest>() {
                            events.extend(fir.fir.iter().map(|entry| PeerEvent::KeyFrameWanted(entry.ssrc)));
                        }
                    }
                }
                RTCMessage::DataChannelMessage(id, message) => {
                    if let Some(label) = self.channels.iter().find(|(_, i)| **i == id).map(|(label, _)| label) {
                        events.push(PeerEvent::Data(label.clone(), message.data));
                    }
                }
                _ => {}
            }
        }
    }
}

/// The `rtc` crate wants the time as std has it.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// SSRCs of a description and the track each belongs to: by msid, else by the mid.
fn announced(sdp: &str, tracks: &BTreeMap<String, String>) -> BTreeMap<u32, Announced> {
    let mut found = BTreeMap::new();
    for section in sdp.split("\r\nm=").skip(1) {
        let value = |name: &str| section.lines().find_map(|line| line.strip_prefix(name));
        let msid = value("a=msid:").unwrap_or_default();
        let (stream, id) = msid.split_once(' ').unwrap_or((msid, ""));
        let by_stream = stream.split_once('|').map(|(_, track)| track).filter(|track| track.starts_with("TR"));
        let by_mid = value("a=mid:").and_then(|mid| tracks.get(mid)).map(String::as_str);
        let by_id = id.starts_with("TR").then_some(id);
        let Some(track) = by_stream.or(by_id).or(by_mid) else { continue };
        let announced = Announced { track: track.to_owned(), is_video: section.starts_with("video") };
        let rtx: Vec<&str> = section
            .lines()
            .filter_map(|line| line.strip_prefix("a=ssrc-group:FID "))
            .filter_map(|group| group.split(' ').nth(1))
            .collect();
        for line in section.lines().filter_map(|line| line.strip_prefix("a=ssrc:")) {
            let ssrc = line.split(' ').next().unwrap_or_default();
            if let Ok(number) = ssrc.parse()
                && !rtx.contains(&ssrc)
            {
                found.insert(number, announced.clone());
            }
        }
    }
    found
}

fn media_engine() -> anyhow::Result<MediaEngine> {
    let mut engine = MediaEngine::default();
    engine.register_codec(opus(), RtpCodecKind::Audio)?;
    engine.register_codec(vp8(), RtpCodecKind::Video)?;
    for (uri, kinds) in [
        (MID, &[RtpCodecKind::Audio, RtpCodecKind::Video][..]),
        (LEVEL, &[RtpCodecKind::Audio]),
        (RID, &[RtpCodecKind::Video]),
    ] {
        for kind in kinds {
            engine.register_header_extension(RTCRtpHeaderExtensionCapability { uri: uri.to_owned() }, *kind, None)?;
        }
    }
    Ok(engine)
}

fn opus() -> RTCRtpCodecParameters {
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: MIME_TYPE_OPUS.to_owned(),
            clock_rate: 48_000,
            channels: 2,
            sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
            rtcp_feedback: vec![],
        },
        payload_type: 111,
    }
}

fn vp8() -> RTCRtpCodecParameters {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: MIME_TYPE_VP8.to_owned(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: String::new(),
            rtcp_feedback: vec![feedback("ccm", "fir"), feedback("nack", ""), feedback("nack", "pli")],
        },
        payload_type: 96,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::receive::Receiver;
    use crate::send::Source;

    /// Let two peers talk until `done`.
    async fn talk(
        near: &mut Peer,
        far: &mut Peer,
        mut done: impl FnMut(&mut Peer, Vec<PeerEvent>, Vec<PeerEvent>) -> bool,
    ) {
        let deadline = now() + Duration::from_secs(10);
        let mut buffer = [0; 2_048];
        while now() < deadline {
            let (mut of_near, mut of_far) = (Vec::new(), Vec::new());
            for (peer, events) in [(&mut *near, &mut of_near), (&mut *far, &mut of_far)] {
                while let Ok((length, from)) = peer.socket.try_recv_from(&mut buffer) {
                    peer.datagram(from, &buffer[..length]);
                }
                if peer.deadline().is_some_and(|at| at <= now()) {
                    peer.timeout();
                }
                peer.pump(events).await;
            }
            if done(near, of_near, of_far) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("not done in time");
    }

    #[tokio::test]
    async fn frames_and_messages_arrive_as_sent_and_simulcast_is_offered() {
        let (mut near, mut far) = (Peer::new(true).await.unwrap(), Peer::new(true).await.unwrap());
        near.open_channels().unwrap();
        near.receive_more(1, 1).unwrap();
        let voice = vec![Encoding::new(0x1001, None, (0, 0), 0)];
        let video = vec![Encoding::new(0x2001, None, (320, 180), 300_000)];
        let layers: Vec<Encoding> = [("q", 1), ("h", 2), ("f", 3)]
            .map(|(rid, n)| Encoding::new(0x3000 + n, Some(rid.to_owned()), (320, 180), 100_000))
            .into();
        let senders = [
            (near.publish("mic", false, &voice).unwrap(), "mic", voice, None),
            (near.publish("cam", true, &video).unwrap(), "cam", video, Some(30)),
            (near.publish("big", true, &layers).unwrap(), "big", layers, Some(30)),
        ];
        let offer = near.offer(false).unwrap();
        assert!(offer.contains("a=simulcast:send q;h;f"), "{offer}");
        assert!(offer.contains("a=candidate:"), "{offer}");
        let answer = far.answer_to(&offer).unwrap();
        near.accept(&answer, &BTreeMap::new()).unwrap();
        let mut sources: Vec<Source> = senders
            .into_iter()
            .map(|(sender, cid, encodings, fps)| {
                let is_video = fps.is_some();
                let mut source = Source::new(String::new(), cid.to_owned(), "me", sender, encodings, fps, now());
                source.wiring = near.wiring(sender, is_video);
                assert!(source.wiring.as_ref().is_some_and(|w| w.mid.is_some()), "{cid}: {:?}", source.wiring);
                source
            })
            .collect();
        let mut receivers: BTreeMap<u32, Receiver> = BTreeMap::new();
        let (mut open, mut message) = (0, None);
        talk(&mut near, &mut far, |near, of_near, of_far| {
            open += of_near.iter().filter(|e| matches!(e, PeerEvent::ChannelOpen(_))).count();
            if open == 3 && message.is_none() {
                assert!(near.send_data("_reliable", &[7; 5_000]));
                open = 0;
            }
            for source in &mut sources {
                for packet in source.packets(now()) {
                    let _ = near.send_rtp(source.sender, packet);
                }
            }
            for event in of_far {
                match event {
                    PeerEvent::Rtp(packet) => {
                        let ssrc = packet.header.ssrc;
                        receivers.entry(ssrc).or_insert_with(|| Receiver::new(ssrc > 0x2000)).handle(&packet);
                    }
                    PeerEvent::Data(label, data) => message = Some((label, data)),
                    _ => {}
                }
            }
            message.is_some() && receivers.len() == 5 && receivers.values().all(|r| r.seen.frames > 20)
        })
        .await;
        assert_eq!(message, Some(("_reliable".to_owned(), BytesMut::from(&[7; 5_000][..]))));
        for (ssrc, receiver) in receivers {
            assert_eq!((receiver.seen.wrong, receiver.seen.picture_id_jumps), (0, 0), "{ssrc:x}: {receiver:?}");
        }
    }
}
