//! The steps of a turn as the log tells them at debug level: BEGIN, the nodes in order, calls, COMMIT, replies. Each is a line of
//! its own, so that one that hangs shows where. A turn asks once whether there is such a log; without one it reads no clock.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::Level;

use super::failure::TurnError;
use super::results::Played;
use super::state_reads::StateReads;
use crate::flow::{Effects, Place, RunObserver};
use crate::model::{PAYLOAD_LOG, Redaction};
use crate::ports::{Begun, Committed};
use crate::registry::BoundPack;

/// The most lines of one attempt at a turn: a run may go through ten thousand nodes.
const MOST_LINES: u32 = 256;

/// The steps of one attempt.
#[derive(Debug)]
pub(super) struct TurnSteps {
    progress: Mutex<Progress>,
    /// What no line may show, if the log shows payloads; known with the pack.
    redaction: Option<OnceLock<Redaction>>,
}

#[derive(Debug)]
struct Progress {
    /// When the last step ended.
    since: Instant,
    /// The node that runs, and since when.
    node: Option<(Place, Instant)>,
    lines: u32,
}

/// Logs a step, as long as there may be more lines.
macro_rules! step {
    ($progress:expr, $kind:literal $(, $($field:tt)+)?) => {{
        if $progress.may_log() {
            tracing::debug!(kind = $kind, $($($field)+,)? "turn step");
        }
    }};
}

impl TurnSteps {
    /// The steps of an attempt that begins now, if the log wants them.
    pub(super) fn begin() -> Option<Arc<Self>> {
        if !tracing::enabled!(Level::DEBUG) {
            return None;
        }
        let payloads = tracing::enabled!(target: PAYLOAD_LOG, Level::DEBUG);
        Some(Arc::new(Self {
            progress: Mutex::new(Progress {
                since: Instant::now(),
                node: None,
                lines: 0,
            }),
            redaction: payloads.then(OnceLock::new),
        }))
    }

    /// BEGIN has answered.
    pub(super) fn opened(&self, begun: &Begun, exclusive: bool) {
        let outcome = match begun {
            Begun::Ready(opening) if opening.wait.is_some() => "resumes",
            Begun::Ready(_) => "starts",
            Begun::Busy { .. } => "busy",
            Begun::Applied(_) => "applied",
        };
        let mut progress = self.progress();
        let elapsed_ms = progress.lap();
        step!(progress, "begin", outcome, exclusive, elapsed_ms);
    }

    /// The run begins, of this pack and with this message.
    pub(super) fn run_begins(&self, pack: &BoundPack, message: &impl ToString) {
        if let Some(redaction) = &self.redaction {
            let granted = pack.grants.env.values().map(String::as_str);
            redaction.get_or_init(|| Redaction::of(granted));
        }
        self.payload("message", message);
    }

    /// The run has come to its end with this, or to its failure.
    pub(super) fn run_ends(&self, effects: Option<&Effects>) {
        {
            let mut progress = self.progress();
            progress.end_node();
            progress.since = Instant::now();
        }
        for write in effects.iter().flat_map(|effects| &effects.state) {
            self.state("state_written", &write.key, write.value.as_ref());
        }
    }

    /// The value was read last.
    pub(super) fn state_read(&self, state: &StateReads, value: Option<&Value>) {
        let slot = state.read.last().map_or("", |(slot, _)| slot.key.as_str());
        self.state("state_read", slot, value);
    }

    /// A value of state. Its key, too, may hold what a user wrote.
    fn state(&self, kind: &'static str, key: &str, value: Option<&Value>) {
        if self.redaction.is_some() {
            self.payload(kind, &json!({ "key": key, "value": value }));
        }
    }

    /// The time at which something begins that is a step of its own inside of a node.
    pub(super) fn now(&self) -> Instant {
        Instant::now()
    }

    /// A component was called.
    pub(super) fn called(
        &self,
        (flow, node, component): (&str, &str, &str),
        failure: Option<&TurnError>,
        since: Instant,
    ) {
        let outcome = failure.map_or("done", TurnError::code);
        let elapsed_ms = millis(since.elapsed());
        let mut progress = self.progress();
        step!(
            progress,
            "component",
            flow,
            node,
            component,
            outcome,
            elapsed_ms
        );
    }

    /// COMMIT has answered.
    pub(super) fn committed(&self, committed: &Committed, played: &Played) {
        let outcome = match committed {
            Committed::Done { .. } => "done",
            Committed::AlreadyApplied(_) => "applied",
            Committed::Conflict => "conflict",
            Committed::Refused(_) => "refused",
        };
        let (replies, state_written) = (played.outbox.len(), played.state_written.len());
        let mut progress = self.progress();
        let elapsed_ms = progress.lap();
        step!(
            progress,
            "commit",
            outcome,
            replies,
            state_written,
            elapsed_ms
        );
        if !matches!(committed, Committed::Done { .. }) {
            return;
        }
        if let Some(taken) = played.taken() {
            let session = taken.key.as_str();
            step!(progress, "wait_resumed", session);
        }
        if let Some(parked) = played.park() {
            let (session, flow) = (parked.key.as_str(), parked.data.flow_id.as_str());
            let node = parked.data.cursor.node_pointer.as_str();
            step!(progress, "wait_parked", session, flow, node);
        }
    }

    /// A reply is published.
    pub(super) fn replied(&self, n: usize, body: &[u8]) {
        {
            let mut progress = self.progress();
            let elapsed_ms = progress.lap();
            let bytes = body.len();
            step!(progress, "reply", n, bytes, elapsed_ms);
        }
        self.payload("reply", &String::from_utf8_lossy(body));
    }

    /// The attempt is over.
    pub(super) fn end(&self) {
        let mut progress = self.progress();
        progress.end_node();
        let left_out = progress.lines.saturating_sub(MOST_LINES);
        if left_out > 0 {
            tracing::debug!(
                left_out,
                "a turn logs at most {MOST_LINES} steps and payloads; the others are left out"
            );
        }
    }

    /// Shows what was said or stored, if the log shows that, without the variables that were granted to the pack.
    pub(super) fn payload(&self, kind: &'static str, payload: &impl ToString) {
        let redaction = self.redaction.as_ref().and_then(OnceLock::get);
        if let Some(redaction) = redaction
            && self.progress().may_log()
        {
            let payload = redaction.apply(payload.to_string());
            tracing::debug!(target: PAYLOAD_LOG, kind, payload, "turn payload");
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// Counts a line. It may be logged if this is true.
    fn may_log(&mut self) -> bool {
        self.lines = self.lines.saturating_add(1);
        self.lines <= MOST_LINES
    }

    /// The time since the last step ended, in milliseconds; this one ends now.
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let lap = now - self.since;
        self.since = now;
        millis(lap)
    }

    fn end_node(&mut self) {
        if let Some((place, since)) = self.node.take() {
            let (flow, node) = (place.flow.as_str(), place.node.as_str());
            let elapsed_ms = millis(since.elapsed());
            step!(self, "node", flow, node, elapsed_ms);
        }
    }
}

impl RunObserver for TurnSteps {
    fn node_begins(&self, place: Place) {
        let mut progress = self.progress();
        progress.end_node();
        progress.node = Some((place, Instant::now()));
    }
}

/// Milliseconds, to the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}
