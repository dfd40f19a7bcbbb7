//! A far end made of the same libraries, DTLS client unless told otherwise, and a path between it and a transport.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use core::time::Duration;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::default_provider;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile as Offer;
use rtc_shared::TransportProtocol;

use super::super::identity::generate_identity;
use super::super::*;
use crate::base::Rng;
use crate::transport::Transport;
use crate::transport::srtp::Profile;
use rtc_datachannel::data_channel::DataChannel as Reliability;
use rtc_datachannel::message::Message;
use rtc_datachannel::message::message_channel_ack::DataChannelAck;
use rtc_datachannel::message::message_channel_open::{ChannelType, DataChannelOpen};
use rtc_sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint as SctpEndpoint, EndpointConfig, Payload,
    PayloadProtocolIdentifier, ServerConfig, TransportConfig,
};
use rtc_shared::marshal::{Marshal, Unmarshal};

pub(super) const PASSWORD: &str = "the local password 0123";

pub(super) fn route(port: u16) -> Route {
    Route::Udp { local: ([127, 0, 0, 1], 7882).into(), remote: ([10, 0, 0, 9], port).into() }
}

pub(super) struct ClientOptions {
    pub(super) offer: Vec<Offer>,
    pub(super) mtu: usize,
    pub(super) reverse: bool,
    pub(super) remote_known: bool,
    pub(super) server_opens: bool,
    pub(super) loss_percent: u64,
    pub(super) seed: u64,
    /// It is the DTLS server: its description says `setup:passive`.
    pub(super) is_server: bool,
    /// It sends no DTLS.
    pub(super) silent: bool,
    /// It starts no association by itself and takes ours.
    pub(super) awaits_association: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            offer: vec![Offer::Srtp_Aes128_Cm_Hmac_Sha1_80, Offer::Srtp_Aead_Aes_128_Gcm],
            mtu: 1200,
            reverse: false,
            remote_known: true,
            server_opens: false,
            loss_percent: 0,
            seed: 0,
            is_server: false,
            silent: false,
            awaits_association: false,
        }
    }
}

pub(super) struct Client {
    identity: Arc<DtlsIdentity>,
    endpoint: Endpoint,
    fingerprint: Fingerprint,
    srtp: Option<(Profile, Srtp)>,
    sctp: SctpEndpoint,
    association: Option<(AssociationHandle, Association)>,
    channels: Vec<(u16, String)>,
    pub(super) received: Vec<(usize, Bytes)>,
    pub(super) closed: bool,
    reverse: bool,
    role: DtlsRole,
}

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

