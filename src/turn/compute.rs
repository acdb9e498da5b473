//! A run computes where its turn is for a moment; what takes longer goes on where it holds up nobody.

use std::any::Any;
use std::future::pending;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::Attempt;
use super::failure::TurnError;
use crate::flow::{self, Context, Event, FlowError, Run, RunMonitor, RunObserver, Step};
use crate::model::{FlowId, NodeId, TenantId};
use crate::ports::{Computation, Compute, Publisher, TurnStore};
use crate::registry::BoundPack;
use crate::telemetry::{RunHandle, TurnSpan};

/// The steps that a run may take at once on the thread of its turn: some times what an ordinary turn takes, and a few
/// milliseconds where steps are expensive.
const FIRST_SLICE: u64 = 2_000;
/// The steps that it may take on a compute thread before another tenant's run is due. A node is run in one piece.
const SLICE: u64 = 50_000;

/// A run and who may look at it. Once it is dropped, nobody waits for the run, and what still computes for it stops.
pub(super) struct WatchedRun<'a> {
    pack: &'a Arc<BoundPack>,
    monitor: RunMonitor,
    /// Whether it went on on the compute threads: then its results are large, too.
    pub(super) is_long: bool,
}

impl Drop for WatchedRun<'_> {
    fn drop(&mut self) {
        self.monitor.interrupt();
    }
}

/// What the watchdog gets to see.
struct Watch {
    pack: Arc<BoundPack>,
    monitor: RunMonitor,
}

impl RunHandle for Watch {
    fn position(&self) -> Option<(FlowId, NodeId)> {
        let place = self.monitor.position(&self.pack.program)?;
        Some((place.flow, place.node))
    }

    fn interrupt(&self) {
        self.monitor.interrupt();
    }
}

/// Text that is larger than this is read on a compute thread, in bytes.
pub(super) const LARGE: usize = 64 * 1024;

type Panic = Box<dyn Any + Send>;

impl<S: TurnStore, P: Publisher> Attempt<'_, S, P> {
    /// Makes a run of this pack known to the watchdog.
    pub(super) fn watched<'a>(&self, pack: &'a Arc<BoundPack>) -> WatchedRun<'a> {
        let observer = self.steps.clone();
        let monitor = RunMonitor::observed(observer.map(|steps| steps as Arc<dyn RunObserver>));
        self.context.span.run(Arc::new(Watch {
            pack: Arc::clone(pack),
            monitor: monitor.clone(),
        }));
        WatchedRun {
            pack,
            monitor,
            is_long: false,
        }
    }

    /// Takes a run as far as it comes with this event.
    pub(super) async fn advance(
        &self,
        watched: &mut WatchedRun<'_>,
        run: Box<Run>,
        event: Event,
    ) -> Result<Step, TurnError> {
        let now = self.turns.clock.now();
        let context = Context {
            program: &watched.pack.program,
            env: &watched.pack.grants.env,
            now,
            slice: FIRST_SLICE,
            monitor: &watched.monitor,
        };
        let step = match flow::advance(&context, run, event) {
            Ok(Step::Paused(run)) => {
                watched.is_long = true;
                Box::pin(self.advance_elsewhere(watched, run, now)).await
            }
            step => step,
        };
        step.map_err(|error| {
            if let FlowError::Interrupted { place } = error {
                self.timed_out(Some((place.flow, place.node)))
            } else {
                error.into()
            }
        })
    }

    /// Why a turn ends that has had its time.
    pub(super) fn timed_out(&self, position: Option<(FlowId, NodeId)>) -> TurnError {
        TurnError::TimedOut {
            limit: self.turns.config.turn_timeout,
            position,
        }
    }

    async fn advance_elsewhere(
        &self,
        watched: &WatchedRun<'_>,
        run: Box<Run>,
        now: OffsetDateTime,
    ) -> Result<Step, FlowError> {
        let (pack, monitor) = (Arc::clone(watched.pack), watched.monitor.clone());
        let mut run = Some(run);
        let slice = move || {
            let context = Context {
                program: &pack.program,
                env: &pack.grants.env,
                now,
                slice: SLICE,
                monitor: &monitor,
            };
            let step = flow::advance(&context, run.take()?, Event::Continue);
            match step {
                Ok(Step::Paused(paused)) => {
                    run = Some(paused);
                    None
                }
                step => Some(step),
            }
        };
        self.compute(slice).await
    }

    /// Calls this on a compute thread until it has a result. A panic comes back as one.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        slice: impl FnMut() -> Option<T> + Send + 'static,
    ) -> T {
        let (tenant, span) = (&self.activity.tenant, self.context.span.clone());
        compute(&*self.turns.compute, tenant, span, slice).await
    }
}

