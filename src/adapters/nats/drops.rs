//! Replies that the full stream of replies drops: seen by looking at the streams now and then, since the server says nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::jetstream::stream::{Config as ServerStream, DiscardPolicy};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::fault::Fault;
use super::link::Link;
use super::names::StreamName;
use super::stream_state::StreamState;
use super::topology::Topology;
use crate::adapters::system::SystemClock;
use crate::ports::Clock;

/// How often the streams are looked at: for their limits, their environment, and what the one of replies drops.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the log says that replies are dropped.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The most subjects that the log names.
const MAX_NAMED: usize = 5;

/// The number of replies that were seen to be dropped.
pub(super) type Dropped = Arc<AtomicU64>;

/// The stream as it was at one look.
struct Look {
    state: StreamState,
    /// Its oldest message.
    oldest: Option<Oldest>,
}

#[derive(Clone, Debug)]
struct Oldest {
    subject: String,
    stored: OffsetDateTime,
}

#[derive(Deserialize)]
struct Found {
    message: FoundMessage,
}

#[derive(Deserialize)]
struct FoundMessage {
    subject: String,
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
}

/// Looks on for as long as there is a worker.
pub(super) async fn watch(link: Weak<Link>, topology: Weak<Topology>, dropped: Dropped) {
    let mut last: Option<Look> = None;
    let mut untold = Untold::default();
    loop {
        sleep(LOOK_EVERY).await;
        let (Some(link), Some(topology)) = (link.upgrade(), topology.upgrade()) else {
            return;
        };
        if link.is_closing() {
            return;
        }
        for stream in [StreamName::Inbound, StreamName::DeadLetter] {
            // For the mark of another environment, which may have made it again.
            if let Err(error) = topology.look_at(stream, None).await {
                debug!(%error, ?stream, "a stream was not looked at");
            }
        }
        let (config, state) = match topology.look_at(StreamName::Outbound, None).await {
            Ok(looked) => looked,
            Err(error) => {
                debug!(%error, "the stream of replies was not looked at");
                continue;
            }
        };
        if !drops(&config) {
            last = None;
            continue;
        }
        let oldest = oldest(&link, &state).await;
        if let Some(last) = &last {
            let gone = gone(last, &state, &config);
            if gone > 0 {
                dropped.fetch_add(gone, Ordering::Relaxed);
                let subjects = match &last.oldest {
                    Some(oldest) if state.first_seq > last.state.first_seq => {
                        vec![oldest.subject.clone()]
                    }
                    _ => full_subjects(&topology, &config).await,
                };
                untold.add(gone, subjects);
            }
        }
        untold.tell();
        last = Some(Look { state, oldest });
    }
}

/// Returns whether the stream can drop what is old because of what is new.
fn drops(config: &ServerStream) -> bool {
    let limits = [
        config.max_bytes,
        config.max_messages,
        config.max_messages_per_subject,
    ];
    config.discard == DiscardPolicy::Old && limits.iter().any(|limit| *limit > 0)
}

/// How many messages were dropped since the last look because a limit is reached. What an age takes away, or an operator who
/// purges the stream, is not counted.
fn gone(last: &Look, now: &StreamState, config: &ServerStream) -> u64 {
    let added = now.last_seq.saturating_sub(last.state.last_seq);
    let gone = (last.state.messages + added).saturating_sub(now.messages);
    let aged = !config.max_age.is_zero()
        && last
            .oldest
            .as_ref()
            .is_some_and(|oldest| SystemClock.now() - oldest.stored >= config.max_age);
    let near = |limit: i64, has: u64| {
        u64::try_from(limit).is_ok_and(|limit| limit > 0 && has >= limit / 2)
    };
    let is_full = config.max_messages_per_subject > 0
        || near(config.max_messages, now.messages)
        || near(config.max_bytes, now.bytes);
    // A stream that was made anew begins again.
    let same = now.last_seq >= last.state.last_seq;
    match same && is_full && !aged {
        true => gone,
        false => 0,
    }
}

async fn oldest(link: &Link, state: &StreamState) -> Option<Oldest> {
    if state.messages == 0 {
        return None;
    }
    let method = format!("STREAM.MSG.GET.{}", link.names.stream(StreamName::Outbound));
    let order = json!({ "seq": state.first_seq });
    match link.api::<Found>(&method, &order).await {
        Ok(Found { message }) => Some(Oldest {
            subject: message.subject,
            stored: message.time,
        }),
        Err(Fault::Refused { .. }) => None,
        Err(error) => {
            debug!(%error, "the oldest reply was not looked at");
            None
        }
    }
}

/// The subjects that hold as many messages as they may.
async fn full_subjects(topology: &Topology, config: &ServerStream) -> Vec<String> {
    let all = topology.link.names.subjects(StreamName::Outbound);
    let Ok((_, state)) = topology.look_at(StreamName::Outbound, Some(&all)).await else {
        return Vec::new();
    };
    let most = u64::try_from(config.max_messages_per_subject).unwrap_or(u64::MAX);
    let subjects = state.subjects.unwrap_or_default().into_iter();
    let mut full: Vec<String> = subjects
        .filter(|(_, count)| *count >= most.max(1))
        .map(|(subject, _)| subject)
        .collect();
    full.sort();
    full
}

/// What the log does not say yet.
#[derive(Default)]
struct Untold {
    dropped: u64,
    subjects: Vec<String>,
    told: Option<Instant>,
}

impl Untold {
    fn add(&mut self, dropped: u64, subjects: Vec<String>) {
        self.dropped += dropped;
        for subject in subjects {
            if self.subjects.len() < MAX_NAMED && !self.subjects.contains(&subject) {
                self.subjects.push(subject);
            }
        }
    }

    fn tell(&mut self) {
        if self.dropped == 0 || self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        warn!(
            dropped = self.dropped,
            subjects = self.subjects.join(", "),
            "the stream of replies is full and has dropped its oldest ones; who has not read them never will: raise its \
             limits, read faster, or set `nats.outbound.discard: new`"
        );
        *self = Self {
            told: Some(Instant::now()),
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(first_seq: u64, last_seq: u64, bytes: u64) -> StreamState {
        StreamState {
            messages: last_seq + 1 - first_seq,
            bytes,
            first_seq,
            last_seq,
            subjects: None,
        }
    }

    #[test]
    fn only_what_a_limit_takes_away_counts_as_dropped() {
        let config = ServerStream {
            discard: DiscardPolicy::Old,
            max_bytes: 1_000,
            max_age: Duration::from_secs(3_600),
            ..ServerStream::default()
        };
        #[track_caller]
        fn check(config: &ServerStream, age: Duration, now: &StreamState, expected: u64) {
            let last = Look {
                state: state(1, 10, 950),
                oldest: Some(Oldest {
                    subject: "outbound.t".to_owned(),
                    stored: SystemClock.now() - age,
                }),
            };
            assert_eq!(gone(&last, now, config), expected, "{now:?} after {age:?}");
        }
        let (young, old) = (Duration::from_secs(1), Duration::from_secs(3_601));
        check(&config, young, &state(1, 10, 950), 0);
        check(&config, young, &state(4, 13, 960), 3);
        check(&config, old, &state(4, 13, 960), 0);
        // Purged; then made anew.
        check(&config, young, &state(10, 10, 90), 0);
        check(&config, young, &state(1, 3, 960), 0);
        assert!(drops(&config));
        let new = ServerStream {
            discard: DiscardPolicy::New,
            ..config
        };
        assert!(!drops(&new));
        assert!(!drops(&ServerStream::default()));
    }
}
