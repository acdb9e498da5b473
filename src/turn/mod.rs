//! One activity, start to end: begin, advance, commit, publish, disposition.
//!
//! The order of the steps is what makes a turn happen exactly once, and it is written here and nowhere else. Nothing
//! leaves the process before COMMIT; COMMIT stores the replies with the effects; only what is stored is published; only
//! what is published is settled. A crash between any two steps is healed by redelivery, since BEGIN finds what was
//! applied.

mod awaited;
mod bounds;
mod codes;
mod compute;
mod dead_letter;
mod ended;
mod envelope;
mod failure;
mod flow_log;
mod invoke;
mod late;
mod lease;
mod outage;
mod parked;
mod play;
mod publish;
mod replies;
mod results;
mod retry;
mod state_reads;
mod steps;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

pub use awaited::AwaitedPacks;
pub use bounds::Bounds;
pub use codes::DEAD_LETTER_CODES;
pub use dead_letter::{ID_REUSED, REPLY_UNDELIVERABLE};
pub use ended::{Applied, Ended};
pub use failure::{Disposition, Rejection, RetryPolicy, TurnError};
use flow_log::ComponentLog;
use futures_util::FutureExt;
pub use lease::TurnLease;
pub use outage::{Infrastructure, Outage, Part, RefusedPart, Server, Standing};
pub use parked::ParkedRun;
pub use replies::apology;

use crate::budget::{DECODED_FACTOR, MemoryCharge, MemoryKind};
use crate::model::{Activity, EnvId, InboundMessage, TraceContext, decode};
use crate::ports::{
    Begin, Begun, Claim, Clock, Commit, Committed, Components, Compute, Lease, NewId, Opening,
    Publisher, StoredState, TurnStore,
};
use crate::registry::{Live, Registry};
use crate::telemetry::{TenantMetrics, TurnSpan};
use compute::{Discarded, LARGE};
use play::{Chosen, foresee};
use results::Played;
use state_reads::StatePrefetch;
use steps::TurnSteps;
use tokio::time::Instant;

/// What turns are run by.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Greentic environment that activities belong to.
    pub env: EnvId,
    /// The largest body taken, in bytes.
    pub payload_bytes: usize,
    /// How a flow's own failures are tried again.
    pub retry: RetryPolicy,
    /// How long a flow may take between BEGIN and COMMIT, infrastructure that is away not counted.
    pub turn_timeout: Duration,
    /// How long a lease outlives its holder.
    pub lease_ttl: Duration,
    /// How long a flow waits for its answer.
    pub wait_ttl: Duration,
    /// How long a message is left to other workers whose conversation waits in a pack that is not here.
    pub gone_after: Duration,
    /// How much a turn may store.
    pub bounds: Bounds,
}

/// The parts that every turn uses.
pub struct Turns<S, P> {
    /// Where sessions, state and applied keys are.
    pub store: Arc<S>,
    /// Where replies go.
    pub publisher: Arc<P>,
    /// The flows that are bound at the moment.
    pub registry: Arc<Live>,
    /// What runs the components that flows call.
    pub components: Arc<dyn Components>,
    /// Where runs go on that compute for long.
    pub compute: Arc<dyn Compute>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// New ids.
    pub ids: Arc<dyn NewId>,
    /// Who is waiting for infrastructure.
    pub outage: Outage,
    /// Which messages wait for packs.
    pub awaited: AwaitedPacks,
    /// The settings.
    pub config: Config,
}

impl<S: TurnStore, P: Publisher> Turns<S, P> {
    /// Reads a message. What cannot be read is put aside at once.
    pub fn read(&self, message: &InboundMessage) -> Result<Activity, TurnError> {
        let (bytes, limit) = (message.body.len(), self.config.payload_bytes);
        if bytes > limit {
            return Err(TurnError::PayloadTooLarge { bytes, limit });
        }
        Ok(decode(message, &self.config.env)?)
    }

    /// Returns whether reading a message takes so long that it is better done by [`Turns::read_apart`].
    pub fn is_large(&self, message: &InboundMessage) -> bool {
        let bytes = message.body.len();
        bytes > LARGE && bytes <= self.config.payload_bytes
    }

