//! What every log line of a turn carries. A turn tells it as it learns it; it is put into words where something is logged,
//! which in most turns is nowhere.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use super::threads::{ThreadTurn, this_thread};
use crate::model::{Activity, FlowId, IdempotencyKey, NodeId, PackId, TenantId, TraceContext};

/// The name under which its fields stand in a log line.
pub(super) const NAME: &str = "turn";

/// The digits of a conversation's digest in a log line: enough to tell conversations apart.
const CONVERSATION: usize = 16;

/// The span of one turn. Its fields are `tenant`, `message`, `conversation`, `correlation`, `trace_id`, `pack`, `flow` and
/// `parked_trace_id`; each is there from when it is known.
#[derive(Clone, Debug)]
pub struct TurnSpan(Arc<Mutex<Told>>);

/// What is known of a turn.
struct Told {
    tenant: TenantId,
    /// The message's name, where it is no activity.
    message: Option<IdempotencyKey>,
    activity: Option<Arc<Activity>>,
    /// The correlation id that the turn made.
    correlation: Option<String>,
    flow: Option<(PackId, FlowId)>,
    parked_trace_id: Option<String>,
    run: Option<Arc<dyn RunHandle>>,
}

/// A turn's run, as other threads see it.
pub trait RunHandle: Send + Sync {
    /// The node that it is at; none before the first.
    fn position(&self) -> Option<(FlowId, NodeId)>;

    /// Asks it to stop.
    fn interrupt(&self);
}

/// Names a turn and lets its span go.
#[derive(Clone, Debug)]
pub(super) struct TurnId(Weak<Mutex<Told>>);

impl TurnId {
    pub(super) fn is_of(&self, span: &TurnSpan) -> bool {
        std::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&span.0))
    }

    /// Returns whether nothing is left of the turn.
    pub(super) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told")
            .field("tenant", &self.tenant)
            .field("flow", &self.flow)
            .finish_non_exhaustive()
    }
}

impl TurnSpan {
    /// The span of a turn of this tenant.
    pub fn new(tenant: &TenantId) -> Self {
        Self(Arc::new(Mutex::new(Told {
            tenant: tenant.clone(),
            message: None,
            activity: None,
            correlation: None,
            flow: None,
            parked_trace_id: None,
            run: None,
        })))
    }

    /// The span that this thread is in.
    pub fn current() -> Option<Self> {
        this_thread(ThreadTurn::get)
    }

    /// Does something inside of it: what is logged meanwhile carries its fields.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let inside = Some(self.clone());
        let _left = Left(this_thread(|thread| thread.replace(inside)));
        work()
    }

    /// A future that is polled inside of it.
    pub fn around<F: Future + Unpin>(self, future: F) -> Spanned<F> {
        Spanned { span: self, future }
    }

    /// The message is known, but it is no activity.
    pub fn message(&self, key: &IdempotencyKey) {
        self.told().message = Some(key.clone());
    }

    /// The message is this activity.
    pub fn activity(&self, activity: &Arc<Activity>) {
        self.told().activity = Some(Arc::clone(activity));
    }

    /// The correlation id, where the activity brings none and the turn makes one.
    pub fn correlation(&self, id: &str) {
        self.told().correlation = Some(id.to_owned());
    }

    /// The flow that runs.
    pub fn flow(&self, pack: &PackId, flow: &FlowId) {
        self.told().flow = Some((*pack, flow.clone()));
    }

    /// The trace of the turn that parked the flow which this one goes on with.
    pub fn parked_in(&self, trace: &TraceContext) {
        self.told().parked_trace_id = trace_id(trace).map(str::to_owned);
    }

    /// The run that the turn drives.
    pub fn run(&self, run: Arc<dyn RunHandle>) {
        self.told().run = Some(run);
    }

    /// The node that the turn's run is at.
    pub fn position(&self) -> Option<(FlowId, NodeId)> {
        let run = self.told().run.clone();
        run?.position()
    }

    /// Asks the turn's run to stop.
    pub(super) fn interrupt(&self) {
        let run = self.told().run.clone();
        if let Some(run) = run {
            run.interrupt();
        }
    }

    /// The tenant whose turn it is.
    pub(super) fn tenant(&self) -> TenantId {
        self.told().tenant.clone()
    }

    pub(super) fn id(&self) -> TurnId {
        TurnId(Arc::downgrade(&self.0))
    }

    /// Tells each field that is known.
    pub(super) fn each(&self, mut tell: impl FnMut(&str, &str)) {
        let told = self.told();
        tell("tenant", told.tenant.as_str());
        let activity = told.activity.as_ref();
        let key = activity.map(|activity| &activity.key);
        let echoed = activity.and_then(|activity| activity.correlation());
        let trace = activity.and_then(|activity| activity.trace.as_ref());
        let mut known = |name, value: Option<&str>| {
            if let Some(value) = value {
                tell(name, value);
            }
        };
        known(
            "message",
            key.or(told.message.as_ref()).map(IdempotencyKey::as_str),
        );
        let scope = activity.and_then(|activity| activity.reply_scope.as_ref());
        known(
            "conversation",
            scope.map(|scope| &scope.base_hash()[..CONVERSATION]),
        );
        known("correlation", told.correlation.as_deref().or(echoed));
        known("trace_id", trace.and_then(trace_id));
        if let Some((pack, flow)) = &told.flow {
            tell("pack", &pack.to_string());
            tell("flow", flow.as_str());
        }
        if let Some(trace_id) = &told.parked_trace_id {
            tell("parked_trace_id", trace_id);
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts this thread back to where it was before, also where something panics.
struct Left(Option<TurnSpan>);

impl Drop for Left {
    fn drop(&mut self) {
        let before = self.0.take();
        this_thread(|thread| drop(thread.replace(before)));
    }
}

/// A future inside of a span.
#[derive(Debug)]
pub struct Spanned<F> {
    span: TurnSpan,
    future: F,
}

impl<F: Future + Unpin> Future for Spanned<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { span, future } = &mut *self;
        span.within(|| Pin::new(future).poll(context))
    }
}

/// The trace id of a readable `traceparent`.
fn trace_id(trace: &TraceContext) -> Option<&str> {
    let id = trace.traceparent.split('-').nth(1)?;
    let readable = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    readable.then_some(id)
}
