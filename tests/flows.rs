//! Flows as data: each case of `tests/flows/*.yaml` is a pack of flows, a script of activities and what they come to.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use greentic_types::pack_manifest::PackFlowEntry;
use greentic_worker::flow::{
    Ask, Assets, Context, Effects, Event, FlowError, Inventory, Limits, Program, Provider, Run,
    RunMonitor, Snapshot, Step, Wait, advance,
};
use greentic_worker::model::{FlowId, Invocation, InvocationForm, Problem, Problems, StateLimits};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::macros::datetime;

/// One case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    flows: serde_yaml::Mapping,
    /// The components of the pack.
    #[serde(default)]
    components: BTreeSet<String>,
    /// The components behind its providers, by the providers' types.
    #[serde(default)]
    providers: Vec<(String, String)>,
    /// Its JSON files, by path.
    #[serde(default)]
    assets: BTreeMap<String, Value>,
    /// Bounds that differ from the usual ones.
    #[serde(default)]
    limits: BTreeMap<String, u32>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// What the compiler says, in order; nothing unless it is written here.
    #[serde(default)]
    problems: Vec<String>,
    /// The state keys of `main`, as `flow/key`.
    state_keys: Option<Vec<String>>,
    /// The components that `main` may call.
    may_call: Option<Vec<String>>,
    /// Parks the run as if a worker had stored this.
    parked: Option<Value>,
    #[serde(default)]
    script: Vec<Turn>,
}

/// One activity and what it comes to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    send: Value,
    #[serde(default)]
    replies: Vec<Value>,
    /// The flows that spoke, where that is of interest.
    spoke: Option<Vec<String>>,
    #[serde(default)]
    logs: Vec<Value>,
    /// What was asked of the state, as `flow/key`.
    #[serde(default)]
    asks: Vec<String>,
    /// What was written to the state, under `flow/key`.
    #[serde(default)]
    writes: Map<String, Value>,
    /// What was deleted from the state, as `flow/key`.
    #[serde(default)]
    deletes: BTreeSet<String>,
    /// The components that were called, in order, and what they did.
    #[serde(default)]
    calls: VecDeque<Call>,
    /// Where it waits, as `flow/node`; it is over unless this or `error` is there.
    waits: Option<String>,
    reason: Option<String>,
    /// What is stored of the run, less its version, flow and node.
    stores: Option<Value>,
    /// The code of the error, and the text of its message.
    error: Option<(String, String)>,
    hopeless: Option<bool>,
}

/// A component's call: what it must be, and what comes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    /// `<flow>/<node> <component> <operation>`
    call: String,
    payload: Value,
    /// `card` or `provider`, where it is no node's.
    form: Option<String>,
    /// The keys of the state that it reads, in order, and what it must find.
    #[serde(default)]
    reads: Vec<(String, Option<Value>)>,
    #[serde(default)]
    writes: Vec<(String, Value)>,
    #[serde(default)]
    deletes: Vec<String>,
    answer: Value,
}

