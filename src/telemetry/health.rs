//! Whether the worker is alive, and whether it is ready for work.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::unusable::Unusable;

/// What the parts of the worker know about its state, for `/livez` and `/readyz`. It begins as not started, with
/// neither NATS nor Redis reached.
#[derive(Debug)]
pub struct Health {
    started: AtomicBool,
    draining: AtomicBool,
    nats: AtomicBool,
    redis: AtomicBool,
    nobody_served: AtomicBool,
    nobody_bound: AtomicBool,
    refused: RwLock<Vec<Refused>>,
    unusable: RwLock<Vec<Unusable>>,
    last_pull: LastPull,
    /// When the threads that turns run on last showed that they come round.
    last_heartbeat: LastPull,
    stalled_after: Duration,
}

/// How often the threads that turns run on show that they come round.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// A worker whose threads do not come round for this long is not ready for more work.
const HELD_UP: Duration = Duration::from_secs(5);

/// What one tenant is refused, while the others are served.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Refused {
    /// Whose.
    pub tenant: String,
    /// What of it: `inbound`, `store`, `outbound`, `deadletter`.
    pub part: &'static str,
    /// The kind of refusal.
    pub reason: &'static str,
    /// What the server says.
    pub detail: String,
}

/// Why the worker is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// It is still loading and connecting.
    Starting,
    /// It is about to stop, and takes no more messages.
    Draining,
    /// NATS cannot be reached.
    NatsDown,
    /// Redis cannot be reached.
    RedisDown,
    /// The threads that turns run on do not come round: something computes there.
    HeldUp,
    /// The servers are there, and refuse every tenant something that it cannot do without.
    NobodyServed,
    /// No tenant's bindings can be used.
    NobodyBound,
}

/// How a worker that is not alive stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The time since a pull last came to its end.
    pub pull: Duration,
    /// The time since the threads that turns run on last came round.
    pub heartbeat: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.pull.as_secs();
        write!(f, "no pull has come to its end for {seconds}s")?;
        if self.heartbeat > HELD_UP {
            let seconds = self.heartbeat.as_secs();
            write!(
                f,
                "; the threads that turns run on have not come round for {seconds}s"
            )?;
        }
        Ok(())
    }
}

/// When a pull last came to its end.
#[derive(Debug)]
pub(super) struct LastPull {
    since: Instant,
    /// Milliseconds from `since`.
    at: AtomicU64,
}

impl Health {
    /// The health of a worker that begins now, and counts as stalled when no pull ends for this long.
    pub fn new(stalled_after: Duration) -> Self {
        Self {
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            nats: AtomicBool::new(false),
            redis: AtomicBool::new(false),
            nobody_served: AtomicBool::new(false),
            nobody_bound: AtomicBool::new(false),
            refused: RwLock::default(),
            unusable: RwLock::default(),
            last_pull: LastPull::new(),
            last_heartbeat: LastPull::new(),
            stalled_after,
        }
    }

    /// Everything is loaded and connected; work begins.
    pub fn started(&self) {
        self.last_pull.now();
        self.last_heartbeat.now();
        self.started.store(true, Relaxed);
    }

    /// The threads that turns run on come round.
    pub fn heartbeat(&self) {
        self.last_heartbeat.now();
    }

    /// The worker was told to stop.
    pub fn draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether NATS answers.
    pub fn nats_up(&self, up: bool) {
        self.nats.store(up, Relaxed);
    }

    /// Whether Redis answers.
    pub fn redis_up(&self, up: bool) {
        self.redis.store(up, Relaxed);
    }

    /// What is refused to whom now, and whether nobody can be served for it.
    pub fn refused(&self, refused: Vec<Refused>, nobody_served: bool) {
        self.nobody_served.store(nobody_served, Relaxed);
        *self.refused.write().unwrap_or_else(PoisonError::into_inner) = refused;
    }

