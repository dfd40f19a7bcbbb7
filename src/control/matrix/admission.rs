//! Who may join a call and what they may do in it, from what is known of the room, moderation lists and the policy for
//! users of other homeservers. Pure: everything comes in as values.

use livekit_protocol as proto;
use livekit_protocol::TrackSource;
use signalling::matrix::policy::Policies;
use signalling::matrix::power::Dialect;
use signalling::matrix::request::ApiError;
use signalling::matrix::view::{Denied, Rights, View};
use signalling::room::api::{Grants, Refusal};

use super::calls::RemoteLoad;
use crate::config::{Feed, RemoteUsersConfig, Trust};

/// Why somebody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Not in the room, or it is not known there.
    NotInRoom,
    /// Banned from the room.
    Banned,
    /// On a moderation list.
    Listed,
    /// The call is closed.
    SlotClosed,
    /// The room was replaced.
    RoomUpgraded,
    /// No feed, and the policy says no.
    NoFeed,
    /// A limit for users of other homeservers is reached.
    RemoteLimit,
    /// The homeserver does not answer.
    HomeserverDown,
    /// The token was revoked, or nobody was let in with it.
    Revoked,
    /// Too many calls or callers.
    Full,
}

/// What the call allows and who asks.
pub(super) struct Question<'a> {
    pub(super) user: &'a str,
    pub(super) slot: &'a str,
    pub(super) matrix_room: &'a str,
    pub(super) dialect: Dialect,
    /// In the call already: what only stops new joins does not apply.
    pub(super) is_inside: bool,
}

/// What decides.
pub(super) struct Rules<'a> {
    pub(super) policies: &'a Policies,
    pub(super) feed: Feed,
}

/// May this user be in the call, and with which rights by the room alone? [`cap`] narrows them.
pub(super) fn admit(view: &View, question: &Question<'_>, rules: &Rules<'_>) -> Result<Rights, Refused> {
    if rules.policies.ban(question.user, question.matrix_room).is_some() {
        return Err(Refused::Listed);
    }
    match view.may_join(question.user, question.slot) {
        Ok(()) => {}
        // These stop new joins and let the running call finish.
        Err(Denied::SlotClosed | Denied::RoomUpgraded) if question.is_inside => {}
        Err(Denied::NotInRoom) => return Err(Refused::NotInRoom),
        Err(Denied::Banned) => return Err(Refused::Banned),
        Err(Denied::SlotClosed) => return Err(Refused::SlotClosed),
        Err(Denied::RoomUpgraded) => return Err(Refused::RoomUpgraded),
    }
    Ok(match rules.feed {
        Feed::Full => view.rights(question.user, question.dialect),
        // Power levels cannot be read: whoever is joined may.
        Feed::Joined | Feed::Openid => Rights::ALL,
    })
}

/// The most a user of another homeserver may do, decided when the token is asked for.
pub(super) const fn cap(policy: &RemoteUsersConfig, load: RemoteLoad) -> Result<Rights, Refused> {
    if load.in_room >= policy.max_per_room || load.of_server >= policy.max_per_server {
        return Err(Refused::RemoteLimit);
    }
    let may_publish = policy.publish
        && load.publishers_in_room < policy.max_publishers_per_room
        && load.publishers_of_server < policy.max_publishers_per_server;
    Ok(if may_publish { Rights::ALL } else { Rights::NONE })
}

/// What the policy allows where nothing is known of the room.
pub(super) const fn without_feed(trust: Trust) -> Result<Rights, Refused> {
    match trust {
        Trust::Deny => Err(Refused::NoFeed),
        Trust::SubscribeOnly => Ok(Rights::NONE),
        Trust::Allow => Ok(Rights::ALL),
    }
}

impl Refused {
    /// For the operator, in plain words.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::NotInRoom => "is not in the Matrix room",
            Self::Banned => "is banned from the Matrix room",
            Self::Listed => "is on a moderation list",
            Self::SlotClosed => "came to a call that is closed",
            Self::RoomUpgraded => "came to a room that was replaced by another",
            Self::NoFeed => "came from a room nothing can be known of (`matrix.without_feed` is deny)",
            Self::RemoteLimit => "is one too many of another homeserver (`matrix.remote_users`)",
            Self::HomeserverDown => "cannot be checked: the homeserver does not answer",
            Self::Revoked => "showed a token that was revoked or is not known",
            Self::Full => "is one too many: too many calls or callers",
        }
    }

    /// As a metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::NotInRoom => "not_in_room",
            Self::Banned => "banned",
            Self::Listed => "listed",
            Self::SlotClosed => "slot_closed",
            Self::RoomUpgraded => "room_upgraded",
            Self::NoFeed => "no_feed",
            Self::RemoteLimit => "remote_limit",
            Self::HomeserverDown => "homeserver_down",
            Self::Revoked => "revoked",
            Self::Full => "full",
        }
    }

    /// For clients of the token endpoints. Whether a room exists or somebody is banned is nobody's business.
    pub(super) const fn api_error(self) -> ApiError {
        match self {
            Self::NotInRoom | Self::Banned | Self::Listed | Self::Revoked | Self::NoFeed => {
                ApiError::forbidden("You may not take part in calls of this room.")
            }
            Self::SlotClosed => ApiError::forbidden("This call is closed."),
            Self::RoomUpgraded => ApiError::forbidden("This room was replaced by a newer one."),
            Self::RemoteLimit => limit("Too many users of other homeservers are in this call."),
            Self::Full => limit("Too many calls at once."),
            Self::HomeserverDown => unavailable(),
        }
    }

    /// For clients that show a token.
    pub(super) const fn refusal(self) -> Refusal {
        match self {
            Self::HomeserverDown => Refusal::Unavailable("the homeserver does not answer: try again later"),
            Self::RemoteLimit | Self::Full => Refusal::Unavailable("too many participants"),
            Self::SlotClosed => Refusal::Unauthorized("this call is closed"),
            Self::RoomUpgraded => Refusal::Unauthorized("this room was replaced by a newer one"),
            _ => Refusal::Unauthorized("you may not take part in calls of this room"),
        }
    }
}

