//! Availability: which server is away, and what of which tenant is refused. Calls to a server that is away are made again
//! until it is back; a call that is refused ends its turn, and the tenant's next one is the probe.

mod refusals;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use refusals::Refused;
pub use refusals::{Part, RefusedPart};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::TenantId;
use crate::ports::{Refusal, StoreError, TransportError};

/// The first pause before a failed call is made again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause; short, because everything stands still until the call succeeds.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A server that everybody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Where messages come from and go to.
    Nats,
    /// Where sessions and state are.
    Redis,
}

/// How many calls are waiting for a server to come back, and what is refused to whom. While a server is away, the worker
/// pulls nothing new and is not ready. A refusal stops the loop of its tenant only.
#[derive(Clone, Debug, Default)]
pub struct Outage(Arc<State>);

#[derive(Debug, Default)]
struct State {
    nats: AtomicUsize,
    redis: AtomicUsize,
    // Wakes in the order of waiting, which tokio's `watch` does not: a simulated run must be repeatable.
    over: Notify,
    /// Whether anything is refused: all that a turn looks at where nothing is.
    any_refused: AtomicBool,
    refused: Mutex<Refused>,
    /// When the log said last that this began.
    said: Mutex<BTreeMap<(TenantId, Part), Instant>>,
}

impl State {
    fn waiting(&self, server: Server) -> &AtomicUsize {
        match server {
            Server::Nats => &self.nats,
            Server::Redis => &self.redis,
        }
    }
}

impl Outage {
    /// Returns whether a call is waiting for a server right now.
    pub fn is_active(&self) -> bool {
        self.is_away(Server::Nats) || self.is_away(Server::Redis)
    }

    /// Returns whether a call is waiting for this server right now.
    pub fn is_away(&self, server: Server) -> bool {
        self.0.waiting(server).load(Ordering::SeqCst) > 0
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

    /// Makes a call for a tenant until the server answers it, with growing, jittered pauses. `call` must be safe to make
    /// again. A refusal is noted as the tenant's and is the answer.
    pub async fn ride_out<T, E, F, Fut>(
        &self,
        tenant: &TenantId,
        part: Part,
        mut call: F,
    ) -> Result<T, E>
    where
        E: Infrastructure,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut waiting = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = call().await;
            match answer
                .as_ref()
                .map_or_else(E::standing, |_| Standing::Answered)
            {
                Standing::Away => {
                    if let (None, Err(error)) = (&waiting, &answer) {
                        let what = part.as_str();
                        tracing::warn!(what, error = %error, "infrastructure is away; trying again until it is back");
                        waiting = Some(Waiting::begin(&self.0, part.server()));
                    }
                    tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
                Standing::Refused(refusal) => self.refuse(tenant, part, refusal),
                Standing::Answered => self.allow(tenant, part),
            }
            if waiting.is_some() {
                tracing::info!(what = part.as_str(), "infrastructure is back");
            }
            return answer;
        }
    }
}

/// Counts one waiting call for as long as it lives, so that a cancelled one is counted off too.
struct Waiting(Arc<State>, Server);

impl Waiting {
    fn begin(state: &Arc<State>, server: Server) -> Self {
        state.waiting(server).fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state), server)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.waiting(self.1).fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.over.notify_waiters();
        }
    }
}

/// What a failed call says of who can be served.
#[derive(Debug)]
pub enum Standing<'a> {
    /// Nobody, until the server is back: making the same call again will then succeed.
    Away,
    /// Everybody but this tenant.
    Refused(&'a Refusal),
    /// Everybody: the server has dealt with the call.
    Answered,
}

/// Errors that tell whether it is the infrastructure that failed.
pub trait Infrastructure: std::fmt::Display {
    /// What it says of who can be served.
    fn standing(&self) -> Standing<'_>;
}

impl Infrastructure for StoreError {
    fn standing(&self) -> Standing<'_> {
        match self {
            Self::Unavailable(_) => Standing::Away,
            Self::Refused(refusal) => Standing::Refused(refusal),
            Self::Corrupt { .. } => Standing::Answered,
        }
    }
}

impl Infrastructure for TransportError {
    fn standing(&self) -> Standing<'_> {
        match self {
            Self::Unavailable(_) => Standing::Away,
            Self::Refused(refusal) => Standing::Refused(refusal),
            Self::TooLarge(_) => Standing::Answered,
        }
    }
}

#[cfg(test)]
mod tests;
