//! `weir-loadtest matrix`: the participants are Matrix users. They log in, join the rooms, get tokens as clients do, say in
//! room state that they are in the call, hand keys of frames to each other as encrypted to-device messages, and leave by
//! delayed events. What they send and check is what those of `sfu` do; people in the same call see and hear them.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use weir_loadtest_matrix::{Account, Homeserver, News, Room, User};

use crate::client::Keyholder;
use crate::door::{Companion, Door, Pass, Soon};
use crate::e2ee;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::sfu::{RunArgs, run_at};

/// Registrations, logins and first syncs under way at a time: homeservers hash passwords slowly, on purpose.
const PREPARED_AT_A_TIME: usize = 4;
/// What is played where nothing else is asked for.
const USUAL: &str = "call";

/// What to do.
#[derive(Clone, Debug, Args)]
pub struct MatrixArgs {
    /// Address of the homeserver, as clients use it
    #[arg(long, default_value = "http://127.0.0.1:8008")]
    pub homeserver: String,
    /// Room of the call, by id or alias, that the users may join; without it they make encrypted rooms of their own
    #[arg(long)]
    pub room: Option<String>,
    /// Register users by this secret of the homeserver (registration_shared_secret of Synapse)
    #[arg(long, env = "REGISTRATION_SHARED_SECRET", hide_env_values = true, required_unless_present = "users")]
    pub registration_secret: Option<String>,
    /// Log these users in instead: a file with a name and a password on each line
    #[arg(long, value_name = "FILE", conflicts_with = "registration_secret")]
    pub users: Option<PathBuf>,
    /// Where tokens for calls are given out; without it, where the homeserver says
    #[arg(long)]
    pub service_url: Option<String>,
    /// What happens there
    #[command(flatten)]
    pub run: RunArgs,
}

/// Run it, show what happens, give the report.
pub async fn run(args: &MatrixArgs) -> anyhow::Result<Report> {
    let mut scenario = args.scenario()?;
    let homeserver = Homeserver::new(&args.homeserver)?;
    let door = Matrix::prepare(args, &homeserver, &mut scenario).await?;
    let service = door.service.clone();
    run_at(&args.run, &service, Arc::new(door), scenario).await
}

impl MatrixArgs {
    /// Who takes part, as far as it is known before the rooms are.
    pub fn scenario(&self) -> anyhow::Result<Scenario> {
        let mut wanted = self.run.scenario.clone();
        if wanted.scenario.is_none() && wanted.shape.is_none() {
            wanted.scenario = Some(USUAL.to_owned());
        }
        let mut scenario = wanted.scenario()?;
        if self.run.find_limit.is_some() {
            bail!("a search is for the mode sfu");
        }
        if self.room.is_some() && scenario.rooms > 1 {
            bail!("one room is named, and {} are to be used", scenario.rooms);
        }
        // Rooms made here are encrypted; those that are named will tell.
        scenario.e2ee |= self.room.is_none();
        scenario.checked()
    }
}

/// The way in: users that wait for their turn.
#[derive(Debug)]
struct Matrix {
    service: String,
    rooms: Vec<Arc<Waiting>>,
    /// What they are called in calls.
    ours: BTreeSet<String>,
}

/// Users who are in a room, but not in its call.
#[derive(Debug)]
struct Waiting {
    room: Room,
    users: Mutex<VecDeque<User>>,
}

impl Matrix {
    /// Everybody is in their room and can be sent keys.
    async fn prepare(args: &MatrixArgs, homeserver: &Homeserver, scenario: &mut Scenario) -> anyhow::Result<Self> {
        // Who comes in the place of one who left is somebody else.
        let each = scenario.participants + u32::from(scenario.churn > 0);
        let count = (each * scenario.rooms) as usize;
        eprintln!("{count} users get ready");
        let mut users = users(args, homeserver, count).await?;
        let first = users.front().context("there are no users")?.account().clone();
        let service = match &args.service_url {
            Some(service) => service.trim_end_matches('/').to_owned(),
            None => homeserver.service(&first).await?,
        };
        let ours = users.iter().map(|user| user.account().device.identity()).collect();
        let mut rooms = Vec::new();
        for number in 0..scenario.rooms {
            let name = match &args.room {
                Some(name) => name.clone(),
                None => homeserver.create_room(&first, &format!("load {number}")).await?.id,
            };
            let mut joined = VecDeque::new();
            let mut room = None;
            for _ in 0..each {
                let user = users.pop_front().context("there are too few users")?;
                room = Some(user.join(&name).await?);
                joined.push_back(user);
            }
            let room = room.context("nobody is in the room")?;
            eprintln!("room {}{}", room.id, if room.encrypted { "" } else { ", not encrypted" });
            scenario.e2ee = room.encrypted;
            rooms.push(Arc::new(Waiting { room, users: Mutex::new(joined) }));
        }
        *scenario = scenario.clone().checked()?;
        Ok(Self { service, rooms, ours })
    }
}

/// This many users, logged in and synced.
async fn users(args: &MatrixArgs, homeserver: &Homeserver, count: usize) -> anyhow::Result<VecDeque<User>> {
    let named = args.users.as_deref().map(read_users).transpose()?;
    if let Some(named) = &named
        && named.len() < count
    {
        bail!("{count} users are needed, and {} are named", named.len());
    }
    let run = hex(4)?;
    let turns = Arc::new(tokio::sync::Semaphore::new(PREPARED_AT_A_TIME));
    let mut preparing = JoinSet::new();
    for number in 0..count {
        let named = named.as_ref().and_then(|named| named.get(number).cloned());
        let (homeserver, turns) = (homeserver.clone(), Arc::clone(&turns));
        let (secret, own) = (args.registration_secret.clone(), format!("weir-load-{run}-{number}"));
        preparing.spawn(async move {
            let _turn = turns.acquire_owned().await?;
            let account: Account = match (named, secret) {
                (Some((name, password)), _) => homeserver.login(&name, &password).await?,
                (None, Some(secret)) => homeserver.register(&secret, &own, &hex(16)?).await?,
                (None, None) => bail!("neither users nor a secret to register them"),
            };
            User::start(&homeserver, account).await
        });
    }
    let mut users = VecDeque::new();
    while let Some(user) = preparing.join_next().await {
        users.push_back(user.context("a user panicked")??);
    }
    Ok(users)
}

