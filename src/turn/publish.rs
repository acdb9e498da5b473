//! The replies of a turn as messages, and the part of a turn after COMMIT: publish the replies that it stored, and note that
//! they are out.

use bytes::Bytes;

use super::{Attempt, Part, TurnError};
use crate::model::{Activity, Headers, Outbound};
use crate::ports::{AppliedRecord, Destination, Publisher, StoreError, TransportError, TurnStore};

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

    /// Publishes what COMMIT stored, one message after the other so that they arrive in order, and notes that it is out.
    pub(super) async fn publish(
        &mut self,
        outbox: &[Outbound],
        messages: Vec<(Headers, Bytes)>,
    ) -> Result<(), TurnError> {
        let tenant = &self.activity.tenant;
        let any = !messages.is_empty();
        for (at, (headers, body)) in messages.into_iter().enumerate() {
            let publisher = &self.turns.publisher;
            let sent = self
                .turns
                .outage
                .ride_out(tenant, Part::Outbound, || {
                    publisher.publish(Destination::Outbound(tenant), &headers, body.clone())
                })
                .await;
            let given_up = match sent {
                Ok(()) => {
                    self.replies += 1;
                    self.step(|steps| steps.replied(at, &body));
                    continue;
                }
                Err(TransportError::TooLarge(reason)) => {
                    let n = outbox
                        .get(at)
                        .and_then(|reply| reply.position)
                        .unwrap_or(at);
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
            self.note_published().await?;
        }
        Ok(())
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
