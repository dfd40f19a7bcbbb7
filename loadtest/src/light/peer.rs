//! One light participant's media path: a connected UDP socket, ICE checks as the controlling side, DTLS as the client,
//! SRTP (AES-128-GCM) in both directions.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use bytes::BytesMut;
use rtc_dtls::config::{ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::{RTCCryptoProvider, default_provider};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use rtc_stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, BINDING_SUCCESS as SUCCESS, Message, Setter, TransactionId};
use rtc_stun::xoraddr::XorMappedAddress;

use crate::light::offer::{Local, Remote};

/// First octets of a successful answer to a check.
const BINDING_SUCCESS: [u8; 2] = [1, 1];
/// Those of a check.
const BINDING: [u8; 2] = [0, 1];
/// Checks until one is answered, and then to keep consent (RFC 7675).
const CHECK_AGAIN: Duration = Duration::from_millis(100);
const CONSENT: Duration = Duration::from_millis(2_500);
/// A far end that checks takes no handshake before it has settled on a path; what comes earlier is repeated a second
/// later only.
const SETTLE: Duration = Duration::from_millis(40);
/// Key and salt of AES-128-GCM.
const KEY: usize = 16;
const SALT: usize = 12;
/// The endpoint tells connections apart by address; each of ours has one.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// What all participants of a process share: one certificate.
pub struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    config: Arc<HandshakeConfig>,
    /// SHA-256 of the certificate as descriptions write it.
    pub fingerprint: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Identity {
    /// A fresh one.
    pub fn new() -> anyhow::Result<Self> {
        let provider = default_provider()?;
        let certificate = Certificate::generate_self_signed(vec!["light".to_owned()], provider.crypto())?;
        let der = certificate.certificate.first().context("an empty certificate")?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let hex: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let config = ConfigBuilder::default()
            .with_crypto_provider(Arc::clone(&provider))
            .with_certificates(vec![certificate])
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            // Load, not security, is what is tested.
            .with_insecure_skip_verify(true)
            .with_mtu(1_200)
            .build(true, None)?;
        Ok(Self { provider, config: Arc::new(config), fingerprint: hex.join(":") })
    }
}

/// Keys of a connected peer.
struct Keys {
    open: Context,
    seal: Context,
}

/// What a datagram was.
#[derive(Debug)]
pub enum Got {
    /// Nothing for the caller.
    Nothing,
    /// SRTP is up.
    Connected,
    /// The far end ended DTLS.
    Closed,
    /// An opened RTP packet.
    Rtp(BytesMut),
    /// An opened compound RTCP packet.
    Rtcp(BytesMut),
    /// A packet that did not open.
    Unauthentic,
}

/// Which end of ICE we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The far end is lite (RFC 8445, 2.5): it only answers checks, and we choose.
    TowardsLite,
    /// The far end checks too, and we choose.
    Controlling,
    /// The far end checks too, and chooses.
    Controlled,
}

/// The path.
pub struct Peer {
    /// Connected to the server; not blocking.
    pub socket: UdpSocket,
    identity: Arc<Identity>,
    check: CheckText,
    role: Role,
    /// What checks of the far end are answered with.
    our_password: String,
    /// The far end has checked this path, where it does so at all.
    checked: bool,
    checks: u32,
    next_check: Instant,
    reachable: bool,
    shaking: bool,
    shake_at: Instant,
    endpoint: Endpoint,
    keys: Option<Keys>,
}

