//! Messages whose conversation waits in a pack that this worker does not have. During a roll-out another worker has it, or
//! this one soon will: each message is left to others with growing pauses, until it has been without its pack for too long.
//! The messages of a conversation keep their order in this worker meanwhile.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use greentic_types::ReplyScope;
use tokio::time::Instant;

use crate::model::{Activity, IdempotencyKey, TeamId, TenantId, UserId};

/// The first pause of a message.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Its longest pause: how long after the pack is there the conversation goes on, at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How much later than its pause is over a message may come back. One that has not is another worker's.
const LATE: Duration = Duration::from_secs(1);
/// How long after the message before it a message that is held comes back.
const BEHIND: Duration = Duration::from_millis(20);
/// The most conversations that are known at a time.
const MOST: usize = 50_000;

/// The messages of this worker that wait for a pack.
#[derive(Debug, Default)]
pub struct AwaitedPacks {
    /// Whether anything waits: all that a turn looks at where nothing does.
    any: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The messages of each conversation that wait, in the order in which they came.
    messages: HashMap<Conversation, VecDeque<Message>>,
    swept: Option<Instant>,
}

impl Waiting {
    /// Forgets now and then what other workers have taken.
    fn sweep(&mut self, now: Instant) {
        if *self.swept.get_or_insert(now) + LONGEST_PAUSE > now {
            return;
        }
        self.swept = Some(now);
        self.messages
            .retain(|_, messages| messages.iter().any(|message| !message.is_elsewhere(now)));
    }
}

/// Tenant, team, user and base scope.
type Conversation = (TenantId, Option<TeamId>, UserId, Option<ReplyScope>);

#[derive(Debug)]
struct Message {
    key: IdempotencyKey,
    /// Since when it is without its pack, or waits for a message before it that is.
    since: Instant,
    pause: Duration,
    /// When it comes back.
    due: Instant,
}

impl Message {
    fn is_elsewhere(&self, now: Instant) -> bool {
        now > self.due + LATE
    }
}

impl AwaitedPacks {
    /// How long to leave a message alone because one before it, of its conversation, waits for its pack.
    pub fn hold(&self, activity: &Activity) -> Option<Duration> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let now = Instant::now();
        let mut waiting = self.waiting();
        waiting.sweep(now);
        self.any
            .store(!waiting.messages.is_empty(), Ordering::Relaxed);
        let messages = waiting.messages.get_mut(&conversation(activity))?;
        messages.retain(|message| message.key == activity.key || !message.is_elsewhere(now));
        let own = messages
            .iter()
            .position(|message| message.key == activity.key);
        let before = own.unwrap_or(messages.len()).checked_sub(1)?;
        let due = messages.get(before)?.due.max(now) + BEHIND;
        match own.and_then(|own| messages.get_mut(own)) {
            Some(message) => message.due = due,
            None => messages.push_back(Message {
                key: activity.key.clone(),
                since: now,
                pause: FIRST_PAUSE,
                due,
            }),
        }
        Some(due - now)
    }

    /// How long to leave a message to other workers whose pack is not here; none if that has been so for `at_most`.
    pub(super) fn pause(&self, activity: &Activity, at_most: Duration) -> Option<Duration> {
        let now = Instant::now();
        let mut waiting = self.waiting();
        waiting.sweep(now);
        let is_full = waiting.messages.len() >= MOST;
        let messages = match waiting.messages.entry(conversation(activity)) {
            Entry::Occupied(known) => known.into_mut(),
            // Nobody knows for how long it has been so.
            Entry::Vacant(_) if is_full => return Some(LONGEST_PAUSE),
            Entry::Vacant(free) => free.insert(VecDeque::new()),
        };
        self.any.store(true, Ordering::Relaxed);
        let known = messages.iter_mut();
        let mut known = known.filter(|message| message.key == activity.key);
        let Some(message) = known.next() else {
            let pause = jittered(FIRST_PAUSE.min(at_most));
            messages.push_back(Message {
                key: activity.key.clone(),
                since: now,
                pause: FIRST_PAUSE,
                due: now + pause,
            });
            return (!at_most.is_zero()).then_some(pause);
        };
        let left = at_most.checked_sub(now - message.since)?;
        message.pause = (message.pause * 2).min(LONGEST_PAUSE);
        let pause = jittered(message.pause).min(left).max(BEHIND);
        message.due = now + pause;
        (!left.is_zero()).then_some(pause)
    }

    /// A message does not wait any more.
    pub fn forget(&self, activity: &Activity) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting();
        if let Entry::Occupied(mut known) = waiting.messages.entry(conversation(activity)) {
            known
                .get_mut()
                .retain(|message| message.key != activity.key);
            if known.get().is_empty() {
                known.remove();
            }
        }
        self.any
            .store(!waiting.messages.is_empty(), Ordering::Relaxed);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn conversation(activity: &Activity) -> Conversation {
    (
        activity.tenant.clone(),
        activity.team.clone(),
        activity.user.clone(),
        activity.base_scope(),
    )
}