impl Client {
    fn new(identity: &Arc<DtlsIdentity>, options: &ClientOptions, now: Instant) -> Self {
        let provider = default_provider().unwrap();
        let certificate = Certificate::generate_self_signed(vec!["c".to_owned()], provider.crypto()).unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate.certificate[0]);
        let config = ConfigBuilder::default()
            .with_crypto_provider(provider)
            .with_certificates(vec![certificate])
            .with_srtp_protection_profiles(options.offer.clone())
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_insecure_skip_verify(true)
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            .with_mtu(options.mtu)
            .build(!options.is_server, None);
        let config = Arc::new(config.unwrap());
        let serves = options.is_server && !options.silent;
        let mut endpoint = Endpoint::new(SERVER, TransportProtocol::UDP, serves.then(|| Arc::clone(&config)));
        if !options.is_server && !options.silent {
            endpoint.connect(identity.std(now), SERVER, config, None).unwrap();
        }
        let waiting = options.awaits_association.then(|| Arc::new(ServerConfig::new(TransportConfig::default())));
        Self {
            identity: Arc::clone(identity),
            endpoint,
            fingerprint: Fingerprint(digest.as_ref().try_into().unwrap()),
            srtp: None,
            sctp: SctpEndpoint::new(SERVER, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), waiting),
            association: None,
            channels: Vec::new(),
            received: Vec::new(),
            closed: false,
            reverse: options.reverse,
            role: if options.is_server { DtlsRole::Active } else { DtlsRole::Passive },
        }
    }

    pub(super) fn remote(&self) -> RemoteParams {
        RemoteParams { ufrag: "remote".into(), fingerprint: self.fingerprint, dtls: self.role }
    }

    pub(super) fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(message) = self.endpoint.poll_transmit() {
            all.push(message.message.to_vec());
        }
        if self.reverse {
            all.reverse();
        }
        all
    }

    fn handle(&mut self, now: Instant, datagram: &[u8]) {
        let events = self.endpoint.read(self.identity.std(now), SERVER, None, BytesMut::from(datagram));
        for event in events.unwrap_or_default() {
            match event {
                EndpointEvent::HandshakeComplete => {
                    let state = self.endpoint.get_connection_state(SERVER).unwrap();
                    let profile = match state.srtp_protection_profile() {
                        Offer::Srtp_Aead_Aes_128_Gcm => Profile::AeadAes128Gcm,
                        _ => Profile::Aes128CmSha1,
                    };
                    let material = state.export_keying_material("EXTRACTOR-dtls_srtp", &[], profile.exported());
                    let is_client = self.role == DtlsRole::Passive;
                    let srtp = Srtp::new(profile, material.unwrap().as_ref(), is_client, &Config::default()).unwrap();
                    self.srtp = Some((profile, srtp));
                }
                EndpointEvent::ApplicationData(data) => self.handle_sctp(now, data.freeze()),
                EndpointEvent::PeerClosed => self.closed = true,
                _ => {}
            }
        }
    }

    fn handle_sctp(&mut self, now: Instant, packet: Bytes) {
        let Some((handle, event)) = self.sctp.handle(self.identity.std(now), SERVER, None, packet) else { return };
        let event = match event {
            DatagramEvent::NewAssociation(association) => {
                self.association = Some((handle, association));
                None
            }
            DatagramEvent::AssociationEvent(event) => Some(event),
            _ => None,
        };
        let Some((_, association)) = &mut self.association else { return };
        if let Some(event) = event {
            association.handle_event(event);
        }
        while association.poll().is_some() {}
        self.read(now);
    }

    fn read(&mut self, now: Instant) {
        let Some((_, association)) = &mut self.association else { return };
        let mut ids = association.stream_ids();
        ids.sort_unstable();
        for id in ids {
            while let Ok(Some(chunks)) = association.stream(id).unwrap().read_sctp() {
                let payload = chunks.to_payload(1 << 20).unwrap().freeze();
                if chunks.ppi != PayloadProtocolIdentifier::Dcep {
                    let at = self.channels.iter().position(|(known, _)| *known == id).unwrap();
                    self.received.push((at, payload));
                    continue;
                }
                if let Message::DataChannelOpen(open) = Message::unmarshal(&mut &payload[..]).unwrap() {
                    self.channels.push((id, String::from_utf8(open.label).unwrap()));
                    let ack = Message::DataChannelAck(DataChannelAck {}).marshal().unwrap().freeze();
                    let mut stream = association.stream(id).unwrap();
                    stream.write_chunk_with_ppi(self.identity.std(now), &ack, PayloadProtocolIdentifier::Dcep).unwrap();
                }
            }
        }
    }

    /// Put what SCTP wants sent into DTLS; run timers.
    fn work(&mut self, now: Instant) {
        let time = self.identity.std(now);
        let _ = self.endpoint.handle_timeout(SERVER, time);
        if let Some((_, association)) = &mut self.association {
            if association.poll_timeout().is_some_and(|due| due <= time) {
                association.handle_timeout(time);
            }
            while let Some(transmit) = association.poll_transmit(time) {
                if let Payload::RawEncode(packets) = transmit.message {
                    for packet in packets {
                        let _ = self.endpoint.write(time, SERVER, &packet);
                    }
                }
            }
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let sctp = self.association.as_ref().and_then(|(_, a)| a.poll_timeout());
        [self.endpoint.poll_timeout(&SERVER), sctp].into_iter().flatten().min().map(|t| self.identity.ours(t))
    }

    pub(super) fn start_sctp(&mut self, now: Instant) {
        let config = TransportConfig::default().with_max_message_size(1 << 20);
        let started = self.sctp.connect(self.identity.std(now), ClientConfig::new(config), SERVER);
        self.association = Some(started.unwrap());
    }

    pub(super) fn open_channels(&mut self, now: Instant, labels: &[&str]) {
        let (_, association) = self.association.as_mut().unwrap();
        for label in labels {
            let id = 2 * self.channels.len() as u16 + u16::from(self.role == DtlsRole::Active);
            let lossy = *label != "_reliable";
            let channel_type = if lossy { ChannelType::PartialReliableRexmitUnordered } else { ChannelType::Reliable };
            let mut stream = association.open_stream(id, PayloadProtocolIdentifier::Binary).unwrap();
            let (unordered, reliability) = Reliability::get_reliability_params(channel_type);
            stream.set_reliability_params(unordered, reliability, 0).unwrap();
            let open = Message::DataChannelOpen(DataChannelOpen {
                channel_type,
                priority: 256,
                reliability_parameter: 0,
                label: (*label).into(),
                protocol: Vec::new(),
            });
            let open = open.marshal().unwrap().freeze();
            stream.write_chunk_with_ppi(self.identity.std(now), &open, PayloadProtocolIdentifier::Dcep).unwrap();
            self.channels.push((id, (*label).to_owned()));
        }
    }

    pub(super) fn labels(&self) -> Vec<&str> {
        self.channels.iter().map(|(_, label)| label.as_str()).collect()
    }

    pub(super) fn channel_ids(&self) -> impl Iterator<Item = u16> {
        self.channels.iter().map(|(id, _)| *id)
    }

    pub(super) fn send(&mut self, now: Instant, at: usize, message: &Bytes) {
        let (_, association) = self.association.as_mut().unwrap();
        let mut stream = association.stream(self.channels[at].0).unwrap();
        stream.write_chunk_with_ppi(self.identity.std(now), message, PayloadProtocolIdentifier::Binary).unwrap();
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.endpoint.stop(self.identity.std(now), SERVER);
    }

    pub(super) fn is_established(&self) -> bool {
        self.srtp.is_some()
    }

    pub(super) fn profile(&self) -> Profile {
        self.srtp.as_ref().unwrap().0
    }

    pub(super) fn srtp(&mut self) -> &mut Srtp {
        &mut self.srtp.as_mut().unwrap().1
    }
}

