//! The other side: users who talk through a provider that repeats itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greentic_worker::model::{Activity, Headers, IdempotencyKey, TenantId, header};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::net::{Net, Published};
use super::world::{World, locked};

/// How long a user waits for an answer before asking on. What is lost shows in the checks.
const PATIENCE: Duration = Duration::from_secs(120);

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub tenant: TenantId,
    pub key: IdempotencyKey,
    pub conversation: String,
    pub kind: Kind,
    /// The messages of the conversation that were answered before it was sent.
    pub after: Vec<IdempotencyKey>,
    headers: Headers,
    body: String,
}

impl Sent {
    /// Returns whether the flow that it names calls the backend that is mostly down.
    pub fn calls_backend(&self) -> bool {
        self.headers.get(header::FLOW_ID) == Some("call")
    }
}

/// What follows an id in the name of a message: nothing, or what tells it apart from another one of that id.
fn is_own_name(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(':')
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// Fails in its flow.
    Broken,
    /// Is no activity.
    Unreadable,
    /// Kills whoever runs it.
    Poison,
}

/// Everything that was sent, in order.
#[derive(Default)]
pub struct Sendings(Mutex<Vec<Sent>>);

impl Sendings {
    pub fn all(&self) -> Vec<Sent> {
        locked(&self.0).clone()
    }
}

/// One conversation.
pub struct Talk {
    pub world: Arc<World>,
    pub net: Arc<Net>,
    pub sendings: Arc<Sendings>,
    pub tenant: TenantId,
    pub number: usize,
}

impl Talk {
    /// Talks to the end: some wait for each answer, some do not.
    pub async fn run(self) {
        let world = &self.world;
        let patient = world.odds(600);
        let messages = world.pick(1..8);
        let mut said = Vec::new();
        for n in 0..messages {
            sleep(world.millis(0..if patient { 2_000 } else { 300 })).await;
            let after = self.answered(&said);
            let name = format!("{}-{n}", self.number);
            let echo = self.echo();
            let began = Instant::now();
            let (kind, key) = self.say(&name, &after, echo.clone());
            said.push(key.clone());
            if world.odds(100) {
                // Another provider has the same question to answer, and answers it too.
                let (_, key) = self.say(&format!("{name}-too"), &after, echo);
                said.push(key);
            }
            if patient {
                let answer = self.answer_to(&key);
                if timeout(PATIENCE, answer).await.is_err() {
                    world.note(format!("{} {key:?}: {kind:?} never answered", self.tenant));
                }
                world.waited(self.tenant.as_str(), began.elapsed());
            }
        }
    }

    /// Sends a message, and perhaps a second time.
    fn say(
        &self,
        name: &str,
        after: &[IdempotencyKey],
        echo: Option<String>,
    ) -> (Kind, IdempotencyKey) {
        let world = &self.world;
        let kind = match () {
            () if world.odds(world.plan.poison) => Kind::Poison,
            () if world.odds(world.plan.broken / 2) => Kind::Broken,
            () if world.odds(world.plan.broken / 2) => Kind::Unreadable,
            () => Kind::Plain,
        };
        let id = match kind {
            Kind::Poison => format!("poison-{name}"),
            Kind::Plain | Kind::Broken | Kind::Unreadable => format!("m-{name}"),
        };
        let mut headers = Headers::default();
        headers.push(header::IDEMPOTENCY_KEY, &id);
        let flow = match kind {
            Kind::Broken => Some("broken"),
            Kind::Poison => Some("main"),
            Kind::Plain if world.odds(world.plan.calls) => Some("call"),
            Kind::Plain | Kind::Unreadable if world.odds(800) => None,
            Kind::Plain | Kind::Unreadable => {
                Some(["side", "side", "main", "echo"][world.pick(0..4)])
            }
        };
        if let Some(flow) = flow {
            headers.push(header::FLOW_ID, flow);
        }
        let body = match kind {
            Kind::Unreadable => format!("{id}, which is no JSON"),
            Kind::Plain | Kind::Broken | Kind::Poison => self.body(&id, echo).to_string(),
        };
        let sent = Sent {
            tenant: self.tenant.clone(),
            key: IdempotencyKey::new(&id),
            conversation: format!("c{}", self.number),
            kind,
            after: after.to_vec(),
            headers,
            body,
        };
        world.count("messages sent");
        locked(&self.sendings.0).push(sent.clone());
        sent.send(&self.net);
        if kind != Kind::Poison && world.odds(world.plan.reuse) {
            self.reuse(&sent);
        }
        if world.chance(world.plan.twice) {
            world.count("messages sent twice");
            let (net, sent, later) = (Arc::clone(&self.net), sent.clone(), world.millis(0..8_000));
            tokio::spawn(async move {
                sleep(later).await;
                sent.send(&net);
            });
        }
        (kind, sent.key)
    }

