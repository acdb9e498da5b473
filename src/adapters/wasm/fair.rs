//! Tenants share what calls run in: the slots of the pool, and the threads. A call that has to wait waits behind those of its
//! own tenant and not behind all others.

use std::collections::{HashMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;

use crate::model::TenantId;

/// The slots of the pool. A free one goes to the waiting tenant that has fewest, and of several to whose last one is longest
/// ago.
#[derive(Debug)]
pub(super) struct FairSlots {
    /// The most slots of one tenant.
    of_tenant: usize,
    state: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    free: usize,
    /// How many were dealt.
    dealt: u64,
    tenants: HashMap<TenantId, Share>,
}

#[derive(Debug, Default)]
struct Share {
    taken: usize,
    /// The number of the last one that was dealt to it.
    last: u64,
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
                dealt: 0,
                tenants: HashMap::new(),
            }),
        }
    }

    /// Takes a slot, if there is one. Nobody who waits for it is passed over: a free slot is dealt at once.
    fn try_take(&self, tenant: &TenantId) -> Option<FairSlot<'_>> {
        let mut state = self.lock();
        if state.free == 0 {
            return None;
        }
        let share = state.tenants.entry(tenant.clone()).or_default();
        if share.taken >= self.of_tenant {
            return None;
        }
        share.taken += 1;
        state.free -= 1;
        Some(FairSlot {
            slots: self,
            tenant: tenant.clone(),
        })
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

    /// Returns whether somebody waits who would get the slot that this tenant would release: one of its own calls, or a tenant that
    /// would not have more than it then.
    fn is_awaited(&self, tenant: &TenantId) -> bool {
        let state = self.lock();
        let taken = state.tenants.get(tenant).map_or(0, |share| share.taken);
        let mut waiting = state.tenants.iter();
        waiting.any(|(other, share)| {
            !share.waiting.is_empty() && (other == tenant || share.taken < taken)
        })
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
            let Some(next) = waiting.min_by_key(|share| (share.taken, share.last)) else {
                return;
            };
            let Some(call) = next.waiting.pop_front() else {
                return;
            };
            if call.send(()).is_ok() {
                next.taken += 1;
                self.dealt += 1;
                next.last = self.dealt;
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

/// The threads, as slots of calls that compute. One that is made to yield keeps its slot unless somebody waits for it; one
/// that waits for something else has none. So there are never more guests in the queue of the threads than there are
/// threads, and whose turn it is follows from how many of them each tenant has, however many calls it makes.
#[derive(Debug)]
pub(super) struct FairThreads(FairSlots);

impl FairThreads {
    pub(super) fn new(threads: usize) -> Self {
        Self(FairSlots::new(threads, threads))
    }

    /// Runs this in turn with the other calls.
    pub(super) async fn run<F: Future>(&self, tenant: &TenantId, work: F) -> F::Output {
        let signal = Arc::<Signal>::default();
        InTurn {
            slots: &self.0,
            tenant,
            slot: None,
            taking: None,
            waker: Waker::from(Arc::clone(&signal)),
            signal,
            work: pin!(work),
        }
        .await
    }
}

/// Tells whether a call woke itself: it yielded.
#[derive(Debug, Default)]
struct Signal {
    is_woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Relaxed);
        self.task.wake();
    }
}

struct InTurn<'a, F> {
    slots: &'a FairSlots,
    tenant: &'a TenantId,
    slot: Option<FairSlot<'a>>,
    taking: Option<BoxFuture<'a, FairSlot<'a>>>,
    signal: Arc<Signal>,
    waker: Waker,
    work: Pin<&'a mut F>,
}

impl<F> InTurn<'_, F> {
    /// Takes a slot, or has the task woken when there is one. What it holds it hands on if somebody waits.
    fn take_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.slot.is_some() && self.slots.is_awaited(self.tenant) {
            self.slot = None;
        }
        if self.slot.is_none() && self.taking.is_none() {
            self.slot = self.slots.try_take(self.tenant);
        }
        if self.slot.is_none() {
            let take = || Box::pin(self.slots.take(self.tenant)) as BoxFuture<'_, _>;
            let taking = self.taking.get_or_insert_with(take);
            self.slot = Some(ready!(taking.as_mut().poll(cx)));
            self.taking = None;
        }
        Poll::Ready(())
    }
}

impl<F: Future> Future for InTurn<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.signal.task.register(cx.waker());
        ready!(this.take_turn(cx));
        this.signal.is_woken.store(false, Relaxed);
        let polled = this
            .work
            .as_mut()
            .poll(&mut Context::from_waker(&this.waker));
        if polled.is_ready() || !this.signal.is_woken.load(Relaxed) {
            this.slot = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;

    use super::*;

    /// Yields as a guest does: it is to be polled again at once.
    async fn yield_now() {
        let mut yielded = false;
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            match std::mem::replace(&mut yielded, true) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await
    }

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

    #[test]
    fn a_call_that_waits_for_something_else_holds_no_thread() {
        let threads = FairThreads::new(1);
        let a = tenant("a");
        let mut waiting = Box::pin(threads.run(&a, std::future::pending::<()>()));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(threads.0.lock().free, 1);
        let mut computing = Box::pin(threads.run(&a, yield_now()));
        assert!(computing.as_mut().now_or_never().is_none());
        assert_eq!(threads.0.lock().free, 0, "it gave up its thread for nobody");
        assert!(computing.as_mut().now_or_never().is_some());
        assert_eq!(threads.0.lock().free, 1);
    }

    #[tokio::test]
    async fn a_call_keeps_its_thread_while_all_who_wait_have_more() {
        let threads = FairThreads::new(2);
        let (a, b) = (tenant("a"), tenant("b"));
        let mut of_a = Box::pin(threads.run(&a, yield_now()));
        let mut of_b = Box::pin(threads.run(&b, yield_now()));
        let mut next = Box::pin(threads.run(&a, yield_now()));
        for call in [&mut of_a, &mut of_b, &mut next] {
            assert!(call.as_mut().now_or_never().is_none());
        }
        assert!(
            of_b.now_or_never().is_some(),
            "it gave way to a second of a"
        );
        assert!(next.as_mut().now_or_never().is_none());
        assert!(next.now_or_never().is_some());
        assert!(of_a.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_call_is_not_behind_all_calls_of_another_tenant() {
        let threads = Arc::new(FairThreads::new(1));
        let order = Arc::<Mutex<String>>::default();
        let work = |tenant: &'static str| {
            let (threads, order) = (Arc::clone(&threads), Arc::clone(&order));
            tokio::spawn(async move {
                let polls = async {
                    for _ in 0..10 {
                        order.lock().unwrap().push_str(tenant);
                        yield_now().await;
                    }
                };
                threads.run(&tenant.parse().unwrap(), polls).await;
            })
        };
        let mut calls: Vec<_> = (0..20).map(|_| work("a")).collect();
        calls.push(work("b"));
        for call in calls {
            call.await.unwrap();
        }
        let order = order.lock().unwrap();
        let last = order.rfind('b').unwrap();
        assert!(last < 60, "b waited behind all of a: {order}");
        assert!(threads.0.lock().tenants.is_empty());
    }
}
