//! One call of a component, from a free slot to its output.

use std::future::{pending, ready};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use humantime_serde::re::humantime::format_duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};

use super::abi::{Entry, Mismatch, Output};
use super::fair::{FairSlots, FairThreads};
use super::guest::{Guest, Refusal, Surroundings};
use super::limits::Denial;
use super::mailbox::{Answer, Mailbox, Question};
use super::prepare::Prepared;
use super::threads::Threads;
use super::ticker::Ticker;
use crate::budget::MemoryKind;
use crate::model::{MAX_DEPTH, PAYLOAD_LOG, TenantId, is_too_deep};
use crate::ports::{CallStep, ComponentCall, ComponentError, ComponentOutput, Running};
use crate::telemetry::{CallOutcome, ComponentMetrics};

/// Ticks that a guest may compute before it yields.
const TICKS: u64 = 1;

/// What calls run in.
pub(super) struct Hall {
    pub(super) threads: Threads,
    pub(super) ticker: Ticker,
    pub(super) fair_threads: FairThreads,
    pub(super) slots: FairSlots,
    pub(super) around: Surroundings,
    pub(super) call_timeout: Duration,
    pub(super) output_bytes: usize,
    pub(super) stack_bytes: usize,
}

/// A call under way.
pub(super) struct Started {
    task: AbortOnDropHandle<Result<ComponentOutput, ComponentError>>,
    questions: mpsc::UnboundedReceiver<Question>,
    /// Who waits for an answer.
    asker: Option<oneshot::Sender<Answer>>,
}

impl Started {
    /// Begins the call of a component that is ready.
    pub(super) fn new(hall: Arc<Hall>, prepared: Arc<Prepared>, call: ComponentCall) -> Self {
        let (mailbox, questions) = Mailbox::new();
        let work = run(Arc::clone(&hall), prepared, call, mailbox);
        Self {
            task: hall.threads.run(work),
            questions,
            asker: None,
        }
    }
}

impl Running for Started {
    fn next(&mut self) -> BoxFuture<'_, Result<CallStep, ComponentError>> {
        Box::pin(async {
            let ended = tokio::select! {
                biased;
                Some(question) = self.questions.recv() => {
                    self.asker = Some(question.answer);
                    return Ok(CallStep::Read(question.key));
                }
                ended = &mut self.task => ended,
            };
            match ended {
                Ok(result) => result.map(CallStep::Done),
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The threads have ended before the turn, and so will the turn in a moment.
                Err(_) => pending().await,
            }
        })
    }

    fn answer(&mut self, stored: Answer) {
        if let Some(asker) = self.asker.take() {
            // Nobody is there any more if the call was cut off.
            let _gone = asker.send(stored);
        }
    }
}

/// The call of a component that is not there.
pub(super) struct Missing(Option<ComponentError>);

impl Missing {
    pub(super) fn new(call: ComponentCall) -> Self {
        Self(Some(ComponentError::Unusable {
            component: call.invocation.component,
            reason: "its code is not loaded".to_owned(),
        }))
    }
}

impl Running for Missing {
    fn next(&mut self) -> BoxFuture<'_, Result<CallStep, ComponentError>> {
        // A call that is over is asked for nothing more.
        match self.0.take() {
            Some(error) => Box::pin(ready(Err(error))),
            None => Box::pin(pending()),
        }
    }

    fn answer(&mut self, _: Answer) {}
}

async fn run(
    hall: Arc<Hall>,
    prepared: Arc<Prepared>,
    call: ComponentCall,
    mailbox: Mailbox,
) -> Result<ComponentOutput, ComponentError> {
    let tenant = call.tenant.clone();
    let memory = hall.around.memory.tenant(&tenant);
    memory.admitted(MemoryKind::Components).await;
    let _slot = hall.slots.take(&tenant).await;
    let mut count = Count::new(&hall.around.metrics, &call.tenant);
    let _ticking = hall.ticker.tick();
    let entered = enter(&hall, prepared, call, mailbox);
    let result = hall.fair_threads.run(&tenant, entered).await;
    count.outcome = match &result {
        Ok(_) => CallOutcome::Done,
        Err(ComponentError::Trap { .. }) => CallOutcome::Trap,
        Err(ComponentError::Limit { .. }) => CallOutcome::Limit,
        Err(ComponentError::Refused { .. }) => CallOutcome::Refused,
        Err(ComponentError::Unusable { .. }) => CallOutcome::Unusable,
    };
    result
}

