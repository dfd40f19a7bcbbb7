//! Puts a node together: media threads, rooms, listeners; and takes it apart in order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use signalling::livekit::JoinLimits;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use super::audit::Audit;
use super::auth::Auth;
use super::connection::QueueLimits;
use super::http::{self, App};
use super::listener::{self, Rules};
use super::load::Load;
use super::matrix;
use super::metrics::Metrics;
use super::nodes::Nodes;
use super::places::Places;
use super::proxies::Proxies;
use super::registry::{Registry, RoomContext, ThreadInfo};
use super::reports::Reports;
use super::tls::Certificates;
use super::twirp::ApiRules;
use super::visitors::{VisitorLimits, Visitors};
use super::webhook::Webhooks;
use super::ws::WsRules;
use super::{addresses, admin, drain, relay};
use crate::config::{Config, ConfigError, plain};
use crate::mailbox::{Mailbox, MediaLink, TurnLink, ufrag_prefix};
use crate::media::clock::Clock;
use crate::media::{MediaConfig, MediaThreads, StartError};
use crate::shard::ShardConfig;
use crate::transport::{DtlsIdentity, generate_identity};

/// How long clients have to take their leave when the node stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// Connections of operators and their monitoring at once.
const OPERATORS: usize = 64;
/// Room changes that wait for the task that routes reports.
const ROUTE_CHANGES: usize = 1_024;

/// Why a node could not start, as one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system or a library.
    #[error("{0}")]
    Start(String),
}

/// Where a node listens.
#[derive(Clone, Debug)]
pub struct Started {
    /// HTTP and WebSocket.
    pub http: Vec<SocketAddr>,
    /// Metrics.
    pub metrics: Vec<SocketAddr>,
    /// Status page and diagnosis.
    pub admin: Vec<SocketAddr>,
    /// Media over UDP: the ports of all media threads.
    pub udp: Vec<SocketAddr>,
    /// Media over TCP.
    pub tcp: Vec<SocketAddr>,
    /// TURN, if it runs.
    pub turn: Option<TurnLink>,
    /// Addresses clients are told.
    pub advertised: Vec<IpAddr>,
}

/// A running node. Dropping it stops the media threads and waits for them.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    started: Started,
    stopping: watch::Sender<bool>,
    webhooks: Option<Webhooks>,
    certificates: Certificates,
    places: Arc<Places>,
    /// How long calls may go on when the node ends.
    patience: Duration,
    media: Option<MediaThreads>,
}

