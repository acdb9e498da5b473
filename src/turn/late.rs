//! Replies that are published late. The stream recognises a copy of a reply for its duplicate window only; so a worker that was held
//! up for longer than a part of it looks at what others have done meanwhile.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Attempt, Part, TurnError};
use crate::model::Outbound;
use crate::ports::{Begin, Begun, Claim, Destination, Publisher, TransportError, TurnStore};

/// A reply may be published for this part of the duplicate window after it was known that nobody has noted it as published. The
/// rest of the window is for the way to the stream and for clocks that differ.
const PART: u32 = 2;

/// How often it is looked before a reply. Where a look takes longer than it is good for, the reply is published in the end.
pub(super) const MOST_LOOKS: u32 = 3;

/// The replies that are still to be published, by their positions, as a look has found them.
pub(super) struct Missing {
    pub(super) positions: Vec<usize>,
    /// They may be published until then, by the clock's uptime.
    pub(super) until: Duration,
}

impl<S: TurnStore, P: Publisher> Attempt<'_, S, P> {
    /// Until when the replies may be published without a look. `before_commit` is the uptime before the COMMIT that was this
    /// attempt's own; the outbox of an earlier one may have been published at any time since its message came.
    pub(super) fn in_time_until(&self, before_commit: Option<Duration>) -> Duration {
        let to = Destination::Outbound(&self.activity.tenant);
        let Some(window) = self.turns.publisher.duplicate_window(to) else {
            return Duration::MAX;
        };
        let part = window / PART;
        if let Some(before_commit) = before_commit {
            return before_commit.saturating_add(part);
        }
        let clock = &self.turns.clock;
        let age = self.since().map(|since| clock.now() - since);
        let age = age.and_then(|age| Duration::try_from(age).ok());
        let left = age.and_then(|age| part.checked_sub(age));
        left.map_or(Duration::ZERO, |left| clock.uptime().saturating_add(left))
    }

    /// Looks at the record of the turn again, and at what the stream holds of its replies.
    pub(super) async fn look_for_replies(&self, outbox: &[Outbound]) -> Result<Missing, TurnError> {
        let (turns, activity) = (self.turns, self.activity);
        let tenant = &activity.tenant;
        let window = turns
            .publisher
            .duplicate_window(Destination::Outbound(tenant));
        let until = window.map_or(Duration::MAX, |window| {
            turns.clock.uptime().saturating_add(window / PART)
        });
        let begin = Begin {
            activity,
            claim: Claim::Optimistic,
            resume: false,
            state: &[],
            state_bytes: 0,
        };
        let read = || turns.store.begin(&begin);
        let begun = turns.outage.ride_out(tenant, Part::Store, read).await?;
        let noted = match &begun {
            Begun::Applied(record) => Some(&record.outbox[..]),
            // The record has expired. What was committed is all that is known.
            Begun::Ready(_) | Begun::Busy { .. } => None,
        };
        let unpublished = noted.unwrap_or(outbox).iter().enumerate();
        let mut positions: Vec<usize> = unpublished
            .map(|(n, reply)| reply.position.unwrap_or(n))
            .collect();
        if !positions.is_empty() {
            let held = self.held(&positions).await?;
            let mut held = held.into_iter();
            positions.retain(|_| !held.next().unwrap_or_default());
        }
        let (of, missing) = (outbox.len(), positions.len());
        tracing::info!(
            of,
            missing,
            "replies are late; looked at which of them are still to be published"
        );
        Ok(Missing { positions, until })
    }

    async fn held(&self, positions: &[usize]) -> Result<Vec<bool>, TurnError> {
        let (tenant, key) = (&self.activity.tenant, &self.activity.key);
        let ids = positions.iter();
        let ids: Vec<String> = ids.map(|n| Outbound::msg_id(tenant, key, *n)).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let (publisher, since) = (&self.turns.publisher, self.since());
        let look = || publisher.held(tenant, &ids, since);
        let held = self.turns.outage.ride_out(tenant, Part::Outbound, look);
        held.await.or_else(|error| match error {
            TransportError::Refused(refusal) => Err(refusal.into()),
            // None of these is an answer to a look.
            TransportError::TooLarge(_) | TransportError::Unavailable(_) => Ok(Vec::new()),
        })
    }

    /// When the message was stored: no reply to it is older.
    fn since(&self) -> Option<OffsetDateTime> {
        let stored = i128::from(self.context.stored?);
        OffsetDateTime::from_unix_timestamp_nanos(stored).ok()
    }
}
