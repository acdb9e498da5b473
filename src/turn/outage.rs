//! Infrastructure that is away: calls are made again until it is back, and everyone can see that it is away.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::ports::{StoreError, TransportError};

/// The first pause before a failed call is made again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause; short, because everything stands still until the call succeeds.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How many calls are waiting for infrastructure to come back. While any is, the worker pulls nothing new and is not
/// ready.
#[derive(Clone, Debug, Default)]
pub struct Outage(Arc<State>);

#[derive(Debug, Default)]
struct State {
    waiting: AtomicUsize,
    // Wakes in the order of waiting, which tokio's `watch` does not: a simulated run must be repeatable.
    over: Notify,
}

impl Outage {
    /// Whether a call is waiting for infrastructure right now.
    pub fn is_active(&self) -> bool {
        self.0.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until no call is waiting any more.
    pub async fn over(&self) {
        loop {
            let over = self.0.over.notified();
            if !self.is_active() {
                return;
            }
            over.await;
        }
    }

    /// Makes a call until infrastructure answers it, with growing, jittered pauses. `call` must be safe to make again.
    pub async fn ride_out<T, E, F, Fut>(&self, what: &'static str, mut call: F) -> Result<T, E>
    where
        E: Infrastructure,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut waiting = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match call().await {
                Err(error) if error.is_away() => {
                    if waiting.is_none() {
                        tracing::warn!(what, error = %error, "infrastructure is away; trying again until it is back");
                        waiting = Some(Waiting::begin(&self.0));
                    }
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => {
                    if waiting.is_some() {
                        tracing::info!(what, "infrastructure is back");
                    }
                    return answer;
                }
            }
        }
    }
}

/// Counts one waiting call for as long as it lives, so that a cancelled one is counted off too.
struct Waiting(Arc<State>);

impl Waiting {
    fn begin(state: &Arc<State>) -> Self {
        state.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.over.notify_waiters();
        }
    }
}

/// Errors that tell whether it is the infrastructure that failed.
pub trait Infrastructure: std::fmt::Display {
    /// Whether making the same call again will succeed once the infrastructure is back.
    fn is_away(&self) -> bool;
}

impl Infrastructure for StoreError {
    fn is_away(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Corrupt { .. } => false,
        }
    }
}

impl Infrastructure for TransportError {
    fn is_away(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::TooLarge(_) => false,
        }
    }
}