/// A transport of ours, its far end, and the path between.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) server: Transport,
    pub(super) client: Client,
    pub(super) out: Outbox,
    /// All that the server reported.
    pub(super) edges: Edges,
    pub(super) received: Vec<(DataChannel, Bytes)>,
    pub(super) take_data: bool,
    pub(super) loss_percent: u64,
    rng: Rng,
}

impl Pair {
    pub(super) fn new(options: ClientOptions) -> Self {
        let now = Instant::from_millis(1000);
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let anchor = std::time::Instant::now();
        let identity = Arc::new(DtlsIdentity::new(&generate_identity().unwrap(), anchor).unwrap());
        let client = Client::new(&identity, &options, now);
        let params = TransportParams {
            local: IceCredentials { ufrag: "local".into(), pwd: PASSWORD.into() },
            remote: options.remote_known.then(|| client.remote()),
            open_channels: options.server_opens,
        };
        Self {
            now,
            server: Transport::webrtc(now, &identity, &Config::default(), &params),
            client,
            out: Outbox::new(),
            edges: Edges::NONE,
            received: Vec::new(),
            take_data: true,
            loss_percent: options.loss_percent,
            rng: Rng::new(options.seed),
        }
    }

    /// An authentic check by `route`.
    pub(super) fn check(&mut self, route: Route, use_candidate: bool) {
        let check = crate::transport::ice::tests::check("local:remote", PASSWORD, use_candidate, false);
        self.server.handle_stun(self.now, route, &check, &mut self.out).unwrap();
        // The answer to the check is of no interest, a ClientHello behind it is.
        let dtls: Vec<_> = self.out.datagrams().filter(|(_, d)| d[0] >= 20).map(|(_, d)| d.to_vec()).collect();
        self.out.clear();
        for datagram in dtls {
            if !self.lost() {
                self.client.handle(self.now, &datagram);
            }
        }
    }

