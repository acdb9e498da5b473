//! The replies of a turn as messages, and the part of a turn after COMMIT: publish the replies that it stored, and note that
//! they are out.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::late::{MOST_LOOKS, Missing};
use super::{Attempt, Part, TurnError};
use crate::model::{Activity, Headers, Outbound};
use crate::ports::{
    AppliedRecord, Destination, Publisher, Refusal, StoreError, TransportError, TurnStore,
};

/// Which replies are to be published, and until when without another look.
struct Due {
    until: Duration,
    /// Those that the last look has not found; all of them before the first one.
    missing: Option<Vec<usize>>,
    /// How often it was looked since a reply was published last.
    looks: u32,
}

impl Due {
    fn until(until: Duration) -> Self {
        Self {
            until,
            missing: None,
            looks: 0,
        }
    }

    fn found(&mut self, found: Missing) {
        self.looks += 1;
        self.missing = Some(found.positions);
        self.until = match self.looks {
            MOST_LOOKS.. => Duration::MAX,
            _ => found.until,
        };
    }
}

/// Why a reply is not out.
enum Unpublished {
    /// The tenant is refused it. These replies of the outbox have to wait.
    Held(Refusal, Range<usize>),
    /// Nothing tells whether it is out already.
    Failed(TurnError),
}

/// The position of a reply among those to its activity.
fn position(outbox: &[Outbound], at: usize) -> usize {
    let reply = outbox.get(at);
    reply.and_then(|reply| reply.position).unwrap_or(at)
}

