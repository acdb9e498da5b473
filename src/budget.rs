//! The memory that messages, turns and components of a worker use, counted for each tenant against one limit.
//!
//! Near the limit whoever uses more than its share waits, and everybody else goes on: a tenant's share is an equal part
//! of `SOFT` of the limit, for as many tenants as use any. A tenant that uses nothing never waits, so that something
//! always goes on, and what is counted comes back when it ends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::model::TenantId;

/// The part of the limit, in hundredths, above which shares matter.
const SOFT: u64 = 80;
/// What decoding makes of a byte of JSON at the worst: two bytes, such as `0,`, become a value.
pub const DECODED_FACTOR: u64 = 32;

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryKind {
    /// Bodies of messages in flight, and what decoding makes of them.
    Messages,
    /// What turns have read and produced: sessions, state, rendered values, replies.
    Turns,
    /// The memories of components.
    Components,
}

/// The kinds, each at the place of its number.
pub const MEMORY_KINDS: [MemoryKind; 3] = [
    MemoryKind::Messages,
    MemoryKind::Turns,
    MemoryKind::Components,
];

/// See the [module](self). Clones share one count.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
    /// Tenants that use any.
    active: AtomicUsize,
    tenants: RwLock<HashMap<TenantId, Arc<Account>>>,
    /// Something came back while there was little.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Account {
    used: AtomicU64,
    kinds: [AtomicU64; MEMORY_KINDS.len()],
    waits: AtomicU64,
    denials: AtomicU64,
}

/// The count of one tenant. Look it up once and keep it.
#[derive(Clone, Debug)]
pub struct TenantMemory {
    shared: Arc<Shared>,
    account: Arc<Account>,
}

/// Memory that is in use; counted until this is dropped.
#[derive(Debug)]
pub struct MemoryCharge {
    memory: TenantMemory,
    /// In the order of [`MEMORY_KINDS`].
    bytes: [AtomicU64; MEMORY_KINDS.len()],
}

/// The figures of one tenant.
#[derive(Clone, Debug)]
pub struct MemoryUse {
    /// The tenant.
    pub tenant: TenantId,
    /// Bytes in use, in the order of [`MEMORY_KINDS`].
    pub bytes: [u64; MEMORY_KINDS.len()],
    /// How often it had to wait.
    pub waits: u64,
    /// How often a component of it was denied memory that its own limit would have allowed.
    pub denials: u64,
}

impl MemoryBudget {
    /// Nothing in use, of so many bytes.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Shared {
            limit,
            used: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            tenants: RwLock::default(),
            freed: Notify::new(),
        }))
    }

    /// Counts, and never lets anybody wait.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// The count of this tenant.
    pub fn tenant(&self, tenant: &TenantId) -> TenantMemory {
        let shared = Arc::clone(&self.0);
        let known = {
            let tenants = shared
                .tenants
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            tenants.get(tenant).cloned()
        };
        let account = known.unwrap_or_else(|| {
            let mut tenants = shared
                .tenants
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tenants.entry(tenant.clone()).or_default())
        });
        TenantMemory { shared, account }
    }

    /// The figures of every tenant that has been served.
    pub fn uses(&self) -> Vec<MemoryUse> {
        let tenants = self
            .0
            .tenants
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let figures = |(tenant, account): (&TenantId, &Arc<Account>)| MemoryUse {
            tenant: tenant.clone(),
            bytes: std::array::from_fn(|kind| account.kinds[kind].load(SeqCst)),
            waits: account.waits.load(SeqCst),
            denials: account.denials.load(SeqCst),
        };
        let mut uses: Vec<_> = tenants.iter().map(figures).collect();
        uses.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        uses
    }
}

impl Shared {
    fn soft(&self) -> u64 {
        self.limit / 100 * SOFT
    }

    fn add(&self, account: &Account, kind: MemoryKind, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.used.fetch_add(bytes, SeqCst);
        account.kinds[kind as usize].fetch_add(bytes, SeqCst);
        if account.used.fetch_add(bytes, SeqCst) == 0 {
            self.active.fetch_add(1, SeqCst);
        }
    }

    fn sub(&self, account: &Account, kind: MemoryKind, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let before = self.used.fetch_sub(bytes, SeqCst);
        account.kinds[kind as usize].fetch_sub(bytes, SeqCst);
        if account.used.fetch_sub(bytes, SeqCst) == bytes {
            self.active.fetch_sub(1, SeqCst);
        }
        if before > self.soft() {
            self.freed.notify_waiters();
        }
    }

    /// Returns whether so much more would be beyond the tenant's share while there is little left.
    fn is_beyond(&self, account: &Account, more: u64) -> bool {
        let soft = self.soft();
        if self.used.load(SeqCst).saturating_add(more) <= soft {
            return false;
        }
        let active = self.active.load(SeqCst).max(1) as u64;
        account.used.load(SeqCst).saturating_add(more) > soft / active
    }
}

