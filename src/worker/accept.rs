//! What was pulled for a tenant and is on its way to its turns, in order. Reading a large message takes its time, on another
//! thread; those behind it wait for that, and other tenants do not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Shared;
use super::slots::SlotClaim;
use crate::budget::TenantMemory;
use crate::model::Activity;
use crate::ports::{Delivery, Inbound, Publisher, TurnStore};
use crate::telemetry::{TenantMetrics, TurnSpan};
use crate::turn::TurnError;

/// The bytes of messages that are read one after the other before the thread is given to others.
const BYTES_AT_ONCE: usize = 64 * 1024;

/// The messages of a tenant that have no turn yet.
pub(super) struct AcceptQueue<'a, I: Inbound, S, P> {
    shared: &'a Arc<Shared<I, S, P>>,
    metrics: &'a Arc<TenantMetrics>,
    memory: &'a TenantMemory,
    waiting: VecDeque<(I::Delivery, SlotClaim)>,
    reading: Option<Reading<I::Delivery>>,
}

/// A message that is being read on another thread.
struct Reading<D> {
    pulled: (D, SlotClaim),
    span: TurnSpan,
    read: BoxFuture<'static, Result<Activity, TurnError>>,
}

impl<'a, I: Inbound, S: TurnStore, P: Publisher> AcceptQueue<'a, I, S, P> {
    pub(super) fn new(
        shared: &'a Arc<Shared<I, S, P>>,
        metrics: &'a Arc<TenantMetrics>,
        memory: &'a TenantMemory,
    ) -> Self {
        Self {
            shared,
            metrics,
            memory,
            waiting: VecDeque::new(),
            reading: None,
        }
    }

    /// Takes what was pulled.
    pub(super) fn put(&mut self, arrived: &mut Vec<(I::Delivery, SlotClaim)>) {
        if arrived.is_empty() {
            return;
        }
        self.waiting.extend(arrived.drain(..));
        let waiting = self.waiting.make_contiguous();
        waiting.sort_by_key(|(delivery, _)| delivery.message().sequence);
    }

    /// Begins the turns of those that are read, as many as may be at once. Wakes the task when there is more to do.
    pub(super) fn accept(&mut self, cx: &mut Context<'_>) {
        let mut bytes = 0;
        loop {
            if let Some(reading) = &mut self.reading {
                let Poll::Ready(read) = reading.read.poll_unpin(cx) else {
                    return;
                };
                if let Some(Reading { pulled, span, .. }) = self.reading.take() {
                    self.begin(pulled, read, span);
                }
            }
            if bytes > BYTES_AT_ONCE {
                cx.waker().wake_by_ref();
                return;
            }
            let Some(pulled) = self.waiting.pop_front() else {
                return;
            };
            let message = pulled.0.message();
            let span = TurnSpan::new(&message.tenant);
            let turns = &self.shared.turns;
            if turns.is_large(message) {
                let read = turns.read_apart(message, &span).boxed();
                self.reading = Some(Reading { pulled, span, read });
                continue;
            }
            bytes += message.body.len();
            let read = span.within(|| turns.read(message));
            self.begin(pulled, read, span);
        }
    }

    fn begin(
        &self,
        pulled: (I::Delivery, SlotClaim),
        read: Result<Activity, TurnError>,
        span: TurnSpan,
    ) {
        let around = (self.metrics, self.memory);
        self.shared.accept(pulled, read, span, around);
    }

    /// Hands back what has no turn yet: the worker stops, or the tenant is no longer its own.
    pub(super) async fn hand_back(self) {
        let reading = self.reading.map(|reading| reading.pulled);
        for (delivery, _claim) in reading.into_iter().chain(self.waiting) {
            if let Err(error) = delivery.hand_back(Duration::ZERO).await {
                tracing::debug!(%error, "a message was not handed back and will come again");
            }
        }
    }
}