impl<S: TurnStore, P: Publisher> Attempt<'_, S, P> {
    /// The messages that an outbox is published as.
    pub(super) fn messages(&self, outbox: &[Outbound]) -> Vec<(Headers, Bytes)> {
        let Activity {
            env, tenant, key, ..
        } = self.activity;
        let message = |(n, message): (usize, &Outbound)| {
            let body = Bytes::copy_from_slice(message.body.get().as_bytes());
            let n = message.position.unwrap_or(n);
            (message.all_headers(env, tenant, key, n), body)
        };
        outbox.iter().enumerate().map(message).collect()
    }

    /// The outbox of an activity that was applied before, if this one is a copy of it. Another message under the same id must
    /// neither disappear as a copy nor publish the other one's replies. Records without a digest are taken for the activity's own.
    pub(super) fn outbox_of_copy(&self, record: AppliedRecord) -> Result<Vec<Outbound>, TurnError> {
        let is_copy = record
            .content
            .is_none_or(|content| content == self.activity.content);
        is_copy.then_some(record.outbox).ok_or(TurnError::IdReused)
    }

    pub(super) fn check_sizes(&self, messages: &[(Headers, Bytes)]) -> Result<(), TurnError> {
        let to = Destination::Outbound(&self.activity.tenant);
        let limit = self.turns.publisher.max_message_bytes(to);
        for (n, (headers, body)) in messages.iter().enumerate() {
            let bytes = body.len() + headers.wire_len();
            if bytes > limit {
                return Err(TurnError::ReplyTooLarge {
                    n: n + 1,
                    bytes,
                    limit,
                });
            }
        }
        Ok(())
    }

    /// Publishes what COMMIT stored, one message after the other so that they arrive in order, and notes that it is out. A reply
    /// that does not fit holds up none of those after it, whatever becomes of its dead letter; one that is refused holds up all of
    /// them. `before_commit` is the uptime before that COMMIT, where it was this attempt's own.
    pub(super) async fn publish(
        &mut self,
        outbox: &[Outbound],
        messages: Vec<(Headers, Bytes)>,
        before_commit: Option<Duration>,
    ) -> Result<(), TurnError> {
        if messages.is_empty() {
            return Ok(());
        }
        let mut due = Due::until(self.in_time_until(before_commit));
        let mut held: Option<(Refusal, Vec<usize>)> = None;
        for (at, message) in messages.into_iter().enumerate() {
            let (refusal, those) = match self.publish_reply(outbox, at, message, &mut due).await {
                Ok(()) => continue,
                Err(Unpublished::Held(refusal, those)) => (refusal, those),
                Err(Unpublished::Failed(error)) => return Err(error),
            };
            let last = those.end;
            let (_, left) = held.get_or_insert_with(|| (refusal, Vec::new()));
            left.extend(those);
            if last == outbox.len() {
                break;
            }
        }
        if let Some((refusal, left)) = held {
            Box::pin(self.note_published_but(outbox, &left)).await;
            return Err(refusal.into());
        }
        self.note_published().await
    }

    /// Publishes one reply.
    async fn publish_reply(
        &mut self,
        outbox: &[Outbound],
        at: usize,
        (headers, body): (Headers, Bytes),
        due: &mut Due,
    ) -> Result<(), Unpublished> {
        match self.publish_due(outbox, at, (&headers, &body), due).await {
            Ok(Ok(false)) => Ok(()),
            Ok(Ok(true)) => {
                due.looks = 0;
                self.replies += 1;
                self.step(|steps| steps.replied(at, &body));
                Ok(())
            }
            Ok(Err(TransportError::TooLarge(reason))) => {
                let n = position(outbox, at);
                let given_up = Box::pin(self.give_up_reply(n, &headers, &body, &reason)).await;
                given_up.map_err(|refusal| Unpublished::Held(refusal, at..at + 1))?;
                self.undelivered += 1;
                Ok(())
            }
            Ok(Err(TransportError::Refused(refusal))) | Err(TurnError::Refused(refusal)) => {
                Err(Unpublished::Held(refusal, at..outbox.len()))
            }
            // It is ridden out.
            Ok(Err(TransportError::Unavailable(_))) => Ok(()),
            Err(error) => Err(Unpublished::Failed(error)),
        }
    }

    /// Publishes one reply, unless a look finds that it is out already; returns whether it did.
    async fn publish_due(
        &self,
        outbox: &[Outbound],
        at: usize,
        (headers, body): (&Headers, &Bytes),
        due: &mut Due,
    ) -> Result<Result<bool, TransportError>, TurnError> {
        let (turns, tenant) = (self.turns, &self.activity.tenant);
        let to = Destination::Outbound(tenant);
        loop {
            let missing = due.missing.as_ref();
            if missing.is_some_and(|missing| !missing.contains(&position(outbox, at))) {
                return Ok(Ok(false));
            }
            let until = due.until;
            let in_time = || until == Duration::MAX || turns.clock.uptime() < until;
            let publish = || {
                let publisher = &turns.publisher;
                publisher.publish_in_time(to, headers, body.clone(), &in_time)
            };
            let sent = turns.outage.ride_out(tenant, Part::Outbound, publish).await;
            if !matches!(sent, Ok(false)) {
                return Ok(sent);
            }
            let found = Box::pin(self.look_for_replies(outbox)).await?;
            due.found(found);
        }
    }

    /// Notes that the replies are out, before the delivery is settled. A copy of the activity may come when the stream no
    /// longer recognises the replies, and must then find nothing to publish. For the same reason a note that is refused keeps
    /// the delivery from being settled.
    async fn note_published(&self) -> Result<(), TurnError> {
        let store = &self.turns.store;
        let note = || store.published(self.activity);
        let tenant = &self.activity.tenant;
        match self.turns.outage.ride_out(tenant, Part::Store, note).await {
            Ok(()) => Ok(()),
            Err(StoreError::Refused(refusal)) => Err(refusal.into()),
            Err(error) => {
                tracing::error!(error = %error, "the outbox of a published turn stays until it expires");
                Ok(())
            }
        }
    }

    /// Notes which replies are left to publish, where some have to wait: the stream may have forgotten the others by the time these
    /// are published.
    async fn note_published_but(&self, outbox: &[Outbound], left: &[usize]) {
        if left.len() == outbox.len() {
            return;
        }
        let rest = left.iter().filter_map(|at| {
            Some(Outbound {
                position: Some(position(outbox, *at)),
                ..outbox.get(*at)?.clone()
            })
        });
        let rest: Vec<Outbound> = rest.collect();
        let (store, tenant) = (&self.turns.store, &self.activity.tenant);
        let note = || store.published_but(self.activity, &rest);
        if let Err(error) = self.turns.outage.ride_out(tenant, Part::Store, note).await {
            tracing::error!(error = %error, "replies that are out are published again with those that are not");
        }
    }
}
