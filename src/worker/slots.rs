//! How many turns run at once: in all, and of one tenant, so that none starves another.
//!
//! A slot is the right to run a turn. Nothing that only waits holds one: neither a pull that listens for a message, nor a
//! message behind another one of its conversation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How long a suspect waits for those of other tenants, where it or one of them has no attempt left.
const LAST_ATTEMPT_WAIT: Duration = Duration::from_secs(10);
/// The suspects that may run at once in a worker, as good as any number: each has a share, and a last attempt has all of them.
const SHARES: u32 = 1 << 20;

/// The slots of a worker.
#[derive(Debug)]
pub struct WorkerSlots {
    turns: Arc<Semaphore>,
    shares: Arc<Semaphore>,
}

impl WorkerSlots {
    /// So many slots, and at least one.
    pub fn new(slots: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(slots.max(1))),
            shares: Arc::new(Semaphore::new(SHARES as usize)),
        }
    }

    /// The slots of a tenant that may use up to `limit` at once, and have up to `queue` messages wait without one.
    pub fn tenant(&self, limit: usize, queue: usize) -> Slots {
        Slots {
            shared: Arc::clone(&self.turns),
            tenant: Arc::new(Semaphore::new(limit.max(1))),
            own: Arc::new(Semaphore::new(1)),
            queue: Arc::new(Queue::of(queue)),
            suspects: Arc::new(Semaphore::new(1)),
            shares: Arc::clone(&self.shares),
        }
    }
}

/// The slots of one tenant: a share of everyone's, and one of its own, so that no other tenant can keep it from being
/// served. Its limit counts both.
#[derive(Clone, Debug)]
pub struct Slots {
    shared: Arc<Semaphore>,
    tenant: Arc<Semaphore>,
    own: Arc<Semaphore>,
    /// The messages that wait without a slot: behind another one of their conversation, or for the right to run.
    queue: Arc<Queue>,
    /// Held by the tenant's one turn at a time that may be what kills workers.
    suspects: Arc<Semaphore>,
    /// Held by all turns of the worker that may be what kills workers: a share each, or all of them.
    shares: Arc<Semaphore>,
}

/// Messages of a tenant that wait without a slot. There may be some more than the limit, which only stops the next pull:
/// each of those that were pulled may have to wait.
#[derive(Debug)]
struct Queue {
    most: usize,
    waiting: AtomicUsize,
    left: Notify,
}

/// A message in the queue.
#[derive(Debug)]
struct QueuePlace(Arc<Queue>);

impl Queue {
    fn of(most: usize) -> Self {
        Self {
            most: most.max(1),
            waiting: AtomicUsize::new(0),
            left: Notify::new(),
        }
    }

    fn enter(queue: &Arc<Self>) -> QueuePlace {
        queue.waiting.fetch_add(1, Ordering::SeqCst);
        QueuePlace(Arc::clone(queue))
    }

    async fn room(&self) {
        while self.waiting.load(Ordering::SeqCst) >= self.most {
            self.left.notified().await;
        }
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let before = self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        if before == self.0.most {
            self.0.left.notify_one();
        }
    }
}

/// The right to run one turn.
#[derive(Debug)]
pub struct Slot {
    _slot: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
    _alone: Option<Alone>,
}

/// The right to run a turn apart from others that may be what kills workers.
#[derive(Debug)]
struct Alone {
    _of_tenant: OwnedSemaphorePermit,
    _shares: Option<OwnedSemaphorePermit>,
}

/// Who a turn must not run together with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// Any turn may run beside it.
    Any,
    /// Its message may be what kills workers: no other such message of its tenant.
    NoSuspect,
    /// It may be, and has no attempt left after this one: no other such message of any tenant, for as long as
    /// [`LAST_ATTEMPT_WAIT`] allows.
    NoSuspectOfAnyTenant,
}

/// What the messages of one pull are taken on.
#[derive(Debug)]
pub struct Reservation {
    slots: Slots,
    tenant: OwnedSemaphorePermit,
    /// None for a pull that only listens: its message takes a slot when it comes.
    held: Option<OwnedSemaphorePermit>,
}

/// The claim of one message to a slot, which it may have to wait for.
#[derive(Debug)]
pub struct SlotClaim {
    slots: Slots,
    tenant: Option<OwnedSemaphorePermit>,
    held: Option<OwnedSemaphorePermit>,
    queued: Option<QueuePlace>,
}

impl Slots {
    /// Waits until fewer messages than it may be wait without a slot. What was asked for before may still come.
    pub async fn room_to_wait(&self) {
        self.queue.room().await;
    }

    /// Prepares to listen for one message as soon as a slot is free for it. The slot itself is left to turns meanwhile.
    pub async fn listen(&self) -> Option<Reservation> {
        let tenant = Arc::clone(&self.tenant).acquire_owned().await.ok()?;
        drop(self.acquire().await?);
        Some(Reservation {
            slots: self.clone(),
            tenant,
            held: None,
        })
    }

