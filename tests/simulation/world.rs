//! What a run has one of: its source of chance, its clock, its ids, its record of events, and the faults it may have.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use greentic_worker::ports::{Clock, NewId, Quotas};
use time::OffsetDateTime;
use tokio::time::Instant;

/// How long the server waits for a sign of life before it delivers a message again.
pub const ACK_WAIT: Duration = Duration::from_secs(3);
/// How long a lease outlives its holder.
pub const LEASE: Duration = Duration::from_secs(3);
/// How long a worker waits for an answer before it takes the other side to be away.
pub const PATIENCE: Duration = Duration::from_millis(1_000);
/// How long a stream recognises a message that is published again.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);
/// The window of runs in which everybody is held up for longer. A request is under way for less than half of it.
pub const SHORT_WINDOW: Duration = Duration::from_secs(20);
/// How long an applied activity is remembered.
pub const DEDUPE_WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// How often a message is tried.
pub const ATTEMPTS: u32 = 5;

/// The tenant that is refused something, where one is.
const REFUSED_TENANT: &str = super::flows::TENANTS[1];

/// Everything about a run that follows from its seed.
pub struct World {
    /// What may go wrong, and how often.
    pub plan: Plan,
    began: Instant,
    faults: AtomicBool,
    rng: Mutex<Rng>,
    events: Mutex<Vec<String>>,
    tally: Mutex<Tally>,
    /// The longest that a tenant that is refused nothing has waited for an answer.
    slowest: Mutex<Duration>,
    ids: AtomicU64,
    /// The servers of the streams are away until then.
    streams_away_until: Mutex<Instant>,
}

/// How often what happened.
pub type Tally = BTreeMap<&'static str, u64>;

/// How often things go wrong, of a thousand calls each.
#[derive(Clone, Debug)]
pub struct Plan {
    pub workers: usize,
    pub conversations: usize,
    pub users: u64,
    pub tenants: usize,
    /// One worker and nothing that fails: then even the order of a conversation's messages is kept.
    pub calm: bool,
    /// A worker dies at a call.
    pub crash: u32,
    /// A request does not arrive, or its answer does not.
    pub lost: u32,
    /// A request arrives long after its sender has given it up.
    pub slow: u32,
    /// A worker stands still at a call, for longer than leases and the ack wait.
    pub stall: u32,
    /// A provider sends a message twice.
    pub twice: u32,
    /// A delivery overtakes others.
    pub overtake: u32,
    /// A message kills whoever runs it.
    pub poison: u32,
    /// A message fails in its flow, or is none.
    pub broken: u32,
    /// A provider gives a message the id of another one.
    pub reuse: u32,
    /// A message calls the backend, which is mostly down for as long as there are faults.
    pub calls: u32,
    /// Open waits that a user may have.
    pub waits_per_user: u32,
    /// What the server refuses to one of the tenants for as long as there are faults.
    pub refused: Option<Refused>,
    /// The workers have two versions of the pack.
    pub roll_out: bool,
    /// How long the streams recognise a message that is published again.
    pub window: Duration,
    /// The longest that a worker stands still, in milliseconds.
    pub longest_stall: u64,
    /// The servers of the streams go away when they have stored a reply, for longer than the window, and its acknowledgement is lost.
    pub outage: u32,
}

/// What is refused to the tenant that is refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Each publish.
    Everything,
    /// Each reply but the first of a turn.
    LaterReplies,
}

impl Plan {
    fn draw(rng: &mut Rng) -> Self {
        let style = rng.u32(..10);
        let (calm, poison_only) = (style == 0, style == 1);
        let mut rate = |most: u32| match calm || poison_only || rng.u32(..3) == 0 {
            true => 0,
            false => rng.u32(..=most),
        };
        Self {
            crash: rate(40),
            lost: rate(80),
            slow: rate(60),
            stall: rate(25),
            twice: rate(300),
            overtake: rate(300),
            poison: if poison_only { 80 } else { rate(40) },
            broken: rate(100),
            workers: if calm { 1 } else { rng.usize(1..=3) },
            conversations: rng.usize(1..=6),
            users: rng.u64(1..=3),
            tenants: rng.usize(1..=2),
            calm,
            refused: None,
            reuse: 0,
            roll_out: false,
            calls: 0,
            waits_per_user: Quotas::default().waits_per_user,
            window: DUPLICATE_WINDOW,
            longest_stall: 9_000,
            outage: 0,
        }
    }

    /// Everybody is held up for longer than the streams recognise what is published again.
    pub fn short_window(&mut self) {
        *self = Self {
            calm: false,
            refused: None,
            stall: self.stall.max(10),
            window: SHORT_WINDOW,
            longest_stall: 60_000,
            outage: 4,
            ..self.clone()
        };
    }

    /// One of two tenants is refused something, and nothing else goes wrong.
    pub fn refusal(&mut self) {
        *self = Self {
            tenants: 2,
            calm: false,
            crash: 0,
            lost: 0,
            slow: 0,
            stall: 0,
            poison: 0,
            calls: 0,
            refused: Some(match self.conversations % 2 {
                0 => Refused::Everything,
                _ => Refused::LaterReplies,
            }),
            ..self.clone()
        };
    }

    /// Some workers have the next version of the pack already, and others still the last one; whatever else goes wrong.
    pub fn roll_out(&mut self) {
        *self = Self {
            workers: self.workers.max(2),
            calm: false,
            refused: None,
            roll_out: true,
            ..self.clone()
        };
    }

