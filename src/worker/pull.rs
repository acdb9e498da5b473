//! Pulls one tenant's messages: as many as there are slots for, never more, since what one replica hoards no other can
//! run.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::accept::AcceptQueue;
use super::slots::{Reservation, SlotClaim, Slots};
use crate::budget::{DECODED_FACTOR, MemoryKind, TenantMemory};
use crate::model::TenantId;
use crate::ports::{Inbound, Publisher, TransportError, TurnStore};
use crate::telemetry::TenantMetrics;
use crate::turn::Part;

/// How long an idle tenant's pull waits for a message before it is asked again.
pub const IDLE_WAIT: Duration = Duration::from_secs(30);
/// How long a busy tenant's pull may hold shared slots that nothing comes for: others may be waiting for them.
const BUSY_WAIT: Duration = Duration::from_millis(100);
/// The most messages of one pull; more brings nothing.
const MAX_BATCH: usize = 128;
/// How many pulls a busy tenant has under way, so that one is always waiting at the server while another is emptied.
const OVERLAPPING: usize = 2;
/// How often a tenant that is kept waiting shows that its loop is alive.
const BEAT: Duration = Duration::from_secs(5);
/// The pauses after a pull that failed: doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The loop of one tenant.
pub struct Puller<I, S, P> {
    pub shared: Arc<Shared<I, S, P>>,
    pub tenant: TenantId,
    pub metrics: Arc<TenantMetrics>,
    pub memory: TenantMemory,
    pub slots: Slots,
    pub stop: CancellationToken,
}

/// What one pull brought.
#[derive(Clone, Copy)]
struct Pulled {
    asked: usize,
    got: usize,
    took: Duration,
    failed: bool,
}

/// What a tenant's pulls brought and nobody accepted yet.
struct Arrived<D>(Mutex<Vec<(D, SlotClaim)>>);

impl<D> Arrived<D> {
    fn lock(&self) -> MutexGuard<'_, Vec<(D, SlotClaim)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulled {
    /// How much to ask for next: twice as much after a pull that was filled, else what came. A tenant whose single message
    /// was long in coming stays idle: a pull for two would most likely end with one, and be one more for each message.
    fn next_want(self) -> usize {
        let want = if self.got == self.asked {
            match self.asked {
                1 if self.took > BUSY_WAIT => 1,
                asked => asked * 2,
            }
        } else {
            self.got.next_power_of_two()
        };
        want.clamp(1, MAX_BATCH)
    }
}

