//! Dead letters: stored, even where only a part of them fits, and replies that no stream takes.

use bytes::Bytes;

use super::{Attempt, Part, Turns};
use crate::model::{Activity, Headers, TenantId, cut, dead_reply_id, header};
use crate::ports::{Destination, Publisher, Refusal, RefusalReason, TransportError, TurnStore};

/// The code of a message whose id was another one's.
pub const ID_REUSED: &str = "id_reused";

/// The code of a reply that was committed and that no stream takes.
pub const REPLY_UNDELIVERABLE: &str = "reply_undeliverable";

impl<S: TurnStore, P: Publisher> Turns<S, P> {
    /// Stores a dead letter. What is larger than a message may be is cut, with its size and digest in the headers.
    ///
    /// # Errors
    ///
    /// The refusal that the tenant's dead letters meet.
    pub async fn dead_letter(
        &self,
        tenant: &TenantId,
        headers: &Headers,
        body: &Bytes,
    ) -> Result<(), Refusal> {
        if let Some(refusal) = self.outage.hold_dead_letter(tenant) {
            return Err(refusal);
        }
        let (publisher, to) = (&self.publisher, Destination::DeadLetter(tenant));
        let mut limit = publisher.max_message_bytes(to);
        let mut letter = match headers.wire_len() + body.len() <= limit {
            true => Some((headers.clone(), body.clone())),
            false => cut(headers, body, limit),
        };
        while let Some((headers, kept)) = &letter {
            let publish = || publisher.publish(to, headers, kept.clone());
            match self
                .outage
                .ride_out(tenant, Part::DeadLetters, publish)
                .await
            {
                Ok(()) => {
                    if kept.len() < body.len() {
                        let (bytes, kept) = (body.len(), kept.len());
                        tracing::warn!(
                            bytes,
                            kept,
                            "the body of a dead letter was cut to what a message may hold"
                        );
                    }
                    return Ok(());
                }
                Err(TransportError::Refused(refusal)) => return Err(refusal),
                // It is ridden out.
                Err(TransportError::Unavailable(_)) => {}
                // The limit was lowered since it was looked at.
                Err(TransportError::TooLarge(_)) => {
                    limit = publisher.max_message_bytes(to).min(limit / 4 * 3);
                    letter = cut(headers, body, limit);
                }
            }
        }
        let refusal = Refusal {
            reason: RefusalReason::StreamConfig,
            detail: format!(
                "messages of {limit} bytes are the largest that the stream of dead letters takes, and not even the reason \
                 fits; raise its max_msg_size"
            ),
        };
        self.outage.refuse(tenant, Part::DeadLetters, &refusal);
        Err(refusal)
    }
}

impl<S: TurnStore, P: Publisher> Turns<S, P> {
    /// Ends the claims of a message whose dead letter is stored: its replay has all its attempts. Not before, since a message that
    /// kills its workers must not be counted anew.
    pub async fn end_claims(&self, activity: &Activity) {
        let forget = || self.store.forget_claims(activity);
        let outage = &self.outage;
        if let Err(error) = outage.ride_out(&activity.tenant, Part::Store, forget).await {
            tracing::warn!(%error, "the attempts of a dead letter still count when it is replayed");
        }
    }
}

impl<S: TurnStore, P: Publisher> Attempt<'_, S, P> {
    /// Puts a reply into the dead letters that was committed and that the stream of replies does not take.
    pub(super) async fn give_up_reply(
        &self,
        n: usize,
        headers: &Headers,
        body: &Bytes,
        reason: &str,
    ) -> Result<(), Refusal> {
        let (tenant, key) = (&self.activity.tenant, &self.activity.key);
        let others = headers.iter().filter(|(name, _)| *name != header::MSG_ID);
        let mut headers: Headers = others.collect();
        headers.push(header::MSG_ID, dead_reply_id(tenant, key, n));
        headers.push(header::ERROR_CODE, REPLY_UNDELIVERABLE);
        headers.push(header::ERROR, reason.replace(char::is_control, " "));
        headers.push(header::ATTEMPTS, "1");
        self.turns.dead_letter(tenant, &headers, body).await?;
        tracing::error!(
            code = REPLY_UNDELIVERABLE,
            reason,
            n,
            "a reply was dead-lettered: its turn is applied, but the stream of replies does not take it"
        );
        Ok(())
    }
}
