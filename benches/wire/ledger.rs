//! The account of what was sent and heard. A figure counts only if every reply came once and said what it had to.

use async_nats::Message;
use greentic_worker::model::header;
use serde::Serialize;

use crate::talk::{TURNS, Talk, TurnId};

/// More conversations than any bench holds; a number beyond is not one of ours.
const MOST: usize = 1 << 26;

/// What went wrong, as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Turns that were never answered in full.
    pub lost: u64,
    /// Replies that came again.
    pub doubled: u64,
    /// Replies that say something else than they must, and dead letters.
    pub wrong: u64,
}

impl Faults {
    /// Whether nothing went wrong.
    pub fn none(self) -> bool {
        self == Self::default()
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            wrong: self.wrong + other.wrong,
        }
    }
}

/// The account of one bench.
pub struct Ledger {
    talk: Talk,
    /// Of each turn, which of its replies came, as bits.
    heard: Vec<[u64; TURNS]>,
    all: u64,
    /// Turns answered in full.
    pub answered: u64,
    /// Replies that were right, and the bytes of their bodies.
    pub replies: u64,
    pub reply_bytes: u64,
    faults: Faults,
}

impl Ledger {
    /// An empty account.
    pub fn of(talk: &Talk) -> Self {
        let replies = talk.replies;
        assert!((1..=64).contains(&replies), "{replies} replies to a turn");
        Self {
            talk: talk.clone(),
            heard: Vec::new(),
            all: u64::MAX >> (64 - replies),
            answered: 0,
            replies: 0,
            reply_bytes: 0,
            faults: Faults::default(),
        }
    }

    /// Enters a message; the turn, if its answer is complete with it.
    pub fn enter(&mut self, message: &Message) -> Option<TurnId> {
        let Some((id, reply)) = self.read(message) else {
            if self.faults.wrong == 0 {
                eprintln!("a message that is no right reply: {message:?}");
            }
            self.faults.wrong += 1;
            return None;
        };
        if self.heard.len() <= id.conversation {
            self.heard.resize(id.conversation + 1, [0; TURNS]);
        }
        let heard = &mut self.heard[id.conversation][id.turn];
        if *heard & (1 << reply) != 0 {
            self.faults.doubled += 1;
            return None;
        }
        *heard |= 1 << reply;
        self.replies += 1;
        self.reply_bytes += message.payload.len() as u64;
        if *heard != self.all {
            return None;
        }
        self.answered += 1;
        Some(id)
    }

    /// The turn that a message answers and which of its replies it is, if all of it is right.
    fn read(&self, message: &Message) -> Option<(TurnId, u32)> {
        let headers = message.headers.as_ref()?;
        let id = self
            .talk
            .turn_of(headers.get(header::IN_REPLY_TO)?.as_str())?;
        let (_, reply) = headers.get(header::MSG_ID)?.as_str().rsplit_once(':')?;
        let reply: u32 = reply.parse().ok()?;
        let known = id.conversation < MOST && (reply as usize) < self.talk.replies;
        let text = std::str::from_utf8(&message.payload).ok()?;
        let last = reply as usize + 1 == self.talk.replies;
        let right = !last || text.contains(&self.talk.expected(id));
        let outbound = message.subject.starts_with("outbound.");
        (known && right && outbound).then_some((id, reply))
    }

    /// Closes the account over so many turns that were sent.
    pub fn close(&self, sent: u64) -> Faults {
        Faults {
            lost: sent.saturating_sub(self.answered),
            ..self.faults
        }
    }
}