    /// One worker, and many messages that kill it; nothing else goes wrong.
    pub fn poison(&mut self) {
        *self = Self {
            workers: 1,
            conversations: 6,
            users: self.users,
            tenants: self.tenants,
            calm: false,
            crash: 0,
            lost: 0,
            slow: 0,
            stall: 0,
            twice: 0,
            overtake: self.overtake,
            poison: 150,
            broken: 0,
            refused: None,
            reuse: 0,
            roll_out: false,
            calls: 0,
            waits_per_user: self.waits_per_user,
            window: self.window,
            longest_stall: self.longest_stall,
            outage: 0,
        };
    }

    /// Whether nothing costs a message an attempt but what it does itself, or what runs beside it.
    pub fn spares_the_innocent(&self) -> bool {
        self.crash + self.stall + self.slow + self.outage == 0
    }
}

impl World {
    /// The world of a seed. The product's own jitter comes from the thread's generator, so that is seeded too.
    pub fn new(seed: u64, change: fn(&mut Plan)) -> Self {
        fastrand::seed(seed);
        let mut rng = Rng::with_seed(seed);
        let mut plan = Plan::draw(&mut rng);
        if seed % 16 == 12 {
            plan.refusal();
        }
        if matches!(seed % 16, 4 | 9) {
            plan.reuse = 250;
        }
        if seed % 16 == 6 {
            plan.roll_out();
        }
        if seed % 16 == 8 && !plan.calm {
            plan.calls = 300;
        }
        if seed % 16 == 10 {
            plan.short_window();
        }
        if seed % 8 == 7 {
            // Fewer than users open.
            plan.waits_per_user = 1;
        }
        change(&mut plan);
        Self {
            plan,
            began: Instant::now(),
            faults: AtomicBool::new(true),
            rng: Mutex::new(rng),
            events: Mutex::default(),
            tally: Mutex::default(),
            slowest: Mutex::default(),
            ids: AtomicU64::new(0),
            streams_away_until: Mutex::new(Instant::now()),
        }
    }

    /// Whether the servers of the streams are away.
    pub fn streams_are_away(&self) -> bool {
        Instant::now() < *locked(&self.streams_away_until)
    }

    /// Has the servers of the streams go away, some time; whether they do now.
    pub fn lose_streams(&self) -> bool {
        if !self.chance(self.plan.outage) {
            return false;
        }
        let (least, most) = (self.plan.window, self.plan.window * 3);
        let time = self.millis(least.as_millis() as u64..most.as_millis() as u64);
        self.note(format!("the servers of the streams are away for {time:?}"));
        self.count("outages of the streams");
        *locked(&self.streams_away_until) = Instant::now() + time;
        true
    }

    /// From now on nothing goes wrong any more.
    pub fn end_faults(&self) {
        self.faults.store(false, Ordering::Relaxed);
        self.note("the faults are over");
    }

    /// Whether something that goes wrong so many times of a thousand does so now.
    pub fn chance(&self, per_mille: u32) -> bool {
        self.faults.load(Ordering::Relaxed) && self.odds(per_mille)
    }

    /// Whether something that is no fault happens now.
    pub fn odds(&self, per_mille: u32) -> bool {
        per_mille > 0 && locked(&self.rng).u32(..1_000) < per_mille
    }

    pub fn pick(&self, range: Range<usize>) -> usize {
        locked(&self.rng).usize(range)
    }

    pub fn millis(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(locked(&self.rng).u64(range))
    }

    /// Whether this is the refused tenant, and something is refused to it now.
    pub fn refuses(&self, tenant: &str) -> Option<Refused> {
        let refused = self.plan.refused.filter(|_| tenant == REFUSED_TENANT);
        refused.filter(|_| self.faults.load(Ordering::Relaxed))
    }

    /// Notes how long a tenant waited for an answer that is refused nothing.
    pub fn waited(&self, tenant: &str, time: Duration) {
        if tenant != REFUSED_TENANT {
            let mut slowest = locked(&self.slowest);
            *slowest = time.max(*slowest);
        }
    }

    pub fn slowest(&self) -> Duration {
        *locked(&self.slowest)
    }

    /// Adds to the record of events.
    pub fn note(&self, event: impl Into<String>) {
        let at = self.began.elapsed().as_millis();
        locked(&self.events).push(format!("{at:>8} ms  {}", event.into()));
    }

    /// Counts something that happened.
    pub fn count(&self, what: &'static str) {
        *locked(&self.tally).entry(what).or_default() += 1;
    }

    pub fn tally(&self) -> Tally {
        locked(&self.tally).clone()
    }

    pub fn events(&self) -> Vec<String> {
        locked(&self.events).clone()
    }

    /// One number for all that happened: two runs with the same one are the same run.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        locked(&self.events).hash(&mut hasher);
        hasher.finish()
    }

    pub fn now(&self) -> OffsetDateTime {
        START + self.began.elapsed()
    }

    pub fn new_id(&self) -> String {
        id('s', self.ids.fetch_add(1, Ordering::Relaxed))
    }
}

const START: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

/// Ids have a letter for the run they belong to, and one length, so that they are found in any text.
pub fn id(run: char, n: u64) -> String {
    format!("{run}-id{n:06}")
}

/// Nothing panics while a lock of the simulation is held, but a check that failed may be on its way out.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The world's time, for the worker and its store.
#[derive(Clone)]
pub struct SimClock(pub std::sync::Arc<World>);

impl Clock for SimClock {
    fn now(&self) -> OffsetDateTime {
        self.0.now()
    }
}

/// Ids in the order in which they are asked for. Spans need not differ.
pub struct SimIds(pub std::sync::Arc<World>);

impl NewId for SimIds {
    fn uuid(&self) -> String {
        self.0.new_id()
    }

    fn span_id(&self) -> String {
        SPAN.to_owned()
    }

    fn trace_id(&self) -> String {
        SPAN.repeat(2)
    }
}

pub const SPAN: &str = "00f067aa0ba902b7";
