//! A worker's process as the world sees it: it runs, stands still or is dead, and its calls go over a wire that loses,
//! delays and reorders.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::world::{PATIENCE, World, locked};

/// One process.
pub struct Process {
    pub number: usize,
    pub world: Arc<World>,
    /// Cancelled when it dies.
    pub dead: CancellationToken,
    still_until: Mutex<Instant>,
}

/// What a caller gets in place of an answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer to {0}")]
pub struct Away(&'static str);

/// What becomes of one request.
struct Fate {
    there: Duration,
    back: Duration,
    arrives: bool,
    returns: bool,
    /// A request that fails says so only after the caller's patience is over.
    silent: bool,
    dies_after: bool,
}

impl Process {
    pub fn new(number: usize, world: Arc<World>) -> Arc<Self> {
        world.note(format!("worker {number} starts"));
        Arc::new(Self {
            number,
            world,
            dead: CancellationToken::new(),
            still_until: Mutex::new(Instant::now()),
        })
    }

    /// It is gone from this instant on: no call of it returns, and only what is on the wire still arrives.
    pub fn die(&self, at: &str) {
        if !self.dead.is_cancelled() {
            self.world.note(format!("worker {} dies {at}", self.number));
            self.world.count("workers died");
            self.dead.cancel();
        }
    }

    /// It stands still, as after SIGSTOP.
    pub fn stand_still(&self, time: Duration) {
        self.world
            .note(format!("worker {} stands still for {time:?}", self.number));
        self.world.count("workers stood still");
        *locked(&self.still_until) = Instant::now() + time;
    }

    /// Returns while the process runs: later if it stands still, never if it is dead.
    pub async fn running(&self) {
        loop {
            if self.dead.is_cancelled() {
                return pending().await;
            }
            let until = *locked(&self.still_until);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Makes a call: `effect` is what the other side does, if the request arrives there. Nothing that becomes of the
    /// caller calls back what is on the wire.
    pub async fn request<T: Send + 'static>(
        self: &Arc<Self>,
        call: &'static str,
        effect: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Away> {
        self.stumble(call).await;
        self.request_now(call, effect).await
    }

    /// The same once it has come so far.
    pub async fn request_now<T: Send + 'static>(
        self: &Arc<Self>,
        call: &'static str,
        effect: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Away> {
        let fate = self.fate();
        let (tell, told) = oneshot::channel();
        let process = Arc::clone(self);
        tokio::spawn(async move {
            sleep(fate.there).await;
            if fate.arrives {
                let answer = effect();
                if fate.dies_after {
                    process.die(&format!("after {call}"));
                }
                sleep(fate.back).await;
                if fate.returns {
                    // The caller may have given up.
                    let _ = tell.send(answer);
                    return;
                }
            }
            process.lose(call, fate.arrives);
            if fate.silent {
                sleep(PATIENCE).await;
            }
            drop(tell);
        });
        let answer = timeout(PATIENCE, told).await;
        self.running().await;
        answer.ok().and_then(Result::ok).ok_or(Away(call))
    }

    fn lose(&self, call: &str, arrived: bool) {
        let what = if arrived { "answer" } else { "request" };
        self.world
            .note(format!("worker {}: {call} {what} lost", self.number));
        self.world.count(match arrived {
            true => "answers lost",
            false => "requests lost",
        });
    }

    /// Sends what is not answered, such as an ack. What the sender is told need not be true.
    pub async fn send(
        &self,
        what: &'static str,
        effect: impl FnOnce() + Send + 'static,
    ) -> Result<(), Away> {
        self.stumble(what).await;
        let fate = self.fate();
        tokio::spawn(async move {
            sleep(fate.there).await;
            if fate.arrives {
                effect();
            }
        });
        if fate.dies_after {
            self.die(&format!("after sending {what}"));
        }
        self.running().await;
        if fate.silent && !fate.returns {
            return Err(Away(what));
        }
        Ok(())
    }

    /// What may happen to a process on its way into a call.
    pub async fn stumble(&self, call: &str) {
        self.running().await;
        if self.world.chance(self.world.plan.stall) {
            self.stand_still(self.world.millis(1..self.world.plan.longest_stall));
            self.running().await;
        }
        if self.world.chance(self.world.plan.crash) {
            self.die(&format!("before {call}"));
            self.running().await;
        }
    }

    fn fate(&self) -> Fate {
        let world = &self.world;
        let plan = &world.plan;
        let slow = world.chance(plan.slow);
        if slow {
            world.count("requests late");
        }
        Fate {
            there: world.millis(if slow { 500..6_000 } else { 0..4 }),
            back: world.millis(0..4),
            arrives: !world.chance(plan.lost),
            returns: !world.chance(plan.lost),
            silent: world.odds(500),
            dies_after: world.chance(plan.crash),
        }
    }
}
