//! Pulls deliveries, runs their turns in parallel, keeps each conversation in order, and drains when told to stop.

mod accept;
pub mod dead_letter;
mod lanes;
mod log_limit;
mod pull;
mod settle;
mod slots;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::{DECODED_FACTOR, MemoryBudget, MemoryKind, TenantMemory};
use crate::model::{Activity, TenantId, key_from_headers};
use crate::ports::{Delivery, Inbound, Publisher, TurnStore};
use crate::telemetry::{Metrics, TenantMetrics, TurnSpan};
use crate::turn::{TurnError, Turns};
use lanes::{Lanes, Place};
use log_limit::LogLimit;
pub use pull::IDLE_WAIT;
use pull::Puller;
use slots::{SlotClaim, WorkerSlots};

/// Tenants, each with the most turns it may have at once.
pub type Served = Vec<(TenantId, usize)>;

/// How a worker works.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many turns run at once.
    pub slots: usize,
    /// How many messages of a tenant may wait behind another one of their conversation without holding a slot.
    pub tenant_queue: usize,
    /// The tenants to pull for at first, each with the most turns it may have at once.
    pub tenants: Served,
    /// How often to tell the transport that a message is still being worked on.
    pub progress_every: Duration,
    /// How long a stopping worker lets running turns finish.
    pub drain_timeout: Duration,
    /// What a user is told whose message was put aside, if anything.
    pub apology: Option<String>,
}

/// A worker: the composition of an inbound transport with the turns.
pub struct Worker<I, S, P> {
    shared: Arc<Shared<I, S, P>>,
    metrics: Arc<Metrics>,
    memory: MemoryBudget,
    served: watch::Sender<Served>,
}

/// What all loops and turns of a worker share.
struct Shared<I, S, P> {
    inbound: Arc<I>,
    turns: Turns<S, P>,
    lanes: Lanes,
    /// Limits what the log says of ids that are not unique.
    reused_ids: LogLimit,
    running: TaskTracker,
    /// Has running turns look up: whether it is time for a sign of progress, and whether the drain is over. One timer for
    /// all of them: most turns are over long before it is of any use.
    beat: Notify,
    /// Tells running turns that the drain is over: what is not finished goes back.
    hand_back: CancellationToken,
    config: Config,
}

/// How a stopping worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every turn finished.
    Completely,
    /// The deadline came; this many messages were handed back.
    HandedBack(usize),
}

