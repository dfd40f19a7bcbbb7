//! One device of a user: a task syncs it by the SDK, another knows who is in the call and hands keys out.
//!
//! A call is entered as clients do it: token, delayed leave, membership, key to all that are there, and only then the
//! SFU. Messages that did not come encrypted are no keys. The SDK's own loop sleeps between quick syncs; this one does not,
//! so a key or a member is here within milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use matrix_sdk::authentication::matrix::MatrixSession;
use matrix_sdk::config::SyncSettings;
use matrix_sdk::deserialized_responses::EncryptionInfo;
use matrix_sdk::ruma::api::client::filter::FilterDefinition;
use matrix_sdk::ruma::api::client::sync::sync_events::v3::Filter;
use matrix_sdk::ruma::events::{AnySyncStateEvent, AnyToDeviceEvent};
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{OwnedDeviceId, UserId};
use matrix_sdk::store::RoomLoadSettings;
use matrix_sdk::{Client, Room as SdkRoom};
use matrix_sdk_base::crypto::CollectStrategy;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::homeserver::{Account, Homeserver, Room, date_ms};
use crate::keys::{Action, Key, Keys, LENGTH};
use crate::wire::{self, Change, Device};

/// The homeserver ends the membership of a device that says nothing for this long: twice what clients ask for, as a
/// homeserver under load answers late.
const LEAVE_AFTER: Duration = Duration::from_secs(20);
const PUT_OFF_EVERY: Duration = Duration::from_secs(5);
/// Who is in the call already sends a key within this time, also by a homeserver that is busy with many who join at once.
const KEYS_COME: Duration = Duration::from_secs(30);
const LONG_POLL: Duration = Duration::from_secs(30);
const AFTER_A_FAILURE: Duration = Duration::from_millis(500);

/// A key to use, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Encrypt own frames with it from now on.
    Own {
        /// Its index.
        index: u8,
        /// 16 bytes.
        material: [u8; LENGTH],
    },
    /// It opens frames of another.
    Other {
        /// What the other is called in the call.
        identity: String,
        /// Its index.
        index: u8,
        /// 16 or 32 bytes.
        material: Vec<u8>,
    },
}

/// What entering a call gave.
#[derive(Debug)]
pub struct Ticket {
    /// Base address of the SFU.
    pub url: String,
    /// Token for it.
    pub jwt: String,
    /// What the user is called in the call.
    pub identity: String,
    /// Keys, until the call is left; `None` in a room that is not encrypted.
    pub news: Option<mpsc::UnboundedReceiver<News>>,
    /// Those in the call whose keys did not come in time.
    pub keyless: Vec<String>,
}

enum Note {
    Member(String, Change),
    Key(wire::CameKey),
    Watch(String),
    Enter(mpsc::UnboundedSender<News>),
    Wait(oneshot::Sender<Vec<String>>),
    Leave,
}

/// A device of a user. Dropping it ends it like a crash: the homeserver sends its delayed leave.
#[derive(Debug)]
pub struct User {
    homeserver: Homeserver,
    account: Account,
    notes: mpsc::UnboundedSender<Note>,
    tasks: Vec<JoinHandle<()>>,
    /// The room of the call, the delayed leave as it is now and what puts it off.
    call: Option<(Room, watch::Receiver<String>, JoinHandle<()>)>,
}