/// Calls this on a compute thread, in its turn among those of the tenant, until it has a result. A panic comes back as one.
pub(super) fn compute<T, F>(
    threads: &dyn Compute,
    tenant: &TenantId,
    span: TurnSpan,
    slice: F,
) -> impl Future<Output = T> + Send + use<T, F>
where
    T: Send + 'static,
    F: FnMut() -> Option<T> + Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let computation = SlicedComputation {
        slice,
        span,
        tell: Some(tell),
    };
    threads.run(tenant, Box::new(computation));
    async {
        match told.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            // The threads have ended before the turn, and so will the turn in a moment.
            Err(_) => pending().await,
        }
    }
}

/// Values and 64 bytes of text that take a noticeable time to be written.
const HEAVY: usize = 4_000;

/// Returns whether writing a value takes a noticeable time.
pub(super) fn is_heavy(value: &Value) -> bool {
    fn weigh(value: &Value, left: usize) -> Option<usize> {
        let left = left.checked_sub(1)?;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Some(left),
            Value::String(text) => left.checked_sub(text.len() / 64),
            Value::Array(items) => (items.iter()).try_fold(left, |left, item| weigh(item, left)),
            Value::Object(fields) => {
                (fields.values()).try_fold(left, |left, item| weigh(item, left))
            }
        }
    }
    weigh(value, HEAVY).is_none()
}

/// Something large to be let go of on a compute thread: a large value is many small ones.
pub(super) struct Discarded<T>(pub(super) Option<T>);

impl<T: Send> Computation for Discarded<T> {
    fn slice(&mut self) -> ControlFlow<()> {
        self.0 = None;
        ControlFlow::Break(())
    }
}

/// A closure that has no result for so long, and the turn that waits for it.
struct SlicedComputation<T, F> {
    slice: F,
    span: TurnSpan,
    tell: Option<oneshot::Sender<Result<T, Panic>>>,
}

impl<T: Send, F: FnMut() -> Option<T> + Send> Computation for SlicedComputation<T, F> {
    fn slice(&mut self) -> ControlFlow<()> {
        let Some(tell) = self.tell.take_if(|tell| !tell.is_closed()) else {
            return ControlFlow::Break(());
        };
        let slice = AssertUnwindSafe(|| self.span.within(&mut self.slice));
        let result = match catch_unwind(slice) {
            Ok(None) => {
                self.tell = Some(tell);
                return ControlFlow::Continue(());
            }
            Ok(Some(result)) => Ok(result),
            Err(panic) => Err(panic),
        };
        // The turn may have been given up meanwhile.
        let _gone = tell.send(result);
        ControlFlow::Break(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantId;

    fn computation<T: Send>(
        slice: impl FnMut() -> Option<T> + Send,
    ) -> (impl Computation, oneshot::Receiver<Result<T, Panic>>) {
        let (tell, told) = oneshot::channel();
        let span = TurnSpan::new(&TenantId::new("t").unwrap());
        let computation = SlicedComputation {
            slice,
            span,
            tell: Some(tell),
        };
        (computation, told)
    }

    #[test]
    fn a_computation_goes_on_until_it_has_a_result_or_nobody_waits_for_it() {
        let mut n = 0;
        let (mut three, mut told) = computation(move || {
            n += 1;
            (n == 3).then_some(n)
        });
        assert!(three.slice().is_continue() && three.slice().is_continue());
        assert!(three.slice().is_break());
        assert!(matches!(told.try_recv(), Ok(Ok(3))));

        let (mut endless, told) = computation(|| None::<()>);
        assert!(endless.slice().is_continue());
        drop(told);
        assert!(endless.slice().is_break());
    }

    #[test]
    fn a_value_is_heavy_by_its_values_and_its_text() {
        let list = |n: usize| Value::Array(vec![Value::Null; n]);
        assert!(!is_heavy(&list(HEAVY - 1)) && is_heavy(&list(HEAVY)));
        assert!(is_heavy(&Value::Array(vec![list(100); 100])));
        let text = |n: usize| Value::String("x".repeat(n));
        assert!(!is_heavy(&text(HEAVY * 63)) && is_heavy(&text(HEAVY * 65)));
    }

    #[test]
    fn a_panic_of_a_computation_goes_to_its_turn() {
        let (mut panics, mut told) = computation::<()>(|| panic!("on purpose"));
        assert!(panics.slice().is_break());
        let panic = told.try_recv().unwrap().unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    }
}
