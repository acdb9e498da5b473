//! Streams as they are: their limits, how much they hold, and which limit it is that they refuse a message for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::{Config as ServerStream, DiscardPolicy};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tracing::{error, info};

use super::fault::Fault;
use super::names::StreamName;
use super::topology::Topology;

/// The answer to requests about a stream or consumer, of which mostly the configuration matters here.
#[derive(Deserialize)]
pub(super) struct Described<C> {
    pub(super) config: C,
    #[serde(default)]
    pub(super) state: StreamState,
}

/// What a stream holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct StreamState {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    /// How many messages of each subject that was asked about; missing where there are none.
    pub(super) subjects: Option<HashMap<String, u64>>,
}

/// What is known of a stream since it was last looked at.
pub(super) struct KnownStream {
    /// The largest message that it takes.
    largest: AtomicUsize,
    /// It carries the mark of another environment.
    is_others: AtomicBool,
    /// For how long it recognises duplicates, in milliseconds.
    window: AtomicU64,
    /// The age at which it drops messages, in milliseconds; 0 for never.
    max_age: AtomicU64,
    /// When this worker made it last.
    made: Mutex<Option<Instant>>,
}

/// The durations of a stream that exists.
#[derive(Clone, Debug)]
pub struct StreamWindows {
    /// Which one it is.
    pub stream: StreamName,
    /// Its name.
    pub name: String,
    /// For how long it recognises duplicates.
    pub duplicate_window: Duration,
    /// The age at which it drops messages.
    pub max_age: Option<Duration>,
}

/// Nothing panics while it is held.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for KnownStream {
    fn default() -> Self {
        Self {
            largest: AtomicUsize::new(usize::MAX),
            is_others: AtomicBool::new(false),
            window: AtomicU64::new(0),
            max_age: AtomicU64::new(0),
            made: Mutex::default(),
        }
    }
}

impl Topology {
    /// The largest message that a stream takes, headers included, as far as that is known.
    pub(super) fn largest(&self, stream: StreamName) -> usize {
        self.known(stream).largest.load(Ordering::Relaxed)
    }

    /// The durations of the streams, as far as they were looked at.
    pub(super) fn windows(&self) -> Vec<StreamWindows> {
        let of_stream = |stream| {
            let known = self.known(stream);
            let read = |millis: &AtomicU64| Duration::from_millis(millis.load(Ordering::Relaxed));
            StreamWindows {
                stream,
                name: self.link.names.stream(stream),
                duplicate_window: read(&known.window),
                max_age: Some(read(&known.max_age)).filter(|age| !age.is_zero()),
            }
        };
        StreamName::ALL.map(of_stream).into()
    }

    /// Notes that this worker has made a stream.
    pub(super) fn note_made(&self, stream: StreamName) {
        let mut made = locked(&self.known(stream).made);
        *made = Some(Instant::now());
    }

    /// Returns whether this worker has made a stream since then.
    pub(super) fn made_since(&self, stream: StreamName, since: Instant) -> bool {
        locked(&self.known(stream).made).is_some_and(|made| made >= since)
    }

    /// For how long a stream recognises duplicates; none before it was looked at.
    pub(super) fn window(&self, stream: StreamName) -> Option<Duration> {
        let millis = self.known(stream).window.load(Ordering::Relaxed);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// Fails if a stream is known to be another environment's, and still is.
    pub(super) async fn check_owner(&self, stream: StreamName) -> Result<(), Fault> {
        if self.known(stream).is_others.load(Ordering::Relaxed) {
            let _made = Box::pin(self.repair_stream(stream)).await?;
        }
        Ok(())
    }

    fn known(&self, stream: StreamName) -> &KnownStream {
        let [inbound, outbound, dead_letter] = &self.known;
        match stream {
            StreamName::Inbound => inbound,
            StreamName::Outbound => outbound,
            StreamName::DeadLetter => dead_letter,
        }
    }

    /// A stream as it is, with how much it holds of these subjects if any are given.
    pub(super) async fn look_at(
        &self,
        stream: StreamName,
        subjects: Option<&str>,
    ) -> Result<(ServerStream, StreamState), Fault> {
        let method = format!("STREAM.INFO.{}", self.link.names.stream(stream));
        let order = match subjects {
            Some(filter) => json!({ "subjects_filter": filter }),
            None => json!({}),
        };
        let found: Described<ServerStream> = self.link.api(&method, &order).await?;
        self.remember(stream, &found.config);
        Ok((found.config, found.state))
    }

    pub(super) fn remember(&self, stream: StreamName, found: &ServerStream) {
        let limit = usize::try_from(found.max_message_size).ok();
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let known = self.known(stream);
        known.largest.store(limit, Ordering::Relaxed);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (window, max_age) = (found.duplicate_window, found.max_age);
        known.window.store(millis(window), Ordering::Relaxed);
        known.max_age.store(millis(max_age), Ordering::Relaxed);
        let owned = self.check_mark(stream, found);
        let was_others = known.is_others.swap(owned.is_err(), Ordering::Relaxed);
        match owned {
            Err(fault) if !was_others => error!("{fault}"),
            Ok(()) if was_others => info!(stream = found.name, "the stream is this environment's"),
            Err(_) | Ok(()) => {}
        }
    }

    /// What a stream means that says it has not stored a message: which of its limits is reached. The refusal itself has one
    /// code for all of them.
    pub(super) async fn explain(&self, stream: StreamName, subject: &str, fault: Fault) -> Fault {
        let Ok((config, state)) = self.look_at(stream, Some(subject)).await else {
            return fault;
        };
        let reached =
            |limit: i64, has: u64| limit > 0 && i64::try_from(has).is_ok_and(|has| has >= limit);
        let of_subject = state.subjects.unwrap_or_default();
        let of_subject = of_subject.get(subject).copied().unwrap_or_default();
        let full = |limit, of_subject| Fault::Full {
            what: subject.to_owned(),
            limit,
            of_subject,
        };
        if config.discard != DiscardPolicy::New {
            fault
        } else if reached(config.max_messages_per_subject, of_subject) {
            full("max_msgs_per_subject", true)
        } else if reached(config.max_messages, state.messages) {
            full("max_msgs", false)
        } else if config.max_bytes > 0 {
            full("max_bytes", false)
        } else {
            fault
        }
    }
}
