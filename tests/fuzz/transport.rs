//! Bodies for what a transport takes from the network: STUN, DTLS, SRTP, SCTP.
//!
//! Authenticated layers are fuzzed from the inside: the body does what an authenticated but hostile far end can do, so
//! that mutations get past checksums and tags.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests; cargo-fuzz targets take the bodies from here")]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::{digest, hmac};
use bytes::BytesMut;
use rtc_dtls::config::{ConfigBuilder, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::default_provider;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_sctp::{ClientConfig, DatagramEvent, EndpointConfig, Payload, TransportConfig};
use rtc_shared::TransportProtocol;
use weir::base::{DropReason, Instant};
use weir::shard::outbox::Outbox;
use weir::transport::params::{DtlsRole, Fingerprint, IceCredentials, RemoteParams, TransportParams};
use weir::transport::route::Route;
use weir::transport::srtp::{Profile, Srtp};
use weir::transport::{Config, DtlsIdentity, Transport, TransportTable, generate_identity};

const PASSWORD: &str = "the local password 0123";
const FAR_END: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);
const NOW: Instant = Instant::from_millis(1000);

#[expect(clippy::disallowed_methods, reason = "any moment will do")]
static ANCHOR: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
static IDENTITY: LazyLock<Arc<DtlsIdentity>> =
    LazyLock::new(|| Arc::new(DtlsIdentity::new(&generate_identity().unwrap(), *ANCHOR).unwrap()));
/// The far end's configuration and fingerprint.
static CLIENT: LazyLock<(Arc<HandshakeConfig>, Fingerprint)> = LazyLock::new(|| {
    let provider = default_provider().unwrap();
    let certificate = Certificate::generate_self_signed(vec!["c".to_owned()], provider.crypto()).unwrap();
    let print = digest::digest(&digest::SHA256, &certificate.certificate[0]);
    let config = ConfigBuilder::default()
        .with_crypto_provider(provider)
        .with_certificates(vec![certificate])
        .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
        .with_insecure_skip_verify(true)
        .build(true, None)
        .unwrap();
    (Arc::new(config), Fingerprint(print.as_ref().try_into().unwrap()))
});

fn route() -> Route {
    Route::Udp { local: ([127, 0, 0, 1], 7882).into(), remote: ([10, 0, 0, 9], 1).into() }
}

fn std_now() -> std::time::Instant {
    *ANCHOR + std::time::Duration::from_nanos(NOW.as_nanos())
}

fn transport() -> Transport {
    let params = TransportParams {
        local: IceCredentials { ufrag: "local".into(), pwd: PASSWORD.into() },
        remote: Some(RemoteParams { ufrag: "remote".into(), fingerprint: CLIENT.1, dtls: DtlsRole::Passive }),
        open_channels: false,
    };
    Transport::webrtc(NOW, &IDENTITY, &Config::default(), &params)
}

/// A Binding request with these attributes, signed as only the far end can.
fn signed(attributes: &[u8]) -> Vec<u8> {
    let mut packet = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    packet.extend_from_slice(attributes);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let set_length = |packet: &mut Vec<u8>, more: usize| {
        let length = u16::try_from(packet.len() - 20 + more).unwrap();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
    };
    set_length(&mut packet, 24);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, PASSWORD.as_bytes());
    let tag = hmac::sign(&key, &packet);
    packet.extend_from_slice(&[0, 8, 0, 20]);
    packet.extend_from_slice(tag.as_ref());
    set_length(&mut packet, 8);
    let crc = rtc_stun::fingerprint::fingerprint_value(&packet);
    packet.extend_from_slice(&[0x80, 0x28, 0, 4]);
    packet.extend_from_slice(&crc.to_be_bytes());
    packet
}

const USERNAME: &[u8] = &[0, 6, 0, 12, b'l', b'o', b'c', b'a', b'l', b':', b'r', b'e', b'm', b'o', b't', b'e'];

fn check() -> Vec<u8> {
    signed(&[USERNAME, &[0, 0x25, 0, 0]].concat())
}

/// STUN as anyone may send it: nothing changes, nothing is answered.
pub fn stun(data: &[u8]) {
    let mut transport = transport();
    let table = TransportTable::new(&Config::default(), 1);
    assert!(table.find_stun(data).is_err());
    let mut out = Outbox::new();
    if transport.handle_stun(NOW, route(), data, &mut out).is_err() {
        assert!(out.is_quiet() && transport.route().is_none());
    }
}

/// Attributes as the far end may sign them: an answer is no larger than the request and 32 bytes, to where it came from.
pub fn stun_signed(data: &[u8]) {
    for attributes in [data.to_vec(), [USERNAME, data].concat()] {
        let packet = signed(&attributes);
        let mut transport = transport();
        let mut out = Outbox::new();
        let result = transport.handle_stun(NOW, route(), &packet, &mut out);
        assert_eq!(result.is_ok(), transport.route().is_some());
        for (to, answer) in out.datagrams() {
            assert!(to == route() && answer.len() <= packet.len().max(96));
        }
    }
}

