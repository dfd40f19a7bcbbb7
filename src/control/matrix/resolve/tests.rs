//! Nothing goes to a forbidden address, whatever the name leads to; and what is allowed is found as specified.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may fail by panicking")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use signalling::matrix::request::OpenIdToken;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::openid::{OpenId, OpenIdError, trusted_client};
use super::*;

/// Answers from a table; a name that is asked again may get another answer, as in DNS rebinding.
#[derive(Debug, Default)]
struct Scripted {
    addresses: BTreeMap<String, Vec<Vec<IpAddr>>>,
    services: BTreeMap<String, Vec<(String, u16)>>,
    asked: AtomicU32,
}

impl Scripted {
    fn with(names: &[(&str, &[&str])]) -> Self {
        let address = |text: &&str| vec![text.parse::<IpAddr>().unwrap()];
        let addresses = names.iter().map(|(n, ips)| ((*n).to_owned(), ips.iter().map(address).collect())).collect();
        Self { addresses, ..Self::default() }
    }
}

impl Dns for Scripted {
    fn addresses<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Vec<IpAddr>> {
        let turn = usize::try_from(self.asked.fetch_add(1, Ordering::Relaxed)).unwrap();
        let answers = self.addresses.get(host).cloned().unwrap_or_default();
        Box::pin(async move { answers.get(turn.min(answers.len().saturating_sub(1))).cloned().unwrap_or_default() })
    }
    fn services<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Vec<(String, u16)>> {
        let answer = self.services.get(name).cloned().unwrap_or_default();
        Box::pin(async move { answer })
    }
}

/// An authority, and servers that speak TLS with its certificates and answer with scripted bytes.
struct World {
    issuer: Issuer<'static, KeyPair>,
    authority: Certificate,
}

struct Site {
    port: u16,
    connections: Arc<AtomicU32>,
}

impl World {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        Self { authority: Certificate::from_pem(own.pem().as_bytes()).unwrap(), issuer: Issuer::new(params, key) }
    }

    /// A TLS server for a host name; `answer` gives the whole response to a request's first line, or nothing at all.
    async fn site(&self, host: &str, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Site {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicU32::new(0));
        let (counter, answer) = (connections.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = vec![0; 4096];
                    let length = stream.read(&mut head).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&head[..length]).into_owned();
                    let _ = stream.write_all(&answer(&text)).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Site { port, connections }
    }

    fn federation(&self, dns: Scripted, allowed: &[&str]) -> Arc<Federation> {
        let allowed = allowed.iter().map(|block| block.parse().unwrap()).collect();
        Arc::new(Federation::new(Arc::new(dns), allowed, vec![self.authority.clone()]))
    }
}

fn ok(json: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{json}", json.len()).into_bytes()
}

fn openid(federation: Arc<Federation>) -> OpenId {
    OpenId::new(BTreeMap::new(), trusted_client(&[]).unwrap(), Duration::from_secs(1), federation)
}

fn token(server: &str) -> OpenIdToken {
    OpenIdToken { access_token: "secret".to_owned(), matrix_server_name: server.to_owned() }
}

