//! A homeserver, a proxy and a weir on loopback, with one thing broken: what `weir doctor` has to find.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use weir::config::Config;
use weir::control::Server;

const AS_TOKEN: &str = "as-token-as-token-as-token";
const HS_TOKEN: &str = "hs-token-hs-token-hs-token";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    NoWellKnown,
    WellKnownNotJson,
    WellKnownWithoutHomeserver,
    WellKnownWithoutCors,
    NoTransports,
    TransportsWithoutTls,
    ServiceElsewhere,
    CertificateExpired,
    CertificateOfAnother,
    CertificateSelfSigned,
    HomeserverClock,
    NoDelayedEvents,
    SomeWorkersWithoutDelayedEvents,
    DelayedEventsOff,
    NoOpenId,
    NoRegistration,
    OtherRegistrationId,
    OtherHsToken,
    HomeserverCannotReachWeir,
    WeirStopped,
    ServicePathMissing,
    ProxyWithoutUpstream,
    ProxyDropsCors,
    TokenPathMissing,
    ProxyDropsUpgrade,
    ProxyCutsLongLines,
    OtherKeys,
    WrongAddress,
    TwoNodes,
}

/// Everything, running until dropped.
pub(crate) struct World {
    name: String,
    folder: PathBuf,
    _nodes: Vec<Server>,
}

#[derive(Clone)]
struct Site {
    fault: Fault,
    address: SocketAddr,
    /// Where weir's HTTP is; several are taken in turn.
    weirs: Arc<Vec<SocketAddr>>,
    turn: Arc<AtomicUsize>,
}

impl World {
    pub(crate) async fn start(fault: Fault) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("weir-doctor-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let name = format!("localhost:{}", address.port());
        let file = folder.join("weir.yaml");
        let acceptor = tls(fault, &folder);
        let mut nodes = Vec::new();
        let mut weirs = Vec::new();
        for node in 0..if fault == Fault::TwoNodes { 2 } else { 1 } {
            let config = configure(fault, &name, address, node);
            std::fs::write(&file, &config).unwrap();
            let config = Config::load(&file).unwrap();
            if fault != Fault::WeirStopped {
                let server = Server::start(&config).unwrap();
                weirs.push(server.started().http[0]);
                nodes.push(server);
            }
        }
        // What the doctor reads differs from what weir runs with where that is the fault.
        let mut written = std::fs::read_to_string(&file).unwrap();
        if fault == Fault::OtherKeys {
            written = written.replace(SECRET, "another-secret-another-secret-another");
        }
        std::fs::write(&file, written).unwrap();
        let site = Site { fault, address, weirs: Arc::new(weirs), turn: Arc::default() };
        serve(listener, site, acceptor);
        Self { name, folder, _nodes: nodes }
    }

    /// As an operator on the server does.
    pub(crate) async fn examine(&self) -> Value {
        let config = self.folder.join("weir.yaml");
        serde_json::from_str(&self.run(&["--config", config.to_str().unwrap(), "--json"]).await).unwrap()
    }

    /// As anybody does.
    pub(crate) async fn outside(&self) -> String {
        self.run(&[&self.name]).await
    }

    async fn run(&self, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("doctor").args(arguments).arg("--ca-file").arg(self.folder.join("ca.pem"));
        command.env_clear().stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn configure(fault: Fault, name: &str, site: SocketAddr, _node: usize) -> String {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hs_token = if fault == Fault::OtherHsToken { "another-token-another-token" } else { HS_TOKEN };
    let id = if fault == Fault::OtherRegistrationId { "another" } else { "weir" };
    // 192.0.2.0/24 is nobody's (RFC 5737): nothing comes back from there.
    let media = if fault == Fault::WrongAddress { "node_ip: 192.0.2.1" } else { "node_ip: 127.0.0.1" };
    format!(
        "port: 0\nbind_addresses: [127.0.0.1]\nkeys: {{key: {SECRET}}}\n\
         rtc: {{udp_port: 0, tcp_port: {}, {media}}}\nadmin: {{port: {}}}\nlogging: {{level: error}}\n\
         matrix:\n  url: 'wss://{name}'\n  state_file: ''\n  federation_ca_file: ca.pem\n  homeservers:\n    - server_name: '{name}'\n      \
         client_api_url: 'https://localhost:{}'\n      id: {id}\n      as_token: {AS_TOKEN}\n      hs_token: {hs_token}\n",
        free(),
        free(),
        site.port(),
    )
}

/// One port for all: what stands before `weir.` does not matter on loopback, so paths tell homeserver and weir apart.
fn serve(listener: TcpListener, site: Site, acceptor: tokio_rustls::TlsAcceptor) {
    let router = Router::new().fallback(answer).with_state(site.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, router, site) = (acceptor.clone(), router.clone(), site.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper_util::service::TowerToHyperService::new(router);
                let mut builder = hyper::server::conn::http1::Builder::new();
                // As nginx does where nobody changed it.
                builder.max_buf_size(if site.fault == Fault::ProxyCutsLongLines { 8_192 } else { 65_536 });
                let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            });
        }
    });
}

fn tls(fault: Fault, folder: &std::path::Path) -> tokio_rustls::TlsAcceptor {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let stranger = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    let name = if fault == Fault::CertificateOfAnother { "other.example.org" } else { "localhost" };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if fault == Fault::CertificateExpired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = if fault == Fault::CertificateSelfSigned {
        CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&stranger).unwrap()
    } else {
        params.signed_by(&key, &authority).unwrap()
    };
    let key = if fault == Fault::CertificateSelfSigned { stranger } else { key };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

