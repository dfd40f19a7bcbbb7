//! A DTLS client of another make: `openssl s_client` with small datagrams, so that its ClientHello comes in fragments.
//!
//! Real sockets on loopback and real time; skipped where there is no openssl program.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "drives a real socket in real time")]

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rtc_dtls::crypto_provider::default_provider;
use rtc_stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};
use weir::base::Instant;
use weir::shard::outbox::Outbox;
use weir::transport::params::{DtlsRole, IceCredentials, RemoteParams, TransportParams};
use weir::transport::route::Route;
use weir::transport::{Config, DtlsIdentity, Transport, generate_identity};

const PASSWORD: &str = "the local password 0123";

struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn check() -> Vec<u8> {
    let provider = default_provider().unwrap();
    let mut message = Message::new();
    message.build(&[Box::new(BINDING_REQUEST), Box::new(TransactionId([5; 12]))]).unwrap();
    message.add(ATTR_USERNAME, b"local:remote");
    message.add(ATTR_USE_CANDIDATE, &[]);
    let integrity = MessageIntegrity::new_short_term_integrity_with_provider(PASSWORD.into(), provider.crypto());
    integrity.add_to(&mut message).unwrap();
    FINGERPRINT.add_to(&mut message).unwrap();
    message.raw
}

/// Connect with these options. Gives whether the first datagram was but a fragment of the ClientHello; `None` when there
/// is no openssl.
fn connect(options: &[&str]) -> Option<bool> {
    let anchor = std::time::Instant::now();
    let ours = Arc::new(DtlsIdentity::new(&generate_identity().unwrap(), anchor).unwrap());
    let theirs = generate_identity().unwrap();
    let folder = std::env::temp_dir().join(format!("weir-openssl-{}-{}", std::process::id(), options.len()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("certificate.der"), folder.join("key.der"));
    std::fs::write(&certificate, &theirs.certificate).unwrap();
    std::fs::write(&key, &theirs.private_key).unwrap();

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let local = socket.local_addr().unwrap();
    let client = Command::new("openssl")
        .args(["s_client", "-dtls1_2", "-connect", &local.to_string(), "-quiet", "-certform", "DER", "-keyform", "DER"])
        .args(["-use_srtp", "SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM"])
        .arg("-cert")
        .arg(&certificate)
        .arg("-key")
        .arg(&key)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(client) = client else {
        println!("no openssl program, skipped");
        return None;
    };
    let _client = Client(client);

    let fingerprint = DtlsIdentity::new(&theirs, anchor).unwrap().fingerprint();
    let params = TransportParams {
        local: IceCredentials { ufrag: "local".into(), pwd: PASSWORD.into() },
        remote: Some(RemoteParams { ufrag: "remote".into(), fingerprint, dtls: DtlsRole::Passive }),
        open_channels: false,
    };
    let mut transport = Transport::webrtc(Instant::ZERO, &ours, &Config::default(), &params);
    let mut out = Outbox::new();
    let mut datagram = [0; 2048];
    let mut fragmented = None;
    while anchor.elapsed() < Duration::from_secs(20) && !transport.is_connected() {
        let received = socket.recv_from(&mut datagram);
        let now = Instant::from_millis(u64::try_from(anchor.elapsed().as_millis()).unwrap());
        if let Ok((length, remote)) = received {
            let route = Route::Udp { local, remote };
            if transport.route().is_none() {
                transport.handle_stun(now, route, &check(), &mut out).unwrap();
                out.clear();
                // Behind the record header: length of the message and of the fragment (RFC 6347, 4.2.2).
                fragmented = Some(datagram[14..17] != datagram[22..25]);
            }
            let edges = transport.handle_dtls(now, route, &datagram[..length], &mut out).unwrap();
            assert_eq!(edges.closed, None);
        }
        if transport.next_timeout().is_some_and(|due| due <= now) {
            let _ = transport.handle_timeout(now, &mut out);
        }
        for (to, datagram) in out.datagrams() {
            let Route::Udp { remote, .. } = to else { panic!("no TCP here") };
            socket.send_to(datagram, remote).unwrap();
        }
        out.clear();
    }
    let _ = std::fs::remove_dir_all(&folder);
    assert!(transport.is_connected());
    fragmented
}

#[test]
fn openssl_connects() {
    assert_ne!(connect(&[]), Some(true));
}

#[test]
fn openssl_connects_with_a_client_hello_in_fragments() {
    let name = ["a"; 50].concat();
    let names = [name.as_str(); 4].join(".");
    assert_ne!(connect(&["-mtu", "256", "-servername", &names]), Some(false));
}