#[test]
fn flows_do_what_their_cases_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flows");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 1, "the cases are gone");
    let mut failed = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let cases: Vec<Case> =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for case in cases {
            let at = format!("{name}, {}", case.case);
            if catch_unwind(AssertUnwindSafe(|| check(&at, case))).is_err() {
                failed.push(at);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A program is shared by all turns of a worker, and a run goes with its turn from thread to thread.
#[test]
fn programs_are_shared_and_runs_travel() {
    fn shared<T: Send + Sync>() {}
    fn travels<T: Send>() {}
    shared::<Program>();
    travels::<Run>();
}

/// The limits of a case, the usual ones where it names none.
fn limits(given: &BTreeMap<String, u32>) -> Limits {
    let default = Limits::default();
    Limits {
        nodes: given.get("nodes").copied().unwrap_or(default.nodes),
        jumps: given.get("jumps").copied().unwrap_or(default.jumps),
        calls: given.get("calls").copied().unwrap_or(default.calls),
        rendered_bytes: given
            .get("rendered_bytes")
            .map_or(default.rendered_bytes, |n| *n as usize),
        replies: given.get("replies").copied().unwrap_or(default.replies),
        state: StateLimits {
            keys: given
                .get("state_keys")
                .copied()
                .unwrap_or(default.state.keys),
            bytes: given
                .get("state_bytes")
                .map_or(default.state.bytes, |n| *n as usize),
            ..default.state
        },
        ..default
    }
}

fn check(at: &str, case: Case) {
    let entries: Vec<_> = case
        .flows
        .iter()
        .map(|(id, flow)| flow_entry(id, flow))
        .collect();
    let limits = limits(&case.limits);
    let inventory = Inventory {
        components: case.components,
        providers: case.providers.into_iter().map(provider).collect(),
        assets: Assets::new(
            case.assets
                .into_iter()
                .map(|(path, json)| (path, json.to_string().into())),
        ),
    };
    let (program, problems) = match Program::compile(&entries, inventory, limits) {
        Ok((program, warnings)) => (Some(program), warnings),
        Err(problems) => (None, problems),
    };
    assert_eq!(said(&problems), case.problems, "{at}: problems");
    assert_eq!(
        program.is_none(),
        problems.has_errors(),
        "{at}: errors and no program go together"
    );
    let Some(program) = program else {
        assert!(
            case.script.is_empty(),
            "{at}: it does not compile, so it has no script"
        );
        return;
    };
    let main = FlowId::new("main").unwrap();
    if let Some(expected) = &case.state_keys {
        let keys = program
            .state_keys(&main)
            .iter()
            .map(|(flow, key)| format!("{flow}/{key}"));
        assert_eq!(&keys.collect::<Vec<_>>(), expected, "{at}: state keys");
    }
    if let Some(expected) = &case.may_call {
        assert_eq!(
            program.components(&main),
            expected,
            "{at}: what it may call"
        );
    }
    let mut world = World {
        program: &program,
        env: &case.env,
        state: HashMap::new(),
    };
    let mut parked = case
        .parked
        .map(|snapshot| serde_json::from_value(snapshot).unwrap());
    for (n, turn) in case.script.into_iter().enumerate() {
        let run = parked
            .take()
            .map_or_else(|| Run::fresh(main.clone()), Run::parked);
        let at = format!("{at}, turn {}", n + 1);
        parked = world.check_turn(&at, run, turn);
    }
}

/// The first line of each problem; all must offer a remedy.
fn said(problems: &Problems) -> Vec<String> {
    let first_line = |problem: &Problem| {
        assert!(problem.remedy.is_some(), "no remedy: {problem}");
        problem
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    problems.iter().map(first_line).collect()
}

struct World<'p> {
    program: &'p Program,
    env: &'p BTreeMap<String, String>,
    state: HashMap<String, Value>,
}

impl World<'_> {
    /// Plays a turn, and compares all that it came to. Returns what is parked, as it was read back.
    fn check_turn(&mut self, at: &str, run: Run, turn: Turn) -> Option<Snapshot> {
        let mut heard = Heard {
            at: at.to_owned(),
            asks: Vec::new(),
            calls: turn.calls,
            called: 0,
        };
        let played = self.play(run, turn.send, &mut heard);
        assert!(
            heard.calls.is_empty(),
            "{at}: {} calls were made, and no more",
            heard.called
        );
        let asks = heard.asks;
        let (wait, effects) = match played {
            Ok(done) => done,
            Err(error) => {
                let found = (error.code().to_owned(), error.to_string());
                assert_eq!(Some(found), turn.error, "{at}: error");
                assert_eq!(
                    error.is_hopeless(),
                    turn.hopeless.unwrap_or(true),
                    "{at}: hopeless"
                );
                return None;
            }
        };
        assert_eq!(turn.error, None, "{at}: it went well");
        assert_eq!(asks, turn.asks, "{at}: asks");
        let replies: Vec<_> = effects
            .replies
            .iter()
            .map(|reply| reply.payload.clone())
            .collect();
        assert_eq!(replies, turn.replies, "{at}: replies");
        if let Some(expected) = turn.spoke {
            let spoke: Vec<_> = effects
                .replies
                .iter()
                .map(|reply| reply.flow.to_string())
                .collect();
            assert_eq!(spoke, expected, "{at}: who spoke");
        }
        assert_eq!(effects.logs, turn.logs, "{at}: logs");
        let (mut writes, mut deletes) = (Map::new(), BTreeSet::new());
        for write in effects.state {
            let slot = format!("{}/{}", write.flow, write.key);
            match write.value {
                Some(value) => {
                    writes.insert(slot, value);
                }
                None => {
                    self.state.remove(&slot);
                    deletes.insert(slot);
                }
            }
        }
        assert_eq!(writes, turn.writes, "{at}: writes");
        assert_eq!(deletes, turn.deletes, "{at}: deletes");
        self.state.extend(writes);
        let waits = wait
            .as_ref()
            .map(|wait| format!("{}/{}", wait.flow, wait.node));
        assert_eq!(waits, turn.waits, "{at}: where it waits");
        let wait = wait?;
        if turn.reason.is_some() {
            assert_eq!(wait.reason, turn.reason, "{at}: why it waits");
        }
        assert_eq!(wait.snapshot.flow(), &wait.flow, "{at}");
        assert_eq!(wait.snapshot.node(), &wait.node, "{at}");
        let mut stored = serde_json::to_value(&wait.snapshot).unwrap();
        let read = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!(wait.snapshot, read, "{at}: stored and read back");
        if let Some(expected) = turn.stores {
            let fields = stored.as_object_mut().unwrap();
            fields.retain(|name, _| !["v", "flow", "node"].contains(&name.as_str()));
            assert_eq!(stored, expected, "{at}: what is stored");
        }
        Some(read)
    }

    fn play(
        &self,
        run: Run,
        payload: Value,
        heard: &mut Heard,
    ) -> Result<(Option<Wait>, Effects), FlowError> {
        let now = datetime!(2026-09-09 12:53:04.25 +2);
        let cx = Context {
            program: self.program,
            env: self.env,
            now,
            slice: u64::MAX,
            monitor: &RunMonitor::default(),
        };
        let (mut run, mut event) = (Box::new(run), Event::Activity(Arc::new(payload)));
        loop {
            match advance(&cx, run, event)? {
                Step::Paused(paused) => {
                    run = paused;
                    event = Event::Continue;
                }
                Step::Suspended(wait, effects) => return Ok((Some(*wait), effects)),
                Step::Finished(effects) => return Ok((None, effects)),
                Step::Ask(asking, Ask::State { flow, key }) => {
                    event = Event::State(self.read(&flow, &key, heard));
                    run = asking;
                }
                Step::Ask(mut asking, Ask::Component(invocation)) => {
                    event = self.call(&invocation, &mut asking, heard);
                    run = asking;
                }
            }
        }
    }

    fn read(&self, flow: &FlowId, key: &str, heard: &mut Heard) -> Option<Value> {
        let slot = format!("{flow}/{key}");
        let stored = self.state.get(&slot).cloned();
        heard.asks.push(slot);
        stored
    }

    /// Plays a component's call as the case says.
    fn call(&self, invocation: &Invocation, run: &mut Run, heard: &mut Heard) -> Event {
        let Invocation {
            flow,
            node,
            component,
            operation,
            payload,
            form,
            ordinal,
        } = invocation;
        let at = format!("{}, call {}", heard.at, heard.called + 1);
        let call = format!("{flow}/{node} {component} {operation}");
        let expected = heard.calls.pop_front();
        let expected = expected.unwrap_or_else(|| panic!("{at}: not expected: {call} {payload}"));
        assert_eq!(call, expected.call, "{at}");
        assert_eq!(*payload, expected.payload, "{at}: payload");
        let form = match form {
            InvocationForm::Node => None,
            InvocationForm::Card => Some("card"),
            InvocationForm::Provider => Some("provider"),
        };
        assert_eq!(form, expected.form.as_deref(), "{at}: form");
        assert_eq!(*ordinal, heard.called, "{at}: ordinal");
        heard.called += 1;
        for (key, value) in expected.reads {
            if run.recall(&key).is_none() {
                let stored = self.read(flow, &key, heard);
                run.learn(&key, stored.map(Arc::new));
            }
            let known = run.recall(&key).cloned().flatten();
            assert_eq!(known.as_deref(), value.as_ref(), "{at}: read of {key}");
        }
        let written = expected
            .writes
            .into_iter()
            .map(|(key, value)| (key, Some(value)));
        let deleted = expected.deletes.into_iter().map(|key| (key, None));
        Event::Component {
            output: expected.answer,
            state: written.chain(deleted).collect(),
        }
    }
}

/// What the machine asked in a turn, and the calls that it has still to make.
struct Heard {
    at: String,
    asks: Vec<String>,
    calls: VecDeque<Call>,
    called: u32,
}

fn provider((provider_type, component): (String, String)) -> Provider {
    Provider {
        id: None,
        provider_type,
        component,
    }
}

/// A flow of a case: `nodes`, and what else a flow has besides. Nodes come in the order of their names: the first one is
/// the entry, unless `entrypoints` says otherwise.
fn flow_entry(id: &serde_yaml::Value, flow: &serde_yaml::Value) -> PackFlowEntry {
    let flow: Map<String, Value> = serde_json::to_value(flow)
        .map(serde_json::from_value)
        .unwrap()
        .unwrap();
    let field = |name: &str| flow.get(name).cloned();
    let nodes = field("nodes").unwrap_or(json!({}));
    let nodes = nodes.as_object().unwrap().iter();
    let nodes: Map<_, _> = nodes
        .map(|(id, node)| (id.clone(), node_json(id, node)))
        .collect();
    let entry = json!({
        "id": id.as_str(),
        "kind": "messaging",
        "tags": field("tags").unwrap_or(json!([])),
        "flow": {
            "schema_version": "flow-v1",
            "id": id.as_str(),
            "kind": "messaging",
            "entrypoints": field("entrypoints").unwrap_or(json!({})),
            "metadata": {"extra": {"vars_init": field("vars_init").unwrap_or(json!({}))}},
            "nodes": nodes,
        },
    });
    serde_json::from_value(entry).unwrap()
}

/// A node of a case: `<kind>: <mapping>`, and one of `to`, `branch`, `routes` and `routing`; else the flow ends with it.
fn node_json(id: &str, node: &Value) -> Value {
    let mut fields = node.as_object().unwrap().clone();
    let operation = fields.remove("operation");
    let routing = match (
        fields.remove("to"),
        fields.remove("branch"),
        fields.remove("routes"),
    ) {
        (Some(to), None, None) => json!({"next": {"node_id": to}}),
        (None, Some(branch), None) => json!({"branch": branch}),
        (None, None, Some(routes)) => json!({"custom": routes}),
        (None, None, None) => fields.remove("routing").unwrap_or(json!("end")),
        other => panic!("node {id} has several routings: {other:?}"),
    };
    assert_eq!(fields.len(), 1, "node {id} needs one kind: {fields:?}");
    let (kind, mapping) = fields.into_iter().next().unwrap();
    json!({
        "id": id,
        "component": {"id": kind, "operation": operation},
        "input": {"mapping": mapping},
        "output": {"mapping": null},
        "routing": routing,
    })
}
