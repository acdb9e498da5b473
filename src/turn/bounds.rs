//! How much one turn may store, and how much is kept for its user and tenant.

use std::collections::BTreeMap;

use super::TurnError;
use super::results::Played;
use crate::model::{Outbound, TenantId};
use crate::ports::{QuotaExcess, Quotas, StateSlot};

/// The bytes of a commit that come with each key, session and reply besides their texts: the fixed parts of the names of
/// keys, of a session and of a reply's headers. Generous, since it bounds.
const EACH: usize = 512;

/// How much one turn may store, and how much is kept for its user and tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The largest session of a run that waits, in bytes, as it is stored.
    pub session_bytes: usize,
    /// All that one turn may store, in bytes: session, state and replies, the state to compare included.
    pub commit_bytes: usize,
    /// What is kept for users and tenants.
    pub quotas: Quotas,
    /// The same for single tenants.
    pub tenants: BTreeMap<TenantId, Quotas>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            session_bytes: 1024 * 1024,
            commit_bytes: 2 * 1024 * 1024,
            quotas: Quotas::default(),
            tenants: BTreeMap::new(),
        }
    }
}

impl Bounds {
    /// The quotas of a tenant.
    pub(super) fn quotas(&self, tenant: &TenantId) -> Quotas {
        self.tenants.get(tenant).copied().unwrap_or(self.quotas)
    }

    /// Checks that a turn may store what it wants to, before any of it is sent.
    pub(super) fn check_commit(&self, played: &Played) -> Result<(), TurnError> {
        let parts = [
            ("the session", played.session_bytes()),
            ("its replies", replies(&played.outbox)),
            ("the state that it has read", state(&played.state_read)),
            ("the state that it writes", state(&played.state_written)),
        ];
        let bytes = parts.iter().map(|(_, bytes)| bytes).sum();
        let limit = self.commit_bytes;
        if bytes <= limit {
            return Ok(());
        }
        let largest = parts.into_iter().max_by_key(|(_, bytes)| *bytes);
        Err(TurnError::CommitTooLarge {
            bytes,
            limit,
            largest: largest.map_or("nothing", |(name, _)| name),
        })
    }

    /// The failure of a turn whose commit was refused.
    pub(super) fn failure(&self, tenant: &TenantId, refused: QuotaExcess) -> TurnError {
        let quotas = self.quotas(tenant);
        match refused {
            QuotaExcess::UserState { used } => TurnError::UserStateQuota {
                used,
                limit: quotas.user_state_bytes,
            },
            QuotaExcess::TenantState { used } => TurnError::TenantStateQuota {
                used,
                limit: quotas.tenant_state_bytes,
            },
            QuotaExcess::Waits => TurnError::WaitLimit {
                limit: quotas.waits_per_user,
            },
        }
    }
}

/// The bytes that a reply takes in the outbox.
pub(super) fn reply_bytes(reply: &Outbound) -> usize {
    let trace = reply.headers.trace.as_ref();
    let trace = trace.and_then(|trace| trace.tracestate.as_ref());
    EACH + reply.body.get().len() + trace.map_or(0, String::len)
}

fn replies(outbox: &[Outbound]) -> usize {
    outbox.iter().map(reply_bytes).sum()
}

fn state(values: &[(StateSlot, Option<String>)]) -> usize {
    let each = values.iter();
    each.map(|(slot, value)| EACH + slot.key.len() + value.as_ref().map_or(0, String::len))
        .sum()
}

/// The bytes that a session takes whose context is this text, which it holds as a JSON string.
pub(super) fn session_bytes(context: &str, reason: Option<&str>) -> usize {
    // Every sixth byte or so is one: the compiler's vectors count them faster than a search that stops at each.
    let escaped = context
        .bytes()
        .map(|byte| usize::from(matches!(byte, b'"' | b'\\')))
        .sum::<usize>();
    EACH + context.len() + escaped + reason.map_or(0, str::len)
}
