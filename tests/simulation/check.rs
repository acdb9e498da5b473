//! What must hold after a run, told from outside.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use greentic_worker::model::{Activity, HashedScope, IdempotencyKey, Outbound, TenantId, header};
use greentic_worker::ports::{Begin, Begun, Claim, TurnStore};

use super::net::Published;
use super::run::Outcome;
use super::serial::{Serial, renamed, version_of};
use super::store::{Entry, Store, at_once};
use super::users::{Kind, Sent};
use super::world::{ATTEMPTS, DUPLICATE_WINDOW};

/// Everything that is wrong with a run.
pub struct Findings<'a> {
    outcome: &'a Outcome,
    log: Vec<std::sync::Arc<Entry>>,
    outbound: Vec<Published>,
    dead: Vec<Published>,
    wrong: Vec<String>,
}

type Name = (TenantId, IdempotencyKey);

/// How long an answer may take where nothing goes wrong, several messages of a conversation at once included.
const NOTICEABLE: Duration = Duration::from_secs(2);

impl<'a> Findings<'a> {
    pub async fn of(outcome: &'a Outcome) -> Vec<String> {
        let mut findings = Self {
            outcome,
            log: outcome.store.log(),
            outbound: outcome.net.outbound(),
            dead: outcome.net.dead(),
            wrong: Vec::new(),
        };
        findings.everything_came_to_rest();
        findings.each_activity_once();
        findings.each_wait_once();
        findings.dead_letters_are_right();
        findings.replies_are_those_committed();
        findings.order_is_kept();
        findings.a_refusal_delays_nobody_else();
        findings.equals_a_serial_run().await;
        findings.wrong
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    fn everything_came_to_rest(&mut self) {
        let unsettled = self.outcome.net.unsettled();
        self.expect(self.outcome.at_rest && unsettled == 0, || {
            format!("{unsettled} messages are never settled, or dead letters never mended")
        });
        let store = &self.outcome.store;
        let leased = |entry: &&std::sync::Arc<Entry>| {
            let begun = look(store, &entry.activity);
            matches!(begun, Begun::Busy { .. })
        };
        let leased = self.log.iter().filter(leased).count();
        self.expect(leased == 0, || format!("{leased} leases are left"));
        self.wrong.extend(self.outcome.store.not_allowed());
    }

    /// Each activity is applied once, or it is in the dead letters for a reason that a replay does not end.
    fn each_activity_once(&mut self) {
        let mut applied: Vec<_> = self.log.clone();
        let mut names = BTreeMap::<Name, usize>::new();
        for entry in &applied {
            let Activity { tenant, key, .. } = &entry.activity;
            *names.entry((tenant.clone(), key.clone())).or_default() += 1;
        }
        names.retain(|_, times| *times > 1);
        self.expect(names.is_empty(), || format!("applied twice: {names:?}"));
        for sent in &self.outcome.sent {
            let before = applied.len();
            applied.retain(|entry| !sent.is_said_by(&entry.activity));
            let times = before - applied.len();
            let letters = self.dead_letters(sent);
            let dead = letters.len();
            let is_final = letters
                .last()
                .is_some_and(|dead| dead.header(header::ERROR_CODE) == "wait_limit");
            if times > 0 && dead > 0 {
                self.outcome
                    .world
                    .count("messages both applied and dead-lettered");
            }
            let right = match sent.kind {
                Kind::Plain => times == 1 || (times == 0 && is_final),
                Kind::Broken | Kind::Unreadable | Kind::Poison => times == 0 && dead > 0,
            };
            self.expect(right, || {
                format!("{sent:?}: applied {times} times, {dead} dead letters")
            });
        }
        self.expect(applied.is_empty(), || {
            format!("applied, though never sent: {applied:?}")
        });
    }

    /// A tenant that is refused something is nothing that another one notices.
    fn a_refusal_delays_nobody_else(&mut self) {
        let world = &self.outcome.world;
        let (refused, slowest) = (world.plan.refused, world.slowest());
        self.expect(refused.is_none() || slowest <= NOTICEABLE, || {
            format!(
                "a tenant waited {slowest:?} for an answer, beside one that is refused {refused:?}"
            )
        });
    }

    /// A wait that one answer took is not taken by a second one.
    fn each_wait_once(&mut self) {
        let taken = self.log.iter().filter_map(|entry| {
            let taken = entry.change.taken.as_ref()?;
            Some(taken.key.to_string())
        });
        let twice = repeated(taken);
        self.expect(twice.is_empty(), || format!("waits taken twice: {twice:?}"));
    }

    fn dead_letters(&self, sent: &Sent) -> Vec<&Published> {
        self.dead.iter().filter(|dead| sent.is_in(dead)).collect()
    }

    /// A dead letter has a reason, and it is the right one. One that names exhausted attempts had them.
    fn dead_letters_are_right(&mut self) {
        for sent in &self.outcome.sent {
            // One that fails by itself, since the backend that it calls is down, is no suspect, and nothing keeps it apart.
            let fails = sent.calls_backend();
            let spared = self.outcome.world.plan.spares_the_innocent();
            let innocent = sent.kind == Kind::Plain && spared && !fails;
            let letters = self.dead_letters(sent);
            let letters = letters.into_iter().map(|dead| {
                let name = IdempotencyKey::new(dead.header(header::IDEMPOTENCY_KEY));
                (dead.header(header::ERROR_CODE).to_owned(), name)
            });
            for (code, key) in letters.collect::<Vec<_>>() {
                let claims = self.outcome.store.claims(&sent.tenant, &key);
                let exhausted = claims >= ATTEMPTS && !innocent;
                if sent.kind == Kind::Plain {
                    self.outcome.world.count("plain messages dead-lettered");
                }
                let right = match (sent.kind, code.as_str()) {
                    (Kind::Broken, "node_input_invalid")
                    | (Kind::Unreadable, "unreadable_body") => true,
                    (Kind::Plain | Kind::Broken | Kind::Poison, "attempts_exhausted") => exhausted,
                    (Kind::Plain, "component_trap") => claims >= ATTEMPTS,
                    (Kind::Plain | Kind::Poison, "wait_limit") => {
                        self.outcome.store.was_refused(&sent.tenant, &key)
                    }
                    (Kind::Plain | Kind::Broken, "id_reused") => self.log.iter().any(|entry| {
                        let Activity { tenant, key, .. } = &entry.activity;
                        (tenant, key) == (&sent.tenant, &sent.key)
                            && !sent.is_said_by(&entry.activity)
                    }),
                    _ => false,
                };
                self.expect(right, || {
                    format!("{sent:?}: dead-lettered for {code} after {claims} claims")
                });
            }
        }
        let ids = self
            .dead
            .iter()
            .map(|dead| dead.header(header::MSG_ID).to_owned());
        // A stream that forgets sooner than everybody comes back may have a dead letter twice, which a replay does not mind.
        let forgets = self.outcome.world.plan.window < DUPLICATE_WINDOW;
        let twice = repeated(ids);
        self.expect(twice.is_empty() || forgets, || {
            format!("dead letters twice: {twice:?}")
        });
    }

    /// What was published is what was committed: each reply once, under its own id, in its turn's order.
    fn replies_are_those_committed(&mut self) {
        let mut found: HashMap<(TenantId, String), Vec<(usize, &Published)>> = HashMap::new();
        for (at, message) in self.outbound.iter().enumerate() {
            let id = message.header(header::MSG_ID).to_owned();
            found
                .entry((message.tenant.clone(), id))
                .or_default()
                .push((at, message));
        }
        let mut wrong = Vec::new();
        let mut latest: BTreeMap<(&TenantId, Option<String>), usize> = BTreeMap::new();
        for entry in &self.log {
            let Activity { tenant, key, .. } = &entry.activity;
            let mut last = 0;
            let scope = entry.activity.base_scope().map(|scope| scope.conversation);
            let latest = latest.entry((tenant, scope)).or_default();
            for (n, reply) in entry.change.outbox.iter().enumerate() {
                let id = Outbound::msg_id(tenant, key, n);
                let published = found
                    .remove(&(tenant.clone(), id.clone()))
                    .unwrap_or_default();
                let [(at, message)] = published.as_slice() else {
                    wrong.push(format!(
                        "reply {id} was published {} times",
                        published.len()
                    ));
                    continue;
                };
                if message.body() != reply.body.get() {
                    wrong.push(format!(
                        "reply {id} is not what was committed: {}",
                        message.body()
                    ));
                }
                if *at < last {
                    wrong.push(format!("reply {id} came before the one before it"));
                }
                last = *at;
            }
            if last < *latest && self.outcome.world.plan.calm {
                wrong.push(format!("{key} was answered before what came before it"));
            } else if last < *latest {
                // Only of messages that did not wait for the answer to the one before; see docs/exactly-once.md.
                self.outcome
                    .world
                    .count("turns whose replies were overtaken");
            }
            *latest = last.max(*latest);
        }
        let rest = found.into_keys().map(|(_, id)| id);
        wrong.extend(
            rest.map(|id| format!("{id} was published, though nothing like it was committed")),
        );
        self.wrong.append(&mut wrong);
    }

    /// What a user said after seeing an answer was applied after what the answer was to; and where nothing fails, a
    /// conversation's messages are applied, and their replies published, in the order in which they were sent.
    fn order_is_kept(&mut self) {
        let place = |tenant: &TenantId, key: &IdempotencyKey| {
            let is = |entry: &std::sync::Arc<Entry>| {
                entry.activity.tenant == *tenant && entry.activity.key == *key
            };
            self.log.iter().position(is)
        };
        let mut wrong = Vec::new();
        let mut last: BTreeMap<(&TenantId, &str), usize> = BTreeMap::new();
        for sent in &self.outcome.sent {
            let said = |entry: &std::sync::Arc<Entry>| sent.is_said_by(&entry.activity);
            let Some(at) = self.log.iter().position(said) else {
                continue;
            };
            for before in &sent.after {
                if place(&sent.tenant, before).is_none_or(|before| before > at) {
                    wrong.push(format!(
                        "{sent:?} was applied before {before}, whose answer it knew"
                    ));
                }
            }
            let conversation = (&sent.tenant, sent.conversation.as_str());
            // One that was dead-lettered first may be applied by a copy that comes much later.
            if self.outcome.world.plan.calm
                && self.dead_letters(sent).is_empty()
                && last.insert(conversation, at).is_some_and(|last| last > at)
            {
                wrong.push(format!("{sent:?} overtook what was sent before it"));
            }
        }
        self.wrong.append(&mut wrong);
    }

    /// The same activities, one after the other in the order of their commits, in a world without faults: every turn
    /// finds, says and leaves the same.
    async fn equals_a_serial_run(&mut self) {
        let mut serial = Serial::new(self.outcome.world.plan.waits_per_user);
        for entry in &self.log {
            let turns = ["turns of the old version", "turns of the new version"];
            self.outcome.world.count(turns[version_of(&entry.change)]);
            let replayed = serial.replay(entry).await;
            if let Err(why) = replayed {
                self.wrong.push(format!(
                    "{} {} is not what a serial run makes of it: {why}",
                    entry.activity.tenant, entry.activity.key
                ));
                return;
            }
        }
        self.state_is_the_same(&serial);
        self.waits_are_the_same(&serial);
    }

    fn state_is_the_same(&mut self, serial: &Serial) {
        let mut wrong = Vec::new();
        for entry in &self.log {
            let written = entry.change.state_written.iter();
            for (slot, _) in written {
                let (ours, theirs) = (&self.outcome.store.memory, &serial.store.memory);
                let ours = at_once(ours.read_state(&entry.activity, slot, usize::MAX)).ok();
                let theirs = at_once(theirs.read_state(&entry.activity, slot, usize::MAX)).ok();
                if ours != theirs {
                    wrong.push(format!("state differs: {ours:?}, serially {theirs:?}"));
                }
            }
        }
        self.wrong.append(&mut wrong);
    }

    fn waits_are_the_same(&mut self, serial: &Serial) {
        let mut wrong = Vec::new();
        for entry in &self.log {
            let correlation = entry
                .change
                .park
                .as_ref()
                .and_then(|park| park.correlation.clone());
            for echo in [None, correlation] {
                let asks = |echo: Option<String>| asking(&entry.activity, echo);
                let ours = waits(&self.outcome.store, &asks(echo.clone()));
                let echo = echo.map(|echo| serial.theirs(&echo));
                let theirs = waits(&serial.store, &asks(echo));
                let theirs = renamed(&theirs, &serial.ours);
                if ours != theirs {
                    wrong.push(format!("waits differ: {ours}, serially {theirs}"));
                }
            }
        }
        self.wrong.append(&mut wrong);
    }
}

/// An activity of the same conversation that nobody has sent.
fn asking(activity: &Activity, correlation: Option<String>) -> Activity {
    let scope = activity.reply_scope.as_ref();
    let scope = scope.map(|scope| scope.with(correlation.as_deref()));
    Activity {
        key: IdempotencyKey::new("asking"),
        reply_scope: scope.map(HashedScope::from),
        ..activity.clone()
    }
}

fn look<C: greentic_worker::ports::Clock + Clone>(store: &Store<C>, activity: &Activity) -> Begun {
    let begin = Begin {
        activity: &asking(activity, activity.correlation().map(str::to_owned)),
        claim: Claim::Optimistic,
        resume: true,
        state: &[],
        state_bytes: 0,
    };
    at_once(store.memory.begin(&begin)).expect("memory is never away")
}

/// What an activity would find, as text.
fn waits<C: greentic_worker::ports::Clock + Clone>(
    store: &Store<C>,
    activity: &Activity,
) -> String {
    match look(store, activity) {
        Begun::Ready(opening) => {
            let wait = opening.wait.map(|wait| (wait.key, wait.data.context_json));
            format!("{:?} {wait:?}", opening.head)
        }
        other @ (Begun::Applied(_) | Begun::Busy { .. }) => format!("{other:?}"),
    }
}

fn repeated(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        *count.entry(name).or_default() += 1;
    }
    let twice = count.into_iter().filter(|(_, count)| *count > 1);
    twice.map(|(name, _)| name).collect()
}
