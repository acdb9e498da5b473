//! State in the store, and what a user and a tenant may keep there.

use crate::model::{FlowId, PackId};

/// A place in a user's state: `pack/{pack}/flow/{flow}/user/{user}` and a key under it. The user is the activity's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateSlot {
    /// The pack that owns it.
    pub pack: PackId,
    /// The flow that owns it.
    pub flow: FlowId,
    /// The key that the flow chose; any text.
    pub key: String,
}

/// A value of state as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredState {
    /// There is none.
    Absent,
    /// JSON text.
    Text(String),
    /// One that is larger than was asked for. It was not read.
    TooLarge,
}

impl From<Option<String>> for StoredState {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Absent, Self::Text)
    }
}

/// How much a store may keep for a user and for a tenant. A commit that would make it more is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// State of one user, in bytes: values, names of keys, and [`crate::model::STATE_KEY_OVERHEAD`] for each.
    pub user_state_bytes: u64,
    /// State of all users of a tenant, in bytes.
    pub tenant_state_bytes: u64,
    /// Open waits of one user.
    pub waits_per_user: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            user_state_bytes: 8 * 1024 * 1024,
            tenant_state_bytes: 1024 * 1024 * 1024,
            waits_per_user: 100,
        }
    }
}

/// The quota that a commit would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// State of the user.
    UserState {
        /// The bytes that are in use.
        used: u64,
    },
    /// State of the tenant.
    TenantState {
        /// The bytes that are in use.
        used: u64,
    },
    /// Open waits of the user.
    Waits,
}