    /// What is refused to whom: with any of it the worker is degraded, though it may be ready.
    pub fn refusals(&self) -> Vec<Refused> {
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner);
        refused.clone()
    }

    /// What is wrong with bindings now, and whether none is in force for it.
    pub fn unusable(&self, unusable: Vec<Unusable>, nobody_bound: bool) {
        self.nobody_bound.store(nobody_bound, Relaxed);
        *self
            .unusable
            .write()
            .unwrap_or_else(PoisonError::into_inner) = unusable;
    }

    /// What is wrong with bindings: with any of it the worker is degraded, though it may be ready.
    pub fn unusable_bindings(&self) -> Vec<Unusable> {
        let unusable = self.unusable.read().unwrap_or_else(PoisonError::into_inner);
        unusable.clone()
    }

    /// A pull came to its end: with messages, without any, or with an error that the worker deals with. It is also for a
    /// loop that has a good reason not to pull just now (no free slot, a server that is away) and looks again later: what
    /// counts is that the loop goes round.
    pub fn pulled(&self) {
        self.last_pull.now();
    }

    /// Returns whether the worker is alive. One that still starts is: loading may take its time.
    ///
    /// # Errors
    /// It has not gone round for too long.
    pub fn live(&self) -> Result<(), Stall> {
        let stall = Stall {
            pull: self.last_pull.age(),
            heartbeat: self.last_heartbeat.age(),
        };
        if !self.started.load(Relaxed) || stall.pull < self.stalled_after {
            Ok(())
        } else {
            Err(stall)
        }
    }

    /// Whether the worker is ready for work.
    ///
    /// # Errors
    /// Every reason why it is not.
    pub fn ready(&self) -> Result<(), Vec<NotReady>> {
        let started = self.started.load(Relaxed);
        let held_up = started && self.last_heartbeat.age() > HELD_UP;
        let reasons: Vec<NotReady> = [
            (!started, NotReady::Starting),
            (self.draining.load(Relaxed), NotReady::Draining),
            (!self.nats.load(Relaxed), NotReady::NatsDown),
            (!self.redis.load(Relaxed), NotReady::RedisDown),
            (held_up, NotReady::HeldUp),
            (self.nobody_served.load(Relaxed), NotReady::NobodyServed),
            (self.nobody_bound.load(Relaxed), NotReady::NobodyBound),
        ]
        .into_iter()
        .filter_map(|(holds, reason)| holds.then_some(reason))
        .collect();
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(reasons)
        }
    }
}

impl NotReady {
    /// The reason as `/readyz` gives it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::NatsDown => "nats is unreachable",
            Self::RedisDown => "redis is unreachable",
            Self::HeldUp => "the threads that turns run on are held up",
            Self::NobodyServed => "every tenant is refused",
            Self::NobodyBound => "no tenant's bindings can be used",
        }
    }
}

impl LastPull {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            at: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) {
        let at = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(at, Relaxed);
    }

    /// The time since then; before the first pull, since the beginning.
    pub(super) fn age(&self) -> Duration {
        let at = Duration::from_millis(self.at.load(Relaxed));
        self.since.elapsed().saturating_sub(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ready_when_nothing_is_in_the_way() {
        let health = Health::new(Duration::from_secs(60));
        let reasons = health.ready().unwrap_err();
        assert_eq!(
            reasons,
            [NotReady::Starting, NotReady::NatsDown, NotReady::RedisDown]
        );
        health.started();
        health.nats_up(true);
        health.redis_up(true);
        assert_eq!(health.ready(), Ok(()));
        health.redis_up(false);
        assert_eq!(health.ready(), Err(vec![NotReady::RedisDown]));
        health.redis_up(true);
        let refused = Refused {
            tenant: "t".to_owned(),
            part: "outbound",
            reason: "permission",
            detail: "no".to_owned(),
        };
        health.refused(vec![refused.clone()], false);
        assert_eq!(health.ready(), Ok(()), "the others are served");
        assert_eq!(health.refusals(), vec![refused]);
        health.refused(health.refusals(), true);
        assert_eq!(health.ready(), Err(vec![NotReady::NobodyServed]));
        health.refused(Vec::new(), false);
        health.unusable(Vec::new(), true);
        assert_eq!(health.ready(), Err(vec![NotReady::NobodyBound]));
        health.unusable(Vec::new(), false);
        health.draining();
        assert_eq!(health.ready(), Err(vec![NotReady::Draining]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_whose_threads_are_held_up_is_not_ready_and_lives_while_it_pulls() {
        let health = Health::new(Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(health.live(), Ok(()), "it still starts");
        health.started();
        health.nats_up(true);
        health.redis_up(true);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(health.ready(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(health.ready(), Err(vec![NotReady::HeldUp]));
        health.heartbeat();
        assert_eq!(health.ready(), Ok(()));
        tokio::time::advance(Duration::from_secs(59)).await;
        let stall = health.live().unwrap_err().to_string();
        assert!(
            stall.contains("65s; the threads") && stall.ends_with("59s"),
            "{stall}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_lives_as_long_as_its_pulls_end() {
        let health = Health::new(Duration::from_secs(60));
        health.started();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(health.live(), Ok(()));
        health.pulled();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(health.live(), Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(health.live().unwrap_err().pull, Duration::from_secs(60));
        health.pulled();
        assert_eq!(health.live(), Ok(()));
    }
}