impl User {
    /// Its first syncs are through: others can send it keys.
    pub async fn start(homeserver: &Homeserver, account: Account) -> anyhow::Result<Self> {
        let builder = Client::builder().homeserver_url(homeserver.base.as_str()).http_client(homeserver.http.clone());
        let client = builder.build().await?;
        let session: MatrixSession = serde_json::from_value(json!({
            "user_id": account.device.user, "device_id": account.device.device, "access_token": account.token,
        }))?;
        client.matrix_auth().restore_session(session, RoomLoadSettings::default()).await?;
        let (notes, inbox) = mpsc::unbounded_channel();
        listen(&client, &notes);
        // Keys of the device go up with the first sync, and are there when the second one is.
        let token = sync(&client, None, Duration::ZERO).await?;
        let token = sync(&client, Some(token), Duration::ZERO).await?;
        let desk = Desk {
            client: client.clone(),
            own: account.device.clone(),
            inbox,
            room: String::new(),
            members: BTreeMap::new(),
            keys: Keys::default(),
            keyed: BTreeSet::new(),
            news: None,
            waiting: None,
        };
        let tasks = vec![tokio::spawn(sync_on(client, token)), tokio::spawn(desk.run())];
        Ok(Self { homeserver: homeserver.clone(), account, notes, tasks, call: None })
    }

    /// Which device it is.
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// Join a room, by its id or alias.
    pub async fn join(&self, room: &str) -> anyhow::Result<Room> {
        let room = self.homeserver.join(&self.account, room).await?;
        self.tell(Note::Watch(room.id.clone()));
        Ok(room)
    }

    /// Enter the call of a room that was joined; `service` gives out tokens. Returns when the keys of those in the call are
    /// here, or should be.
    pub async fn enter(&mut self, room: &Room, service: &str) -> anyhow::Result<Ticket> {
        let (homeserver, account) = (&self.homeserver, &self.account);
        let grant = homeserver.grant(account, &room.id, service).await?;
        let delayed = homeserver.delay_leave(account, &room.id, LEAVE_AFTER).await?;
        let (sender, delayed) = watch::channel(delayed);
        let stay = stay(homeserver.clone(), account.clone(), room.id.clone(), service.to_owned(), sender);
        self.call = Some((room.clone(), delayed, tokio::spawn(stay)));
        // The first keys may come while the membership is being answered.
        let news = room.encrypted.then(|| {
            let (sender, news) = mpsc::unbounded_channel();
            self.tell(Note::Enter(sender));
            news
        });
        self.homeserver.stand(&self.account, &room.id, Some(service)).await?;
        for event in self.homeserver.state(&self.account, &room.id).await? {
            if let Some(change) = wire::read_member(&event, date_ms()) {
                self.tell(Note::Member(room.id.clone(), change));
            }
        }
        let mut keyless = Vec::new();
        if news.is_some() {
            let (reply, answer) = oneshot::channel();
            self.tell(Note::Wait(reply));
            keyless = answer.await.context("the user's task has ended")?;
        }
        Ok(Ticket { url: grant.url, jwt: grant.jwt, identity: self.account.device.identity(), news, keyless })
    }

    /// Leave the call: the delayed leave goes out now. Keys do not change any more.
    pub async fn leave(&mut self) -> anyhow::Result<()> {
        self.tell(Note::Leave);
        let Some((room, delayed, stay)) = self.call.take() else { return Ok(()) };
        stay.abort();
        let delayed = delayed.borrow().clone();
        if self.homeserver.update_delayed(&self.account, &delayed, "send").await.is_ok() {
            return Ok(());
        }
        self.homeserver.stand(&self.account, &room.id, None).await
    }

    /// Leave whatever it is in and log out.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.leave().await?;
        for task in self.tasks.drain(..) {
            task.abort();
        }
        self.homeserver.logout(&self.account).await
    }

    fn tell(&self, note: Note) {
        // The task ends with the user only.
        let _ = self.notes.send(note);
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some((_, _, stay)) = &self.call {
            stay.abort();
        }
    }
}

/// Keeps the homeserver from sending the leave; where it has sent it, enters again, as clients do.
async fn stay(homeserver: Homeserver, account: Account, room: String, service: String, delayed: watch::Sender<String>) {
    loop {
        tokio::time::sleep(PUT_OFF_EVERY).await;
        let current = delayed.borrow().clone();
        let Err(error) = homeserver.update_delayed(&account, &current, "restart").await else { continue };
        eprintln!("{}: {error:#}; it enters again", account.device.user);
        let again = homeserver.delay_leave(&account, &room, LEAVE_AFTER).await;
        let Ok(again) = again else { continue };
        delayed.send_replace(again);
        if let Err(error) = homeserver.stand(&account, &room, Some(&service)).await {
            eprintln!("{}: {error:#}", account.device.user);
        }
    }
}

