//! Matrix: which homeservers weir serves, how much of their rooms it may know, and what strangers may do.
//!
//! No homeserver: weir is a plain LiveKit server and none of this has an effect.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Cidr, ConfigError, Secret, Span, plain, settle_files};

/// Calls of Matrix rooms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MatrixConfig {
    /// Homeservers whose users have their calls here; empty: Matrix is off. `weir registration` prints an entry. Each
    /// has: `server_name`; `client_api_url`, where weir reaches its client API, such as http://127.0.0.1:8008;
    /// `openid_url`, where it answers OpenID look-ups, if elsewhere; `as_token` and `hs_token` of the registration, or
    /// `as_token_file` and `hs_token_file`; `id` of the registration (default weir); `feed`: full (events are pushed,
    /// the default), joined (weir asks who is joined) or openid (nothing is known of rooms); `policy_rooms`, a list of
    /// moderation lists to honour, each with its `room` and the local user `as_user` who reads it; `remote_users`, to
    /// differ from the one below.
    pub homeservers: Vec<HomeserverConfig>,
    /// What clients are told to connect to, such as wss://rtc.example.org. Empty: ws://localhost and the port, which
    /// only serves for trying out.
    pub url: String,
    /// What a user may do of whose room nothing can be known, because the homeserver gives no feed: deny,
    /// subscribe_only or allow. Being in the room is then not checked, and removal from it has no effect.
    pub without_feed: Trust,
    /// Users of homeservers that are not listed above.
    pub remote_users: RemoteUsersConfig,
    /// Blocks of private addresses that may be asked about remote users all the same; for closed federations.
    /// Example: [10.0.0.0/8]
    pub allow_private_addresses: Vec<Cidr>,
    /// File with certificates (PEM) of authorities that are trusted beside the system's; for closed federations.
    pub federation_ca_file: String,
    /// SQLite file that keeps what has to outlive weir: revoked tokens, who was let into which call, leaves to be
    /// sent; its folder has to be writable. A relative name counts from the folder systemd gives weir (the variable
    /// STATE_DIRECTORY), without one from this file. Empty: kept in memory, and calls do not survive a restart.
    pub state_file: String,
    /// How long a token is good, 1m to 6h. Clients are given fresh ones while they are connected.
    pub token_lifetime: Span,
    /// How much longer than the room itself (12 to 15 seconds) somebody who was lost may take to come back before the
    /// call membership is cleared, 0s to 5m.
    pub ghost_grace: Span,
    /// How long a join waits for a homeserver that does not answer before it is refused, 1s to 1m.
    pub homeserver_grace: Span,
}

impl Default for MatrixConfig {
    fn default() -> Self {
        Self {
            homeservers: Vec::new(),
            url: String::new(),
            without_feed: Trust::Deny,
            remote_users: RemoteUsersConfig::default(),
            allow_private_addresses: Vec::new(),
            federation_ca_file: String::new(),
            state_file: "weir-state.db".to_owned(),
            token_lifetime: Span(Duration::from_secs(3600)),
            ghost_grace: Span(Duration::ZERO),
            homeserver_grace: Span(Duration::from_secs(10)),
        }
    }
}

/// One homeserver. See [`MatrixConfig::homeservers`].
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HomeserverConfig {
    /// Its server name: what stands behind the colon in its users' ids.
    pub server_name: String,
    /// Base URL of its client API, as weir reaches it.
    pub client_api_url: String,
    /// Base URL of its OpenID look-up (`openid` or `federation` listener). Empty: that of the client API.
    pub openid_url: String,
    /// Id of weir's registration there.
    pub id: String,
    /// Token weir shows to the homeserver.
    pub as_token: Secret,
    /// File with it.
    pub as_token_file: String,
    /// Token the homeserver shows to weir.
    pub hs_token: Secret,
    /// File with it.
    pub hs_token_file: String,
    /// How much weir knows of its rooms.
    pub feed: Feed,
    /// Moderation lists that are honoured.
    pub policy_rooms: Vec<PolicyRoomConfig>,
    /// What users of other homeservers may do in rooms known through this one; absent: as for all.
    pub remote_users: Option<RemoteUsersConfig>,
}