/// Names and passwords, one of each on a line; `#` begins a comment.
fn read_users(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let (name, password) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), password.trim().to_owned()))
    };
    let missing = |number: u32| format!("{}:{number}: a name and a password", path.display());
    lines.map(|(line, number)| read(line).with_context(|| missing(number))).collect()
}

/// So many random bytes, in hexadecimal.
fn hex(bytes: usize) -> anyhow::Result<String> {
    let material = e2ee::material().context("no randomness")?;
    Ok(material.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect())
}

impl Door for Matrix {
    fn admit(&self, room: u32, _: u32, _: u32) -> Soon<'_, anyhow::Result<Pass>> {
        Box::pin(async move {
            let waiting = self.rooms.get(room as usize).context("no such room")?;
            let mut user = waiting.users.lock().await.pop_front().context("all users of the room are in its call")?;
            let ticket = match user.enter(&waiting.room, &self.service).await {
                Ok(ticket) => ticket,
                Err(error) => {
                    // Nobody will miss the membership, if there is one: the homeserver ends it.
                    let _ = user.leave().await;
                    waiting.users.lock().await.push_back(user);
                    return Err(error);
                }
            };
            let (ours, others): (Vec<&String>, Vec<&String>) =
                ticket.keyless.iter().partition(|identity| self.ours.contains(*identity));
            for other in others {
                eprintln!("{other} stands in the call and sent no key to {}", ticket.identity);
            }
            let keyless = ours.len() as u64;
            let companion = Attended { user, waiting: Arc::clone(waiting), news: ticket.news, handing: None };
            Ok(Pass {
                url: ticket.url,
                token: ticket.jwt,
                identity: ticket.identity,
                companion: Some(Box::new(companion)),
                keyless,
            })
        })
    }

    fn is_ours(&self, identity: &str) -> bool {
        self.ours.contains(identity)
    }

    fn has_people(&self) -> bool {
        true
    }

    fn close(&self) -> Soon<'_, ()> {
        Box::pin(async move {
            let mut ending = JoinSet::new();
            for waiting in &self.rooms {
                for user in waiting.users.lock().await.drain(..) {
                    ending.spawn(user.end());
                }
            }
            for ended in ending.join_all().await {
                if let Err(error) = ended {
                    eprintln!("{error:#}");
                }
            }
        })
    }
}

/// A user whose device is in the call.
#[derive(Debug)]
struct Attended {
    user: User,
    waiting: Arc<Waiting>,
    news: Option<tokio::sync::mpsc::UnboundedReceiver<News>>,
    handing: Option<JoinHandle<()>>,
}

impl Companion for Attended {
    fn keys_to(&mut self, holder: Keyholder) {
        let Some(mut news) = self.news.take() else { return };
        self.handing = Some(tokio::spawn(async move {
            while let Some(news) = news.recv().await {
                let handed = match news {
                    News::Own { index, material } => holder.use_key(index, material).await,
                    News::Other { identity, index, material } => holder.know_key(&identity, index, &material).await,
                };
                if handed.is_err() {
                    return;
                }
            }
        }));
    }

    fn leave(mut self: Box<Self>) -> Soon<'static, ()> {
        Box::pin(async move {
            if let Some(handing) = self.handing.take() {
                handing.abort();
            }
            if let Err(error) = self.user.leave().await {
                eprintln!("{}: {error:#}", self.user.account().device.user);
            }
            self.waiting.users.lock().await.push_back(self.user);
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        matrix: MatrixArgs,
    }

    fn scenario(flags: &str) -> anyhow::Result<Scenario> {
        let line = ["load", "--registration-secret", "x"].into_iter().chain(flags.split_whitespace());
        Cli::try_parse_from(line)?.matrix.scenario()
    }

    #[test]
    fn own_rooms_are_encrypted_and_light_participants_listen_there() {
        let call = scenario("").unwrap();
        assert!(call.e2ee && call.full == 4);
        let large = scenario("--participants 20 --full 4 --microphones 4 --cameras 4").unwrap();
        assert!(large.is_full(0) && large.is_full(3) && !large.is_full(4));
        assert_eq!(large.streams_for(19), 8);
        assert!(scenario("--participants 20 --full 4 --microphones 5 --cameras 4").is_err());
        assert!(scenario("--room !a:b --rooms 2").is_err());
        assert!(scenario("--find-limit rooms").is_err());
        assert!(Cli::try_parse_from(["load"]).is_err());
    }

    #[test]
    fn a_list_of_users_has_a_name_and_a_password_on_each_line() {
        let path = std::env::temp_dir().join(format!("weir-load-users-{}", std::process::id()));
        std::fs::write(&path, "# ours\nalice  secret one\n\n@bob:example.org pass\n").unwrap();
        let users = read_users(&path).unwrap();
        let expected = [("alice", "secret one"), ("@bob:example.org", "pass")];
        assert_eq!(users, expected.map(|(name, password)| (name.to_owned(), password.to_owned())));
        std::fs::write(&path, "alice secret\nbob\n").unwrap();
        assert!(read_users(&path).unwrap_err().to_string().contains(":2: "));
        std::fs::remove_file(path).unwrap();
    }
}