impl<I, S, P> Worker<I, S, P>
where
    I: Inbound,
    S: TurnStore,
    P: Publisher,
{
    /// Puts a worker together. Nothing runs until [`Worker::run`].
    pub fn new(inbound: Arc<I>, turns: Turns<S, P>, metrics: Arc<Metrics>, config: Config) -> Self {
        let served = watch::Sender::new(config.tenants.clone());
        let shared = Shared {
            inbound,
            turns,
            lanes: Lanes::default(),
            reused_ids: LogLimit::default(),
            running: TaskTracker::new(),
            beat: Notify::new(),
            hand_back: CancellationToken::new(),
            config,
        };
        Self {
            shared: Arc::new(shared),
            metrics,
            memory: MemoryBudget::unlimited(),
            served,
        }
    }

    /// Counts what messages and turns hold in memory against this, and pulls no more than it allows.
    #[must_use]
    pub fn within(mut self, memory: MemoryBudget) -> Self {
        self.memory = memory;
        self
    }

    /// Tells the running worker which tenants to pull for from then on. Turns of a tenant that is gone may finish.
    pub fn served(&self) -> watch::Sender<Served> {
        self.served.clone()
    }

    /// Works until `stop` is cancelled, then stops pulling, lets running turns finish, and hands back the rest.
    pub async fn run(self, stop: CancellationToken) -> Drained {
        let beating = self.shared.beat_on();
        tokio::select! {
            biased;
            drained = self.work(stop) => drained,
            never = beating => match never {},
        }
    }

    async fn work(&self, stop: CancellationToken) -> Drained {
        self.pull(&stop).await;
        let config = &self.shared.config;
        let running = &self.shared.running;
        running.close();
        if tokio::time::timeout(config.drain_timeout, running.wait())
            .await
            .is_ok()
        {
            return Drained::Completely;
        }
        let unfinished = running.len();
        self.shared.hand_back.cancel();
        self.shared.beat.notify_waiters();
        running.wait().await;
        Drained::HandedBack(unfinished)
    }

    /// Keeps one loop for each tenant that is served, until told to stop.
    async fn pull(&self, all: &CancellationToken) {
        let slots = WorkerSlots::new(self.shared.config.slots);
        let mut served = self.served.subscribe();
        let mut loops: HashMap<TenantId, CancellationToken> = HashMap::new();
        let mut pullers = JoinSet::new();
        while !all.is_cancelled() {
            let wanted = served.borrow_and_update().clone();
            let staying: HashSet<&TenantId> = wanted.iter().map(|(tenant, _)| tenant).collect();
            loops.retain(|tenant, stop| {
                let stays = staying.contains(tenant);
                if !stays {
                    stop.cancel();
                    self.metrics.unserved(tenant);
                    self.shared.turns.outage.forget(tenant);
                    self.shared.reused_ids.forget(tenant);
                }
                stays
            });
            for (tenant, limit) in wanted {
                let Entry::Vacant(free) = loops.entry(tenant) else {
                    continue;
                };
                let stop = all.child_token();
                let puller = Puller {
                    shared: Arc::clone(&self.shared),
                    tenant: free.key().clone(),
                    metrics: Arc::new(self.metrics.tenant(free.key())),
                    memory: self.memory.tenant(free.key()),
                    slots: slots.tenant(limit, self.shared.config.tenant_queue),
                    stop: stop.clone(),
                };
                free.insert(stop);
                pullers.spawn(puller.run(all.clone()));
            }
            tokio::select! {
                biased;
                () = all.cancelled() => {}
                // There is always a sender: the worker's own.
                _ = served.changed() => {}
            }
        }
        while pullers.join_next().await.is_some() {}
    }
}

impl<I, S, P> Shared<I, S, P>
where
    I: Inbound,
    S: TurnStore,
    P: Publisher,
{
    /// Beats twice as often as signs of progress are due and leases are prolonged, so that none is late.
    async fn beat_on(&self) -> Infallible {
        let every = self.config.progress_every.min(self.prolong_every());
        let every = (every / 2).max(Duration::from_millis(1));
        let mut beats = tokio::time::interval(every);
        loop {
            beats.tick().await;
            self.beat.notify_waiters();
        }
    }

    /// How often the lease of a turn that runs is prolonged.
    fn prolong_every(&self) -> Duration {
        self.turns.config.lease_ttl / 3
    }

    /// Takes a message that was pulled and read: finds its place in its conversation now, while messages are in order, and
    /// runs its turn in a task of its own.
    fn accept(
        self: &Arc<Self>,
        (delivery, mut claim): (I::Delivery, SlotClaim),
        read: Result<Activity, TurnError>,
        span: TurnSpan,
        (metrics, memory): (&Arc<TenantMetrics>, &TenantMemory),
    ) {
        let bytes = DECODED_FACTOR * delivery.message().body.len() as u64;
        let memory = memory.charge(MemoryKind::Messages, bytes);
        let read = read.map(|activity| {
            let activity = Arc::new(activity);
            span.activity(&activity);
            let place = self.lanes.queue(&activity);
            if place.is_behind() {
                claim.queue();
            }
            (activity, place)
        });
        if let (Err(_), Some(key)) = (&read, key_from_headers(&delivery.message().headers)) {
            span.message(&key);
        }
        let (shared, metrics) = (Arc::clone(self), Arc::clone(metrics));
        let around = span.clone();
        // In a box before it is handed on: it is large, and each hand would copy it.
        let turn = Box::pin(async move {
            shared
                .handle(delivery, (read, claim, memory), &metrics, &span)
                .await;
        });
        self.running.spawn(around.around(turn));
    }
}

/// An activity with its place in its conversation.
type Queued = (Arc<Activity>, Place);