impl<I, S, P> Puller<I, S, P>
where
    I: Inbound,
    S: TurnStore,
    P: Publisher,
{
    /// Pulls until told to stop, and says so where not everything stops.
    pub async fn run(self, all: CancellationToken) {
        self.pull_on().await;
        if !all.is_cancelled() {
            self.shared.inbound.leave(&self.tenant);
            tracing::info!(tenant = %self.tenant, "not bound any more; its messages are left to other workers");
        }
    }

    /// An idle tenant asks for one message at a time, and holds no slot while none comes.
    async fn pull_on(&self) {
        let mut want = 1;
        let mut pause = FIRST_PAUSE;
        let arrived = Arrived(Mutex::default());
        let mut queue = AcceptQueue::new(&self.shared, &self.metrics, &self.memory);
        let mut under_way = FuturesUnordered::new();
        loop {
            let room = if want == 1 { 1 } else { OVERLAPPING };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return queue.hand_back().await,
                ended = self.listen(&mut under_way, &arrived, &mut queue) => for pulled in ended {
                    pause = if pulled.failed { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
                    want = pulled.next_want();
                },
                reserved = self.reserve(want), if under_way.len() < room => {
                    let Some(reserved) = reserved else { return queue.hand_back().await };
                    let wait = if want == 1 { IDLE_WAIT } else { BUSY_WAIT };
                    under_way.push(self.pull(reserved, &arrived, wait, pause));
                }
            }
        }
    }

    /// Accepts what the pulls bring, until some of them are over. JetStream deals the messages out to the pulls that wait, so
    /// one of them may hold what comes before a message of another: all are emptied before any message is accepted.
    async fn listen<F>(
        &self,
        under_way: &mut FuturesUnordered<F>,
        arrived: &Arrived<I::Delivery>,
        queue: &mut AcceptQueue<'_, I, S, P>,
    ) -> Vec<Pulled>
    where
        F: Future<Output = Pulled>,
    {
        let emptying = poll_fn(|cx| {
            let mut ended = Vec::new();
            loop {
                let before = arrived.lock().len();
                if let Poll::Ready(Some(pulled)) = under_way.poll_next_unpin(cx) {
                    ended.push(pulled);
                } else if arrived.lock().len() == before {
                    break;
                }
            }
            queue.put(&mut arrived.lock());
            queue.accept(cx);
            match ended.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(ended),
            }
        });
        // The scheduler's budget would end it halfway. There are never more messages than slots.
        unconstrained(emptying).await
    }

    /// Waits until this tenant may be pulled for, whatever it is refused; tells whether it is only to find out if it still is.
    async fn probe_is_due(&self) -> bool {
        let outage = &self.shared.turns.outage;
        let mut refused = false;
        while let Some(pause) = outage.pause(&self.tenant) {
            refused = true;
            if pause.is_zero() {
                break;
            }
            // A refusal is no stall of this worker.
            self.metrics.waiting();
            outage.refusal_over(pause.min(BEAT)).await;
        }
        refused && outage.pause(&self.tenant).is_some()
    }

    /// Slots for the next pull; none are taken while infrastructure is away.
    async fn reserve(&self, want: usize) -> Option<Reservation> {
        self.wait_alive(self.shared.turns.outage.over()).await;
        if self.probe_is_due().await {
            return self.slots.reserve_own().await;
        }
        self.wait_alive(self.slots.room_to_wait()).await;
        self.wait_alive(self.memory.admitted(MemoryKind::Messages))
            .await;
        // As large as messages may be: what a pull brings is in memory before it can be looked at.
        let largest = DECODED_FACTOR * self.shared.turns.config.payload_bytes as u64;
        let want = want.min(self.memory.room(largest));
        if want == 1 {
            self.slots.listen().await
        } else {
            self.slots.reserve(want).await
        }
    }

    /// Waits, and shows meanwhile that the loop is alive: to wait for infrastructure, or for its own turns, is no stall of the
    /// worker, and restarting it would not help.
    async fn wait_alive<T>(&self, waited: impl Future<Output = T>) -> T {
        tokio::pin!(waited);
        // Mostly there is nothing to wait for, and no timer needed.
        let at_once = poll_fn(|cx| Poll::Ready(waited.as_mut().poll(cx))).await;
        if let Poll::Ready(done) = at_once {
            return done;
        }
        loop {
            match tokio::time::timeout(BEAT, &mut waited).await {
                Ok(done) => return done,
                Err(_) => self.metrics.waiting(),
            }
        }
    }

    /// One pull; one that fails ends with a pause, jittered so that replicas do not come back all at once.
    async fn pull(
        &self,
        mut reserved: Reservation,
        arrived: &Arrived<I::Delivery>,
        wait: Duration,
        pause: Duration,
    ) -> Pulled {
        let began = Instant::now();
        let mut pulled = Pulled {
            asked: reserved.len(),
            got: 0,
            took: Duration::ZERO,
            failed: false,
        };
        let taken = self
            .take_all(&mut reserved, arrived, wait, &mut pulled.got)
            .await;
        pulled.took = began.elapsed();
        if let Err(error) = taken {
            drop(reserved);
            // It came to its end, if not to a good one: a server that is away is no stall of this worker.
            self.metrics.waiting();
            if let TransportError::Refused(refusal) = &error {
                let outage = &self.shared.turns.outage;
                // A pull finds out by itself, and the next one waits for longer.
                let _probe = outage.hold(&self.tenant, None);
                outage.refuse(&self.tenant, Part::Inbound, refusal);
            } else {
                tracing::warn!(tenant = %self.tenant, error = %error, "a pull failed; asking again");
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pulled.failed = true;
        }
        pulled
    }

    async fn take_all(
        &self,
        reserved: &mut Reservation,
        arrived: &Arrived<I::Delivery>,
        wait: Duration,
        got: &mut usize,
    ) -> Result<(), TransportError> {
        let mut messages = self
            .shared
            .inbound
            .pull(&self.tenant, reserved.len(), wait)
            .await?;
        while let Some(delivery) = messages.next().await.transpose()? {
            let Some(claim) = reserved.take() else { break };
            *got += 1;
            arrived.lock().push((delivery, claim));
        }
        self.metrics.pulled();
        let outage = &self.shared.turns.outage;
        outage.allow(&self.tenant, Part::Inbound);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_follows_what_came() {
        #[track_caller]
        fn check((got, asked): (usize, usize), took: Duration, next: usize) {
            let pulled = Pulled {
                asked,
                got,
                took,
                failed: false,
            };
            assert_eq!(pulled.next_want(), next, "{got} of {asked} after {took:?}");
        }
        let (quick, slow) = (Duration::from_millis(1), BUSY_WAIT * 2);
        check((1, 1), quick, 2);
        check((1, 1), slow, 1);
        check((0, 1), slow, 1);
        check((64, 64), quick, 128);
        check((128, 128), quick, 128);
        check((3, 64), BUSY_WAIT, 4);
        check((0, 64), BUSY_WAIT, 1);
    }
}