#[tokio::test]
async fn asks_no_forbidden_address_however_it_is_written() {
    let world = World::new();
    let site = world.site("evil.example", |_| ok(r#"{"sub":"@a:evil.example"}"#)).await;
    let names = [
        format!("127.0.0.1:{}", site.port),
        format!("[::1]:{}", site.port),
        format!("[::ffff:127.0.0.1]:{}", site.port),
        format!("localhost:{}", site.port),
        format!("loop.example:{}", site.port),
        format!("mapped.example:{}", site.port),
        "loop.example".to_owned(),
        "169.254.169.254".to_owned(),
        "metadata.example:80".to_owned(),
        "10.0.0.1:8448".to_owned(),
        "224.0.0.1".to_owned(),
        "0.0.0.0:8448".to_owned(),
        "2130706433".to_owned(),
        "0x7f000001".to_owned(),
        "127.1".to_owned(),
        "a.example:22".to_owned(),
        "user@a.example".to_owned(),
        "a.example/path".to_owned(),
    ];
    let dns = Scripted::with(&[
        ("loop.example", &["127.0.0.1"]),
        ("localhost", &["127.0.0.1"]),
        ("mapped.example", &["::ffff:127.0.0.1"]),
        ("metadata.example", &["169.254.169.254"]),
        ("a.example", &["93.184.216.34"]),
    ]);
    let openid = openid(world.federation(dns, &[]));
    for name in names {
        assert_eq!(openid.user(&token(&name)).await, Err(OpenIdError::Refused), "{name}");
    }
    assert_eq!(site.connections.load(Ordering::Relaxed), 0, "not even a connection");
}

#[tokio::test]
async fn connects_to_the_address_that_was_checked_when_dns_changes_its_mind() {
    let world = World::new();
    let site = world.site("rebind.example", |_| ok(r#"{"sub":"@a:rebind.example"}"#)).await;
    // Public (and dead) when it is checked, loopback at each later look.
    let dns = Scripted::with(&[("rebind.example", &["192.0.2.1", "127.0.0.1"])]);
    let federation = world.federation(dns, &["192.0.2.0/24"]);
    let name = format!("rebind.example:{}", site.port);
    let asked = tokio::time::timeout(Duration::from_secs(7), federation.get(&name, "/x")).await;
    assert!(matches!(asked, Ok(Err(_))), "the dead address was asked, and gave nothing");
    assert_eq!(site.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn follows_no_redirect_to_a_forbidden_address() {
    let world = World::new();
    let victim = world.site("victim.example", |_| ok("{}")).await;
    let to = victim.port;
    let redirect = move |_: &str| {
        format!("HTTP/1.1 302 Found\r\nlocation: https://10.9.8.7:{to}/\r\ncontent-length: 0\r\n\r\n").into_bytes()
    };
    let site = world.site("a.example", redirect).await;
    let dns = Scripted::with(&[("a.example", &["127.0.0.1"])]);
    let federation = world.federation(dns, &["127.0.0.0/8"]);
    let reply = federation.get(&format!("a.example:{}", site.port), "/x").await.unwrap();
    assert_eq!(reply.status, 302, "an answer of the federation API is never followed");
    // Discovery follows, and checks each hop.
    let start = Url::parse(&format!("https://a.example:{}/", site.port)).unwrap();
    let hop = start.join(&format!("https://10.9.8.7:{to}/")).unwrap();
    assert_eq!(federation.addresses_of_url(&hop).await, Err(Unreachable::Forbidden));
    let plain = Url::parse("http://a.example/").unwrap();
    assert_eq!(federation.addresses_of_url(&plain).await, Err(Unreachable::Forbidden), "no downgrade to plain HTTP");
    assert_eq!(victim.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn takes_an_answer_only_for_users_of_the_server_asked() {
    let world = World::new();
    for (answer, good) in [
        (r#"{"sub":"@a:good.example:PORT"}"#, true),
        (r#"{"sub":"@a:other.example"}"#, false),
        (r#"{"sub":"@a:good.example"}"#, false),
        (r#"{"sub":"a"}"#, false),
        (r#"{"sub":7}"#, false),
        ("nonsense", false),
    ] {
        let site = world
            .site("good.example", move |head| {
                let port = head.split("host: good.example:").nth(1).unwrap().split('\r').next().unwrap();
                ok(&answer.replace("PORT", port))
            })
            .await;
        let dns = Scripted::with(&[("good.example", &["127.0.0.1"])]);
        let openid = openid(world.federation(dns, &["127.0.0.1/32"]));
        let proven = openid.user(&token(&format!("good.example:{}", site.port))).await;
        assert_eq!(proven.is_ok(), good, "{answer} gave {proven:?}");
    }
}

#[tokio::test]
async fn gives_up_on_answers_that_are_endless_slow_or_not_certified() {
    let world = World::new();
    let dns = || Scripted::with(&[("a.example", &["127.0.0.1"]), ("b.example", &["127.0.0.1"])]);
    let endless = world.site("a.example", |_| {
        let mut reply = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n".to_vec();
        reply.resize(1 << 20, b' ');
        reply
    });
    let endless = endless.await;
    let federation = world.federation(dns(), &["127.0.0.1/32"]);
    let name = format!("a.example:{}", endless.port);
    assert_eq!(federation.get(&name, "/").await.unwrap_err(), Unreachable::NoAnswer);
    // Certified for another name, and by nobody we trust.
    let name = format!("b.example:{}", endless.port);
    assert_eq!(federation.get(&name, "/").await.unwrap_err(), Unreachable::NoAnswer);
    let stranger = World::new().federation(dns(), &["127.0.0.1/32"]);
    assert_eq!(stranger.get(&format!("a.example:{}", endless.port), "/").await.unwrap_err(), Unreachable::NoAnswer);
    // A server that never answers costs a bounded time.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let name = format!("a.example:{}", silent.local_addr().unwrap().port());
    let started = tokio::time::Instant::now();
    assert_eq!(federation.get(&name, "/").await.unwrap_err(), Unreachable::NoAnswer);
    assert!(started.elapsed() < PATIENCE + Duration::from_secs(2));
}

#[tokio::test]
async fn finds_a_server_by_its_services_with_the_certificate_of_its_name() {
    let world = World::new();
    let site = world.site("hs.example", |_| ok(r#"{"sub":"@a:hs.example"}"#)).await;
    let mut dns = Scripted::with(&[("node.example", &["127.0.0.1"])]);
    dns.services.insert("_matrix-fed._tcp.hs.example".to_owned(), vec![("node.example.".to_owned(), site.port)]);
    let openid = openid(world.federation(dns, &["127.0.0.1/32"]));
    assert_eq!(openid.user(&token("hs.example")).await.as_deref(), Ok("@a:hs.example"));
    assert_eq!(openid.user(&token("hs.example")).await.as_deref(), Ok("@a:hs.example"));
    assert_eq!(site.connections.load(Ordering::Relaxed), 1, "asked once, then remembered");
}