    /// Takes the tenant's own slot, and waits for it: none of the shared ones is for a tenant that is refused.
    pub async fn reserve_own(&self) -> Option<Reservation> {
        let tenant = Arc::clone(&self.tenant).acquire_owned().await.ok()?;
        let own = Arc::clone(&self.own).acquire_owned().await.ok()?;
        Some(Reservation {
            slots: self.clone(),
            tenant,
            held: Some(own),
        })
    }

    /// Waits for one slot, in turn with the other tenants, and takes up to `max` of what is free then.
    pub async fn reserve(&self, max: usize) -> Option<Reservation> {
        let mut tenant = Arc::clone(&self.tenant).acquire_owned().await.ok()?;
        let mut held = self.acquire_shared_first().await?;
        let more = |semaphore: &Semaphore| semaphore.available_permits().min(max.saturating_sub(1));
        let more = u32::try_from(more(&self.tenant).min(more(&self.shared))).unwrap_or(u32::MAX);
        let is_shared = Arc::ptr_eq(held.semaphore(), &self.shared);
        if more > 0
            && is_shared
            && let Ok(tenants) = Arc::clone(&self.tenant).try_acquire_many_owned(more)
            && let Ok(shareds) = Arc::clone(&self.shared).try_acquire_many_owned(more)
        {
            tenant.merge(tenants);
            held.merge(shareds);
        }
        Some(Reservation {
            slots: self.clone(),
            tenant,
            held: Some(held),
        })
    }

    /// The tenant's own slot, or a shared one: whichever is free first.
    async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(own) = Arc::clone(&self.own).try_acquire_owned() {
            return Some(own);
        }
        self.acquire_shared_first().await
    }

    async fn acquire_shared_first(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            shared = Arc::clone(&self.shared).acquire_owned() => shared.ok(),
            own = Arc::clone(&self.own).acquire_owned() => own.ok(),
        }
    }
}

impl Reservation {
    /// How many messages it is good for.
    pub fn len(&self) -> usize {
        self.tenant.num_permits()
    }

    /// The claim of a message that came.
    pub fn take(&mut self) -> Option<SlotClaim> {
        let tenant = self.tenant.split(1)?;
        let held = match &mut self.held {
            Some(held) => Some(held.split(1)?),
            None => None,
        };
        Some(SlotClaim {
            slots: self.slots.clone(),
            tenant: Some(tenant),
            held,
            queued: None,
        })
    }
}

impl SlotClaim {
    /// Gives the slot back until the message is the first of its conversation. It never keeps it: those before it may need it.
    pub fn queue(&mut self) {
        if self.queued.is_none() {
            self.queued = Some(Queue::enter(&self.slots.queue));
        }
        self.held = None;
        self.tenant = None;
    }