/// What goes into every check.
struct CheckText {
    username: String,
    password: String,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("socket", &self.socket)
            .field("connected", &self.keys.is_some())
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// Towards the first IPv4 candidate of `remote`.
    pub fn new(identity: &Arc<Identity>, local: &Local, remote: &Remote, now: Instant) -> anyhow::Result<Self> {
        let to = remote.candidates.iter().find(|c| c.is_ipv4()).context("the server has no IPv4 candidate over UDP")?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            identity: Arc::clone(identity),
            check: CheckText {
                username: format!("{}:{}", remote.ufrag, local.ufrag),
                password: remote.password.clone(),
            },
            role: Role::TowardsLite,
            our_password: local.password.clone(),
            checked: true,
            checks: 0,
            next_check: now,
            reachable: false,
            shaking: false,
            shake_at: now,
            endpoint: Endpoint::new(SERVER, TransportProtocol::UDP, None),
            keys: None,
        })
    }

    /// The same towards a far end that is not lite; the handshake waits until it has checked the path.
    #[must_use]
    pub fn as_full(self, role: Role) -> Self {
        Self { role, checked: role == Role::TowardsLite, ..self }
    }

    /// Checks and retransmissions of the handshake that are due.
    pub fn tick(&mut self, now: Instant) -> anyhow::Result<()> {
        if now >= self.next_check {
            self.next_check = now + if self.reachable { CONSENT } else { CHECK_AGAIN };
            let check = self.write_check()?;
            // One that does not go out is repeated.
            let _ = self.socket.send(&check);
        }
        self.shake(now)?;
        if self.keys.is_none() && self.endpoint.poll_timeout(&SERVER).is_some_and(|due| due <= now) {
            self.endpoint.handle_timeout(SERVER, now)?;
            self.send_dtls();
        }
        Ok(())
    }

    /// Begin the handshake once the path is there.
    fn shake(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.reachable && self.checked && !self.shaking && now >= self.shake_at {
            self.shaking = true;
            self.endpoint.connect(now, SERVER, Arc::clone(&self.identity.config), None)?;
            self.send_dtls();
        }
        Ok(())
    }

    fn write_check(&mut self) -> anyhow::Result<Vec<u8>> {
        self.checks += 1;
        let mut id = [7; 12];
        id[..4].copy_from_slice(&self.checks.to_be_bytes());
        let mut message = Message::new();
        message.build(&[Box::new(BINDING_REQUEST), Box::new(TransactionId(id))])?;
        message.add(ATTR_USERNAME, self.check.username.as_bytes());
        message.add(ATTR_PRIORITY, &[110, 127, 255, 255]);
        if self.role == Role::Controlled {
            message.add(ATTR_ICE_CONTROLLED, &[3; 8]);
        } else {
            message.add(ATTR_ICE_CONTROLLING, &[3; 8]);
            message.add(ATTR_USE_CANDIDATE, &[]);
        }
        let crypto = self.identity.provider.crypto();
        let password = self.check.password.clone();
        MessageIntegrity::new_short_term_integrity_with_provider(password, crypto).add_to(&mut message)?;
        FINGERPRINT.add_to(&mut message)?;
        Ok(message.raw)
    }

    /// Take a datagram.
    pub fn handle(&mut self, now: Instant, datagram: &mut [u8]) -> anyhow::Result<Got> {
        match datagram {
            [0..=3, ..] => self.handle_stun(now, datagram),
            [20..=63, ..] => self.handle_dtls(now, datagram),
            [128..=191, kind, ..] => {
                let is_rtcp = (192..=223).contains(kind);
                let Some(keys) = &mut self.keys else { return Ok(Got::Nothing) };
                let opened = if is_rtcp { keys.open.decrypt_rtcp(datagram) } else { keys.open.decrypt_rtp(datagram) };
                Ok(match opened {
                    Ok(packet) if is_rtcp => Got::Rtcp(packet),
                    Ok(packet) => Got::Rtp(packet),
                    Err(_) => Got::Unauthentic,
                })
            }
            _ => Ok(Got::Nothing),
        }
    }

    fn handle_stun(&mut self, now: Instant, datagram: &[u8]) -> anyhow::Result<Got> {
        if datagram.starts_with(&BINDING_SUCCESS) && !self.reachable {
            self.reachable = true;
            self.next_check = now + CONSENT;
        } else if datagram.starts_with(&BINDING) && self.role != Role::TowardsLite {
            self.answer(datagram)?;
            if !self.checked {
                self.checked = true;
                self.shake_at = now + SETTLE;
            }
        }
        self.shake(now)?;
        Ok(Got::Nothing)
    }

    /// Answer a check of the far end.
    fn answer(&self, check: &[u8]) -> anyhow::Result<()> {
        let id: [u8; 12] = *check.get(8..).and_then(|rest| rest.first_chunk()).context("a short check")?;
        let from = self.socket.peer_addr()?;
        let mut message = Message::new();
        message.build(&[Box::new(SUCCESS), Box::new(TransactionId(id))])?;
        XorMappedAddress { ip: from.ip(), port: from.port() }.add_to(&mut message)?;
        let crypto = self.identity.provider.crypto();
        MessageIntegrity::new_short_term_integrity_with_provider(self.our_password.clone(), crypto)
            .add_to(&mut message)?;
        FINGERPRINT.add_to(&mut message)?;
        // One that is lost is asked for again.
        let _ = self.socket.send(&message.raw);
        Ok(())
    }

    fn handle_dtls(&mut self, now: Instant, datagram: &[u8]) -> anyhow::Result<Got> {
        let mut got = Got::Nothing;
        for event in self.endpoint.read(now, SERVER, None, BytesMut::from(datagram))? {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let [open, seal] = self.export()?;
                    self.keys = Some(Keys { open, seal });
                    got = Got::Connected;
                }
                EndpointEvent::PeerClosed => got = Got::Closed,
                _ => {}
            }
        }
        self.send_dtls();
        Ok(got)
    }

    /// Contexts to open what comes and to seal what goes.
    fn export(&self) -> anyhow::Result<[Context; 2]> {
        let state = self.endpoint.get_connection_state(SERVER).context("no connection")?;
        if state.srtp_protection_profile() != SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm {
            bail!("the server does not speak SRTP with AES-128-GCM");
        }
        let material = state.export_keying_material("EXTRACTOR-dtls_srtp", &[], 2 * (KEY + SALT));
        let material = material.map_err(|error| anyhow!("no keying material: {error:?}"))?;
        let material = material.as_ref();
        let part = |from: usize, length: usize| material.get(from..from + length).context("too little keying material");
        let context = |key: usize| {
            let (key, salt) = (part(key * KEY, KEY)?, part(2 * KEY + key * SALT, SALT)?);
            let crypto = self.identity.provider.crypto();
            Ok::<_, anyhow::Error>(Context::new(key, salt, ProtectionProfile::AeadAes128Gcm, None, None, crypto)?)
        };
        Ok([context(1)?, context(0)?])
    }

    /// A context of its own to seal RTP with, on another thread. RTCP is sealed here.
    pub fn sealer(&self) -> anyhow::Result<Context> {
        let [_, seal] = self.export()?;
        Ok(seal)
    }

    /// Seal and send a compound RTCP packet.
    pub fn send_rtcp(&mut self, packet: &[u8]) {
        if let Some(keys) = &mut self.keys
            && let Ok(sealed) = keys.seal.encrypt_rtcp(packet)
        {
            // Lost, as on a network.
            let _ = self.socket.send(&sealed);
        }
    }

    fn send_dtls(&mut self) {
        while let Some(message) = self.endpoint.poll_transmit() {
            // Repeated by the handshake when lost.
            let _ = self.socket.send(&message.message);
        }
    }
}