const fn limit(text: &'static str) -> ApiError {
    ApiError { status: 429, errcode: "M_LIMIT_EXCEEDED", text }
}

/// The homeserver cannot be asked.
pub(super) const fn unavailable() -> ApiError {
    ApiError { status: 503, errcode: "M_UNKNOWN", text: "The homeserver cannot be reached: try again later." }
}

/// Names of the sources a token allows; empty: all.
pub(super) fn source_names(rights: Rights) -> Vec<String> {
    let names = sources(rights).into_iter().map(|source| match source {
        TrackSource::Microphone => "microphone",
        TrackSource::Camera => "camera",
        TrackSource::ScreenShare => "screen_share",
        _ => "screen_share_audio",
    });
    names.map(str::to_owned).collect()
}

fn sources(rights: Rights) -> Vec<TrackSource> {
    if rights == Rights::ALL {
        return Vec::new();
    }
    let mut list = Vec::new();
    if rights.microphone {
        list.push(TrackSource::Microphone);
    }
    if rights.camera {
        list.push(TrackSource::Camera);
    }
    if rights.screen_share {
        list.extend([TrackSource::ScreenShare, TrackSource::ScreenShareAudio]);
    }
    list
}

/// Narrow what a token allows to what the room allows now.
pub(super) fn narrow(grants: &mut Grants, rights: Rights) {
    grants.can_publish = rights.any();
    grants.can_publish_sources = sources(rights).into_iter().map(i32::from).collect();
    grants.can_publish_data &= rights.any();
}

/// The permission that gives a participant these rights.
pub(super) fn permission(rights: Rights) -> proto::ParticipantPermission {
    proto::ParticipantPermission {
        can_subscribe: true,
        can_publish: rights.any(),
        can_publish_data: rights.any(),
        can_publish_sources: sources(rights).into_iter().map(i32::from).collect(),
        ..proto::ParticipantPermission::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Refused; 10] = [
        Refused::NotInRoom,
        Refused::Banned,
        Refused::Listed,
        Refused::SlotClosed,
        Refused::RoomUpgraded,
        Refused::NoFeed,
        Refused::RemoteLimit,
        Refused::HomeserverDown,
        Refused::Revoked,
        Refused::Full,
    ];

    /// Cells of the row of the documentation that begins with these words.
    fn row(words: &str) -> Option<Vec<String>> {
        let text = include_str!("../../../docs/matrix.md");
        let mut rows = text.lines().map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
        rows.find(|cells| cells.get(1).is_some_and(|cell| cell == words))
    }

    #[test]
    fn every_refusal_is_documented_as_it_goes_over_the_wire() {
        for refused in ALL {
            let words = refused.words();
            let Some(cells) = row(words) else { unreachable!("docs/matrix.md says nothing about who {words}") };
            let cell = |at: usize| cells.get(at).cloned().unwrap_or_default();
            let ApiError { status, errcode, .. } = refused.api_error();
            let asked = format!("{status} `{errcode}`");
            // Nobody asks for a token with a token.
            let asked = if refused == Refused::Revoked { "-".to_owned() } else { asked };
            assert!(cell(2).starts_with(&asked), "who {words} is answered {asked}, documented is {:?}", cell(2));
            let shown = match refused.refusal() {
                Refusal::Unauthorized(_) => "401",
                Refusal::BadRequest(_) => "400",
                Refusal::NoSuchRoom => "404",
                Refusal::Unavailable(_) => "503",
            };
            assert_eq!(cell(3), shown, "who {words}");
            assert!(!cell(4).is_empty(), "what does somebody see who {words}?");
        }
    }

    #[test]
    fn remote_users_have_places_to_be_in_and_to_publish_from() {
        let policy = RemoteUsersConfig {
            max_per_room: 3,
            max_per_server: 5,
            max_publishers_per_room: 2,
            max_publishers_per_server: 4,
            ..RemoteUsersConfig::default()
        };
        let load = |in_room, publishers_in_room, of_server, publishers_of_server| RemoteLoad {
            in_room,
            publishers_in_room,
            of_server,
            publishers_of_server,
        };
        assert_eq!(cap(&policy, load(0, 0, 0, 0)), Ok(Rights::ALL));
        assert_eq!(cap(&policy, load(2, 2, 2, 2)), Ok(Rights::NONE), "the room has its publishers");
        assert_eq!(cap(&policy, load(0, 0, 4, 4)), Ok(Rights::NONE), "the server has its publishers");
        assert_eq!(cap(&policy, load(3, 0, 3, 0)), Err(Refused::RemoteLimit));
        assert_eq!(cap(&policy, load(0, 0, 5, 0)), Err(Refused::RemoteLimit));
        let listening = RemoteUsersConfig { publish: false, ..policy };
        assert_eq!(cap(&listening, load(0, 0, 0, 0)), Ok(Rights::NONE));
    }
}