impl fmt::Debug for HomeserverConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HomeserverConfig {{ {}, feed: {:?}, tokens: *** }}", self.server_name, self.feed)
    }
}

impl HomeserverConfig {
    /// Base URL of its OpenID look-up.
    pub fn openid_base(&self) -> &str {
        if self.openid_url.is_empty() { &self.client_api_url } else { &self.openid_url }
    }

    /// Id of the registration.
    pub fn registration_id(&self) -> &str {
        if self.id.is_empty() { "weir" } else { &self.id }
    }
}

/// How much weir knows of a homeserver's rooms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// Events of rooms with local users are pushed, state can be read.
    #[default]
    Full,
    /// No events; weir asks who is joined.
    Joined,
    /// Only whose token it is.
    Openid,
}

impl Feed {
    /// What it means, for whoever starts weir.
    pub const fn words(self, without: Trust) -> &'static str {
        match (self, without) {
            (Self::Full, _) => "full feed: room state decides who joins, publishes and stays",
            (Self::Joined, _) => {
                "asks who is joined: power levels and call slots are not seen, removal takes up to 5 s, stale \
                 memberships stay"
            }
            (Self::Openid, Trust::Deny) => "OpenID only: whether users are in the room is not known, nobody may join",
            (Self::Openid, Trust::SubscribeOnly) => {
                "OpenID only: NOT checked who is in the room, any account may listen and watch, removal has no effect"
            }
            (Self::Openid, Trust::Allow) => {
                "OpenID only: NOT checked who is in the room, any account may join and publish, removal has no effect"
            }
        }
    }
}

/// What is allowed to somebody nothing is known of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Nothing.
    #[default]
    Deny,
    /// Listening and watching.
    SubscribeOnly,
    /// Everything.
    Allow,
}

/// What users of other homeservers may do, and how many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteUsersConfig {
    /// Whether they may publish, where the room lets them.
    pub publish: bool,
    /// Remote participants of one room, at once.
    pub max_per_room: u32,
    /// Participants of one remote server in all rooms, at once.
    pub max_per_server: u32,
    /// Remote participants of one room who may publish, at once. Later ones listen and watch.
    pub max_publishers_per_room: u32,
    /// The same of one remote server in all rooms.
    pub max_publishers_per_server: u32,
    /// What remote participants of one room publish together, kbit/s; 0: no limit. From nine tenths of it on their
    /// video is kept at lower layers, until there is room again. Sound is never touched.
    pub max_kbps_per_room: u32,
    /// The same of the participants of one remote server in all rooms.
    pub max_kbps_per_server: u32,
}

impl Default for RemoteUsersConfig {
    fn default() -> Self {
        Self {
            publish: true,
            max_per_room: 100,
            max_per_server: 500,
            max_publishers_per_room: 50,
            max_publishers_per_server: 200,
            max_kbps_per_room: 60_000,
            max_kbps_per_server: 200_000,
        }
    }
}

/// A moderation list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyRoomConfig {
    /// Id of the policy room.
    pub room: String,
    /// Local user who is joined to it, and through whom weir reads it.
    pub as_user: String,
}

impl MatrixConfig {
    /// Whether there is anything to do.
    pub const fn is_on(&self) -> bool {
        !self.homeservers.is_empty()
    }

    /// Read token files and let file names count from the folder of the configuration.
    pub(super) fn settle(&mut self, folder: &Path, state_folder: &Path) -> Result<(), ConfigError> {
        for home in &mut self.homeservers {
            read_token(folder, &home.as_token_file, &mut home.as_token)?;
            read_token(folder, &home.hs_token_file, &mut home.hs_token)?;
        }
        settle_files(folder, [&mut self.federation_ca_file]);
        settle_files(state_folder, [&mut self.state_file]);
        Ok(())
    }

    /// Where state is kept; `None`: in memory.
    pub fn state_path(&self) -> Option<PathBuf> {
        (!self.state_file.is_empty()).then(|| PathBuf::from(&self.state_file))
    }