    /// Reads a message on a compute thread.
    pub fn read_apart(
        &self,
        message: &InboundMessage,
        span: &TurnSpan,
    ) -> impl Future<Output = Result<Activity, TurnError>> + Send + use<S, P> {
        let (message, env) = (message.clone(), self.config.env.clone());
        let tenant = message.tenant.clone();
        let read = move || Some(decode(&message, &env).map_err(TurnError::from));
        compute::compute(&*self.compute, &tenant, span.clone(), read)
    }

    /// Lets an activity that was read apart go there, too.
    pub fn let_go(&self, activity: Arc<Activity>) {
        let tenant = activity.tenant.clone();
        let discarded = Box::new(Discarded(Some(activity)));
        self.compute.run(&tenant, discarded);
    }

    /// Runs the turn of an activity that was delivered for the `delivered`th time. The span learns what runs.
    pub async fn run(&self, activity: &Activity, delivered: u64, span: &TurnSpan) -> Ended {
        let (lease, memory, metrics) = (&TurnLease::default(), None, None);
        let context = TurnContext {
            stored: None,
            span,
            lease,
            memory,
            metrics,
        };
        self.run_in(activity, delivered, context).await
    }

    /// The same for a worker.
    pub async fn run_in(
        &self,
        activity: &Activity,
        delivered: u64,
        context: TurnContext<'_>,
    ) -> Ended {
        let mut attempt = Attempt::new(self, activity, delivered, context);
        let outcome = attempt.run().await;
        attempt.step(TurnSteps::end);
        if let Err(TurnError::WaitPackGone { .. }) = &outcome {
            if let Some(pause) = self.awaited.pause(activity, self.config.gone_after) {
                return Box::pin(attempt.without_its_pack(pause)).await;
            }
            // It is remembered until its dead letter is stored.
        } else {
            self.awaited.forget(activity);
        }
        match outcome {
            Ok(applied) => attempt.ended(Disposition::Ack, applied),
            Err(TurnError::Refused(_)) => Box::pin(attempt.refused()).await,
            Err(error) => {
                if matches!(error, TurnError::WaitPackGone { .. }) {
                    // Nothing has run that could be to blame.
                    attempt.withdraw().await;
                } else {
                    attempt.give_up_lease().await;
                }
                let (code, number) = (error.code(), attempt.number);
                let disposition = self.config.retry.decide(error, number);
                if let Disposition::RetryAfter(pause) = &disposition {
                    tracing::warn!(
                        code,
                        attempt = number,
                        ?pause,
                        "turn failed and will be tried again"
                    );
                }
                attempt.ended(disposition, None)
            }
        }
    }
}

/// The context of a turn in its worker.
#[derive(Clone, Copy)]
pub struct TurnContext<'a> {
    /// When the stream stored its message, in nanoseconds since 1970.
    pub stored: Option<u64>,
    /// Learns what runs.
    pub span: &'a TurnSpan,
    /// The lease that it may take.
    pub lease: &'a TurnLease,
    /// Counts what it holds in memory.
    pub memory: Option<&'a MemoryCharge>,
    /// Counts its conflicts when they happen.
    pub metrics: Option<&'a TenantMetrics>,
}

/// The text of the session and of the state that a turn starts from.
fn opening_bytes(opening: &Opening) -> u64 {
    let session = opening.wait.iter().map(|wait| wait.data.context_json.len());
    let state = opening.state.iter().map(|stored| match stored {
        StoredState::Text(text) => text.len(),
        StoredState::Absent | StoredState::TooLarge => 0,
    });
    session.chain(state).sum::<usize>() as u64
}

