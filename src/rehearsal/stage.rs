//! Where a case is played: real turns of one pack, over in-memory ports that it has for itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::mpsc::UnboundedReceiver;

use super::cast::Cast;
use super::compare::{Difference, differences, of_replies};
use super::report::Failure;
use super::script::{Case, Expected, Turn};
use super::witness::Witness;
use crate::adapters::bus::{Bus, Published};
use crate::adapters::compute::InlineCompute;
use crate::adapters::memory::MemoryStore;
use crate::adapters::system::RandomIds;
use crate::catalog::Folder;
use crate::model::{Activity, EnvId, InboundMessage, PackId, TenantId};
use crate::ports::{Clock, Components, StateSlot, StoredState, TurnStore};
use crate::registry::{Live, Registry};
use crate::telemetry::TurnSpan;
use crate::turn::{AwaitedPacks, Bounds, Config, Disposition, Outage, RetryPolicy, Turns};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a turn may take: a case that hangs is to be told, not waited for.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// A clock that stands still until it is moved.
#[derive(Clone)]
struct Hands(Arc<Mutex<OffsetDateTime>>);

impl Hands {
    fn turn(&self, to: impl FnOnce(OffsetDateTime) -> OffsetDateTime) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = to(*now);
    }
}

impl Clock for Hands {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a case is played on.
pub(super) struct Stage {
    turns: Turns<Witness<MemoryStore<Hands>>, Bus>,
    published: UnboundedReceiver<Published>,
    cast: Arc<Cast>,
    hands: Hands,
    pack: PackId,
    tenant: TenantId,
    sent: usize,
}

impl Stage {
    /// A stage on which nothing has happened yet.
    pub fn set(folder: &Folder, case: &Case, components: &Arc<dyn Components>) -> Self {
        let (tenant, env) = names();
        let (bus, published) = Bus::new();
        let bound = folder.bind(&tenant, case.env.clone());
        let pack = bound.id;
        let (registry, _) = Registry::new([bound], &BTreeMap::new());
        let hands = Hands(Arc::new(Mutex::new(case.now)));
        let cast = Arc::new(Cast::new(components));
        let turns = Turns {
            store: Arc::new(Witness::new(MemoryStore::new(hands.clone(), DAY))),
            publisher: Arc::new(bus),
            registry: Arc::new(Live::from(registry)),
            components: Arc::clone(&cast) as Arc<dyn Components>,
            compute: Arc::new(InlineCompute),
            clock: Arc::new(hands.clone()),
            ids: Arc::new(RandomIds),
            outage: Outage::default(),
            awaited: AwaitedPacks::default(),
            config: Config {
                env,
                payload_bytes: 1024 * 1024,
                // A case tells the first failure.
                retry: RetryPolicy {
                    attempts: 1,
                    initial: Duration::ZERO,
                    max: Duration::ZERO,
                },
                turn_timeout: TURN_TIMEOUT,
                lease_ttl: TURN_TIMEOUT * 2,
                wait_ttl: DAY,
                gone_after: Duration::ZERO,
                bounds: Bounds::default(),
            },
        };
        Self {
            turns,
            published,
            cast,
            hands,
            pack,
            tenant,
            sent: 0,
        }
    }

    /// Plays a case up to the first turn that goes other than expected.
    pub async fn play(&mut self, case: &Case) -> Option<Failure> {
        for (n, turn) in case.script.iter().enumerate() {
            let differences = self.turn(turn).await;
            if !differences.is_empty() {
                return Some(Failure {
                    turn: n + 1,
                    line: turn.line,
                    differences,
                });
            }
        }
        None
    }

    async fn turn(&mut self, turn: &Turn) -> Vec<Difference> {
        self.hands
            .turn(|now| turn.now.unwrap_or(now) + turn.advance);
        self.cast.prepare(turn.expected.calls.clone());
        self.sent += 1;
        let mut body = turn.body.clone();
        body.entry("id")
            .or_insert(format!("message-{}", self.sent).into());
        let message = InboundMessage {
            tenant: self.tenant.clone(),
            headers: turn.headers.clone(),
            body: Value::Object(body).to_string().into(),
            sequence: None,
        };
        let activity = match self.turns.read(&message) {
            Ok(activity) => activity,
            Err(error) => return of_error(&turn.expected, Some((error.code(), error.to_string()))),
        };
        let span = TurnSpan::new(&self.tenant);
        let ended = self.turns.run(&activity, 1, &span).await;
        let error = match ended.disposition {
            Disposition::Ack => None,
            Disposition::RetryAfter(_) => {
                Some(("interrupted", "it would be tried again".to_owned()))
            }
            Disposition::DeadLetter(why) => Some((why.error.code(), why.error.to_string())),
        };
        self.judge(&activity, &turn.expected, error).await
    }

    /// Holds what came of a turn against what was expected. A failure that was not explains all the rest.
    async fn judge(
        &mut self,
        activity: &Activity,
        expected: &Expected,
        error: Option<(&str, String)>,
    ) -> Vec<Difference> {
        let mut wrong = self.cast.wrong();
        let failed = error.is_some();
        wrong.extend(of_error(expected, error));
        let replies: Vec<Value> = std::iter::from_fn(|| self.published.try_recv().ok())
            .map(|published| serde_json::from_slice(&published.body).unwrap_or_default())
            .collect();
        let parked = self.turns.store.take_parked();
        if failed && !wrong.is_empty() {
            return wrong;
        }
        wrong.extend(of_replies(&expected.replies, &replies));
        if parked != expected.waits {
            let told = |wait: &Option<String>| {
                wait.clone()
                    .unwrap_or("the conversation is over".to_owned())
            };
            wrong.push(Difference::new(
                "waits",
                told(&expected.waits),
                told(&parked),
            ));
        }
        wrong.extend(self.of_state(activity, expected).await);
        wrong
    }

    async fn of_state(&self, activity: &Activity, expected: &Expected) -> Vec<Difference> {
        let mut wrong = Vec::new();
        for (name, value) in &expected.state {
            let slot = name.split_once('/').and_then(|(flow, key)| {
                Some(StateSlot {
                    pack: self.pack,
                    flow: flow.parse().ok()?,
                    key: key.to_owned(),
                })
            });
            let stored = match &slot {
                Some(slot) => {
                    self.turns
                        .store
                        .read_state(activity, slot, usize::MAX)
                        .await
                }
                None => Ok(StoredState::Absent),
            };
            let found = match stored {
                Ok(StoredState::Text(text)) => serde_json::from_str(&text).ok(),
                Ok(StoredState::Absent | StoredState::TooLarge) | Err(_) => None,
            };
            let found = found.unwrap_or(Value::Null);
            wrong.extend(differences(&format!("state {name}"), value, &found));
        }
        wrong
    }
}

/// Whose conversations rehearsals are.
#[expect(clippy::expect_used, reason = "letters alone are always a valid id")]
fn names() -> (TenantId, EnvId) {
    (
        TenantId::new("rehearsal").expect("a word is an id"),
        EnvId::new("dev").expect("a word is an id"),
    )
}

/// Whether the message was put aside, against what was expected.
fn of_error(expected: &Expected, found: Option<(&str, String)>) -> Vec<Difference> {
    let code = found.as_ref().map(|(code, _)| *code);
    if code == expected.error.as_deref() {
        return Vec::new();
    }
    let found = found.map_or("no error".to_owned(), |(code, text)| {
        format!("{code}: {text}")
    });
    let expected = expected.error.as_deref().unwrap_or("no error");
    vec![Difference::new("error", expected, found)]
}