/// Anything as the first DTLS of a route that passed ICE, whole and in two datagrams.
pub fn dtls_first(data: &[u8]) {
    let mut transport = transport();
    let mut out = Outbox::new();
    transport.handle_stun(NOW, route(), &check(), &mut out).unwrap();
    let (head, tail) = data.split_at(data.len() / 2);
    for packet in [data, head, tail, data] {
        let _ = transport.handle_dtls(NOW, route(), packet, &mut out);
        assert!(!transport.is_connected());
    }
    let _ = transport.handle_timeout(Instant::from_millis(3000), &mut out);
}

/// SRTP and SRTCP: what is sealed opens to the same, what is not sealed does not open.
pub fn srtp(data: &[u8]) {
    for profile in [Profile::AeadAes128Gcm, Profile::Aes128CmSha1] {
        let material = vec![7; profile.exported()];
        let mut server = Srtp::new(profile, &material, false, &Config::default()).unwrap();
        let mut client = Srtp::new(profile, &material, true, &Config::default()).unwrap();
        assert!(server.open_rtp(&mut data.to_vec()).is_err());
        assert!(server.open_rtcp(&mut data.to_vec()).is_err());
        let mut sealed = Vec::new();
        if client.seal_rtcp(data, &mut sealed).is_ok() {
            match server.open_rtcp(&mut sealed) {
                Ok(len) => assert_eq!(&sealed[..len], data),
                Err(reason) => assert_eq!(reason, DropReason::MalformedRtcp),
            }
        }
        let Some(header) = weir::rtp::packet::header_length(data) else { continue };
        let index = u64::from(u16::from_be_bytes([data[2], data[3]]));
        sealed.clear();
        client.seal_rtp(index, &data[..header], &[&data[header..]], &mut sealed).unwrap();
        let opened = server.open_rtp(&mut sealed).unwrap();
        assert_eq!((&sealed[..opened.len], opened.index), (data, index));
    }
}

/// A connected transport and its far end down to the SCTP tag.
struct Connected {
    transport: Transport,
    client: Endpoint,
    tag: [u8; 4],
}

thread_local! {
    static CONNECTED: RefCell<Option<Connected>> = const { RefCell::new(None) };
}

impl Connected {
    fn new() -> Self {
        let mut transport = transport();
        let mut out = Outbox::new();
        transport.handle_stun(NOW, route(), &check(), &mut out).unwrap();
        out.clear();
        let mut client = Endpoint::new(FAR_END, TransportProtocol::UDP, None);
        client.connect(std_now(), FAR_END, Arc::clone(&CLIENT.0), None).unwrap();
        let mut sctp = rtc_sctp::Endpoint::new(FAR_END, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), None);
        let config = ClientConfig::new(TransportConfig::default());
        let (_, mut association) = sctp.connect(std_now(), config, FAR_END).unwrap();
        let mut tag = [0; 4];
        for _ in 0..12 {
            if transport.is_connected() {
                while let Some(transmit) = association.poll_transmit(std_now()) {
                    let Payload::RawEncode(packets) = transmit.message else { continue };
                    for packet in packets {
                        tag.copy_from_slice(&packet[4..8]);
                        client.write(std_now(), FAR_END, &packet).unwrap();
                    }
                }
            }
            while let Some(message) = client.poll_transmit() {
                let _ = transport.handle_dtls(NOW, route(), &message.message, &mut out).unwrap();
            }
            let _ = transport.drain_data(NOW, &mut out);
            for (_, datagram) in out.datagrams() {
                for event in client.read(std_now(), FAR_END, None, BytesMut::from(datagram)).unwrap() {
                    if let EndpointEvent::ApplicationData(data) = event
                        && let Some((_, DatagramEvent::AssociationEvent(event))) =
                            sctp.handle(std_now(), FAR_END, None, data.freeze())
                    {
                        association.handle_event(event);
                    }
                }
            }
            out.clear();
        }
        assert!(transport.is_connected() && !association.is_handshaking());
        Self { transport, client, tag }
    }

    /// Hand over an SCTP packet in a DTLS record; false when the transport closed over it.
    fn take(&mut self, packet: &[u8]) -> bool {
        self.client.write(std_now(), FAR_END, packet).unwrap();
        let mut out = Outbox::new();
        let mut closed = false;
        while let Some(message) = self.client.poll_transmit() {
            let edges = self.transport.handle_dtls(NOW, route(), &message.message, &mut out);
            closed |= edges.map_or(true, |edges| edges.closed.is_some());
        }
        while let Some((_, message)) = self.transport.poll_data() {
            let _ = self.transport.data_taken(NOW, message.len());
            let _ = self.transport.send_data(NOW, weir::shard::command::DataChannel::Reliable, &message);
        }
        let _ = self.transport.drain_data(NOW, &mut out);
        let _ = self.transport.next_timeout();
        !closed
    }
}

/// SCTP of an authenticated far end: raw, and as chunks with the right ports, tag and checksum.
pub fn sctp(data: &[u8]) {
    CONNECTED.with_borrow_mut(|slot| {
        let connected = slot.get_or_insert_with(Connected::new);
        let mut packet = vec![0x13, 0x88, 0x13, 0x88];
        packet.extend_from_slice(&connected.tag);
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(data);
        packet.resize(packet.len().next_multiple_of(4), 0);
        let crc = crc32c(&packet);
        packet[8..12].copy_from_slice(&crc.to_le_bytes());
        if !connected.take(data) || !connected.take(&packet) {
            *slot = None;
        }
    });
}

/// CRC-32C (RFC 9260, appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}
