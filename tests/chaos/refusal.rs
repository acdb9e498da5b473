//! What servers can refuse while they are well: to one tenant, or to everybody.

use std::fmt;

use crate::plan::Server;

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The worker's user may not publish to the tenant's outbound subject.
    Replies(usize),
    /// The outbound stream takes no more messages of the tenant's subject.
    FullSubject(usize),
    /// The worker's user may not ask for the tenant's inbound messages.
    Pulls(usize),
    /// The worker's user may not acknowledge the tenant's inbound messages.
    Acks(usize),
    /// The worker's user may not publish to the tenant's dead letter subject.
    DeadLetters(usize),
    /// The worker's user may not touch the tenant's keys.
    Keys(usize),
    /// The worker's user may read the tenant's keys and not write them.
    KeyWrites(usize),
    /// The worker's user may run no scripts.
    Scripts,
    /// Redis is over its memory limit and evicts nothing, so it takes no writes.
    Memory,
}

/// The kinds of refusals, as the plan names them.
pub const KINDS: &[&str] = &[
    "nats refuses replies",
    "nats refuses a full subject",
    "nats refuses pulls",
    "nats refuses acks",
    "nats refuses dead letters",
    "redis refuses keys",
    "redis refuses writes to keys",
    "redis refuses scripts",
    "redis refuses all writes",
];

impl Refusal {
    /// The refusal of a kind, to this tenant if it is one tenant's.
    pub fn of_kind(kind: &str, tenant: usize) -> Option<Self> {
        Some(match kind {
            "nats refuses replies" => Self::Replies(tenant),
            "nats refuses a full subject" => Self::FullSubject(tenant),
            "nats refuses pulls" => Self::Pulls(tenant),
            "nats refuses acks" => Self::Acks(tenant),
            "nats refuses dead letters" => Self::DeadLetters(tenant),
            "redis refuses keys" => Self::Keys(tenant),
            "redis refuses writes to keys" => Self::KeyWrites(tenant),
            "redis refuses scripts" => Self::Scripts,
            "redis refuses all writes" => Self::Memory,
            _ => return None,
        })
    }

    /// The server that refuses.
    pub fn server(self) -> Server {
        match self {
            Self::Replies(_)
            | Self::FullSubject(_)
            | Self::Pulls(_)
            | Self::Acks(_)
            | Self::DeadLetters(_) => Server::Nats,
            Self::Keys(_) | Self::KeyWrites(_) | Self::Scripts | Self::Memory => Server::Redis,
        }
    }

    /// The tenant that is refused; none where everybody is.
    pub fn tenant(self) -> Option<usize> {
        match self {
            Self::Replies(tenant)
            | Self::FullSubject(tenant)
            | Self::Pulls(tenant)
            | Self::Acks(tenant)
            | Self::DeadLetters(tenant)
            | Self::Keys(tenant)
            | Self::KeyWrites(tenant) => Some(tenant),
            Self::Scripts | Self::Memory => None,
        }
    }

    /// Returns whether the conversations of this tenant go on meanwhile.
    pub fn spares(self, tenant: usize) -> bool {
        match self {
            Self::Acks(_) | Self::DeadLetters(_) => true,
            Self::Replies(refused)
            | Self::FullSubject(refused)
            | Self::Pulls(refused)
            | Self::Keys(refused)
            | Self::KeyWrites(refused) => refused != tenant,
            Self::Scripts | Self::Memory => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tenant() {
            Some(tenant) => write!(f, "tenant {tenant}"),
            None => f.write_str("everybody"),
        }
    }
}
