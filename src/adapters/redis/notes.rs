//! Notes that outboxes are published, those of many turns in one call: by itself each would be a third trip of its turn.

use std::sync::Arc;

use redis::{Cmd, ErrorKind, Pipeline, RedisResult};
use tokio::sync::{mpsc, oneshot};

use super::applied::PublishedRecord;
use super::link::Link;

/// The most notes in one call.
const MAX_BATCH: usize = 512;

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

    /// Shrinks the record of an applied activity to a marker, and waits until that is done.
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
    while queue.recv_many(&mut notes, MAX_BATCH).await > 0 {
        let mut calls = Pipeline::with_capacity(notes.len());
        for note in &notes {
            // XX and KEEPTTL: a record that has expired stays away, one that is there expires when it would have.
            let mut call = Cmd::with_capacity(5, note.applied.len() + 32);
            call.arg("SET").arg(&note.applied).arg(&note.record[..]);
            call.arg("XX").arg("KEEPTTL");
            calls.add_command(call).ignore();
        }
        let written = link.query_all::<()>(&calls).await;
        for note in notes.drain(..) {
            // Whoever does not wait any more needs no answer.
            let _gone = note.written.send(written.clone());
        }
    }
}
