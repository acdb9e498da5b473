//! Closed loop: so many conversations at once, and in each the next message only after the reply.

use std::time::Duration;

use greentic_worker::model::header;
use tokio::time::Instant;

use super::{Heard, Line, heard, histogram, record};
use crate::ledger::Ledger;
use crate::talk::{TURNS, Talk, TurnId};

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// Conversations at once.
    pub conversations: usize,
    /// How long before it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub measured: Duration,
}

/// What one of the conversations at once is at.
#[derive(Clone, Copy)]
struct Place {
    id: TurnId,
    sent: Instant,
}

/// Holds conversations one after the other in each place until the time is over, and each to its end.
pub async fn closed(line: &mut Line, talk: &Talk, plan: Closed) -> Heard {
    let mut ledger = Ledger::of(talk);
    let began = Instant::now();
    let counts = began + plan.warm_up..began + plan.warm_up + plan.measured;
    let mut places = Vec::with_capacity(plan.conversations);
    for conversation in 0..plan.conversations {
        let id = TurnId {
            conversation,
            turn: 0,
        };
        places.push(Place {
            id,
            sent: Instant::now(),
        });
        line.send(talk, id, None).await;
    }
    let (mut sent, mut open) = (plan.conversations as u64, plan.conversations);
    let (mut turns, mut latency) = (0, histogram());
    line.be_patient();
    while open > 0 {
        let Some(message) = line.next().await else {
            break;
        };
        let Some(id) = ledger.enter(&message) else {
            continue;
        };
        let now = Instant::now();
        // A conversation's number says in which place it is held.
        let place = &mut places[id.conversation % plan.conversations];
        if counts.contains(&now) {
            turns += 1;
            record(&mut latency, now - place.sent);
        }
        let Some(next) = next(id, plan.conversations, now < counts.end) else {
            open -= 1;
            continue;
        };
        *place = Place {
            id: next,
            sent: now,
        };
        sent += 1;
        let headers = message.headers.as_ref();
        let echo = headers.and_then(|headers| headers.get(header::CORRELATION_ID));
        let echo = echo.filter(|_| place.id.turn > 0);
        line.send(talk, next, echo.map(async_nats::HeaderValue::as_str))
            .await;
    }
    line.aftermath(&mut ledger).await;
    heard(&ledger, sent, (turns, plan.measured), latency)
}

/// The turn after this one: in the same conversation, or the first of the place's next one.
fn next(id: TurnId, places: usize, go_on: bool) -> Option<TurnId> {
    let turn = id.turn + 1;
    if turn < TURNS {
        return Some(TurnId { turn, ..id });
    }
    go_on.then_some(TurnId {
        conversation: id.conversation + places,
        turn: 0,
    })
}
