//! How many turns run at once: in all, and of one tenant, so that none starves another.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The slots of one tenant: a share of everyone's, and one of its own, so that an idle tenant can always be listened to
/// without holding what a busy one needs. Its limit counts both.
#[derive(Clone, Debug)]
pub struct Slots {
    shared: Arc<Semaphore>,
    tenant: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// The right to run one turn.
#[derive(Debug)]
pub struct Slot {
    _slot: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

/// Slots that are held for the messages of one pull.
#[derive(Debug)]
pub struct Reserved {
    slots: OwnedSemaphorePermit,
    tenant: OwnedSemaphorePermit,
}

impl Slots {
    /// The slots of a tenant that may use up to `limit` at once.
    pub fn new(shared: &Arc<Semaphore>, limit: usize) -> Self {
        Self {
            shared: Arc::clone(shared),
            tenant: Arc::new(Semaphore::new(limit.max(1))),
            own: Arc::new(Semaphore::new(1)),
        }
    }

    /// Takes the tenant's own slot; while a turn still runs on that, one of the shared ones.
    pub async fn reserve_one(&self) -> Option<Reserved> {
        let tenant = Arc::clone(&self.tenant).acquire_owned().await.ok()?;
        let slots = match Arc::clone(&self.own).try_acquire_owned() {
            Ok(own) => own,
            Err(_) => Arc::clone(&self.shared).acquire_owned().await.ok()?,
        };
        Some(Reserved { slots, tenant })
    }

    /// Takes the tenant's own slot, and waits for it: none of the shared ones is for a tenant that is refused.
    pub async fn reserve_own(&self) -> Option<Reserved> {
        let tenant = Arc::clone(&self.tenant).acquire_owned().await.ok()?;
        let slots = Arc::clone(&self.own).acquire_owned().await.ok()?;
        Some(Reserved { slots, tenant })
    }

    /// Waits for one shared slot, in turn with the other tenants, and takes up to `max` of what is free then.
    pub async fn reserve(&self, max: usize) -> Option<Reserved> {
        let mut tenant = Arc::clone(&self.tenant).acquire_owned().await.ok()?;
        let mut slots = Arc::clone(&self.shared).acquire_owned().await.ok()?;
        let more = |semaphore: &Semaphore| semaphore.available_permits().min(max.saturating_sub(1));
        let more = u32::try_from(more(&self.tenant).min(more(&self.shared))).unwrap_or(u32::MAX);
        if more > 0
            && let Ok(tenants) = Arc::clone(&self.tenant).try_acquire_many_owned(more)
            && let Ok(shareds) = Arc::clone(&self.shared).try_acquire_many_owned(more)
        {
            tenant.merge(tenants);
            slots.merge(shareds);
        }
        Some(Reserved { slots, tenant })
    }
}

impl Reserved {
    /// How many turns it is good for.
    pub fn len(&self) -> usize {
        self.slots.num_permits()
    }

    /// One of them, for a message that came.
    pub fn take(&mut self) -> Option<Slot> {
        Some(Slot {
            _slot: self.slots.split(1)?,
            _tenant: self.tenant.split(1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_tenant_takes_what_is_free_up_to_its_limit_and_keeps_its_own() {
        let shared = Arc::new(Semaphore::new(10));
        let (busy, idle) = (Slots::new(&shared, 8), Slots::new(&shared, 8));
        let held = busy.reserve(100).now_or_never().unwrap().unwrap();
        assert_eq!(held.len(), 8);
        let mut rest = idle.reserve(100).now_or_never().unwrap().unwrap();
        assert_eq!(rest.len(), 2);
        assert!(
            idle.reserve(1).now_or_never().is_none(),
            "more slots than there are"
        );
        assert_eq!(idle.reserve_one().now_or_never().unwrap().unwrap().len(), 1);
        let slot = rest.take().unwrap();
        drop(rest);
        assert_eq!(shared.available_permits(), 1);
        drop(slot);
        assert_eq!(shared.available_permits(), 2);
    }

    #[test]
    fn a_tenants_own_slot_counts_in_its_limit() {
        let shared = Arc::new(Semaphore::new(10));
        let limited = Slots::new(&shared, 2);
        let listening = limited.reserve_one().now_or_never().unwrap().unwrap();
        let running = limited.reserve(100).now_or_never().unwrap().unwrap();
        assert_eq!((listening.len(), running.len()), (1, 1));
        assert!(limited.reserve_one().now_or_never().is_none());
        drop(listening);
        let own = limited.reserve_own().now_or_never().unwrap().unwrap();
        assert_eq!((own.len(), shared.available_permits()), (1, 9));
        drop((own, running));
        let _own = limited.reserve_own().now_or_never().unwrap().unwrap();
        assert!(limited.reserve_own().now_or_never().is_none());
        assert_eq!(shared.available_permits(), 10, "a shared slot");
    }
}
