//! What was said and what came back, with times and places in the streams.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream;
use greentic_worker::model::header;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

use crate::refusal::Refusal;

/// A conversation's place: the tenant's number and the conversation's name.
pub type Place = (usize, String);

/// A message that a provider has sent.
#[derive(Clone, Debug)]
pub struct Said {
    /// Where.
    pub place: Place,
    /// What the worker knows it by.
    pub key: String,
    /// Its text.
    pub text: String,
    /// The correlation id that it echoes.
    pub correlation: Option<String>,
    /// Whether it asks for a new run of the flow by name.
    pub starts: bool,
    /// When it was sent first, since the run began.
    pub at: Duration,
    /// Where the inbound stream has it: once for each time that it was published and acknowledged.
    pub sequences: Vec<u64>,
}

/// A message of the outbound or of the dead letter stream.
#[derive(Clone, Debug)]
pub struct Stored {
    pub place: Place,
    pub sequence: u64,
    /// When it was read.
    pub at: Duration,
    pub msg_id: String,
    /// The key of the message that it answers; of a dead letter, its own.
    pub key: String,
    pub text: String,
    pub correlation: Option<String>,
    /// Why it is dead, if it is a dead letter.
    pub dead: Option<String>,
}

/// The header of messages that only make a subject full.
pub const FILLER: &str = "Chaos-Filler";

/// A time in which a refusal was all that was wrong.
#[derive(Clone, Debug)]
pub struct Window {
    pub refusal: Refusal,
    /// The conversations that should have gone on and did not.
    pub stood_still: Vec<Place>,
    /// How many conversations it spared.
    pub went_on: usize,
    /// How long it took until the last of them had gone on.
    pub within: Duration,
    /// The positions in the outbound stream that were taken meanwhile.
    pub replies: Range<u64>,
    /// How many replies the refused tenant may have there; none where it stops none on their way.
    pub lets_through: Option<u64>,
}

/// Everything that happened.
#[derive(Default)]
pub struct Record {
    began: Mutex<Option<Instant>>,
    notes: Mutex<Vec<(Duration, String)>>,
    said: Mutex<Vec<Said>>,
    stored: Mutex<Vec<Arc<Stored>>>,
    windows: Mutex<Vec<Window>>,
    fillers: AtomicU64,
    listeners: Mutex<HashMap<Place, UnboundedSender<Arc<Stored>>>>,
}

impl Record {
    /// How long the run has lasted.
    pub fn now(&self) -> Duration {
        let mut began = lock(&self.began);
        began.get_or_insert_with(Instant::now).elapsed()
    }

    /// Notes something for the transcripts, and shows it.
    pub fn note(&self, what: String) {
        let now = self.now();
        println!("{:7.2} s  {what}", now.as_secs_f64());
        lock(&self.notes).push((now, what));
    }

    /// Notes a message that is about to be sent; its number.
    pub fn say(&self, said: Said) -> usize {
        let mut all = lock(&self.said);
        all.push(said);
        all.len() - 1
    }

    /// A message that was sent.
    pub fn said_at(&self, said: usize) -> Said {
        lock(&self.said)[said].clone()
    }

    /// Notes that a message was acknowledged once more.
    pub fn acknowledged(&self, said: usize, sequence: u64) {
        lock(&self.said)[said].sequences.push(sequence);
    }

    /// Hands what is stored for this place to a conversation as well.
    pub fn listen(&self, place: Place, listener: UnboundedSender<Arc<Stored>>) {
        lock(&self.listeners).insert(place, listener);
    }

    /// The conversations that are held.
    pub fn places(&self) -> Vec<Place> {
        lock(&self.listeners).keys().cloned().collect()
    }

    /// The conversations in which something was said since then and has both of its replies.
    pub fn answered_since(&self, then: Duration) -> HashSet<Place> {
        let mut replies: HashMap<(usize, String), usize> = HashMap::new();
        let stored = lock(&self.stored);
        for stored in stored.iter().rev().take_while(|stored| stored.at >= then) {
            let key = (stored.place.0, stored.key.clone());
            *replies.entry(key).or_default() += usize::from(stored.dead.is_none());
        }
        drop(stored);
        let said = lock(&self.said);
        let since = said.iter().rev().take_while(|said| said.at >= then);
        let answered = since.filter(|said| {
            let key = (said.place.0, said.key.clone());
            replies.get(&key).is_some_and(|replies| *replies >= 2)
        });
        answered.map(|said| said.place.clone()).collect()
    }

