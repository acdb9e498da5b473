//! A provider: it knows nothing of the worker but the contract on NATS.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures_util::{StreamExt, TryStreamExt};
use greentic_worker::model::header;
use serde_json::{Value, json};

use super::{DEADLINE, Servers, Tenant, poll};

/// A provider of one tenant. What it gets back is read from the streams, in their order and from their beginning, so
/// nothing is missed however late a test looks.
pub struct Provider {
    tenant: String,
    names: Names,
    patience: Duration,
    jetstream: jetstream::Context,
    replies: Inbox,
    dead: Inbox,
}

/// One lean activity.
#[derive(Clone, Debug)]
pub struct Message {
    id: String,
    body: Value,
    headers: HeaderMap,
}

/// One message of `outbound.<tenant>`.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Where the stream has it.
    pub sequence: u64,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Value,
}

/// One message of `deadletter.<tenant>`.
#[derive(Clone, Debug)]
pub struct Dead {
    /// Its headers.
    pub headers: HeaderMap,
    /// The original body, untouched.
    pub body: bytes::Bytes,
}

impl Message {
    /// What `user1` says in a conversation, under an id of its own.
    pub fn new(conversation: &str, text: &str) -> Self {
        let id = format!("m-{:016x}", fastrand::u64(..));
        let body = json!({
            "id": id,
            "from": { "id": "user1" },
            "reply_scope": { "conversation": conversation },
            "text": text,
        });
        Self {
            id,
            body,
            headers: HeaderMap::new(),
        }
    }

    /// Another user.
    pub fn from(self, user: &str) -> Self {
        self.with("/from/id", user)
    }

    /// The thread inside the conversation.
    pub fn thread(mut self, thread: &str) -> Self {
        self.body["reply_scope"]["thread"] = thread.into();
        self
    }

    /// Echoes a correlation id in the reply scope.
    pub fn correlation(mut self, correlation: &str) -> Self {
        self.body["reply_scope"]["correlation"] = correlation.into();
        self
    }

    /// Another id: what a provider does that sends the same message again.
    pub fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self.with("/id", id)
    }

    /// Any top-level field.
    pub fn field(mut self, name: &str, value: Value) -> Self {
        self.body[name] = value;
        self
    }

    /// Leaves out a top-level field.
    pub fn without(mut self, name: &str) -> Self {
        if let Some(body) = self.body.as_object_mut() {
            body.remove(name);
        }
        self
    }

    /// A header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }

    fn with(mut self, pointer: &str, value: &str) -> Self {
        *self.body.pointer_mut(pointer).expect("a field") = value.into();
        self
    }
}

impl Reply {
    /// The text, or nothing.
    pub fn text(&self) -> &str {
        self.body["text"].as_str().unwrap_or_default()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.as_str())
    }

    /// The correlation id, to be echoed.
    pub fn correlation(&self) -> Option<&str> {
        self.header(header::CORRELATION_ID)
    }

    /// Whether the flow waits for an answer to it.
    pub fn expects_reply(&self) -> bool {
        self.header(header::EXPECTS_REPLY) == Some("true")
    }

    /// The id of the activity that caused it.
    pub fn in_reply_to(&self) -> Option<&str> {
        self.header(header::IN_REPLY_TO)
    }
}

impl Dead {
    /// Why it is dead, as a code.
    pub fn code(&self) -> &str {
        self.header(header::ERROR_CODE).unwrap_or_default()
    }

    /// Why it is dead, in words.
    pub fn reason(&self) -> &str {
        self.header(header::ERROR).unwrap_or_default()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.as_str())
    }
}

impl Provider {
    /// Connects.
    pub async fn connect(servers: &Servers, tenant: &Tenant) -> Self {
        Self::connect_with_prefix(servers, tenant, "").await
    }

    /// Connects to an environment whose subjects and streams have a prefix of one token.
    pub async fn connect_with_prefix(servers: &Servers, tenant: &Tenant, prefix: &str) -> Self {
        let names = Names::of(prefix);
        let client = async_nats::connect(&servers.nats_url).await;
        let jetstream = jetstream::new(client.expect("NATS is there"));
        Self {
            replies: Inbox::new(&jetstream, &names, "outbound", &tenant.id),
            dead: Inbox::new(&jetstream, &names, "deadletter", &tenant.id),
            names,
            tenant: tenant.id.clone(),
            patience: DEADLINE,
            jetstream,
        }
    }

    /// Waits for so much longer than usual, where a server or the only worker is away meanwhile.
    pub fn patient(mut self, longer: Duration) -> Self {
        self.patience += longer;
        self
    }

