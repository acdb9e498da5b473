//! Notes that outboxes are published, those of many turns in one call: by itself each would be a third trip of its turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::applied::PublishedRecord;
use super::link::{Link, store_error};
use crate::ports::StoreError;

/// The most notes in one call.
const MAX_BATCH: usize = 512;

/// The pause before notes that were refused are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The most refused notes that are kept. There are no more than turns under way when their tenants' refusals begin.
const MAX_REFUSED: usize = 4096;

/// Writes notes, the next ones as soon as those before them are written. Ends when it is dropped.
pub struct Notes(mpsc::UnboundedSender<Note>);

/// A record to shrink, and whoever waits for that.
struct Note {
    applied: String,
    record: PublishedRecord,
    written: oneshot::Sender<RedisResult<()>>,
}

impl Notes {
    /// Starts writing on this connection. Must be called inside tokio.
    pub fn new(link: Arc<Link>) -> Self {
        // As many can be in it as there are turns, each of which waits for its own.
        let (notes, queue) = mpsc::unbounded_channel();
        tokio::spawn(write(link, queue));
        Self(notes)
    }

    /// Shrinks the record of an applied activity to a marker, and waits until that is done. If it is refused, it is tried again
    /// besides: the message comes back only when its tenant is tried again, and by then the stream may have forgotten the
    /// replies.
    pub async fn write(&self, applied: String, record: PublishedRecord) -> RedisResult<()> {
        let (written, done) = oneshot::channel();
        let ended = || (ErrorKind::Io, "nothing writes notes any more").into();
        let note = Note {
            applied,
            record,
            written,
        };
        self.0.send(note).map_err(|_| ended())?;
        done.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn write(link: Arc<Link>, mut queue: mpsc::UnboundedReceiver<Note>) {
    let mut notes = Vec::new();
    let mut refused = BTreeMap::new();
    let mut again = Instant::now();
    loop {
        tokio::select! {
            taken = queue.recv_many(&mut notes, MAX_BATCH) => if taken == 0 { return },
            () = sleep_until(again), if !refused.is_empty() => {
                try_again(&link, &mut refused).await;
                again = Instant::now() + AGAIN;
                continue;
            }
        }
        let all = notes.iter().map(|note| (&note.applied, &note.record));
        let answers = write_all(&link, all).await;
        for (note, answer) in notes.drain(..).zip(answers) {
            if is_refused(&answer) && refused.len() < MAX_REFUSED {
                if refused.is_empty() {
                    again = Instant::now() + AGAIN;
                }
                refused.insert(note.applied, note.record);
            }
            // Whoever does not wait any more needs no answer.
            let _gone = note.written.send(answer);
        }
    }
}

/// Tries refused notes again. Those that are refused once more, or get no answer, stay.
async fn try_again(link: &Link, refused: &mut BTreeMap<String, PublishedRecord>) {
    let answers = write_all(link, refused.iter().take(MAX_BATCH)).await;
    let tried: Vec<String> = refused.keys().take(MAX_BATCH).cloned().collect();
    for (applied, answer) in tried.iter().zip(answers) {
        let stays = matches!(
            answer.map_err(store_error),
            Err(StoreError::Refused(_) | StoreError::Unavailable(_))
        );
        if !stays {
            refused.remove(applied);
        }
    }
}

/// Writes notes in one call. Each has an answer of its own: what is refused to one tenant is not refused to the others.
async fn write_all<'a>(
    link: &Link,
    all: impl Iterator<Item = (&'a String, &'a PublishedRecord)>,
) -> Vec<RedisResult<()>> {
    let mut calls = Pipeline::with_capacity(all.size_hint().0);
    let mut len = 0;
    for (applied, record) in all {
        // XX and KEEPTTL: a record that has expired stays away, one that is there expires when it would have.
        let mut call = Cmd::with_capacity(5, applied.len() + 32);
        call.arg("SET").arg(applied).arg(&record[..]);
        call.arg("XX").arg("KEEPTTL");
        calls.add_command(call);
        len += 1;
    }
    match link.query_each(&mut calls).await {
        Ok(answers) => answers,
        Err(error) => vec![Err(error); len],
    }
}

fn is_refused(answer: &RedisResult<()>) -> bool {
    let refused = |error: &RedisError| matches!(store_error(error.clone()), StoreError::Refused(_));
    answer.as_ref().is_err_and(refused)
}