impl TenantMemory {
    /// Counts memory that is in use already, or is about to be in any case.
    pub fn charge(&self, kind: MemoryKind, bytes: u64) -> MemoryCharge {
        let charge = MemoryCharge {
            memory: self.clone(),
            bytes: Default::default(),
        };
        charge.add(kind, bytes);
        charge
    }

    /// How many things of so many bytes may be begun: at least one.
    pub fn room(&self, bytes: u64) -> usize {
        let used = self.shared.used.load(SeqCst);
        let left = self.shared.soft().saturating_sub(used);
        usize::try_from(left / bytes.max(1))
            .unwrap_or(usize::MAX)
            .max(1)
    }

    /// Waits while the tenant is beyond its share and something of this kind goes on for it, which will end.
    pub async fn admitted(&self, kind: MemoryKind) {
        let mut waited = false;
        loop {
            let freed = self.shared.freed.notified();
            tokio::pin!(freed);
            // What comes back from here on is not missed.
            freed.as_mut().enable();
            let goes_on = self.account.kinds[kind as usize].load(SeqCst) > 0;
            if !goes_on || !self.shared.is_beyond(&self.account, 0) {
                return;
            }
            if !std::mem::replace(&mut waited, true) {
                self.account.waits.fetch_add(1, SeqCst);
            }
            freed.await;
        }
    }
}

impl MemoryCharge {
    /// Counts more.
    pub fn add(&self, kind: MemoryKind, bytes: u64) {
        self.memory.shared.add(&self.memory.account, kind, bytes);
        self.bytes[kind as usize].fetch_add(bytes, SeqCst);
    }

    /// Counts more, if there is room for it.
    pub fn try_add(&self, kind: MemoryKind, bytes: u64) -> bool {
        let (shared, account) = (&self.memory.shared, &self.memory.account);
        let full = shared.used.load(SeqCst).saturating_add(bytes) > shared.limit;
        if full || shared.is_beyond(account, bytes) {
            account.denials.fetch_add(1, SeqCst);
            return false;
        }
        self.add(kind, bytes);
        true
    }
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        for (kind, bytes) in MEMORY_KINDS.into_iter().zip(&mut self.bytes) {
            let shared = &self.memory.shared;
            shared.sub(&self.memory.account, kind, *bytes.get_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use MemoryKind::{Components, Messages, Turns};

    fn tenants(limit: u64) -> (MemoryBudget, TenantMemory, TenantMemory) {
        let budget = MemoryBudget::new(limit);
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (a, b) = (budget.tenant(&a), budget.tenant(&b));
        (budget, a, b)
    }

    #[test]
    fn who_is_beyond_its_share_waits_and_the_others_go_on() {
        let (budget, a, b) = tenants(1000);
        let large = a.charge(Messages, 700);
        let small = b.charge(Messages, 50);
        assert!(
            a.admitted(Messages).now_or_never().is_some(),
            "there is room"
        );
        let more = a.charge(Turns, 100);
        let mut waiting = Box::pin(a.admitted(Messages));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(b.admitted(Messages).now_or_never().is_some());
        assert!(
            a.admitted(Components).now_or_never().is_some(),
            "nothing goes on"
        );
        drop(more);
        assert!(
            waiting.now_or_never().is_some(),
            "what came back was missed"
        );
        drop((large, small));
        let uses = budget.uses();
        assert_eq!(uses[0].waits, 1);
        assert!(uses.iter().all(|used| used.bytes == [0; 3]));
        assert_eq!(budget.0.active.load(SeqCst), 0);
        assert_eq!(budget.0.used.load(SeqCst), 0);
    }

    #[test]
    fn growth_is_denied_beyond_the_share_and_beyond_the_limit() {
        let (budget, a, b) = tenants(1000);
        let (of_a, of_b) = (a.charge(Components, 0), b.charge(Components, 0));
        assert!(of_a.try_add(Components, 700) && of_b.try_add(Components, 100));
        assert!(!of_a.try_add(Components, 1), "a is beyond its share");
        assert!(of_b.try_add(Components, 200), "b is not");
        assert!(!of_b.try_add(Components, 1), "nothing is left");
        drop(of_a);
        assert!(of_b.try_add(Components, 400));
        let denials: Vec<_> = budget.uses().iter().map(|used| used.denials).collect();
        assert_eq!(denials, [1, 1]);
    }

    #[test]
    fn there_is_always_room_for_one() {
        let (_, a, b) = tenants(1000);
        assert_eq!(a.room(100), 8);
        let _all = b.charge(Turns, 900);
        assert_eq!(a.room(100), 1);
        let (_, unlimited, _) = tenants(u64::MAX);
        assert!(unlimited.room(1 << 40) > 1000);
    }
}