    /// Publishes an activity and waits until the stream has it; its id.
    pub async fn send(&self, message: &Message) -> String {
        let body = message.body.to_string().into_bytes();
        self.send_raw(&self.tenant, message.headers.clone(), body)
            .await;
        message.id.clone()
    }

    /// Publishes an activity right behind a mark in the stream of replies. The mark's sequence: what the stream has between
    /// the mark and the reply was published meanwhile, however late this process comes to look.
    pub async fn send_marked(&self, message: &Message) -> u64 {
        let body = message.body.to_string().into_bytes();
        let mark = self.names.subject("outbound.mark", &self.tenant);
        let inbound = self.names.subject("inbound", &self.tenant);
        let mark = self.jetstream.publish(mark, "".into()).await;
        let stored =
            self.jetstream
                .publish_with_headers(inbound, message.headers.clone(), body.into());
        let stored = stored.await.expect("NATS is there");
        stored.await.expect("the stream has it");
        let mark = mark.expect("NATS is there").await;
        mark.expect("the stream has it").sequence
    }

    /// Publishes many activities at once and waits until the stream has all of them.
    pub async fn flood(&self, messages: impl Iterator<Item = Message>) {
        let subject = self.names.subject("inbound", &self.tenant);
        let storing = futures_util::stream::iter(messages).map(async |message| {
            let body = message.body.to_string().into_bytes();
            let stored = self.jetstream.publish(subject.clone(), body.into());
            let stored = stored.await.expect("NATS is there");
            stored.await.expect("the stream has it");
        });
        storing.buffered(256).count().await;
    }

    /// Publishes any body to `inbound.<tenant>` of any tenant and waits until the stream has it.
    pub async fn send_raw(&self, tenant: &str, headers: HeaderMap, body: Vec<u8>) {
        let subject = self.names.subject("inbound", tenant);
        let stored = poll(self.patience, async || {
            let (subject, headers) = (subject.clone(), headers.clone());
            let publishing =
                self.jetstream
                    .publish_with_headers(subject, headers, body.clone().into());
            // No stream takes the subject until the first worker has made it.
            publishing.await.ok()?.await.ok()
        });
        assert!(stored.await.is_some(), "no stream takes {subject}");
    }

    /// The next reply, within the usual deadline.
    pub async fn expect_reply(&mut self) -> Reply {
        let reply = self.reply_within(self.patience).await;
        let none = || {
            panic!(
                "no reply on outbound.{} in {:?}",
                self.tenant, self.patience
            )
        };
        reply.unwrap_or_else(none)
    }

    /// The next reply, which must have this text.
    #[track_caller]
    pub fn expect_text(&mut self, text: &str) -> impl Future<Output = Reply> {
        let at = std::panic::Location::caller();
        async move {
            let reply = self.expect_reply().await;
            assert_eq!(reply.text(), text, "at {at}");
            reply
        }
    }

    /// The next `count` replies, within the usual deadline each.
    pub async fn expect_replies(&mut self, count: usize) -> Vec<Reply> {
        let mut replies = Vec::new();
        for _ in 0..count {
            replies.push(self.expect_reply().await);
        }
        replies
    }

    /// The next reply, or `None` if there is none for so long.
    pub async fn reply_within(&mut self, within: Duration) -> Option<Reply> {
        let message = self.replies.next(within).await?;
        let body = serde_json::from_slice(&message.payload).expect("a reply is JSON");
        let sequence = message.info().expect("it is of a stream").stream_sequence;
        let headers = message.headers.clone().unwrap_or_default();
        Some(Reply {
            sequence,
            headers,
            body,
        })
    }

    /// Fails if there is a reply within this time. It can only ever show that none came yet, so where something else
    /// must come later, expect that in its place.
    pub async fn expect_silence(&mut self, during: Duration) {
        let reply = self.reply_within(during).await;
        assert!(reply.is_none(), "unexpected reply: {reply:?}");
    }

    /// Waits until every message that was sent is settled.
    pub async fn settled(&self) {
        self.expect_unsettled(0).await;
    }

    /// Waits until the server has nothing more to deliver and no delivery that is not acked. A server that was killed may
    /// forget that it had removed a message, and then keeps it though it knows the ack.
    pub async fn acked(&self) {
        let consumer = format!("worker-{}", self.tenant.replace('.', "="));
        let name = self.names.name(&consumer);
        let inbound = self.names.stream("inbound");
        let last = RefCell::new(String::new());
        let done = poll(self.patience, async || {
            let stream = self.jetstream.get_stream(&inbound).await.ok()?;
            let info = stream.consumer_info(&name).await.ok()?;
            let open = (info.num_pending, info.num_ack_pending);
            last.replace(format!("{open:?}"));
            (open == (0, 0)).then_some(())
        });
        assert!(
            done.await.is_some(),
            "{name} has messages (to deliver, to be acked): {}",
            last.borrow()
        );
    }