    /// Why state cannot be kept where it should, as a line for the operator. Looks by making a file beside it, since
    /// SQLite does the same.
    pub fn state_problem(&self) -> Option<String> {
        let path = self.state_path().filter(|_| self.is_on())?;
        let probe = path.with_file_name(format!(".weir-{}", std::process::id()));
        let mut file = std::fs::OpenOptions::new();
        let existing = if path.exists() { file.append(true).open(&path).map(drop) } else { Ok(()) };
        let looked = existing.and_then(|()| std::fs::OpenOptions::new().write(true).create_new(true).open(&probe));
        let problem = match looked {
            Ok(_) => std::fs::remove_file(&probe).err()?,
            Err(error) => error,
        };
        let (file, why) = (path.display(), plain(&problem));
        Some(format!(
            "`matrix.state_file`: {file} cannot be written ({why}): after a restart weir knows neither revoked tokens nor \
             who was in a call; name a file in a folder it may write to"
        ))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let seconds = |span: Span| span.0.as_secs();
        if !(60..=21_600).contains(&seconds(self.token_lifetime)) {
            return Err(ConfigError::new("`matrix.token_lifetime`: give 1m to 6h"));
        }
        if seconds(self.ghost_grace) > 300 {
            return Err(ConfigError::new("`matrix.ghost_grace`: give 0s to 5m"));
        }
        if !(1..=60).contains(&seconds(self.homeserver_grace)) {
            return Err(ConfigError::new("`matrix.homeserver_grace`: give 1s to 1m"));
        }
        if !self.url.is_empty() && !["ws", "wss"].contains(&scheme(&self.url).as_str()) {
            return Err(ConfigError::new("`matrix.url`: give a URL such as wss://rtc.example.org"));
        }
        let mut names: Vec<&str> = self.homeservers.iter().map(|home| home.server_name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.get(1)) {
            return Err(ConfigError::new("`matrix.homeservers`: a server name is there twice: remove one"));
        }
        self.homeservers.iter().try_for_each(HomeserverConfig::check)
    }
}

impl HomeserverConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let name = &self.server_name;
        let wrong = |what: &str| Err(ConfigError::new(format!("`matrix.homeservers`: {name}: {what}")));
        if signalling::matrix::server_name::ServerName::parse(name).is_err() {
            return wrong("`server_name` is no server name: give what stands behind the colon in user ids");
        }
        let is_http = |url: &str| ["http", "https"].contains(&scheme(url).as_str());
        if self.feed != Feed::Openid && !is_http(&self.client_api_url) {
            return wrong("`client_api_url`: give where weir reaches the client API, such as http://127.0.0.1:8008");
        }
        if !is_http(self.openid_base()) {
            return wrong("`openid_url`: give where the homeserver answers OpenID look-ups");
        }
        let short = |token: &Secret| token.expose().len() < 16;
        if self.feed != Feed::Openid && short(&self.as_token) {
            return wrong("`as_token` is missing or has fewer than 16 bytes: `weir registration` makes one");
        }
        if self.feed == Feed::Full && short(&self.hs_token) {
            return wrong("`hs_token` is missing or has fewer than 16 bytes: `weir registration` makes one");
        }
        if self.feed != Feed::Full && !self.policy_rooms.is_empty() {
            return wrong("`policy_rooms` can be read with `feed: full` only");
        }
        let local = |user: &str| signalling::matrix::server_name::server_of_user(user) == Some(name.as_str());
        if self.policy_rooms.iter().any(|list| list.room.is_empty() || !local(&list.as_user)) {
            return wrong(
                "`policy_rooms`: each needs a `room` and an `as_user` of this homeserver who is joined to it",
            );
        }
        Ok(())
    }
}

fn scheme(url: &str) -> String {
    Url::parse(url).ok().filter(Url::has_host).map(|url| url.scheme().to_owned()).unwrap_or_default()
}

fn read_token(folder: &Path, file: &str, token: &mut Secret) -> Result<(), ConfigError> {
    if file.is_empty() {
        return Ok(());
    }
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path)
        .map_err(|e| ConfigError::new(format!("cannot read {}: {}", path.display(), plain(&e))))?;
    *token = Secret::new(text.trim());
    Ok(())
}