    /// Notes what was beside a refusal.
    pub fn beside(&self, window: Window) {
        lock(&self.windows).push(window);
    }

    /// All times in which a refusal was all that was wrong.
    pub fn windows(&self) -> Vec<Window> {
        lock(&self.windows).clone()
    }

    /// How many messages were read from the streams.
    pub fn read(&self) -> u64 {
        lock(&self.stored).len() as u64 + self.fillers.load(Ordering::SeqCst)
    }

    /// All messages that were sent.
    pub fn said(&self) -> Vec<Said> {
        lock(&self.said).clone()
    }

    /// All messages that were found in the streams.
    pub fn stored(&self) -> Vec<Arc<Stored>> {
        lock(&self.stored).clone()
    }

    fn store(&self, stored: Stored) {
        let stored = Arc::new(stored);
        lock(&self.stored).push(Arc::clone(&stored));
        if let Some(listener) = lock(&self.listeners).get(&stored.place) {
            // A conversation that is over listens no more.
            let _over = listener.send(stored);
        }
    }

    /// What happened in one conversation, in the order of time, with the faults between.
    pub fn transcript(&self, place: &Place) -> String {
        let mut lines: Vec<(Duration, String)> = lock(&self.notes)
            .iter()
            .map(|(at, note)| (*at, format!("      -- {note}")))
            .collect();
        for said in self.said().iter().filter(|said| said.place == *place) {
            let Said {
                key,
                text,
                sequences,
                correlation,
                starts,
                ..
            } = said;
            let correlation = correlation.as_deref().unwrap_or("-");
            let starts = if *starts { ", starts a run" } else { "" };
            let line =
                format!("  > {key} {text:?} inbound {sequences:?}, echoes {correlation}{starts}");
            lines.push((said.at, line));
        }
        for stored in self.stored().iter().filter(|stored| stored.place == *place) {
            let Stored {
                sequence,
                key,
                text,
                correlation,
                msg_id,
                dead,
                ..
            } = &**stored;
            let correlation = correlation.as_deref().unwrap_or("-");
            let line = match dead {
                Some(code) => format!("  x {key} dead letter {sequence}: {code}"),
                None => format!(
                    "  < {key} {text:?} outbound {sequence}, {msg_id}, correlation {correlation}"
                ),
            };
            lines.push((stored.at, line));
        }
        lines.sort();
        let first = lines
            .iter()
            .position(|(_, line)| !line.contains("--"))
            .unwrap_or(0);
        let lines = lines[first..].iter();
        let lines: Vec<String> = lines
            .map(|(at, line)| format!("{:7.2} s {line}", at.as_secs_f64()))
            .collect();
        lines.join("\n")
    }
}

/// Reads a stream message by message from its beginning, for ever: whatever is in it is seen once and in order, however
/// often the server goes away meanwhile.
pub async fn read(
    record: Arc<Record>,
    jetstream: jetstream::Context,
    stream: &'static str,
    tenants: Vec<String>,
) {
    let mut next = 1;
    loop {
        let Ok(stream) = jetstream.get_stream(stream).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        while let Ok(message) = stream.get_raw_message(next).await {
            next += 1;
            if message.headers.get(FILLER).is_some() {
                record.fillers.fetch_add(1, Ordering::SeqCst);
            } else {
                record.store(stored(&record, &message, &tenants));
            }
        }
        sleep(Duration::from_millis(15)).await;
    }
}

fn stored(
    record: &Record,
    message: &jetstream::message::StreamMessage,
    tenants: &[String],
) -> Stored {
    let header = |name| {
        message
            .headers
            .get(name)
            .map(|value| value.as_str().to_owned())
    };
    let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
    let tenant = message.subject.split_once('.').map(|(_, tenant)| tenant);
    let tenant = tenants
        .iter()
        .position(|known| Some(known.as_str()) == tenant);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let dead = header(header::ERROR_CODE);
    let key = if dead.is_some() {
        header(header::IDEMPOTENCY_KEY).unwrap_or_else(|| text(&body["id"]))
    } else {
        header(header::IN_REPLY_TO).unwrap_or_default()
    };
    Stored {
        place: (
            tenant.unwrap_or(usize::MAX),
            text(&body["reply_scope"]["conversation"]),
        ),
        sequence: message.sequence,
        at: record.now(),
        msg_id: header(header::MSG_ID).unwrap_or_default(),
        key,
        text: text(&body["text"]),
        correlation: header(header::CORRELATION_ID),
        dead,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