async fn enter(
    hall: &Hall,
    prepared: Arc<Prepared>,
    call: ComponentCall,
    mailbox: Mailbox,
) -> Result<ComponentOutput, ComponentError> {
    let unusable = |reason: &str| ComponentError::Unusable {
        component: call.invocation.component.clone(),
        reason: reason.to_owned(),
    };
    let entry = prepared.entries.entry(call.invocation.form);
    let entry =
        entry.ok_or_else(|| unusable("it exports none of the interfaces for such a call"))?;
    let call = Arc::new(call);
    let guest = Guest::new(Arc::clone(&call), mailbox, &hall.around);
    let mut store = Store::new(prepared.instance.engine(), guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_epoch_deadline(TICKS);
    store.epoch_deadline_async_yield_and_update(TICKS);
    // What is copied out of a guest is never more than its memory, however often it points to the same bytes.
    store.set_hostcall_fuel(hall.around.memory_bytes);
    let called =
        tokio::time::timeout(hall.call_timeout, invoke(&prepared, entry, &mut store)).await;
    let failed = |limit| ComponentError::Limit {
        component: call.invocation.component.clone(),
        limit,
    };
    let output = match called {
        Err(_) => return Err(failed(hall.timeout())),
        Ok(Err(error)) => return Err(hall.classify(&error, store.data())),
        Ok(Ok(output)) => output,
    };
    if output.len() > hall.output_bytes {
        return Err(failed(hall.output()));
    }
    let value = output.into_value();
    if is_too_deep(&value) {
        return Err(failed(format!(
            "an output of {MAX_DEPTH} levels of arrays and objects"
        )));
    }
    let state = store.data_mut().state.take_written();
    Ok(ComponentOutput { value, state })
}

async fn invoke(
    prepared: &Prepared,
    entry: Entry,
    store: &mut Store<Guest>,
) -> wasmtime::Result<Output> {
    let instance = prepared.instance.instantiate_async(&mut *store).await?;
    entry.invoke(store, &instance).await
}

impl Hall {
    fn timeout(&self) -> String {
        let limit = format_duration(self.call_timeout);
        format!("a call time of {limit} (`components.call_timeout`)")
    }

    fn output(&self) -> String {
        format!(
            "an output of {} bytes (`components.output_bytes`)",
            self.output_bytes
        )
    }

    /// What an ended guest ended of.
    fn classify(&self, error: &wasmtime::Error, guest: &Guest) -> ComponentError {
        let component = guest.call.invocation.component.clone();
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            let what = refusal.0.to_owned();
            return ComponentError::Refused { component, what };
        }
        if let Some(mismatch) = error.downcast_ref::<Mismatch>() {
            let reason = mismatch.to_string();
            return ComponentError::Unusable { component, reason };
        }
        let limit = |limit| ComponentError::Limit {
            component: component.clone(),
            limit,
        };
        // What a guest that gets no memory does is to crash.
        if let Some(denial) = guest.memory.denial() {
            return limit(match denial {
                Denial::Call => {
                    let bytes = self.around.memory_bytes;
                    format!("{bytes} bytes of memory (`components.memory_bytes`)")
                }
                Denial::Worker => "the share of its tenant in the memory of this worker, of which others use the rest at \
                                   the moment (`limits.memory`)"
                    .to_owned(),
            });
        }
        if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
            let bytes = self.stack_bytes;
            return limit(format!(
                "a stack of {bytes} bytes (`components.stack_bytes`)"
            ));
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return limit("the slots that there are for its modules, memories and tables (`components.instances`)".to_owned());
        }
        tracing::debug!(
            target: PAYLOAD_LOG,
            component,
            error = format!("{error:?}"),
            "a component trapped"
        );
        let reason = error.root_cause().to_string();
        ComponentError::Trap { component, reason }
    }
}

/// Counts a call when it is over, however it ends.
struct Count<'a> {
    metrics: &'a ComponentMetrics,
    tenant: TenantId,
    since: Instant,
    outcome: CallOutcome,
}

impl<'a> Count<'a> {
    fn new(metrics: &'a ComponentMetrics, tenant: &TenantId) -> Self {
        Self {
            metrics,
            tenant: tenant.clone(),
            since: Instant::now(),
            outcome: CallOutcome::Dropped,
        }
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.metrics
            .called(&self.tenant, self.outcome, self.since.elapsed());
    }
}
