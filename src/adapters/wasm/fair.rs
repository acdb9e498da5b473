//! Tenants share what calls run in: the slots of the pool, and the threads. A call that has to wait waits behind those of its
//! own tenant and not behind all others.

use std::collections::{HashMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::PollSemaphore;

use crate::model::TenantId;

/// The slots of the pool. A free one goes to the waiting tenant that has fewest.
#[derive(Debug)]
pub(super) struct FairSlots {
    /// The most slots of one tenant.
    of_tenant: usize,
    state: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    free: usize,
    tenants: HashMap<TenantId, Share>,
}

#[derive(Debug, Default)]
struct Share {
    taken: usize,
    waiting: VecDeque<oneshot::Sender<()>>,
}

/// A slot that is taken; free again when this is dropped.
#[derive(Debug)]
pub(super) struct FairSlot<'a> {
    slots: &'a FairSlots,
    tenant: TenantId,
}

impl FairSlots {
    pub(super) fn new(slots: usize, of_tenant: usize) -> Self {
        Self {
            of_tenant: of_tenant.max(1),
            state: Mutex::new(Slots {
                free: slots.max(1),
                tenants: HashMap::new(),
            }),
        }
    }

    /// Takes a slot, once there is one for this tenant.
    pub(super) async fn take(&self, tenant: &TenantId) -> FairSlot<'_> {
        let (call, called) = oneshot::channel();
        {
            let mut state = self.lock();
            let share = state.tenants.entry(tenant.clone()).or_default();
            share.waiting.push_back(call);
            state.deal(self.of_tenant);
        }
        let mut waiting = Waiting {
            slots: self,
            tenant,
            called: Some(called),
        };
        if let Some(called) = &mut waiting.called {
            // Nobody's sender is dropped before it was used, but by who waits.
            let _dealt = called.await;
        }
        waiting.called = None;
        FairSlot {
            slots: self,
            tenant: tenant.clone(),
        }
    }

    fn release(&self, tenant: &TenantId) {
        let mut state = self.lock();
        state.free += 1;
        if let Some(share) = state.tenants.get_mut(tenant) {
            share.taken = share.taken.saturating_sub(1);
        }
        state.deal(self.of_tenant);
        if let Some(share) = state.tenants.get(tenant)
            && share.taken == 0
            && share.waiting.is_empty()
        {
            state.tenants.remove(tenant);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Gives free slots to those who wait.
    fn deal(&mut self, of_tenant: usize) {
        while self.free > 0 {
            let waiting = self.tenants.values_mut();
            let waiting =
                waiting.filter(|share| !share.waiting.is_empty() && share.taken < of_tenant);
            let Some(next) = waiting.min_by_key(|share| share.taken) else {
                return;
            };
            let Some(call) = next.waiting.pop_front() else {
                return;
            };
            if call.send(()).is_ok() {
                next.taken += 1;
                self.free -= 1;
            }
        }
    }
}

/// Gives back a slot that was dealt to who waits no more.
struct Waiting<'a> {
    slots: &'a FairSlots,
    tenant: &'a TenantId,
    called: Option<oneshot::Receiver<()>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(mut called) = self.called.take() {
            called.close();
            if called.try_recv().is_ok() {
                self.slots.release(self.tenant);
            }
        }
    }
}

impl Drop for FairSlot<'_> {
    fn drop(&mut self) {
        self.slots.release(&self.tenant);
    }
}

/// The guests of a tenant that may compute at the same time: as many as there are threads. The others wait without being
/// in the queue of the threads, so that this queue has few of each tenant, however many calls it makes.
#[derive(Debug)]
pub(super) struct FairThreads {
    threads: usize,
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

impl FairThreads {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads: threads.max(1),
            tenants: Mutex::default(),
        }
    }

    /// Runs this in turn with the other calls of the tenant: after each poll the next one has its turn.
    pub(super) async fn run<F: Future>(&self, tenant: &TenantId, work: F) -> F::Output {
        let permits = {
            let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
            let permits = tenants.entry(tenant.clone());
            Arc::clone(permits.or_insert_with(|| Arc::new(Semaphore::new(self.threads))))
        };
        InTurn {
            permits: PollSemaphore::new(permits),
            work: pin!(work),
        }
        .await
    }

    /// Forgets tenants without calls.
    pub(super) fn forget_idle(&self) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, permits| Arc::strong_count(permits) > 1);
    }
}

struct InTurn<'a, F> {
    permits: PollSemaphore,
    work: Pin<&'a mut F>,
}

impl<F: Future> Future for InTurn<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Held for this poll only. It is never closed.
        let _permit = ready!(self.permits.poll_acquire(cx));
        self.work.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::yield_now;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn a_tenant_has_no_more_slots_than_its_share_and_leaves_the_rest() {
        let slots = FairSlots::new(4, 2);
        let (a, b) = (tenant("a"), tenant("b"));
        let first = slots.take(&a).now_or_never().unwrap();
        let _second = slots.take(&a).now_or_never().unwrap();
        let mut third = Box::pin(slots.take(&a));
        assert!(
            third.as_mut().now_or_never().is_none(),
            "a has three of four"
        );
        let other = slots.take(&b).now_or_never();
        assert!(other.is_some(), "b waits behind a");
        drop(first);
        let third = third.now_or_never();
        assert!(third.is_some(), "what a had is not free again");
    }

    #[test]
    fn who_has_fewest_is_next_and_who_waits_no_more_is_passed_over() {
        let slots = FairSlots::new(2, 2);
        let (a, b) = (tenant("a"), tenant("b"));
        let first = slots.take(&a).now_or_never().unwrap();
        let second = slots.take(&a).now_or_never().unwrap();
        let mut impatient = Box::pin(slots.take(&a));
        let mut patient = Box::pin(slots.take(&a));
        let mut late = Box::pin(slots.take(&b));
        for waiting in [&mut impatient, &mut patient] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        assert!(late.as_mut().now_or_never().is_none());
        drop(first);
        let late = late.now_or_never().expect("b has none, and came last");
        drop(impatient);
        drop(second);
        let patient = patient.now_or_never().unwrap();
        drop((late, patient));
        let state = slots.lock();
        assert_eq!(state.free, 2);
        assert!(state.tenants.is_empty());
    }

    #[tokio::test]
    async fn a_slot_that_is_dealt_to_who_left_is_dealt_again() {
        let slots = FairSlots::new(1, 1);
        let (a, b) = (tenant("a"), tenant("b"));
        let held = slots.take(&a).await;
        let mut leaves = Box::pin(slots.take(&a));
        assert!(leaves.as_mut().now_or_never().is_none());
        drop(held);
        // Dealt by now, and not taken.
        drop(leaves);
        assert!(slots.take(&b).now_or_never().is_some());
    }

    #[tokio::test]
    async fn those_of_one_tenant_take_turns_at_each_poll() {
        let threads = FairThreads::new(1);
        let order = Mutex::new(String::new());
        let work = |name: char| {
            let order = &order;
            async move {
                for _ in 0..3 {
                    order.lock().unwrap().push(name);
                    yield_now().await;
                }
            }
        };
        let a = tenant("a");
        tokio::join!(threads.run(&a, work('x')), threads.run(&a, work('y')));
        let order = order.into_inner().unwrap();
        assert_eq!(order.len(), 6);
        assert_eq!(threads.tenants.lock().unwrap().len(), 1);
        threads.forget_idle();
        assert!(threads.tenants.lock().unwrap().is_empty());
    }
}