/// One attempt at one activity.
struct Attempt<'a, S, P> {
    turns: &'a Turns<S, P>,
    /// What was bound when the turn began: it ends with the same.
    registry: Arc<Registry>,
    activity: &'a Activity,
    context: TurnContext<'a>,
    exclusive: bool,
    redelivered: bool,
    /// The flow may have effects outside that COMMIT cannot hold back, so every attempt takes the lease.
    reaches_out: bool,
    /// Which attempt it is, from 1.
    number: u32,
    conflicts: u32,
    /// What is left of the turn's time, where a conflict has used up a part of it.
    time_left: Option<Duration>,
    replies: usize,
    undelivered: usize,
    /// The message echoes the correlation id of a wait that is not there.
    stale_echo: bool,
    /// COMMIT has applied the turn; what was refused since then is to publish its replies.
    applied: Option<Applied>,
    /// State that the entry flow may read, asked for with BEGIN.
    foreseen: StatePrefetch,
    trace: TraceContext,
    component_log: ComponentLog,
    /// For the log at debug level.
    steps: Option<Arc<TurnSteps>>,
}

impl<'a, S: TurnStore, P: Publisher> Attempt<'a, S, P> {
    fn new(
        turns: &'a Turns<S, P>,
        activity: &'a Activity,
        delivered: u64,
        context: TurnContext<'a>,
    ) -> Self {
        let ids = &turns.ids;
        let own = ids.span_id();
        let inherited = activity.trace.as_ref().and_then(|trace| trace.child(&own));
        let trace = inherited.unwrap_or_else(|| TraceContext {
            traceparent: ["00-", &ids.trace_id(), "-", &own, "-01"].concat(),
            tracestate: None,
        });
        let redelivered = delivered > 1;
        let registry = turns.registry.now();
        let (foreseen, reaches_out) = foresee(&registry, activity);
        Self {
            turns,
            activity,
            context,
            exclusive: redelivered || reaches_out,
            redelivered,
            reaches_out,
            number: 1,
            conflicts: 0,
            time_left: None,
            replies: 0,
            undelivered: 0,
            stale_echo: false,
            applied: None,
            foreseen,
            registry,
            trace,
            component_log: ComponentLog::default(),
            steps: TurnSteps::begin(),
        }
    }

    /// Tells a step to the log, where that wants it.
    fn step(&self, tell: impl FnOnce(&TurnSteps)) {
        if let Some(steps) = &self.steps {
            tell(steps);
        }
    }

