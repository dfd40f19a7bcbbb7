//! Why requests are refused and datagrams are lost: closed sets, each with its label for operators.

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It could not be read, or something it needs is missing.
    Malformed,
    /// Nobody's, or not who it says. Without a signature it is a challenge, which is not counted.
    Credentials,
    /// Credentials whose time is over.
    Expired,
    /// A peer that is none.
    Peer,
    /// An attribute that must not be ignored and is not known.
    Unknown,
    /// An allocation where there is one, or none where there should be.
    Mismatch,
    /// A challenge that is too old, or another far end's.
    StaleNonce,
    /// An address family that is not served.
    NoFamily,
    /// An address of the other family than the allocation's.
    OtherFamily,
    /// Somebody else's allocation.
    OtherUser,
    /// Another transport than UDP.
    Transport,
    /// As many allocations as a user may have.
    UserQuota,
    /// As many allocations as there may be from one address.
    AddressQuota,
    /// As many of something as there may be.
    Capacity,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::Credentials,
        Self::Expired,
        Self::Peer,
        Self::Unknown,
        Self::Mismatch,
        Self::StaleNonce,
        Self::NoFamily,
        Self::OtherFamily,
        Self::OtherUser,
        Self::Transport,
        Self::UserQuota,
        Self::AddressQuota,
        Self::Capacity,
    ];

    /// Error code of the answer (RFC 8489, 14.8; RFC 8656, 19).
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Credentials | Self::Expired => 401,
            Self::Peer => 403,
            Self::Unknown => 420,
            Self::Mismatch => 437,
            Self::StaleNonce => 438,
            Self::NoFamily => 440,
            Self::OtherUser => 441,
            Self::Transport => 442,
            Self::OtherFamily => 443,
            Self::UserQuota | Self::AddressQuota => 486,
            Self::Capacity => 508,
        }
    }

    /// Name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Credentials => "credentials",
            Self::Expired => "expired",
            Self::Peer => "peer",
            Self::Unknown => "unknown_attribute",
            Self::Mismatch => "mismatch",
            Self::StaleNonce => "stale_nonce",
            Self::NoFamily => "no_family",
            Self::OtherFamily => "other_family",
            Self::OtherUser => "other_user",
            Self::Transport => "transport",
            Self::UserQuota => "user_quota",
            Self::AddressQuota => "address_quota",
            Self::Capacity => "capacity",
        }
    }
}

/// Why a datagram was not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// It was no message, or one that is not for a server.
    Unreadable,
    /// No allocation, no permission, no channel, or nobody at the peer's address.
    NotPermitted,
    /// More than its user may relay.
    UserRate,
    /// More than all may relay together.
    TotalRate,
}

impl Lost {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unreadable, Self::NotPermitted, Self::UserRate, Self::TotalRate];

    /// Name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::NotPermitted => "not_permitted",
            Self::UserRate => "user_rate",
            Self::TotalRate => "total_rate",
        }
    }
}
