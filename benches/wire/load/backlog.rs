//! Backlog: everything was sent while nobody listened, and is now worked off.

use async_nats::{Client, jetstream};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::{Heard, Line, heard, histogram};
use crate::ledger::Ledger;
use crate::talk::{TURNS, Talk, TurnId};

/// How many publishes may wait for their acknowledgement.
const UNACKNOWLEDGED: usize = 512;

/// Publishes so many messages, and returns when the stream holds all of them: of conversations from this one on, first all
/// that begin them and then, if `to_the_end`, all that end them.
pub async fn pile_up(
    client: Client,
    talk: &Talk,
    conversations: std::ops::Range<usize>,
    to_the_end: bool,
) {
    let jetstream = jetstream::new(client);
    let turns = 0..if to_the_end { TURNS } else { 1 };
    let ids = turns.flat_map(|turn| {
        conversations
            .clone()
            .map(move |conversation| TurnId { conversation, turn })
    });
    let storing = futures_util::stream::iter(ids).map(async |id| {
        let letter = talk.letter(id, None);
        let stored = jetstream.publish_with_headers(letter.subject, letter.headers, letter.body);
        let stored = stored.await.expect("NATS is there");
        stored.await.expect("the stream has it");
    });
    storing.buffer_unordered(UNACKNOWLEDGED).count().await;
}

/// Hears so many turns answered; the time counts from the first one to the last one.
pub async fn drain(line: &mut Line, talk: &Talk, turns: u64) -> Heard {
    let mut ledger = Ledger::of(talk);
    let (mut first, mut last) = (None, Instant::now());
    line.be_patient();
    while ledger.answered < turns {
        let Some(message) = line.next().await else {
            break;
        };
        ledger.enter(&message);
        last = Instant::now();
        first.get_or_insert(last);
    }
    line.aftermath(&mut ledger).await;
    let took = last - first.unwrap_or(last);
    let after_the_first = ledger.answered.saturating_sub(1);
    heard(&ledger, turns, (after_the_first, took), histogram())
}