    fn lease(&self) -> Lease<'a> {
        self.context.lease.named(&*self.turns.ids)
    }

    fn ended(self, disposition: Disposition, applied: Option<Applied>) -> Ended {
        let Self {
            replies,
            undelivered,
            exclusive,
            stale_echo,
            conflicts,
            ..
        } = self;
        Ended {
            disposition,
            applied,
            replies,
            undelivered,
            claimed: exclusive,
            stale_echo,
            conflicts,
        }
    }

    async fn run(&mut self) -> Result<Option<Applied>, TurnError> {
        loop {
            let opening = match self.begin().await? {
                Begun::Ready(opening) => {
                    self.holds(DECODED_FACTOR * opening_bytes(&opening));
                    opening
                }
                Begun::Busy { retry_after } => {
                    self.stand_aside(retry_after).await;
                    continue;
                }
                Begun::Applied(record) => {
                    let outbox = self.outbox_of_copy(record)?;
                    self.publish(&outbox, self.messages(&outbox), None).await?;
                    return Ok(None);
                }
            };
            // Before anything is loaded for it: that may be what its workers die of.
            self.count(&opening, false)?;
            let chosen = self.choose(opening.wait.as_deref()).await?;
            self.stale_echo = self.is_echo_stale(&chosen);
            self.reaches_out |= chosen.reaches_out();
            if self.reaches_out && !self.exclusive {
                // What waits was not foreseen, so the conversation is opened again, for this turn alone.
                self.exclusive = true;
                continue;
            }
            self.count(&opening, true)?;
            let (played, deadline) = self.play_in_time(&opening, chosen).await?;
            self.holds(played.bytes());
            let messages = self.messages(&played.outbox);
            self.check_sizes(&messages)?;
            self.turns.config.bounds.check_commit(&played)?;
            let before_commit = self.turns.clock.uptime();
            match self.commit(&opening, &played).await? {
                Committed::Done { tenant_state_bytes } => {
                    let applied = Applied {
                        tenant_state_bytes,
                        ..played.applied()
                    };
                    self.applied = Some(applied);
                    self.publish(&played.outbox, messages, Some(before_commit))
                        .await?;
                    return Ok(self.applied);
                }
                Committed::Refused(refused) => {
                    let (bounds, tenant) = (&self.turns.config.bounds, &self.activity.tenant);
                    return Err(bounds.failure(tenant, refused));
                }
                Committed::AlreadyApplied(record) => {
                    let outbox = self.outbox_of_copy(record)?;
                    self.publish(&outbox, self.messages(&outbox), None).await?;
                    return Ok(None);
                }
                Committed::Conflict => {
                    // The way to the store and back is not the flow's.
                    let on_the_way = self.turns.clock.uptime().saturating_sub(before_commit);
                    let left = deadline + on_the_way;
                    self.time_left = Some(left.saturating_duration_since(Instant::now()));
                    self.conflicted(&played)?;
                }
            }
        }
    }

    /// Returns whether the message answers a question, and what waited for the answer is not there.
    fn is_echo_stale(&self, chosen: &Chosen) -> bool {
        let activity = self.activity;
        let echo = activity.correlation();
        echo.is_some_and(|echo| !activity.target.is_explicit() && !chosen.answers(echo))
    }

    /// Counts so many bytes as held until the turn is settled.
    fn holds(&self, bytes: u64) {
        if let Some(memory) = self.context.memory {
            memory.add(MemoryKind::Turns, bytes);
        }
    }

    async fn begin(&self) -> Result<Begun, TurnError> {
        let claim = if self.exclusive {
            Claim::Exclusive {
                lease: self.lease(),
                ttl: self.turns.config.lease_ttl,
            }
        } else {
            Claim::Optimistic
        };
        let begin = Begin {
            activity: self.activity,
            claim,
            resume: !self.activity.target.is_explicit(),
            state: &self.foreseen.slots,
            state_bytes: self.foreseen.max_bytes,
        };
        let begun = self
            .turns
            .outage
            .ride_out(&self.activity.tenant, Part::Store, || {
                self.turns.store.begin(&begin)
            })
            .await?;
        self.step(|steps| steps.opened(&begun, self.exclusive));
        Ok(begun)
    }

    /// Plays with a limit on the time that the turn takes, all its conflicts included; time spent waiting for infrastructure
    /// is not the flow's fault.
    async fn play_in_time(
        &self,
        opening: &Opening,
        chosen: Chosen,
    ) -> Result<(Played, Instant), TurnError> {
        let turn_timeout = self.turns.config.turn_timeout;
        let mut limit = self.time_left.unwrap_or(turn_timeout);
        // Nothing has left the process yet, so a panic costs one message and not the worker.
        let playing = AssertUnwindSafe(self.play(opening, chosen)).catch_unwind();
        tokio::pin!(playing);
        loop {
            let time_up = tokio::time::sleep(limit);
            tokio::pin!(time_up);
            tokio::select! {
                biased;
                played = &mut playing => {
                    let played = played.unwrap_or_else(|panic| Err(TurnError::panicked(&*panic)));
                    return Ok((played?, time_up.deadline()));
                }
                () = &mut time_up => {
                    if !self.turns.outage.is_active() {
                        return Err(self.timed_out(self.context.span.position()));
                    }
                    limit = turn_timeout;
                }
            }
        }
    }

    async fn commit(&self, opening: &Opening, played: &Played) -> Result<Committed, TurnError> {
        let commit = Commit {
            activity: self.activity,
            lease: self.exclusive.then(|| self.lease()),
            head: opening.head.as_ref(),
            taken: played.taken(),
            park: played.park(),
            state_read: &played.state_read,
            state_written: &played.state_written,
            outbox: &played.outbox,
            quotas: self.turns.config.bounds.quotas(&self.activity.tenant),
        };
        let committed = self
            .turns
            .outage
            .ride_out(&self.activity.tenant, Part::Store, || {
                self.turns.store.commit(&commit)
            })
            .await?;
        self.step(|steps| steps.committed(&committed, played));
        Ok(committed)
    }
}
