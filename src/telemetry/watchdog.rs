//! The watchdog: says which turn a thread has been at for long, and stops the runs that are past their time.
//!
//! It looks at all threads at fixed distances, so that turns pay next to nothing for being watched. A turn that it finds at
//! work at each look of a second has computed for about that long, be it in one piece or in slices, on one thread or on
//! several. A turn that waits for a server is at no thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::metrics::Metrics;
use super::span::{TurnId, TurnSpan};
use super::threads::{Occupied, occupied};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(250);
/// How long a turn computes before it is reported. Reported again at each doubling.
const LONG: Duration = Duration::from_secs(1);
/// After so many looks without it a turn is forgotten.
const FORGOTTEN_AFTER: u32 = 20;

/// Watches all threads of this process.
pub struct Watchdog {
    metrics: Arc<Metrics>,
    /// The processor time that a run gets at the most.
    limit: Duration,
    seen: Vec<Sighting>,
}

/// A turn that was found at work.
struct Sighting {
    turn: TurnId,
    computed: Duration,
    reported_at: Duration,
    missed: u32,
}

impl Watchdog {
    /// A watchdog that interrupts runs which have computed for `limit`.
    pub fn new(metrics: Arc<Metrics>, limit: Duration) -> Self {
        Self {
            metrics,
            limit,
            seen: Vec::new(),
        }
    }

    /// Watches until this is dropped.
    pub async fn run(mut self) {
        let mut looks = interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            looks.tick().await;
            // What stood still, such as a paused process, has computed nothing.
            let passed = last.elapsed().min(EVERY * 2);
            last = Instant::now();
            self.look(occupied(), passed);
        }
    }

    fn look(&mut self, mut at_work: Vec<Occupied>, passed: Duration) {
        for sighting in &mut self.seen {
            let Some(at) = (at_work.iter()).position(|found| sighting.turn.is_of(&found.turn))
            else {
                sighting.missed += 1;
                continue;
            };
            let found = at_work.swap_remove(at);
            // It may be on several threads at once.
            at_work.retain(|other| !sighting.turn.is_of(&other.turn));
            sighting.missed = 0;
            sighting.computed += passed;
            if sighting.computed >= sighting.reported_at {
                if sighting.reported_at == LONG {
                    self.metrics.stalled(&found.turn.tenant());
                }
                sighting.reported_at *= 2;
                report(&found, sighting.computed);
            }
            if sighting.computed >= self.limit {
                found.turn.interrupt();
            }
        }
        self.seen
            .retain(|sighting| sighting.missed < FORGOTTEN_AFTER && !sighting.turn.is_gone());
        for found in at_work {
            if !self.seen.iter().any(|known| known.turn.is_of(&found.turn)) {
                self.seen.push(Sighting::new(&found.turn));
            }
        }
    }
}

impl Sighting {
    fn new(turn: &TurnSpan) -> Self {
        Self {
            turn: turn.id(),
            computed: Duration::ZERO,
            reported_at: LONG,
            missed: 0,
        }
    }
}

fn report(found: &Occupied, computed: Duration) {
    let seconds = computed.as_secs();
    found.warn(&format!("a turn has computed for {seconds}s"));
}

impl Occupied {
    /// Logs a line of the turn, with the node that it is at.
    pub fn warn(&self, message: &str) {
        let thread = &self.thread;
        let position = self.turn.position();
        self.turn.within(|| match position {
            Some((flow, node)) => {
                tracing::warn!(%thread, at_flow = %flow, at_node = %node, "{message}");
            }
            None => tracing::warn!(%thread, "{message}"),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::super::span::RunHandle;
    use super::super::{Exposition, Health};
    use super::*;
    use crate::model::{FlowId, NodeId, TenantId};

    #[derive(Default)]
    struct Run(AtomicBool);

    impl RunHandle for Run {
        fn position(&self) -> Option<(FlowId, NodeId)> {
            None
        }

        fn interrupt(&self) {
            self.0.store(true, Relaxed);
        }
    }

    fn turn(tenant: &str) -> TurnSpan {
        TurnSpan::new(&TenantId::new(tenant).unwrap())
    }

    fn watchdog() -> Watchdog {
        let health = Arc::new(Health::new(Duration::from_secs(60)));
        Watchdog::new(Arc::new(Metrics::new(health)), Duration::from_secs(3))
    }

    fn stalls(watchdog: &Watchdog, tenant: &str) -> bool {
        let page = watchdog.metrics.render(Exposition::OpenMetrics).unwrap();
        page.contains(&format!(
            "greentic_worker_stalls_total{{tenant=\"{tenant}\"}} 1\n"
        ))
    }

    /// Has the turns be found at work so many times.
    fn look(watchdog: &mut Watchdog, times: u32, turns: &[&TurnSpan]) {
        for _ in 0..times {
            let at_work = turns.iter().map(|turn| Occupied {
                thread: "t".to_owned(),
                turn: (*turn).clone(),
            });
            watchdog.look(at_work.collect(), EVERY);
        }
    }

    #[test]
    fn a_turn_is_counted_once_that_computes_for_a_second_in_one_piece_or_in_slices() {
        let mut watchdog = watchdog();
        let (one, other) = (turn("one"), turn("other"));
        look(&mut watchdog, 3, &[&one]);
        look(&mut watchdog, 1, &[&other]);
        assert!(!stalls(&watchdog, "one"));
        look(&mut watchdog, 2, &[&one, &one]);
        assert!(stalls(&watchdog, "one"));
        look(&mut watchdog, 20, &[&one]);
        assert!(stalls(&watchdog, "one"), "counted once");
        assert!(!stalls(&watchdog, "other"));
        // A thread of another turn in each look, as there are where no turn is long.
        for _ in 0..20 {
            look(&mut watchdog, 1, &[&turn("short")]);
        }
        assert!(!stalls(&watchdog, "short"));
        assert!(watchdog.seen.len() <= 1, "what is over is forgotten");
    }

    #[test]
    fn a_run_that_has_computed_for_its_time_is_interrupted() {
        let mut watchdog = watchdog();
        let (turn, run) = (turn("one"), Arc::new(Run::default()));
        turn.run(run.clone());
        look(&mut watchdog, 12, &[&turn]);
        assert!(!run.0.load(Relaxed));
        look(&mut watchdog, 1, &[&turn]);
        assert!(run.0.load(Relaxed));
    }

    #[test]
    fn a_thread_is_found_at_the_turn_that_it_is_in() {
        let span = turn("mine");
        let is_found = || {
            let occupied = occupied();
            occupied.iter().any(|found| span.id().is_of(&found.turn))
        };
        assert!(!is_found());
        span.within(|| assert!(is_found()));
        assert!(!is_found());
    }
}
