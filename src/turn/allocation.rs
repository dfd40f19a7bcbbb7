//! One allocation: who owns it, whom it may speak to, its channels. Permissions and channels that are over are not
//! looked for; they are ignored, and give up their place when it is needed.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use aws_lc_rs::hmac;

use crate::base::Instant;
use crate::transport::route::Allocation;

/// RFC 8656, 9.
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// RFC 8656, 12.
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);
/// Channels and permissions of an allocation at once. Of this node's addresses a client uses one to three; of a far end
/// in a legacy call, all its candidates.
const MAX_ENTRIES: usize = 32;
/// Channel numbers a client may choose (RFC 8656, 12).
const CHANNELS: core::ops::RangeInclusive<u16> = 0x4000..=0x4fff;

/// Whom an allocation may speak to at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The media addresses of this node.
    Media,
    /// Peers outside, in legacy calls.
    Outside,
}

/// An allocation.
#[derive(Debug)]
pub(super) struct State {
    pub(super) id: Allocation,
    pub(super) reach: Reach,
    pub(super) relayed: SocketAddr,
    /// Whose credentials made it; no others may use it.
    pub(super) username: String,
    /// The part of the user name that quotas count.
    pub(super) subject: String,
    pub(super) realm: Vec<u8>,
    pub(super) key: hmac::Key,
    pub(super) expires: Instant,
    /// Of the Allocate request, to know it when it comes again.
    pub(super) transaction: [u8; 12],
    permissions: Vec<(IpAddr, Instant)>,
    channels: Vec<(u16, SocketAddr, Instant)>,
}

/// Who makes an allocation.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) reach: Reach,
    pub(super) username: String,
    pub(super) subject: String,
    pub(super) realm: Vec<u8>,
    pub(super) key: hmac::Key,
}

impl State {
    pub(super) fn new(
        id: Allocation,
        relayed: SocketAddr,
        owner: Owner,
        transaction: [u8; 12],
        expires: Instant,
    ) -> Self {
        let Owner { reach, username, subject, realm, key } = owner;
        Self {
            id,
            reach,
            relayed,
            username,
            subject,
            realm,
            key,
            expires,
            transaction,
            permissions: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// Whether the client may exchange datagrams with an address.
    pub(super) fn permits(&self, now: Instant, ip: IpAddr) -> bool {
        self.permissions.iter().any(|(permitted, until)| *permitted == ip && now < *until)
    }

    /// The channel bound to a peer.
    pub(super) fn channel_of(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        // Data goes over a channel only while its permission lasts (RFC 8656, 12.7).
        let bound = self.channels.iter().find(|(_, bound, until)| *bound == peer && now < *until);
        bound.map(|(channel, ..)| *channel).filter(|_| self.permits(now, peer.ip()))
    }

    /// The peer a channel is bound to.
    pub(super) fn peer_of(&self, now: Instant, channel: u16) -> Option<SocketAddr> {
        let bound = self.channels.iter().find(|(bound, _, until)| *bound == channel && now < *until);
        bound.map(|(_, peer, _)| *peer).filter(|peer| self.permits(now, peer.ip()))
    }

    /// Permit an address from now on. `None`: too many.
    pub(super) fn permit(&mut self, now: Instant, ip: IpAddr) -> Option<()> {
        self.permissions.retain(|(permitted, until)| now < *until && *permitted != ip);
        if self.permissions.len() >= MAX_ENTRIES {
            return None;
        }
        self.permissions.push((ip, now + PERMISSION_LIFETIME));
        Some(())
    }

    /// Bind a channel to a peer and permit it, or do so for longer. `None`: the number is none, or one of both is bound
    /// otherwise, or there are too many.
    pub(super) fn bind(&mut self, now: Instant, channel: u16, peer: SocketAddr) -> Option<()> {
        if !CHANNELS.contains(&channel) {
            return None;
        }
        self.channels.retain(|(.., until)| now < *until);
        let clashes = |(number, bound, _): &(u16, SocketAddr, Instant)| (*number == channel) != (*bound == peer);
        if self.channels.iter().any(clashes) {
            return None;
        }
        self.channels.retain(|(number, ..)| *number != channel);
        if self.channels.len() >= MAX_ENTRIES {
            return None;
        }
        self.permit(now, peer.ip())?;
        self.channels.push((channel, peer, now + CHANNEL_LIFETIME));
        Some(())
    }
}