    /// Waits until so many messages are still to be settled: the server comes to the acks of a worker after all else that it
    /// was told meanwhile.
    pub async fn expect_unsettled(&self, wanted: usize) {
        let last = Cell::new(0);
        let reached = poll(self.patience, async || {
            last.set(self.unsettled().await);
            (last.get() == wanted).then_some(())
        });
        let (reached, last, tenant) = (reached.await, last.get(), &self.tenant);
        assert!(
            reached.is_some(),
            "{last} messages and not {wanted} are on inbound.{tenant} after {:?}",
            self.patience
        );
    }

    /// How many messages are still to be settled.
    pub async fn unsettled(&self) -> usize {
        self.stored("inbound").await
    }

    /// How many replies and dead letters there are in all, read or not.
    pub async fn published(&self) -> (usize, usize) {
        (
            self.stored("outbound").await,
            self.stored("deadletter").await,
        )
    }

    /// How many messages of the tenant a stream holds, as soon as the server says.
    async fn stored(&self, word: &str) -> usize {
        let subject = self.names.subject(word, &self.tenant);
        let stream = self.names.stream(word);
        let count = poll(DEADLINE, async || {
            let stream = self.jetstream.get_stream(&stream).await.ok()?;
            let info = stream.info_with_subjects(&subject).await.ok()?;
            let counts: Vec<_> = info.try_collect().await.ok()?;
            Some(counts.into_iter().map(|(_, count)| count).sum())
        });
        count
            .await
            .unwrap_or_else(|| panic!("{stream} is not told of in {DEADLINE:?}"))
    }

    /// The next dead letter, within the usual deadline.
    pub async fn expect_dead(&mut self) -> Dead {
        let message = self.dead.next(self.patience).await;
        let none = || panic!("no dead letter of {} in {:?}", self.tenant, self.patience);
        let message = message.unwrap_or_else(none);
        Dead {
            headers: message.headers.clone().unwrap_or_default(),
            body: message.payload.clone(),
        }
    }
}

/// The names of an environment, as docs/nats.md has them.
struct Names {
    prefix: String,
}

impl Names {
    fn of(prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Self { prefix }
    }

    fn subject(&self, word: &str, tenant: &str) -> String {
        match self.prefix.as_str() {
            "" => format!("{word}.{tenant}"),
            prefix => format!("{prefix}.{word}.{tenant}"),
        }
    }

    fn stream(&self, word: &str) -> String {
        self.name(&format!("GREENTIC_{}", word.to_uppercase()))
    }

    fn name(&self, plain: &str) -> String {
        match self.prefix.as_str() {
            "" => plain.to_owned(),
            prefix => format!("{prefix}_{plain}"),
        }
    }
}

/// One subject of a stream, read from its beginning.
struct Inbox {
    jetstream: jetstream::Context,
    stream: String,
    subject: String,
    messages: Option<pull::Stream>,
}

impl Inbox {
    fn new(jetstream: &jetstream::Context, names: &Names, word: &str, tenant: &str) -> Self {
        Self {
            jetstream: jetstream.clone(),
            stream: names.stream(word),
            subject: names.subject(word, tenant),
            messages: None,
        }
    }

    /// The next message. A consumer that went with its server is made again; it then starts from the beginning, so a
    /// test that restarts NATS takes a new provider, or servers with file storage, where consumers live on.
    async fn next(&mut self, within: Duration) -> Option<jetstream::Message> {
        let reading = async {
            loop {
                let messages = match &mut self.messages {
                    Some(messages) => messages,
                    none => {
                        none.insert(consume(&self.jetstream, &self.stream, &self.subject).await)
                    }
                };
                match messages.next().await {
                    Some(Ok(message)) => {
                        let _acked = message.ack().await;
                        return message;
                    }
                    Some(Err(_)) => {}
                    None => self.messages = None,
                }
            }
        };
        tokio::time::timeout(within, reading).await.ok()
    }
}

/// A consumer of this subject from the stream's beginning, as soon as there is such a stream.
async fn consume(jetstream: &jetstream::Context, stream: &str, subject: &str) -> pull::Stream {
    let making = async || {
        let config = pull::Config {
            filter_subject: subject.to_owned(),
            deliver_policy: DeliverPolicy::All,
            inactive_threshold: Duration::from_secs(600),
            ..pull::Config::default()
        };
        let stream = jetstream.get_stream(stream).await.ok()?;
        let consumer = stream.create_consumer(config).await.ok()?;
        consumer.messages().await.ok()
    };
    // The caller's own deadline ends this.
    poll(Duration::MAX, making).await.expect("for ever is long")
}
