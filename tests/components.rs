//! What a turn makes of the components that its flow calls: on whose behalf, with which state, and what comes of failures.
//! The components are played; everything else is the worker's own, on memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

#[path = "components/bounds.rs"]
mod bounds;

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use greentic_worker::adapters::bus::{Bus, Published};
use greentic_worker::adapters::compute::InlineCompute;
use greentic_worker::adapters::memory::{Act, MemoryStore, PlayedComponents};
use greentic_worker::adapters::system::{RandomIds, SystemClock};
use greentic_worker::flow::{Inventory, Limits, Program};
use greentic_worker::model::{
    Activity, ComponentDigest, Declared, EnvId, FlowId, Grants, Headers, InboundMessage, PackId,
    StateLimitError, TenantId,
};
use greentic_worker::ports::{
    Begin, Begun, CallStep, Claim, ComponentCall, ComponentError, ComponentOutput, Components,
    Running, StateSlot, StoreError, StoredState, TurnStore,
};
use greentic_worker::registry::{BoundPack, Registry};
use greentic_worker::telemetry::TurnSpan;
use greentic_worker::turn::{
    AwaitedPacks, Bounds, Config, Disposition, Ended, Outage, Part, RetryPolicy, Turns,
};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

const ATTEMPTS: u32 = 3;

/// A worker of tenant `t` whose pack has the components `plain` and `caller`, of which the second calls out.
struct World {
    turns: Turns<MemoryStore<SystemClock>, Bus>,
    published: UnboundedReceiver<Published>,
}

fn tenant() -> TenantId {
    TenantId::new("t").unwrap()
}

fn pack_id() -> PackId {
    PackId::of_archive(b"pack")
}

fn bound(nodes: &Value) -> BoundPack {
    let flow = |id: &str, nodes: &Value| {
        let mut nodes = nodes.clone();
        for (name, node) in nodes.as_object_mut().unwrap() {
            node["id"] = name.as_str().into();
            node["output"] = json!({"mapping": null});
        }
        let flow = json!({"schema_version": "flow-v1", "id": id, "kind": "messaging",
            "entrypoints": {}, "nodes": nodes});
        serde_json::from_value(json!({"id": id, "kind": "messaging", "tags": [], "flow": flow}))
            .unwrap()
    };
    let inventory = Inventory {
        components: ["plain", "caller"].map(str::to_owned).into(),
        ..Inventory::default()
    };
    let flows = [flow("main", nodes)];
    let (program, problems) = Program::compile(&flows, inventory, Limits::default())
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert!(!problems.has_errors(), "{problems}");
    let http = Declared {
        http: true,
        ..Declared::default()
    };
    BoundPack {
        tenant: tenant(),
        id: pack_id(),
        name: "pack".to_owned(),
        version: semver::Version::new(1, 0, 0),
        reference: None,
        program: Arc::new(program),
        flows: [FlowId::new("main").unwrap()].into(),
        components: ["plain", "caller"]
            .map(|name| (name.to_owned(), ComponentDigest::of(name.as_bytes())))
            .into(),
        grants: Arc::new(Grants {
            pack: pack_id(),
            pack_name: "pack".to_owned(),
            env: BTreeMap::new(),
            declared: [("caller".to_owned(), http)].into(),
            config: Value::Null,
        }),
    }
}

impl World {
    fn new(nodes: &Value, components: impl Components) -> Self {
        let store = Arc::new(MemoryStore::new(SystemClock, Duration::from_secs(600)));
        Self::on(&store, nodes, components)
    }

    fn on(
        store: &Arc<MemoryStore<SystemClock>>,
        nodes: &Value,
        components: impl Components,
    ) -> Self {
        let (bus, published) = Bus::new();
        let (registry, errors) = Registry::new([bound(nodes)], &BTreeMap::new());
        assert_eq!(errors, []);
        let turns = Turns {
            store: Arc::clone(store),
            publisher: Arc::new(bus),
            registry: Arc::new(registry.into()),
            components: Arc::new(components),
            compute: Arc::new(InlineCompute),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            outage: Outage::default(),
            awaited: AwaitedPacks::default(),
            config: Config {
                env: EnvId::new("dev").unwrap(),
                payload_bytes: 1024 * 1024,
                retry: RetryPolicy {
                    attempts: ATTEMPTS,
                    initial: Duration::from_millis(1),
                    max: Duration::from_millis(1),
                },
                turn_timeout: Duration::from_secs(10),
                lease_ttl: Duration::from_secs(30),
                wait_ttl: Duration::from_secs(600),
                gone_after: Duration::ZERO,
                bounds: Bounds::default(),
            },
        };
        Self { turns, published }
    }