impl Server {
    /// Bind everything, then start. Must run within a tokio runtime.
    ///
    /// # Errors
    /// When the configuration is wrong or something is not to be had; nothing is left running then.
    pub fn start(config: &Config) -> Result<Self, ServerError> {
        config.check()?;
        let advertised = addresses::advertised(config)?;
        let certificates = Certificates::load(config)?;
        let http = bind_all(&config.http_addresses(), config.port, "port")?;
        let listen = |wanted: Option<(Vec<IpAddr>, u16)>, key: &str| {
            wanted.map_or_else(|| Ok(Vec::new()), |(addresses, port)| bind_all(&addresses, port, key))
        };
        let metrics_listeners = listen(config.metrics_addresses(), "prometheus.port")?;
        let admin_listeners = listen(config.admin_addresses(), "admin.port")?;
        let clock = Clock::start();
        let identity = generate_identity().and_then(|identity| DtlsIdentity::new(&identity, clock.anchor()));
        let identity = Arc::new(identity.map_err(|e| ServerError::Start(e.to_string()))?);
        let fingerprint = identity.fingerprint().0;
        let mut media = media_config(config, &advertised, identity);
        media.turn = relay::service(config, certificates.turn()?, &advertised).map_err(ServerError::Start)?;
        let turn_key = media.turn.as_ref().map(|turn| turn.key.clone());
        let (media, link) = MediaThreads::start(media, clock).map_err(|error| media_error(config, &error))?;

        let load = Load::new(config.limit.clone(), link.threads.len(), tokio::time::Instant::now());
        let metrics = Metrics::new(&node_id(&fingerprint), load).map_err(|e| ServerError::Start(e.to_string()))?;
        let metrics = Arc::new(metrics);
        let audit = Audit::start(&config.audit, metrics.audit.clone()).map_err(ServerError::Start)?;
        let auth = Arc::new(Auth::new(config.keys.clone(), matrix::calls_secret(config)));
        let started = Started {
            http: local(&http),
            metrics: local(&metrics_listeners),
            admin: local(if config.metrics_serve_admin() { &metrics_listeners } else { &admin_listeners }),
            udp: link.threads.iter().flat_map(|thread| thread.udp.clone()).collect(),
            tcp: link.tcp.clone(),
            turn: link.turn.clone(),
            advertised,
        };
        let matrix_queue = config.matrix.is_on().then(matrix::prepare);
        let webhooks = webhooks(config, &auth, &metrics)?;
        let places = Places::new(size(config.limit.max_participants));
        let relay = link.turn.as_ref().zip(turn_key);
        let relay = relay.map(|(turn, key)| relay::access(config, turn, key, &started.advertised));
        let (nodes, misplaced) = Nodes::start(config).map_err(ServerError::Start)?;
        let context = RoomContext {
            config: Arc::new(signalling::room::Config { relay, ..config.signal_room(&node_id(&fingerprint)) }),
            clock,
            auth: auth.clone(),
            metrics: metrics.clone(),
            fingerprint,
            max_rooms: size(config.limit.max_rooms),
            max_pending_joins: size(config.limit.max_pending_joins),
            auto_create: config.room.auto_create,
            per_thread: config.room.participants_per_thread as usize,
            notices: matrix_queue.as_ref().map(|(notices, _)| notices.clone()),
            webhooks: webhooks.clone(),
            places: places.clone(),
            nodes: Some(nodes.clone()),
        };
        let mailboxes = link.threads.iter().map(|thread| thread.mailbox.clone()).collect();
        let registry = start_rooms(context, link, &started.advertised);
        let matrix = match matrix_queue {
            Some((_, prepared)) => Some(
                prepared
                    .start(config, auth.clone(), registry.clone(), metrics.clone(), nodes.clone(), audit.clone())
                    .map_err(ServerError::Start)?,
            ),
            None => None,
        };
        let app = App { matrix, audit, ..app(config, auth, registry, metrics.clone(), mailboxes, nodes) };
        let app = Arc::new(app);
        tokio::spawn(drain::tell(Arc::downgrade(&app)));
        tokio::spawn(drain::move_misplaced(app.registry.clone(), misplaced));
        let (stopping, stopped) = watch::channel(false);
        let rules = Rules {
            connections: Arc::new(Semaphore::new(size(config.limit.max_connections))),
            visitors: Visitors::new(VisitorLimits {
                connections: config.limit.max_connections_per_address,
                joins: config.limit.join_rate_per_address,
                tokens: config.limit.token_rate_per_address,
            }),
            proxies: Arc::new(Proxies { trusted: config.trusted_proxies.clone(), header: config.proxy_protocol }),
            tls: certificates.public()?,
            max_head: size(config.limit.max_request_head),
            head_timeout: config.limit.request_head_timeout.into(),
            stopping: stopped,
            metrics,
        };
        for listener in http {
            tokio::spawn(listener::serve(listener, http::router(app.clone()), rules.clone()));
        }
        // Places of its own: a full node is one its operator wants to look at.
        let rules = Rules {
            connections: Arc::new(Semaphore::new(OPERATORS)),
            visitors: Visitors::new(VisitorLimits::default()),
            proxies: Arc::default(),
            tls: None,
            ..rules
        };
        let beside = if config.metrics_serve_admin() { admin::router } else { admin::metrics_router };
        let operators = metrics_listeners.into_iter().map(|listener| (listener, beside(app.clone())));
        for (listener, router) in
            operators.chain(admin_listeners.into_iter().map(|it| (it, admin::router(app.clone()))))
        {
            tokio::spawn(listener::serve(listener, router, rules.clone()));
        }
        certificates.watch();
        let patience = config.drain.patience();
        Ok(Self { app, started, stopping, webhooks, certificates, places, patience, media: Some(media) })
    }

    /// Where it listens.
    pub const fn started(&self) -> &Started {
        &self.started
    }

    /// Read anew what may change while it runs: TLS certificates.
    pub fn reload(&self) {
        self.certificates.reload();
    }

    /// Until somebody asks over the operator's listener that the node end.
    pub async fn asked_to_end(&self) {
        self.app.end.notified().await;
    }

    /// No new rooms; calls end or are moved as configured. Gives back when all have gone, or some seconds after the last
    /// were told to.
    pub async fn drain(&self) {
        drain::wait(&self.app, &self.places, self.patience).await;
        drain::leave(&self.app).await;
        drain::send_away(&self.app).await;
        let all_gone = async {
            while self.app.conversations.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, all_gone).await;
        if let Some(webhooks) = &self.webhooks {
            let all_told = async {
                while !self.app.registry.all().await.is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                webhooks.flush().await;
            };
            let _ = tokio::time::timeout(FAREWELL, all_told).await;
        }
        let _ = self.stopping.send(true);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stopping.send(true);
        // Blocks for the length of a loop turn.
        drop(self.media.take());
        self.app.audit.flush();
    }
}

fn app(
    config: &Config,
    auth: Arc<Auth>,
    registry: Registry,
    metrics: Arc<Metrics>,
    mailboxes: Vec<Mailbox>,
    nodes: Nodes,
) -> App {
    let limit = &config.limit;
    App {
        auth,
        registry,
        matrix: None,
        audit: Audit::default(),
        metrics,
        nodes,
        join_limits: JoinLimits {
            encoded: size(limit.max_request_head),
            decoded: size(limit.signal_message_size_limit).min(1 << 20),
            metadata: size(limit.max_metadata_size),
            attributes: size(limit.max_attributes_size),
        },
        queue_limits: QueueLimits {
            messages: size(limit.signal_queue_messages),
            bytes: size(limit.signal_queue_bytes),
        },
        ws_rules: WsRules { max_message: size(limit.signal_message_size_limit), rate: limit.signal_rate },
        pending: Arc::new(Semaphore::new(size(limit.max_pending_joins))),
        conversations: Arc::new(AtomicUsize::new(0)),
        mailboxes,
        draining: AtomicBool::new(false),
        leaving: AtomicBool::new(false),
        end: Notify::new(),
        next_connection: AtomicU64::new(1),
        api: ApiRules::new(size(limit.max_room_name_length), size(limit.max_metadata_size)),
    }
}

