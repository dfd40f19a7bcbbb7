//! Room names and participant identities of every MatrixRTC generation, in one place (MSC4195 and its drafts).
//!
//! Tokens name an SFU room and an identity derived from Matrix ids. The derivation changed with each generation of
//! clients; a participant that joined under one form has to be found under the others, so they all live here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest as _, Sha256};

/// The slot every `m.call` of a room uses unless it says otherwise (MSC4196).
pub const ROOM_CALL_SLOT: &str = "m.call#ROOM";

/// Unpadded standard base64 of the SHA-256 of the canonical JSON array of `parts`.
fn hash(parts: &[&str]) -> String {
    // Canonical JSON of strings is what serde_json writes: shortest escapes, no spaces, UTF-8 as it is. (Not what Go's
    // encoder writes, which escapes <, > and &; clients do not.)
    let json = serde_json::to_string(parts).unwrap_or_default();
    STANDARD_NO_PAD.encode(Sha256::digest(json.as_bytes()))
}

/// The SFU room of a slot of a Matrix room: the same for all token endpoints, so that users of all generations meet.
pub fn room_name(matrix_room: &str, slot: &str) -> String {
    hash(&[matrix_room, slot])
}

/// Every name under which older services would have made the same room, newest first. Nothing new is made under these;
/// they let an operator find a call that a service before weir has started.
pub fn older_room_names(matrix_room: &str, slot: &str) -> [String; 3] {
    let piped = Sha256::digest(format!("{matrix_room}|{slot}").as_bytes());
    let hex = piped.iter().fold(String::with_capacity(64), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    });
    [STANDARD_NO_PAD.encode(piped), hex, matrix_room.to_owned()]
}

/// How a participant identity is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityForm {
    /// `@user:server:DEVICE`: `POST /sfu/get`, clients with membership in room state.
    UserDevice,
    /// Hash of user, device and member id: `POST /get_token`, Matrix 2.0 mode.
    UserDeviceMember,
    /// Hash of user and member id: the homeserver-mediated endpoints of MSC4195's rewrite.
    UserMember,
}

/// Who somebody is in a call, as far as it is known. Different endpoints tell different parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    /// Matrix user id.
    pub user: String,
    /// Device id, claimed by the client.
    pub device: Option<String>,
    /// Member id of this join, chosen by the client.
    pub member: Option<String>,
}

impl Caller {
    /// The identity in one form; `None` where a part is not known.
    pub fn identity(&self, form: IdentityForm) -> Option<String> {
        match form {
            IdentityForm::UserDevice => Some(format!("{}:{}", self.user, self.device.as_ref()?)),
            IdentityForm::UserDeviceMember => Some(hash(&[&self.user, self.device.as_ref()?, self.member.as_ref()?])),
            IdentityForm::UserMember => Some(hash(&[&self.user, self.member.as_ref()?])),
        }
    }

    /// Every identity this caller can have, each once.
    pub fn identities(&self) -> Vec<String> {
        [IdentityForm::UserDevice, IdentityForm::UserDeviceMember, IdentityForm::UserMember]
            .into_iter()
            .filter_map(|form| self.identity(form))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice(device: Option<&str>, member: Option<&str>) -> Caller {
        Caller {
            user: "@alice:example.com".to_owned(),
            device: device.map(str::to_owned),
            member: member.map(str::to_owned),
        }
    }

    #[test]
    fn matches_the_published_vectors() {
        assert_eq!(room_name("!roomid:example.com", "slot1234"), "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc");
        let both = alice(Some("DEVICE123"), Some("memberABC"));
        assert_eq!(
            both.identity(IdentityForm::UserDeviceMember).as_deref(),
            Some("J+T45tGruxc+HrUOqJJlyQSV33m728Cme4+vt8/SWrU")
        );
        let no_device = alice(None, Some("memberABC"));
        assert_eq!(
            no_device.identity(IdentityForm::UserMember).as_deref(),
            Some("M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs")
        );
    }

    #[test]
    fn is_found_under_every_form_its_parts_allow() {
        assert_eq!(alice(Some("D"), None).identities(), vec!["@alice:example.com:D"]);
        assert_eq!(alice(Some("D"), Some("m")).identities().len(), 3);
        assert_eq!(alice(None, None).identities(), Vec::<String>::new());
    }

    #[test]
    fn hashes_ids_as_clients_write_them() {
        // `<`, `>` and `&` stay as they are; only quotes, backslashes and control characters are escaped.
        let strange = Caller { user: "@a<b>&:x".to_owned(), device: None, member: Some("\"\\\u{1}".to_owned()) };
        let expected = STANDARD_NO_PAD.encode(Sha256::digest(r#"["@a<b>&:x","\"\\\u0001"]"#.as_bytes()));
        assert_eq!(strange.identity(IdentityForm::UserMember), Some(expected));
    }

    #[test]
    fn names_older_rooms() {
        let [piped, hex, plain] = older_room_names("!r:x", ROOM_CALL_SLOT);
        assert_eq!(hex.len(), 64);
        assert_eq!(piped.len(), 43);
        assert_eq!(plain, "!r:x");
    }
}