    async fn run(&self, activity: &Activity, delivered: u64) -> Ended {
        let span = TurnSpan::new(&activity.tenant);
        self.turns.run(activity, delivered, &span).await
    }

    /// Runs an activity until it is settled; tells the code of its failure, if it failed, and how often it was tried.
    async fn settle(&self, activity: &Activity) -> (Option<&'static str>, u32) {
        for delivered in 1.. {
            match self.run(activity, delivered).await.disposition {
                Disposition::Ack => return (None, u32::try_from(delivered).unwrap()),
                Disposition::RetryAfter(_) => {}
                Disposition::DeadLetter(why) => return (Some(why.error.code()), why.attempts),
            }
        }
        unreachable!("deliveries do not end")
    }

    fn replies(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.published.try_recv().ok())
            .map(|published| serde_json::from_slice(&published.body).unwrap())
            .collect()
    }

    async fn stored(&self, key: &str) -> Option<String> {
        let slot = StateSlot {
            pack: pack_id(),
            flow: FlowId::new("main").unwrap(),
            key: key.to_owned(),
        };
        let activity = says("reads", "");
        let read = self.turns.store.read_state(&activity, &slot, usize::MAX);
        match read.await.unwrap() {
            StoredState::Text(text) => Some(text),
            StoredState::Absent | StoredState::TooLarge => None,
        }
    }
}

/// A message of user `u` in conversation `c` of team `red`.
fn says(id: &str, text: &str) -> Activity {
    let body = json!({
        "id": id, "text": text, "from": {"id": "u"}, "reply_scope": {"conversation": "c"}, "session_id": "s",
        "tenant": {"team_id": "red"}, "extensions": {"caller": {"user_verified": true, "sub": "ada"}},
    });
    let message = InboundMessage {
        tenant: tenant(),
        headers: Headers::default(),
        body: body.to_string().into(),
        sequence: None,
    };
    greentic_worker::model::decode(&message, &EnvId::new("dev").unwrap()).unwrap()
}

fn node(component: &str, routing: Value) -> Value {
    json!({"component": {"id": component, "operation": "run"},
        "input": {"mapping": {"text": "{{in.text}}"}}, "routing": routing})
}

fn next(id: &str) -> Value {
    json!({"next": {"node_id": id}})
}

fn done(value: Value) -> Act {
    Act::Done(ComponentOutput {
        value,
        state: Vec::new(),
    })
}

fn trap() -> ComponentError {
    ComponentError::Trap {
        component: "plain".to_owned(),
        reason: "unreachable".to_owned(),
    }
}

#[tokio::test]
async fn a_call_says_on_whose_behalf_it_is_made_and_keeps_its_name_on_every_attempt() {
    let calls: Arc<Mutex<Vec<ComponentCall>>> = Arc::default();
    let heard = Arc::clone(&calls);
    let nodes = json!({"a": node("plain", next("b")), "b": node("plain", json!("end"))});
    let played = PlayedComponents::new(move |call, _| {
        heard.lock().unwrap().push(call.clone());
        match call.invocation.ordinal == 1 && call.attempt < 3 {
            true => Act::Fail(trap()),
            false => done(json!({"text": "hi"})),
        }
    });
    let mut world = World::new(&nodes, played);
    assert_eq!(world.settle(&says("m1", "yo")).await, (None, 3));
    assert_eq!(world.replies()[0]["text"], "hi");
    assert_eq!(world.settle(&says("m2", "yo")).await, (None, 3));

    let calls = calls.lock().unwrap();
    let attempts: Vec<_> = calls.iter().map(|call| call.attempt).take(6).collect();
    assert_eq!(attempts, [1, 1, 2, 2, 3, 3]);
    let call = &calls[0];
    assert_eq!(call.code, ComponentDigest::of(b"plain"));
    assert_eq!(call.invocation.payload, json!({"text": "yo"}));
    assert_eq!((call.tenant.as_str(), call.env.as_str()), ("t", "dev"));
    assert_eq!(
        (call.team.as_deref(), call.user.as_str()),
        (Some("red"), "u")
    );
    assert_eq!(call.session, "s");
    assert_eq!(
        call.caller,
        Some(json!({"user_verified": true, "sub": "ada"}))
    );
    assert_eq!(call.grants.pack, pack_id());
    let key = |n: usize| calls[n].idempotency_key.as_str();
    assert_eq!(
        (key(0), key(1)),
        (key(2), key(3)),
        "every attempt has the same names"
    );
    assert_ne!(key(0), key(1), "another call of the turn");
    assert_ne!(key(0), key(6), "another activity");
}