/// Workers that lack a pack together do not look again together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EnvId, Headers, InboundMessage, decode};

    const MINUTE: Duration = Duration::from_secs(60);

    fn activity(id: &str, conversation: &str) -> Activity {
        let body = serde_json::json!({
            "id": id, "from": {"id": "u"}, "reply_scope": {"conversation": conversation}
        });
        let message = InboundMessage {
            tenant: TenantId::new("t").unwrap(),
            headers: Headers::default(),
            body: body.to_string().into(),
            sequence: None,
        };
        decode(&message, &EnvId::new("dev").unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_left_alone_with_growing_pauses_until_its_time_is_over() {
        let (awaited, message) = (AwaitedPacks::default(), activity("1", "c"));
        let (began, mut last, mut pauses) = (Instant::now(), Duration::ZERO, 0);
        while let Some(pause) = awaited.pause(&message, MINUTE) {
            assert!(pause <= LONGEST_PAUSE && pause > Duration::ZERO);
            assert!(awaited.hold(&message).is_none(), "nothing is before it");
            tokio::time::advance(pause).await;
            (last, pauses) = (pause, pauses + 1);
        }
        assert!((8..20).contains(&pauses), "{pauses}, the last {last:?}");
        let took = began.elapsed();
        assert!(took >= MINUTE && took < MINUTE + LATE, "{took:?}");
        // Sent again, it has all the time again.
        awaited.forget(&message);
        assert!(awaited.waiting().messages.is_empty());
        assert!(awaited.pause(&message, MINUTE).is_some());
        assert!(awaited.pause(&activity("2", "d"), Duration::ZERO).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_one_conversation_keep_their_order_and_hold_no_other_one() {
        let awaited = AwaitedPacks::default();
        let messages = ["1", "2", "3"].map(|id| activity(id, "c"));
        assert!(awaited.hold(&messages[0]).is_none());
        let first = awaited.pause(&messages[0], MINUTE).unwrap();
        let second = awaited.hold(&messages[1]).unwrap();
        let third = awaited.hold(&messages[2]).unwrap();
        assert!(first < second && second < third);
        assert!(awaited.hold(&activity("4", "another")).is_none());
        tokio::time::advance(third).await;
        assert!(awaited.hold(&messages[2]).is_some(), "it overtakes");
        awaited.forget(&messages[0]);
        assert!(
            awaited.hold(&messages[2]).is_some(),
            "it overtakes the second"
        );
        assert!(awaited.hold(&messages[1]).is_none());
        awaited.forget(&messages[1]);
        assert!(awaited.hold(&messages[2]).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_another_worker_has_taken_holds_nobody() {
        let (awaited, next) = (AwaitedPacks::default(), activity("2", "c"));
        let pause = awaited.pause(&activity("1", "c"), MINUTE).unwrap();
        assert!(awaited.hold(&next).is_some());
        tokio::time::advance(pause + LATE * 2).await;
        assert!(awaited.hold(&next).is_none());
        tokio::time::advance(LONGEST_PAUSE).await;
        assert!(awaited.hold(&next).is_none());
        assert!(!awaited.any.load(Ordering::Relaxed), "it is kept for ever");
    }
}