    /// Sends another message under the same id some time later, in this conversation or in another one: ids that are unique
    /// only inside a chat.
    fn reuse(&self, sent: &Sent) {
        let (world, net) = (Arc::clone(&self.world), Arc::clone(&self.net));
        let conversations = world.plan.conversations;
        let number = match world.odds(300) {
            true => self.number,
            false => (self.number + 1) % conversations,
        };
        let id = sent.key.to_string();
        let mut headers = Headers::default();
        headers.push(header::IDEMPOTENCY_KEY, &id);
        let text = format!("not {id}");
        let other = Sent {
            conversation: format!("c{number}"),
            kind: Kind::Plain,
            after: Vec::new(),
            headers,
            body: body(&id, &text, (number, &world), None).to_string(),
            ..sent.clone()
        };
        let (sendings, times) = (Arc::clone(&self.sendings), world.pick(1..3));
        tokio::spawn(async move {
            for time in 0..times {
                sleep(world.millis(0..4_000)).await;
                if time == 0 {
                    world.count("messages under the id of another one");
                    locked(&sendings.0).push(other.clone());
                }
                other.send(&net);
            }
        });
    }

    fn body(&self, id: &str, echo: Option<String>) -> Value {
        let world = &self.world;
        let text = if world.odds(200) { "again" } else { id };
        body(id, text, (self.number, world), echo)
    }

    /// Which question is answered: none by name, the last one, or any.
    fn echo(&self) -> Option<String> {
        let (world, mut asked) = (&self.world, self.correlations());
        match asked.len() {
            0 => None,
            _ if world.odds(400) => None,
            _ if world.odds(600) => asked.pop(),
            len => Some(asked.swap_remove(world.pick(0..len))),
        }
    }

    /// The correlation ids that this conversation was asked to echo.
    fn correlations(&self) -> Vec<String> {
        let ours = |reply: &&Published| {
            let key = reply.header(header::IN_REPLY_TO);
            reply.tenant == self.tenant && key.split('-').nth(1) == Some(&self.number.to_string())
        };
        self.net.look(|replies, _| {
            let ours = replies.iter().filter(ours);
            let asked = ours.filter_map(|reply| reply.headers.get(header::CORRELATION_ID));
            asked.map(str::to_owned).collect()
        })
    }

    fn answered(&self, said: &[IdempotencyKey]) -> Vec<IdempotencyKey> {
        let answered = said.iter().filter(|key| {
            self.net.look(|replies, _| {
                replies
                    .iter()
                    .any(|reply| self.names(reply, header::IN_REPLY_TO, key))
            })
        });
        answered.cloned().collect()
    }

    /// Waits until there is a reply to a message, or its dead letter.
    async fn answer_to(&self, key: &IdempotencyKey) {
        loop {
            let published = self.net.published.notified();
            let answered = self.net.look(|replies, dead| {
                replies
                    .iter()
                    .any(|reply| self.names(reply, header::IN_REPLY_TO, key))
                    || dead
                        .iter()
                        .any(|dead| self.names(dead, header::IDEMPOTENCY_KEY, key))
            });
            if answered {
                return;
            }
            published.await;
        }
    }

    fn names(&self, message: &Published, header: &str, key: &IdempotencyKey) -> bool {
        message.tenant == self.tenant && message.header(header) == key.as_str()
    }
}

/// What is said in the conversation of this number.
fn body(id: &str, text: &str, (number, world): (usize, &World), echo: Option<String>) -> Value {
    json!({
        "id": id,
        "from": {"id": format!("u{}", number as u64 % world.plan.users)},
        "reply_scope": {"conversation": format!("c{number}"), "correlation": echo},
        "text": text,
        "metadata": {"slot": format!("slot{}", world.pick(0..2))},
    })
}

impl Sent {
    /// Whether an activity says what this message says, as its user, in its conversation. Told from the body alone.
    pub fn is_said_by(&self, activity: &Activity) -> bool {
        let Ok(body) = serde_json::from_str::<Value>(&self.body) else {
            return false;
        };
        let same = |pointer| activity.payload.pointer(pointer) == body.pointer(pointer);
        let name = activity.key.as_str();
        let rest = name.strip_prefix(self.key.as_str());
        activity.tenant == self.tenant
            && rest.is_some_and(is_own_name)
            && [
                "/text",
                "/from/id",
                "/reply_scope/conversation",
                "/metadata",
            ]
            .into_iter()
            .all(same)
    }

    /// Whether a dead letter is this message.
    pub fn is_in(&self, dead: &Published) -> bool {
        let rest = dead
            .header(header::IDEMPOTENCY_KEY)
            .strip_prefix(self.key.as_str());
        dead.tenant == self.tenant && rest.is_some_and(is_own_name) && dead.body() == self.body
    }

    /// Hands it to the servers, once more perhaps.
    pub fn send(&self, net: &Net) {
        net.send(&self.tenant, self.headers.clone(), self.body.clone());
    }
}
