//! The demo: its archives are what its sources give, its bindings load, and its conversations go as they should.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes the functions between the tests for code outside of tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greentic_worker::bindings::EnvPolicy;
use greentic_worker::catalog::{self, Loaded, Sources};
use greentic_worker::flow::{self, Ask, Context, Effects, Event, Run, Snapshot, Step, advance};
use greentic_worker::model::{FlowTarget, TenantId, UndeclaredState};
use greentic_worker::pack::{self, Resolver};
use greentic_worker::registry::{Entry, Registry};
use serde_json::{Value, json};
use time::OffsetDateTime;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn tenant() -> TenantId {
    "dev.local".parse().unwrap()
}

fn load() -> Registry {
    let sources = Sources {
        resolver: &Resolver::new(root().join("packs/store")),
        limits: &pack::Limits::default(),
        signatures: &pack::Signatures::default(),
        undeclared_state: UndeclaredState::default(),
        flow_limits: flow::Limits::default(),
        policy: &EnvPolicy::default(),
        environment: &BTreeMap::new(),
        defaults: &BTreeMap::from([(tenant(), "hello-pack/main".parse().unwrap())]),
    };
    let bindings = catalog::read(&[root().join("bindings")]);
    let Loaded {
        registry, warnings, ..
    } = catalog::load(&sources, bindings).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(warnings.is_empty(), "{warnings}");
    registry
}

/// One user, with the state that the packs keep of them.
struct User {
    entry: Entry,
    state: BTreeMap<String, Value>,
    parked: Option<Snapshot>,
}

impl User {
    fn of(pack: &str) -> Self {
        let registry = load();
        let packs = registry.packs();
        let id = packs.iter().find(|bound| bound.name == pack).unwrap().id;
        let target = FlowTarget {
            pack: Some(id),
            flow: None,
        };
        Self {
            entry: registry.entry(&tenant(), &target).unwrap(),
            state: BTreeMap::new(),
            parked: None,
        }
    }

    /// Says something and compares the answers; the last one is followed by `…` if the flow then waits.
    #[track_caller]
    fn says(&mut self, text: &str, answers: &[&str]) {
        let (effects, parked) = self.turn(json!({ "text": text }));
        let mut found: Vec<String> = effects
            .replies
            .iter()
            .map(|reply| reply.payload["text"].as_str().unwrap().to_owned())
            .collect();
        if parked.is_some() {
            found.last_mut().unwrap().push_str(" …");
        }
        assert_eq!(found, answers);
        let written = effects.state.into_iter();
        self.state
            .extend(written.map(|w| (w.key, w.value.unwrap_or_default())));
        self.parked = parked;
    }

    fn turn(&mut self, payload: Value) -> (Effects, Option<Snapshot>) {
        let context = Context {
            program: &self.entry.pack.program,
            env: &self.entry.pack.grants.env,
            now: OffsetDateTime::UNIX_EPOCH,
        };
        let mut run = Box::new(match self.parked.take() {
            Some(snapshot) => Run::parked(snapshot),
            None => Run::fresh(self.entry.flow.clone()),
        });
        let mut event = Event::Activity(Arc::new(payload));
        loop {
            match advance(&context, run, event).unwrap() {
                Step::Ask(asking, Ask::State { key, .. }) => {
                    event = Event::State(self.state.get(&key).cloned());
                    run = asking;
                }
                Step::Ask(_, Ask::Component(invocation)) => {
                    panic!("the demo packs have no components: {invocation:?}")
                }
                Step::Suspended(wait, effects) => return (effects, Some(wait.snapshot)),
                Step::Finished(effects) => return (effects, None),
            }
        }
    }
}

/// Also holds the archive format still: a change of these bytes would give every pack that is built anew another id.
#[test]
fn the_archives_in_the_store_are_what_the_sources_give() {
    for name in ["hello-pack", "approval-pack"] {
        let built = catalog::build_pack(&root().join("packs").join(name))
            .unwrap_or_else(|problems| panic!("{problems}"));
        assert!(built.warnings.is_empty(), "{}", built.warnings);
        let kept = fs::read(root().join("packs/store").join(built.file_name())).unwrap();
        assert!(
            kept == built.bytes,
            "packs/store is not what packs/{name} gives: build and bind it again (`greentic-worker pack build`)"
        );
    }
}

#[test]
fn a_message_that_names_no_flow_says_hello() {
    let entry = load().entry(&tenant(), &FlowTarget::default()).unwrap();
    assert_eq!(entry.pack.name, "hello-pack");
}

#[test]
fn hello_pack_greets_and_remembers_the_visits() {
    let mut ada = User::of("hello-pack");
    for greeting in [
        "Nice to meet you, Ada! This is your first visit.",
        "Welcome back, Ada! This is visit number 2.",
        "Welcome back, Ada! This is visit number 3.",
    ] {
        ada.says("hi", &["Hello! What is your name? …"]);
        ada.says("Ada", &[greeting]);
    }
}

#[test]
fn approval_pack_waits_twice_and_branches() {
    let ask = "What would you like to have approved? …";
    let asked = "Request for approval: a new laptop. Do you approve? Please answer yes or no. …";
    for (decision, ends) in [
        ("Yes", "Approved: a new laptop."),
        ("no", "Rejected: a new laptop."),
    ] {
        let mut user = User::of("approval-pack");
        user.says("hi", &[ask]);
        user.says("a new laptop", &[asked]);
        user.says(
            "perhaps",
            &["I did not understand \"perhaps\". Please answer yes or no. …"],
        );
        user.says(decision, &[ends]);
    }
}