/// Nothing is sent, and no client made, where no receiver is configured.
fn webhooks(config: &Config, auth: &Arc<Auth>, metrics: &Arc<Metrics>) -> Result<Option<Webhooks>, ServerError> {
    let receivers = config.webhook.receivers()?;
    if receivers.is_empty() {
        return Ok(None);
    }
    let key = config.webhook.api_key.clone();
    let webhooks = Webhooks::start(receivers, key, auth.clone(), metrics.clone());
    webhooks.map(Some).map_err(|error| ServerError::Start(format!("cannot send webhooks: {error}")))
}

fn start_rooms(context: RoomContext, link: MediaLink, advertised: &[IpAddr]) -> Registry {
    let MediaLink { threads, tcp, reports, .. } = link;
    let mailboxes = threads.iter().map(|thread| thread.mailbox.clone()).collect();
    let infos = threads.iter().enumerate().map(|(index, thread)| ThreadInfo {
        mailbox: thread.mailbox.clone(),
        ufrag_prefix: ufrag_prefix(index).map(String::from_iter).unwrap_or_default(),
        candidates: addresses::candidates(advertised, &thread.udp, &tcp),
        load: Arc::new(AtomicUsize::new(0)),
    });
    let infos = infos.collect();
    let (routes, changes) = mpsc::channel(ROUTE_CHANGES);
    let (metrics, wants_rates) = (context.metrics.clone(), context.notices.is_some());
    tokio::spawn(Reports { reports, changes, mailboxes, metrics, wants_rates }.run());
    Registry::start(context, infos, routes)
}

fn media_config(config: &Config, advertised: &[IpAddr], identity: Arc<DtlsIdentity>) -> MediaConfig {
    let bind = addresses::bind_addresses(advertised);
    let tcp = match config.rtc.tcp_port {
        0 => Vec::new(),
        port => bind.iter().map(|ip| SocketAddr::new(*ip, port)).collect(),
    };
    MediaConfig {
        threads: config.rtc.threads(),
        bind,
        udp_port: config.rtc.udp_port.first,
        tcp,
        turn: None,
        shard: ShardConfig {
            identity: Some(identity),
            limits: config.shard_limits(),
            room: config.core_room(),
            ..ShardConfig::default()
        },
    }
}

fn media_error(config: &Config, error: &StartError) -> ServerError {
    match error {
        StartError::Listen { protocol, address, source } => {
            let key = port_key(config, protocol, *address);
            ServerError::Start(format!(
                "cannot listen on {protocol} {address}: {}; change `{key}` or end what uses it",
                plain(source)
            ))
        }
        other => ServerError::Start(other.to_string()),
    }
}

/// The key that chose this port.
fn port_key(config: &Config, protocol: &str, address: SocketAddr) -> &'static str {
    let turn = &config.turn;
    let of_turn = [
        ("UDP", turn.udp_port, "turn.udp_port"),
        ("TCP", turn.tcp_port, "turn.tcp_port"),
        ("TCP", turn.tls_port, "turn.tls_port"),
    ];
    let is_there = turn.bind_addresses.is_empty() || turn.bind_addresses.iter().any(|bind| bind.0 == address.ip());
    let mut of_turn = of_turn.into_iter().filter(|_| turn.enabled && is_there);
    match of_turn.find(|(spoken, port, _)| *spoken == protocol && *port == address.port()) {
        Some((_, _, key)) => key,
        None if protocol == "TCP" => "rtc.tcp_port",
        None => "rtc.udp_port",
    }
}

fn bind_all(addresses: &[IpAddr], port: u16, key: &str) -> Result<Vec<TcpListener>, ServerError> {
    let bind = |ip: &IpAddr| {
        listener::bind(*ip, port).map_err(|error| {
            let address = SocketAddr::new(*ip, port);
            let advice = match error.kind() {
                std::io::ErrorKind::AddrNotAvailable => "change `bind_addresses`".to_owned(),
                std::io::ErrorKind::PermissionDenied => format!("choose a `{key}` above 1023"),
                _ => format!("change `{key}` or end what uses it"),
            };
            ServerError::Start(format!("cannot listen on TCP {address}: {}; {advice}", plain(&error)))
        })
    };
    addresses.iter().map(bind).collect()
}

fn local(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// Clients show it; it tells nodes apart and nothing else.
fn node_id(fingerprint: &[u8; 32]) -> String {
    let digits: String = fingerprint.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("ND_{digits}")
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
impl Server {
    pub(super) fn app(&self) -> &App {
        &self.app
    }
}