/// Checks what comes of a call that always ends like this.
#[track_caller]
fn check(fails: fn() -> Act, code: &'static str, attempts: u32) {
    let nodes = json!({"a": node("plain", json!("end"))});
    let world = World::new(&nodes, PlayedComponents::new(move |_, _| fails()));
    let time = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let ended = time.block_on(world.settle(&says("m", "")));
    assert_eq!(ended, (Some(code), attempts));
}

#[test]
fn each_failure_has_its_code_and_only_some_are_tried_again() {
    check(|| Act::Fail(trap()), "component_trap", ATTEMPTS);
    check(
        || {
            Act::Fail(ComponentError::Limit {
                component: "plain".to_owned(),
                limit: "its memory".to_owned(),
            })
        },
        "component_limit",
        ATTEMPTS,
    );
    check(
        || {
            Act::Fail(ComponentError::Refused {
                component: "plain".to_owned(),
                what: "open files".to_owned(),
            })
        },
        "component_refused",
        1,
    );
    check(
        || {
            Act::Fail(ComponentError::Unusable {
                component: "plain".to_owned(),
                reason: "it is empty".to_owned(),
            })
        },
        "component_unusable",
        1,
    );
    check(
        || done(json!({"ok": false, "error": {"code": "C"}})),
        "component_failed",
        1,
    );
    check(
        || done(json!({"ok": false, "error": {"retryable": true}})),
        "component_failed",
        ATTEMPTS,
    );
    check(|| Act::Hang, "turn_timeout", ATTEMPTS);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_turn_stands_still_while_a_server_is_away() {
    const AWAY: Duration = Duration::from_secs(25);
    let nodes = json!({"a": node("plain", json!("end"))});
    let world = World::new(&nodes, PlayedComponents::new(|_, _| Act::Hang));
    let (outage, began) = (world.turns.outage.clone(), Instant::now());
    let away = async move {
        let call = async || match began.elapsed() < AWAY {
            true => Err(StoreError::Unavailable("it is away".into())),
            false => Ok(()),
        };
        outage.ride_out(&tenant(), Part::Store, call).await
    };
    let activity = says("m", "");
    let turn = async {
        let ended = world.run(&activity, 1).await;
        (ended.disposition, began.elapsed())
    };
    let ((disposition, took), back) = tokio::join!(turn, away);
    back.unwrap();
    assert!(matches!(disposition, Disposition::RetryAfter(_)));
    assert!(took > AWAY, "{took:?}");
}

#[tokio::test]
async fn what_a_component_stores_is_committed_with_the_turn_and_only_with_it() {
    let nodes = json!({"a": node("plain", next("b")), "b": node("plain", json!("end"))});
    let played = PlayedComponents::new(|call, read| {
        let text = call.invocation.payload["text"].as_str().unwrap();
        match (text, call.invocation.ordinal, read) {
            (_, _, []) => Act::Read("n".to_owned()),
            ("fail", 1, _) => Act::Fail(ComponentError::Refused {
                component: "plain".to_owned(),
                what: "go on".to_owned(),
            }),
            ("delete", 1, _) => Act::Done(ComponentOutput {
                value: json!({"text": "gone"}),
                state: vec![("n".to_owned(), None)],
            }),
            (_, _, [stored, ..]) => {
                let n = stored.as_ref().and_then(Value::as_u64).unwrap_or(0) + 1;
                Act::Done(ComponentOutput {
                    value: json!({ "text": n.to_string() }),
                    state: vec![("n".to_owned(), Some(n.into()))],
                })
            }
        }
    });
    let mut world = World::new(&nodes, played);
    let texts = |world: &mut World| -> Vec<Value> {
        world
            .replies()
            .iter()
            .map(|reply| reply["text"].clone())
            .collect()
    };
    assert_eq!(world.settle(&says("m1", "")).await.0, None);
    assert_eq!(
        texts(&mut world),
        ["2"],
        "the second call reads what the first wrote"
    );
    assert_eq!(world.stored("n").await.as_deref(), Some("2"));
    assert_eq!(
        world.settle(&says("m2", "fail")).await.0,
        Some("component_refused")
    );
    assert_eq!(world.stored("n").await.as_deref(), Some("2"));
    assert_eq!(world.settle(&says("m3", "")).await.0, None);
    assert_eq!(texts(&mut world), ["4"]);
    assert_eq!(world.settle(&says("m4", "delete")).await.0, None);
    assert_eq!(world.stored("n").await, None);
    assert_eq!(world.settle(&says("m5", "")).await.0, None);
    assert_eq!(texts(&mut world), ["gone", "2"]);
}

/// Whether the conversation is taken.
fn is_taken(store: &MemoryStore<SystemClock>) -> bool {
    let begin = Begin {
        activity: &says("asks", ""),
        claim: Claim::Optimistic,
        resume: true,
        state: &[],
        state_bytes: 0,
    };
    let begun = store.begin(&begin).now_or_never().unwrap().unwrap();
    matches!(begun, Begun::Busy { .. })
}

/// Plays what a flow with these nodes does to two messages; tells at which calls the conversation was taken.
async fn taken_at_calls(nodes: Value, delivered: u64) -> Vec<bool> {
    let store = Arc::new(MemoryStore::new(SystemClock, Duration::from_secs(600)));
    let taken: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (heard, seen) = (Arc::clone(&taken), Arc::clone(&store));
    let played = PlayedComponents::new(move |_, _| {
        heard.lock().unwrap().push(is_taken(&seen));
        done(Value::Null)
    });
    let world = World::on(&store, &nodes, played);
    for id in ["m1", "m2"] {
        let ended = world.run(&says(id, ""), delivered).await;
        assert!(matches!(ended.disposition, Disposition::Ack), "{ended:?}");
    }
    assert!(!is_taken(&store), "it was given back");
    taken.lock().unwrap().clone()
}

#[tokio::test]
async fn a_flow_that_reaches_out_has_its_conversation_for_itself_from_the_start() {
    let wait = json!({"component": {"id": "session.wait", "operation": null},
        "input": {"mapping": "why"}, "routing": next("b")});
    let with = |component: &str| json!({"a": node("plain", next("w")), "w": wait, "b": node(component, json!("end"))});
    assert_eq!(taken_at_calls(with("plain"), 1).await, [false, false]);
    assert_eq!(taken_at_calls(with("plain"), 2).await, [true, true]);
    assert_eq!(taken_at_calls(with("caller"), 1).await, [true, true]);
}

#[tokio::test]
async fn a_wait_that_reaches_out_is_taken_though_the_entry_flow_does_not() {
    let store = Arc::new(MemoryStore::new(SystemClock, Duration::from_secs(600)));
    let wait = json!({"component": {"id": "session.wait", "operation": null},
        "input": {"mapping": "why"}, "routing": next("b")});
    let nodes = json!({"a": wait, "b": node("caller", json!("end"))});
    let taken: Arc<Mutex<Vec<(bool, u32)>>> = Arc::default();
    let (heard, seen) = (Arc::clone(&taken), Arc::clone(&store));
    let played = PlayedComponents::new(move |call, _| {
        heard.lock().unwrap().push((is_taken(&seen), call.attempt));
        Act::Fail(trap())
    });
    let mut world = World::on(&store, &nodes, played);
    assert_eq!(world.settle(&says("m1", "")).await, (None, 1));
    // Another pack is the tenant's default now; the wait goes on in the first one.
    let mut other = bound(&json!({"a": node("plain", json!("end"))}));
    other.id = PackId::of_archive(b"other");
    other.name = "other".to_owned();
    let defaults = [(tenant(), "other/main".parse().unwrap())].into();
    let (registry, errors) = Registry::new([bound(&nodes), other], &defaults);
    assert_eq!(errors, []);
    world.turns.registry = Arc::new(registry.into());
    let ended = world.settle(&says("m2", "")).await;
    assert_eq!(ended, (Some("component_trap"), ATTEMPTS));
    assert_eq!(*taken.lock().unwrap(), [(true, 1), (true, 2), (true, 3)]);
    assert!(!is_taken(&store), "it was given back");
}

/// Components that never end, and count those that were dropped.
struct Endless(Arc<AtomicUsize>);

impl Components for Endless {
    fn call(&self, _: ComponentCall) -> Box<dyn Running> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

impl Running for Endless {
    fn next(&mut self) -> BoxFuture<'_, Result<CallStep, ComponentError>> {
        pending().boxed()
    }

    fn answer(&mut self, _: Result<Option<Arc<Value>>, StateLimitError>) {}
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_turn_ends_the_call_that_runs() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let nodes = json!({"a": node("plain", json!("end"))});
    let world = World::new(&nodes, Endless(Arc::clone(&dropped)));
    let ended = world.run(&says("m", ""), 1).await;
    assert!(matches!(ended.disposition, Disposition::RetryAfter(_)));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_component_without_code_cannot_be_called() {
    let nodes = json!({"a": node("plain", json!("end"))});
    let mut world = World::new(&nodes, PlayedComponents::new(|_, _| done(Value::Null)));
    let mut pack = bound(&nodes);
    pack.components.clear();
    world.turns.registry = Arc::new(Registry::new([pack], &BTreeMap::new()).0.into());
    let ended = world.settle(&says("m", "")).await;
    assert_eq!(ended, (Some("component_unusable"), 1));
}
