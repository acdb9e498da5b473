//! The account that `benches/wire` keeps: a figure must not count when a reply was lost, doubled or wrong.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    dead_code,
    reason = "a test fails by panicking; the bench uses what this does not"
)]

#[path = "../benches/wire/ledger.rs"]
mod ledger;
#[path = "../benches/wire/talk.rs"]
mod talk;

use async_nats::{HeaderMap, Message};
use greentic_worker::model::header;
use ledger::{Faults, Ledger};
use talk::{Talk, TurnId};

/// The two turns of one conversation.
const TURNS: [TurnId; 2] = [
    TurnId {
        conversation: 7,
        turn: 0,
    },
    TurnId {
        conversation: 7,
        turn: 1,
    },
];

fn talk() -> Talk {
    Talk::with(["t".to_owned()])
}

/// A reply, `n`th of its turn, on this subject.
fn reply(talk: &Talk, id: TurnId, n: usize, subject: &str, text: &str) -> Message {
    let asked = talk.letter(id, None);
    let key = asked.headers.get(header::IDEMPOTENCY_KEY).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(header::IN_REPLY_TO, key.as_str());
    headers.insert(header::MSG_ID, format!("t:{key}:{n}"));
    Message {
        subject: subject.into(),
        reply: None,
        payload: format!(r#"{{"text":"{text}"}}"#).into(),
        headers: Some(headers),
        status: None,
        description: None,
        length: 0,
    }
}

fn right(talk: &Talk, id: TurnId) -> Message {
    reply(talk, id, 0, "outbound.t", &talk.expected(id))
}

#[track_caller]
fn check(heard: impl FnOnce(&Talk) -> Vec<Message>, expected: [u64; 3]) {
    let talk = talk();
    let mut ledger = Ledger::of(&talk);
    for message in heard(&talk) {
        ledger.enter(&message);
    }
    let [lost, doubled, wrong] = expected;
    let faults = Faults {
        lost,
        doubled,
        wrong,
    };
    assert_eq!(ledger.close(TURNS.len() as u64), faults);
}

#[test]
fn every_reply_must_come_once_and_say_what_it_has_to() {
    let both = |talk: &Talk| TURNS.map(|id| right(talk, id)).to_vec();
    check(both, [0, 0, 0]);
    check(|talk| vec![right(talk, TURNS[1])], [1, 0, 0]);
    check(
        |talk| [both(talk), vec![right(talk, TURNS[0])]].concat(),
        [0, 1, 0],
    );
    // The answer to the other turn; of another conversation; a second reply where one is due; a dead letter.
    let other = |talk: &Talk, subject: &str, n, text: &str| {
        vec![
            right(talk, TURNS[0]),
            reply(talk, TURNS[1], n, subject, text),
        ]
    };
    check(
        |talk| other(talk, "outbound.t", 0, &talk.expected(TURNS[0])),
        [1, 0, 1],
    );
    let stranger = TurnId {
        conversation: 8,
        turn: 1,
    };
    check(
        |talk| other(talk, "outbound.t", 0, &talk.expected(stranger)),
        [1, 0, 1],
    );
    check(
        |talk| other(talk, "outbound.t", 1, &talk.expected(TURNS[1])),
        [1, 0, 1],
    );
    check(
        |talk| other(talk, "deadletter.t", 0, &talk.expected(TURNS[1])),
        [1, 0, 1],
    );
}

#[test]
fn replies_to_another_bench_are_wrong() {
    check(|_| TURNS.map(|id| right(&talk(), id)).to_vec(), [2, 0, 2]);
}

#[test]
fn a_turn_of_several_replies_is_answered_by_all_of_them() {
    let talk = talk().answered_by(2);
    let mut ledger = Ledger::of(&talk);
    let [id, _] = TURNS;
    assert_eq!(
        ledger.enter(&reply(&talk, id, 0, "outbound.t", "first")),
        None
    );
    let last = reply(&talk, id, 1, "outbound.t", &talk.expected(id));
    assert_eq!(ledger.enter(&last), Some(id));
    assert_eq!(ledger.close(1), Faults::default());
    assert_eq!(ledger.close(2).lost, 1);
}

#[test]
fn a_body_has_the_size_that_is_asked_for() {
    for bytes in [200, 600, 601, 602, 603, 604, 605, 262_144] {
        let letter = talk()
            .of_bytes(bytes)
            .letter(TURNS[0], Some(&"c".repeat(36)));
        assert_eq!(letter.body.len(), bytes);
        let body: serde_json::Value = serde_json::from_slice(&letter.body).unwrap();
        assert!(body["text"].as_str().unwrap().starts_with("bench"));
    }
}