    pub(super) fn connect(&mut self) {
        self.check(route(1), true);
        self.pump();
        assert!(self.edges.connected && self.server.is_connected() && self.client.is_established());
    }

    fn lost(&mut self) -> bool {
        self.rng.below(100) < self.loss_percent
    }

    fn take(&mut self, edges: Edges) {
        self.edges = self.edges.and(edges);
        while let Some(message) = self.server.poll_data() {
            let bytes = message.1.len();
            self.received.push(message);
            if self.take_data {
                let edges = self.server.data_taken(self.now, bytes);
                self.edges = self.edges.and(edges);
            }
        }
    }

    pub(super) fn deliver_to_client(&mut self) {
        let datagrams: Vec<Vec<u8>> = self.out.datagrams().map(|(_, datagram)| datagram.to_vec()).collect();
        self.out.clear();
        for datagram in datagrams {
            if !self.lost() {
                self.client.handle(self.now, &datagram);
            }
        }
    }

    /// Let the client say what it has to say, once.
    pub(super) fn pump_client(&mut self) -> bool {
        self.client.work(self.now);
        let datagrams: VecDeque<_> = self.client.datagrams().into();
        let any = !datagrams.is_empty();
        for datagram in datagrams {
            if self.lost() {
                continue;
            }
            let from = self.server.route().unwrap_or_else(|| route(1));
            if let Ok(edges) = self.server.handle_dtls(self.now, from, &datagram, &mut self.out) {
                self.take(edges);
            }
        }
        any
    }

    /// Until both are quiet.
    pub(super) fn pump(&mut self) {
        for _ in 0..10_000 {
            let any = self.pump_client();
            if self.server.wants_drain() {
                let edges = self.server.drain_data(self.now, &mut self.out);
                self.take(edges);
            }
            let quiet = self.out.is_quiet();
            self.deliver_to_client();
            if !any && quiet {
                return;
            }
        }
        panic!("they talk for ever");
    }

    /// Let time pass, with all timers of both.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.pump();
            let due = [self.server.next_timeout(), self.client.next_timeout()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due).max(self.now + Duration::from_micros(1));
            let edges = self.server.handle_timeout(self.now, &mut self.out);
            self.take(edges);
        }
        self.now = end;
        let edges = self.server.handle_timeout(self.now, &mut self.out);
        self.take(edges);
    }

    /// As [`Self::run`], with consent checks.
    pub(super) fn keep_alive_until(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.edges.closed.is_none() {
            self.check(route(1), true);
            self.run(Duration::from_millis(2500));
        }
    }

    /// The client's first flight arrives and nothing else of it.
    pub(super) fn client_hello_only(&mut self) {
        for datagram in self.client.datagrams() {
            let handled = self.server.handle_dtls(self.now, route(1), &datagram, &mut self.out);
            assert!(handled.unwrap().is_none());
        }
        self.out.clear();
        self.loss_percent = 100;
    }

    /// A message on the reliable channel, both ways.
    pub(super) fn exchange_message(&mut self) {
        if self.client.channels.is_empty() {
            self.client.start_sctp(self.now);
            self.pump();
            self.client.open_channels(self.now, &["_reliable", "_lossy"]);
            self.pump();
        }
        let message = Bytes::from_static(b"hello");
        self.client.send(self.now, 0, &message);
        assert!(self.server.send_data(self.now, DataChannel::Reliable, &message).unwrap().is_none());
        self.pump();
        assert_eq!(self.received.pop(), Some((DataChannel::Reliable, message.clone())));
        assert_eq!(self.client.received.pop(), Some((0, message)));
    }
}