fn listen(client: &Client, notes: &mpsc::UnboundedSender<Note>) {
    let sender = notes.clone();
    client.add_event_handler(move |event: Raw<AnySyncStateEvent>, room: SdkRoom| {
        let event: Option<Value> = serde_json::from_str(event.json().get()).ok();
        if let Some(change) = event.and_then(|event| wire::read_member(&event, date_ms())) {
            // The task ends with the user only.
            let _ = sender.send(Note::Member(room.room_id().to_string(), change));
        }
        std::future::ready(())
    });
    let sender = notes.clone();
    client.add_event_handler(move |event: Raw<AnyToDeviceEvent>, info: Option<EncryptionInfo>| {
        let event: Option<Value> = serde_json::from_str(event.json().get()).ok();
        // What came in the clear may be from anybody.
        let device = info.and_then(|info| info.sender_device);
        if let Some(key) = event.zip(device).and_then(|(event, device)| wire::read_key(&event, device.as_str())) {
            let _ = sender.send(Note::Key(key));
        }
        std::future::ready(())
    });
}

async fn sync(client: &Client, token: Option<String>, poll: Duration) -> anyhow::Result<String> {
    let nothing = json!({ "types": [] });
    let filter: FilterDefinition = serde_json::from_value(json!({
        "presence": nothing,
        "account_data": nothing,
        "room": {
            "account_data": nothing,
            "ephemeral": nothing,
            "timeline": { "limit": 50 },
            "state": { "lazy_load_members": true },
        },
    }))?;
    let mut settings = SyncSettings::new().filter(Filter::FilterDefinition(filter)).timeout(poll);
    if let Some(token) = token {
        settings = settings.token(token);
    }
    Ok(client.sync_once(settings).await?.next_batch)
}

async fn sync_on(client: Client, mut token: String) {
    loop {
        match sync(&client, Some(token.clone()), LONG_POLL).await {
            Ok(next) => token = next,
            Err(_) => tokio::time::sleep(AFTER_A_FAILURE).await,
        }
    }
}

/// Who is in the call, and the keys.
struct Desk {
    client: Client,
    own: Device,
    inbox: mpsc::UnboundedReceiver<Note>,
    room: String,
    /// By state key: when the homeserver took it, and who.
    members: BTreeMap<String, (u64, Option<Device>)>,
    keys: Keys,
    /// Those whose key came.
    keyed: BTreeSet<Device>,
    news: Option<mpsc::UnboundedSender<News>>,
    /// Who enters waits for keys until then.
    waiting: Option<(oneshot::Sender<Vec<String>>, Instant)>,
}

