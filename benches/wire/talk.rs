//! What is said in a bench: conversations of two turns, numbered, so that each message tells what its reply must say.

use async_nats::HeaderMap;
use bytes::Bytes;
use greentic_worker::model::header;

/// The turns of a conversation.
pub const TURNS: usize = 2;

/// The bodies that a bench sends unless it is about their size.
pub const BODY_BYTES: usize = 600;

/// How the replies to the two turns begin; the conversation's name follows.
const OPENINGS: [&str; TURNS] = ["ask ", "done "];

/// The two turns' places in a message that is ready to be sent.
pub struct Letter {
    /// Where to publish it.
    pub subject: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// One turn of one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnId {
    /// The conversation's number.
    pub conversation: usize,
    /// 0 or 1.
    pub turn: usize,
}

/// Who talks, to whom, and how much.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Sets this bench's ids apart from those of another one on the same servers.
    run: String,
    tenants: Vec<String>,
    /// Packs that conversations name in their first message; none names none.
    packs: Vec<String>,
    body_bytes: usize,
    /// How many replies there are to each turn.
    pub replies: usize,
}

impl Talk {
    /// Conversations that are spread over these tenants.
    pub fn with(tenants: impl IntoIterator<Item = String>) -> Self {
        Self {
            run: format!("{:08x}", fastrand::u32(..)),
            tenants: tenants.into_iter().collect(),
            packs: Vec::new(),
            body_bytes: BODY_BYTES,
            replies: 1,
        }
    }

    /// Each conversation names one of these packs.
    pub fn naming(self, packs: Vec<String>) -> Self {
        Self { packs, ..self }
    }

    /// Bodies of this size.
    pub fn of_bytes(self, body_bytes: usize) -> Self {
        Self { body_bytes, ..self }
    }

    /// Turns that are answered by so many replies.
    pub fn answered_by(self, replies: usize) -> Self {
        Self { replies, ..self }
    }

    /// The message of a turn, with the correlation id that the first reply brought, where it is known.
    pub fn letter(&self, id: TurnId, correlation: Option<&str>) -> Letter {
        let (key, name) = (self.key(id), self.name(id.conversation));
        let mut headers = HeaderMap::new();
        headers.insert(header::IDEMPOTENCY_KEY, key.as_str());
        let packs = self.packs.len().max(1);
        if let Some(pack) = self.packs.get(id.conversation % packs)
            && id.turn == 0
        {
            headers.insert(header::PACK_ID, pack.as_str());
        }
        let tenant = &self.tenants[id.conversation % self.tenants.len()];
        Letter {
            subject: format!("inbound.{tenant}"),
            headers,
            body: self.body(&key, &name, correlation).into(),
        }
    }

    fn body(&self, key: &str, name: &str, correlation: Option<&str>) -> String {
        let echo = correlation.map_or(String::new(), |id| format!(r#","correlation":"{id}""#));
        let mut body = format!(
            r#"{{"id":"{key}","channel":"bench","from":{{"id":"{name}"}},"reply_scope":{{"conversation":"{name}"{echo}}},"text":""#
        );
        let padding = self.body_bytes.saturating_sub(body.len() + 2);
        body.extend(std::iter::repeat_n("bench ", padding / 6 + 1));
        body.truncate(body.len() - (6 - padding % 6));
        body.push_str(r#""}"#);
        body
    }

    /// The idempotency key of a turn.
    fn key(&self, id: TurnId) -> String {
        format!("{}-{}-{}", self.run, id.conversation, id.turn)
    }

    /// The name of a conversation, and of its user.
    fn name(&self, conversation: usize) -> String {
        format!("{}-{conversation}", self.run)
    }

    /// The turn that a reply answers, by the key that it carries; none if that is not of this bench.
    pub fn turn_of(&self, key: &str) -> Option<TurnId> {
        let rest = key.strip_prefix(&self.run)?.strip_prefix('-')?;
        let (conversation, turn) = rest.split_once('-')?;
        let id = TurnId {
            conversation: conversation.parse().ok()?,
            turn: turn.parse().ok()?,
        };
        (id.turn < TURNS).then_some(id)
    }

    /// What the replies to a turn say somewhere.
    pub fn expected(&self, id: TurnId) -> String {
        says(id.turn, &self.name(id.conversation))
    }
}

/// What the reply to a turn says.
pub fn says(turn: usize, name: &str) -> String {
    format!("{}{name}:", OPENINGS[turn])
}