    /// Waits for the right to run in this company, without a slot, and then for the slot.
    pub async fn acquire_in(mut self, company: Company) -> Option<Slot> {
        if company == Company::Any {
            return self.acquire().await;
        }
        let suspects = Arc::clone(&self.slots.suspects);
        let of_tenant = match Arc::clone(&suspects).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.queue();
                suspects.acquire_owned().await.ok()?
            }
        };
        let wanted = match company {
            Company::Any | Company::NoSuspect => 1,
            Company::NoSuspectOfAnyTenant => SHARES,
        };
        let shares = Arc::clone(&self.slots.shares);
        let shares = match Arc::clone(&shares).try_acquire_many_owned(wanted) {
            Ok(shares) => Some(shares),
            Err(_) => {
                self.queue();
                let shares = shares.acquire_many_owned(wanted);
                let shares = tokio::time::timeout(LAST_ATTEMPT_WAIT, shares).await;
                shares.ok().and_then(Result::ok)
            }
        };
        let mut slot = self.acquire().await?;
        slot._alone = Some(Alone {
            _of_tenant: of_tenant,
            _shares: shares,
        });
        Some(slot)
    }

    /// Waits for the slot.
    pub async fn acquire(self) -> Option<Slot> {
        let tenant = match self.tenant {
            Some(tenant) => tenant,
            None => Arc::clone(&self.slots.tenant).acquire_owned().await.ok()?,
        };
        let slot = match self.held {
            Some(held) => held,
            None => self.slots.acquire().await?,
        };
        Some(Slot {
            _slot: slot,
            _tenant: tenant,
            _alone: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// What is ready at once.
    fn now<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
        future.now_or_never().flatten()
    }

    #[test]
    fn a_tenant_takes_what_is_free_up_to_its_limit_and_falls_back_to_its_own() {
        let worker = WorkerSlots::new(10);
        let (busy, idle) = (worker.tenant(8, 0), worker.tenant(8, 0));
        let held = now(busy.reserve(100)).unwrap();
        assert_eq!(held.len(), 8);
        let rest = now(idle.reserve(100)).unwrap();
        assert_eq!(rest.len(), 2);
        let mut own = now(idle.reserve(100)).unwrap();
        assert_eq!(own.len(), 1);
        assert!(now(idle.reserve(1)).is_none(), "more slots than there are");
        let slot = now(own.take().unwrap().acquire()).unwrap();
        drop((own, rest));
        assert_eq!(worker.turns.available_permits(), 2);
        assert!(idle.own.try_acquire().is_err());
        drop(slot);
        assert!(idle.own.try_acquire().is_ok());
    }

    #[test]
    fn a_tenants_own_slot_counts_in_its_limit() {
        let worker = WorkerSlots::new(10);
        let limited = worker.tenant(2, 0);
        let listening = now(limited.listen()).unwrap();
        let running = now(limited.reserve(100)).unwrap();
        assert_eq!((listening.len(), running.len()), (1, 1));
        assert!(now(limited.listen()).is_none());
        drop(listening);
        assert!(now(limited.listen()).is_some());
    }

    #[test]
    fn a_tenant_that_is_refused_takes_its_own_slot_only() {
        let worker = WorkerSlots::new(10);
        let refused = worker.tenant(8, 0);
        let probe = now(refused.reserve_own()).unwrap();
        assert_eq!((probe.len(), worker.turns.available_permits()), (1, 10));
        assert!(now(refused.reserve_own()).is_none(), "one at a time");
        drop(probe);
        assert!(now(refused.reserve_own()).is_some());
    }

    #[test]
    fn who_listens_holds_no_slot_and_waits_until_there_is_one() {
        let worker = WorkerSlots::new(1);
        let tenants: Vec<_> = (0..5).map(|_| worker.tenant(8, 0)).collect();
        let mut listening: Vec<_> = tenants
            .iter()
            .map(|slots| now(slots.listen()).unwrap())
            .collect();
        assert_eq!(worker.turns.available_permits(), 1);
        // Each of them can run a message on its own slot, and one a second one.
        let running: Vec<_> = listening
            .iter_mut()
            .map(|reservation| now(reservation.take().unwrap().acquire()).unwrap())
            .collect();
        let second = now(tenants[0].reserve(1)).unwrap();
        assert!(
            now(tenants[0].listen()).is_none(),
            "hoards what it cannot run"
        );
        drop(second);
        assert!(now(tenants[0].listen()).is_some());
        drop(running);
    }

    #[test]
    fn a_message_in_a_queue_holds_no_slot_however_many_there_are() {
        let worker = WorkerSlots::new(3);
        let slots = worker.tenant(3, 1);
        let mut reservation = now(slots.reserve(3)).unwrap();
        let mut claims: Vec<_> = (0..3).map(|_| reservation.take().unwrap()).collect();
        drop(reservation);
        assert!(slots.room_to_wait().now_or_never().is_some());
        claims[1].queue();
        assert!(slots.room_to_wait().now_or_never().is_none());
        // What was pulled by then may have to wait, too, and must not keep what those before it need.
        claims[2].queue();
        assert_eq!(worker.turns.available_permits(), 2);
        let first = now(claims.remove(0).acquire()).unwrap();
        let second = now(claims.remove(0).acquire()).unwrap();
        let mut room = Box::pin(slots.room_to_wait());
        assert!(room.as_mut().now_or_never().is_none(), "one still waits");
        let third = now(claims.remove(0).acquire()).unwrap();
        assert!(room.as_mut().now_or_never().is_some());
        drop((first, second, third));
        assert_eq!(worker.turns.available_permits(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_waits_for_those_of_its_tenant_only_and_holds_no_slot() {
        let worker = WorkerSlots::new(3);
        let [one, other] = [1, 1].map(|queue| worker.tenant(3, queue));
        let claim = |slots: &Slots| now(slots.reserve(1)).unwrap().take().unwrap();
        let running = now(claim(&one).acquire_in(Company::NoSuspect)).unwrap();
        let mut waiting = Box::pin(claim(&one).acquire_in(Company::NoSuspect));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(worker.turns.available_permits(), 2, "it waits with a slot");
        assert!(one.room_to_wait().now_or_never().is_none());
        assert!(now(claim(&one).acquire_in(Company::Any)).is_some());
        let neighbour = now(claim(&other).acquire_in(Company::NoSuspect));
        assert!(neighbour.is_some());
        drop(running);
        assert!(waiting.as_mut().now_or_never().flatten().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_last_attempt_waits_for_those_of_other_tenants_but_not_for_ever() {
        let worker = WorkerSlots::new(3);
        let [one, other] = [1, 1].map(|queue| worker.tenant(3, queue));
        let claim = |slots: &Slots| now(slots.reserve(1)).unwrap().take().unwrap();
        for held in [Company::NoSuspect, Company::NoSuspectOfAnyTenant] {
            let running = now(claim(&one).acquire_in(held)).unwrap();
            let mut waiting = Box::pin(claim(&other).acquire_in(Company::NoSuspectOfAnyTenant));
            assert!(waiting.as_mut().now_or_never().is_none(), "{held:?}");
            tokio::time::advance(LAST_ATTEMPT_WAIT).await;
            assert!(waiting.await.is_some());
            let mut waiting = Box::pin(claim(&other).acquire_in(Company::NoSuspectOfAnyTenant));
            assert!(waiting.as_mut().now_or_never().is_none(), "{held:?}");
            drop(running);
            assert!(waiting.as_mut().now_or_never().flatten().is_some());
        }
    }
}