impl Desk {
    async fn run(mut self) {
        loop {
            let until = self.waiting.as_ref().map(|(_, until)| *until);
            let due = self.keys.deadline().into_iter().chain(until).min();
            let due = due.unwrap_or_else(|| Instant::now() + LONG_POLL);
            tokio::select! {
                note = self.inbox.recv() => match note {
                    Some(note) => self.take(note),
                    None => return,
                },
                () = tokio::time::sleep_until(due) => {}
            }
            // What came together is answered together.
            while let Ok(note) = self.inbox.try_recv() {
                self.take(note);
            }
            let now = Instant::now();
            let others =
                self.members.values().filter_map(|(_, member)| member.as_ref()).filter(|one| **one != self.own);
            let mut actions = self.keys.members(now, others);
            actions.extend(self.keys.due(now, material));
            for action in actions {
                match action {
                    Action::Send(key, devices) => self.send(&key, &devices).await,
                    Action::Use(key) => self.report(News::Own { index: key.index, material: key.material }),
                }
            }
            self.answer();
        }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Watch(room) => {
                self.room = room;
                self.members.clear();
            }
            Note::Member(room, change) => {
                let known = self.members.get(&change.state_key).is_some_and(|(at, _)| *at > change.at_ms);
                if room != self.room || known {
                    return;
                }
                let gone = self.members.insert(change.state_key, (change.at_ms, change.member.clone()));
                if change.member.is_none()
                    && let Some((_, Some(gone))) = gone
                {
                    self.keyed.remove(&gone);
                }
            }
            Note::Key(key) if key.room == self.room => {
                self.report(News::Other { identity: key.of.identity(), index: key.index, material: key.material });
                self.keyed.insert(key.of);
            }
            Note::Key(_) => {}
            Note::Wait(reply) => self.waiting = Some((reply, Instant::now() + KEYS_COME)),
            Note::Enter(news) => {
                self.news = Some(news);
                self.keyed.clear();
                if let Action::Use(key) = self.keys.enter(material()) {
                    self.report(News::Own { index: key.index, material: key.material });
                }
            }
            Note::Leave => {
                self.keys.leave();
                self.news = None;
                self.waiting = None;
            }
        }
    }

    fn report(&self, news: News) {
        if let Some(sender) = &self.news {
            // Nobody wants it any more: fine.
            let _ = sender.send(news);
        }
    }

    /// Tell who enters when everything is here, or time is up.
    fn answer(&mut self) {
        let Some((_, until)) = &self.waiting else { return };
        let is_missing = |member: &&Device| **member != self.own && !self.keyed.contains(*member);
        let members = self.members.values().filter_map(|(_, member)| member.as_ref());
        let missing: Vec<String> = members.filter(is_missing).map(Device::identity).collect();
        if (missing.is_empty() || *until <= Instant::now())
            && let Some((reply, _)) = self.waiting.take()
        {
            // Who asked has gone: fine.
            let _ = reply.send(missing);
        }
    }

    async fn send(&mut self, key: &Key, to: &[Device]) {
        let encryption = self.client.encryption();
        let (mut known, mut missed) = (Vec::new(), Vec::new());
        for device in to {
            match self.find(device).await {
                Some(found) => known.push(found),
                None => missed.push(device.clone()),
            }
        }
        let content = wire::key_message(&self.own, &self.room, key.index, &key.material, date_ms()).to_string();
        let sent = match Raw::from_json_string(content) {
            Ok(content) if !known.is_empty() => {
                let to = known.iter().collect();
                encryption.encrypt_and_send_raw_to_device(to, wire::KEYS, content, CollectStrategy::AllDevices).await
            }
            _ => Ok(Vec::new()),
        };
        match sent {
            Ok(failed) => {
                missed.extend(
                    failed.iter().map(|(user, device)| Device { user: user.to_string(), device: device.to_string() }),
                );
            }
            Err(error) => {
                eprintln!("{}: keys could not be sent: {error}", self.own.user);
                missed = to.to_vec();
            }
        }
        for device in missed {
            self.keys.missed(Instant::now(), &device);
        }
    }

    /// The device as the SDK knows it; it asks for it once.
    async fn find(&self, device: &Device) -> Option<matrix_sdk::encryption::identities::Device> {
        let encryption = self.client.encryption();
        let user = UserId::parse(&device.user).ok()?;
        let id = OwnedDeviceId::from(device.device.as_str());
        if let Ok(Some(found)) = encryption.get_device(&user, &id).await {
            return Some(found);
        }
        encryption.request_user_identity(&user).await.ok()?;
        encryption.get_device(&user, &id).await.ok().flatten()
    }
}

fn material() -> [u8; LENGTH] {
    let mut material = [0; LENGTH];
    // The system has randomness, or nothing else here works either.
    let _ = aws_lc_rs::rand::fill(&mut material);
    material
}
