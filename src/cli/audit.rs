//! `weir audit`: the pseudonyms under which audit records are about somebody or some room.

use std::path::Path;

use clap::{Args, Subcommand};
use signalling::matrix::identity::{ROOM_CALL_SLOT, room_name};

use super::{Source, print};
use crate::control::audit::Pseudonyms;

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    about: About,
}

#[derive(Debug, Subcommand)]
enum About {
    /// Print the pseudonym of a person in audit records.
    Who {
        #[command(flatten)]
        source: Source,
        /// Matrix user id, such as @alice:example.org; without Matrix, a participant identity.
        user: String,
    },
    /// Print the pseudonym of a room in audit records.
    Room {
        #[command(flatten)]
        source: Source,
        /// Id of a Matrix room, such as !abc:example.org, or the name of a room of weir.
        room: String,
        /// Slot of the call in a Matrix room.
        #[arg(long, default_value = ROOM_CALL_SLOT)]
        slot: String,
    },
}

pub(super) fn run(args: &AuditArgs) -> Result<(), String> {
    let (About::Who { source, .. } | About::Room { source, .. }) = &args.about;
    let config = source.read().map_err(|e| e.to_string())?;
    let pseudonyms = Pseudonyms::load(Path::new(&config.audit.key_file))?;
    let pseudonym = match &args.about {
        About::Who { user, .. } => pseudonyms.person(user),
        About::Room { room, slot, .. } if room.starts_with('!') => pseudonyms.room(&room_name(room, slot)),
        About::Room { room, .. } => pseudonyms.room(room),
    };
    print(&format!("{pseudonym}\n"));
    Ok(())
}