async fn answer(State(site): State<Site>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = if path.starts_with("/.well-known/") {
        well_known(&site, &path)
    } else if path.starts_with("/_matrix/") {
        let shows_token =
            request.headers().get(header::AUTHORIZATION).is_some_and(|value| value == &format!("Bearer {AS_TOKEN}"));
        homeserver(&site, &path, shows_token).await
    } else {
        proxy(&site, &path, request).await
    };
    let matrix = path.starts_with("/.well-known/") || path.starts_with("/_matrix/");
    if matrix && site.fault == Fault::HomeserverClock {
        response.headers_mut().insert(header::DATE, HeaderValue::from_static("Mon, 01 Jan 2024 00:00:00 GMT"));
    }
    if matrix && !(path.ends_with("/client") && site.fault == Fault::WellKnownWithoutCors) {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}

fn well_known(site: &Site, path: &str) -> Response {
    let own = format!("localhost:{}", site.address.port());
    if path.ends_with("/server") {
        return axum::Json(json!({ "m.server": own })).into_response();
    }
    let service = match site.fault {
        Fault::TransportsWithoutTls => format!("http://{own}"),
        Fault::ServiceElsewhere => format!("https://{own}/elsewhere"),
        _ => format!("https://{own}"),
    };
    let mut json = json!({ "m.homeserver": { "base_url": format!("https://{own}") } });
    if site.fault != Fault::NoTransports {
        json["org.matrix.msc4143.rtc_foci"] = json!([{ "type": "livekit", "livekit_service_url": service }]);
    }
    match site.fault {
        Fault::NoWellKnown => StatusCode::NOT_FOUND.into_response(),
        Fault::WellKnownNotJson => "<html>welcome</html>".into_response(),
        Fault::WellKnownWithoutHomeserver => {
            json.as_object_mut().unwrap().remove("m.homeserver");
            axum::Json(json).into_response()
        }
        _ => axum::Json(json).into_response(),
    }
}

fn refuse(status: u16, errcode: &str) -> Response {
    (StatusCode::from_u16(status).unwrap(), axum::Json(json!({ "errcode": errcode, "error": "no" }))).into_response()
}

async fn homeserver(site: &Site, path: &str, shows_token: bool) -> Response {
    let knows = shows_token && site.fault != Fault::NoRegistration;
    match path {
        "/_matrix/client/versions" => {
            let delayed = site.fault != Fault::DelayedEventsOff;
            axum::Json(json!({ "versions": ["v1.11"], "unstable_features": { "org.matrix.msc4140": delayed } }))
                .into_response()
        }
        "/_matrix/federation/v1/version" => axum::Json(json!({ "server": { "name": "test" } })).into_response(),
        "/_matrix/federation/v1/openid/userinfo" if site.fault != Fault::NoOpenId => refuse(401, "M_UNKNOWN_TOKEN"),
        "/_matrix/client/v3/account/whoami" if knows => {
            axum::Json(json!({ "user_id": "@_weir:localhost" })).into_response()
        }
        "/_matrix/client/v3/account/whoami" => refuse(401, "M_UNKNOWN_TOKEN"),
        "/_matrix/client/v1/appservice/weir/ping" if knows => ping(site).await,
        _ if path.starts_with("/_matrix/client/v1/appservice/") => refuse(403, "M_FORBIDDEN"),
        _ if path.contains("org.matrix.msc4140") => {
            let turn = site.turn.fetch_add(1, Ordering::Relaxed);
            match site.fault {
                Fault::NoDelayedEvents => refuse(404, "M_UNRECOGNIZED"),
                Fault::SomeWorkersWithoutDelayedEvents if turn % 3 == 1 => refuse(404, "M_UNRECOGNIZED"),
                _ => refuse(404, "M_NOT_FOUND"),
            }
        }
        _ => refuse(404, "M_UNRECOGNIZED"),
    }
}

/// The homeserver asks weir, as it would to deliver events.
async fn ping(site: &Site) -> Response {
    let Some(weir) = site.weirs.first() else { return refuse(502, "M_CONNECTION_FAILED") };
    if site.fault == Fault::HomeserverCannotReachWeir {
        return refuse(502, "M_CONNECTION_FAILED");
    }
    let client = reqwest::Client::new();
    let asked = client.post(format!("http://{weir}/_matrix/app/v1/ping")).bearer_auth(HS_TOKEN).body("{}").send().await;
    if asked.unwrap().status().is_success() {
        return axum::Json(json!({ "duration_ms": 1 })).into_response();
    }
    refuse(502, "M_BAD_STATUS")
}

/// Everything else goes to weir, as it is.
async fn proxy(site: &Site, path: &str, mut request: Request) -> Response {
    let missing = match site.fault {
        Fault::ServicePathMissing => true,
        Fault::TokenPathMissing => path == "/get_token",
        _ => false,
    };
    if missing {
        return StatusCode::NOT_FOUND.into_response();
    }
    if site.fault == Fault::ProxyWithoutUpstream || site.weirs.is_empty() {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if site.fault == Fault::ProxyDropsUpgrade {
        request.headers_mut().remove(header::UPGRADE);
        request.headers_mut().remove(header::CONNECTION);
    }
    let upgrades = request.headers().contains_key(header::UPGRADE);
    // A load balancer that knows nothing of rooms: joins take turns.
    let turn = if upgrades && path == "/rtc" { site.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
    let weir = site.weirs[turn % site.weirs.len()];
    let Ok(stream) = TcpStream::connect(weir).await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let ours = hyper::upgrade::on(&mut request);
    let mut response = sender.send_request(request).await.unwrap();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let theirs = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let (Ok(ours), Ok(theirs)) = (ours.await, theirs.await) else { return };
            let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
            let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
            let _ = ours.shutdown().await;
        });
    }
    let mut response = response.map(Body::new);
    if site.fault == Fault::ProxyDropsCors {
        response.headers_mut().remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    }
    response
}
