//! A provider in the terminal: one user who types, and what the flows answer.

mod embedded;
mod remote;
mod transcript;

use std::io;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use crate::model::{Headers, TenantId, header};
use crate::ports::NewId;

pub use embedded::Embedded;
pub use remote::{Remote, RemoteError};
use transcript::Transcript;

/// Who talks, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose flows to talk to.
    pub tenant: TenantId,
    /// The user's id.
    pub user: String,
    /// The conversation's id; a new one if none is given.
    pub conversation: Option<String>,
    /// The pack and flow to begin with, as the headers take them.
    pub start: Headers,
    /// Whether lines are shown as they are read, because nobody typed them.
    pub echo: bool,
    /// How long to wait for the first reply to a line.
    pub patience: Duration,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Received {
    /// The headers.
    pub headers: Headers,
    /// The body.
    pub body: Value,
    /// Whether the message was put aside instead of answered.
    pub dead_letter: bool,
}

impl Received {
    fn answers(&self, key: &str) -> bool {
        let named = if self.dead_letter {
            header::IDEMPOTENCY_KEY
        } else {
            header::IN_REPLY_TO
        };
        self.headers.get(named) == Some(key)
    }

    fn expects_reply(&self) -> bool {
        self.headers.get(header::EXPECTS_REPLY) == Some("true")
    }
}

/// The way to the flows and back.
pub trait Link {
    /// Why the way is closed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Sends one activity.
    fn send(
        &mut self,
        headers: Headers,
        body: Value,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// The next message that comes back, or none once the turn is known to be over or `patience` is.
    fn receive(
        &mut self,
        patience: Duration,
    ) -> impl Future<Output = Result<Option<Received>, Self::Error>>;
}

/// Why a chat ended early.
#[derive(Debug, thiserror::Error)]
pub enum ChatError<E> {
    /// The way to the flows is closed.
    #[error(transparent)]
    Link(E),
    /// The lines could not be read, or the transcript not be written.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// How long after a reply another one may still come, where nothing tells that it was the last.
const MORE_REPLIES: Duration = Duration::from_millis(400);

/// Talks until the lines end.
pub async fn talk<L: Link>(
    link: &mut L,
    ids: &dyn NewId,
    options: Options,
    lines: impl AsyncBufRead + Unpin,
    out: impl io::Write,
) -> Result<(), ChatError<L::Error>> {
    let mut transcript = Transcript::new(out, options.echo);
    let mut talk = Talk {
        conversation: new_conversation(&options, ids),
        correlation: None,
        options,
    };
    talk.greet(&mut transcript)?;
    let mut lines = lines.lines();
    transcript.prompt()?;
    while let Some(line) = lines.next_line().await? {
        transcript.line(&line)?;
        match Command::of(&line) {
            Command::Quit => break,
            Command::Help => transcript.note(HELP)?,
            Command::New => {
                talk.conversation = ids.uuid();
                talk.correlation = None;
                transcript.note("a new conversation")?;
            }
            Command::Say { text, metadata } => {
                talk.turn(link, ids, (text, metadata), &mut transcript)
                    .await?
            }
            Command::Unknown(command) => {
                transcript.note(&format!("no such command: {command}. {HELP}"))?
            }
        }
        transcript.prompt()?;
    }
    transcript.end()?;
    Ok(())
}

const HELP: &str =
    "/submit NAME=VALUE … submits a card, /new begins a new conversation, /quit ends";

/// A line that was typed.
enum Command {
    Say {
        text: String,
        metadata: Map<String, Value>,
    },
    New,
    Quit,
    Help,
    Unknown(String),
}

impl Command {
    fn of(line: &str) -> Self {
        let Some(command) = line.strip_prefix('/') else {
            return Self::Say {
                text: line.to_owned(),
                metadata: Map::new(),
            };
        };
        let mut words = command.split_whitespace();
        match words.next() {
            Some("quit") => Self::Quit,
            Some("new") => Self::New,
            Some("help") => Self::Help,
            Some("submit") => {
                let fields = words.filter_map(|word| word.split_once('='));
                let metadata =
                    fields.map(|(name, value)| (name.to_owned(), Value::String(value.to_owned())));
                Self::Say {
                    text: String::new(),
                    metadata: metadata.collect(),
                }
            }
            _ => Self::Unknown(line.to_owned()),
        }
    }
}

fn new_conversation(options: &Options, ids: &dyn NewId) -> String {
    options.conversation.clone().unwrap_or_else(|| ids.uuid())
}

/// One conversation under way.
struct Talk {
    options: Options,
    conversation: String,
    /// What the last question carried, to be echoed by the answer.
    correlation: Option<String>,
}

impl Talk {
    fn greet(&self, transcript: &mut Transcript<impl io::Write>) -> io::Result<()> {
        let Options { tenant, user, .. } = &self.options;
        transcript.note(&format!(
            "you are {user}, talking to tenant {tenant}; {HELP}"
        ))
    }

    /// Says one thing and shows what comes back.
    async fn turn<L: Link>(
        &mut self,
        link: &mut L,
        ids: &dyn NewId,
        (text, metadata): (String, Map<String, Value>),
        transcript: &mut Transcript<impl io::Write>,
    ) -> Result<(), ChatError<L::Error>> {
        let id = ids.uuid();
        let mut scope = json!({"conversation": self.conversation});
        if let Some(correlation) = self.correlation.take() {
            scope["correlation"] = Value::String(correlation);
        }
        let body = json!({
            "id": id, "channel": "chat", "from": {"id": self.options.user, "kind": "user"}, "text": text,
            "reply_scope": scope, "metadata": metadata,
        });
        let mut headers = std::mem::take(&mut self.options.start);
        headers.push(header::MSG_ID, &id);
        link.send(headers, body).await.map_err(ChatError::Link)?;

        let mut patience = self.options.patience;
        let mut shown = 0;
        while let Some(received) = link.receive(patience).await.map_err(ChatError::Link)? {
            if !received.answers(&id) {
                continue;
            }
            shown += 1;
            transcript.reply(&received)?;
            if received.dead_letter {
                return Ok(());
            }
            if received.expects_reply() {
                self.correlation = received
                    .headers
                    .get(header::CORRELATION_ID)
                    .map(str::to_owned);
                transcript.note("the flow waits for your answer")?;
                return Ok(());
            }
            patience = MORE_REPLIES;
        }
        if shown == 0 {
            transcript.note("no reply")?;
        }
        Ok(())
    }
}
