//! The replies of a turn as messages, and the part of a turn after COMMIT: publish the replies that it stored, and note that
//! they are out.

use std::time::Duration;

use bytes::Bytes;

use super::late::{MOST_LOOKS, Missing};
use super::{Attempt, Part, TurnError};
use crate::model::{Activity, Headers, Outbound};
use crate::ports::{Destination, Publisher, TransportError, TurnStore};

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

    /// Publishes what COMMIT stored, one message after the other so that they arrive in order, and notes that it is out.
    /// `before_commit` is the uptime before that COMMIT, where it was this attempt's own.
    pub(super) async fn publish(
        &mut self,
        outbox: &[Outbound],
        messages: Vec<(Headers, Bytes)>,
        before_commit: Option<Duration>,
    ) -> Result<(), TurnError> {
        let any = !messages.is_empty();
        let mut due = match any {
            true => Due::until(self.in_time_until(before_commit)),
            false => Due::until(Duration::MAX),
        };
        for (at, (headers, body)) in messages.into_iter().enumerate() {
            let sent = self.publish_due(outbox, at, (&headers, &body), &mut due);
            let given_up = match sent.await? {
                Ok(false) => continue,
                Ok(true) => {
                    self.replies += 1;
                    due.looks = 0;
                    continue;
                }
                Err(TransportError::TooLarge(reason)) => {
                    let n = position(outbox, at);
                    Box::pin(self.give_up_reply(n, &headers, &body, &reason)).await
                }
                Err(TransportError::Refused(refusal)) => Err(refusal),
                Err(TransportError::Unavailable(_)) => continue,
            };
            match given_up {
                Ok(()) => self.undelivered += 1,
                Err(refusal) => {
                    Box::pin(self.note_published_until(outbox, at)).await;
                    return Err(refusal.into());
                }
            }
        }
        if any {
            self.note_published().await;
        }
        Ok(())
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
    /// longer recognises the replies, and must then find nothing to publish.
    async fn note_published(&self) {
        let store = &self.turns.store;
        let note = || store.published(self.activity);
        let tenant = &self.activity.tenant;
        if let Err(error) = self.turns.outage.ride_out(tenant, Part::Store, note).await {
            tracing::error!(error = %error, "the outbox of a published turn stays until it expires");
        }
    }

    /// Notes that the replies before this one are out, where the rest has to wait: the stream may have forgotten them by the time
    /// the rest is published.
    async fn note_published_until(&self, outbox: &[Outbound], at: usize) {
        if at == 0 {
            return;
        }
        let rest = outbox.iter().enumerate().skip(at);
        let rest = rest.map(|(n, reply)| Outbound {
            position: Some(reply.position.unwrap_or(n)),
            ..reply.clone()
        });
        let rest: Vec<Outbound> = rest.collect();
        let (store, tenant) = (&self.turns.store, &self.activity.tenant);
        let note = || store.published_but(self.activity, &rest);
        if let Err(error) = self.turns.outage.ride_out(tenant, Part::Store, note).await {
            tracing::error!(error = %error, "replies that are out are published again with those that are not");
        }
    }
}
