//! The conversations that the micro-benchmarks time and that `tests/cost` counts: each of two turns, run by the machine
//! alone or by a whole worker over a transport and a store in memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use greentic_worker::app::{self, Embedding, Loaded};
use greentic_worker::catalog;
use greentic_worker::flow::{Ask, Context, Event, Run, RunMonitor, Snapshot, Step, advance};
use greentic_worker::model::{Activity, FlowId, Headers, InboundMessage, TenantId, decode};
use greentic_worker::registry::{BoundPack, Entry};
use greentic_worker::settings::Settings;
use greentic_worker::telemetry;
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;

/// The tenant of all scenes.
const TENANT: &str = "bench";

/// The pack of a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pack {
    /// A message, a wait, a message.
    Plain,
    /// The demo: state is read and written besides.
    State,
    /// A reply with many templates.
    Templates,
    /// A hundred nodes a turn, each with a template and a condition.
    Long,
}

impl Pack {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Plain, Self::State, Self::Templates, Self::Long];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::State => "state",
            Self::Templates => "20 templates",
            Self::Long => "100 nodes",
        }
    }

    fn sources(self, scratch: &Path) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        match self {
            Self::Plain => root.join("benches/pack"),
            Self::State => root.join("packs/hello-pack"),
            Self::Templates => write(scratch, &templates()),
            Self::Long => write(scratch, &long()),
        }
    }
}

/// A pack that is loaded as a worker loads it.
pub struct Scene {
    settings: Settings,
    loaded: Loaded,
    _scratch: TempDir,
}

impl Scene {
    /// Builds and loads a pack.
    pub fn of(pack: Pack) -> Self {
        let scratch = tempfile::tempdir().expect("a folder can be made");
        let sources = pack.sources(scratch.path());
        let built = catalog::build_pack(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        let archive = scratch.path().join(built.file_name());
        fs::write(&archive, &built.bytes).expect("an archive can be written");
        let binding = format!(
            "tenant: {TENANT}\npack_id: {}\npack_ref: file://{}\nflows:\n  - id: main\n",
            built.id,
            archive.display()
        );
        let gtbind = scratch.path().join("bench.gtbind");
        fs::write(&gtbind, binding).expect("a gtbind can be written");
        let mut settings = Settings::defaults().unwrap_or_else(|problems| panic!("{problems}"));
        settings.bindings = vec![gtbind];
        // Applied activities are forgotten at once, or the store in memory would take longer from turn to turn.
        settings.redis.dedupe_window = Duration::ZERO;
        // Valgrind has less address space to give than a worker reserves for components.
        settings.components.instances = NonZeroU32::MIN;
        let loaded = app::load(&settings, &BTreeMap::new());
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        Self {
            settings,
            loaded,
            _scratch: scratch,
        }
    }

    /// The message of a turn of a conversation.
    pub fn message(&self, conversation: usize, turn: usize) -> InboundMessage {
        let body = format!(
            r#"{{"id":"{conversation}-{turn}","channel":"bench","session_id":"s{conversation}","from":{{"id":"u{conversation}"}},"reply_scope":{{"conversation":"c{conversation}"}},"text":"{}","metadata":{{"locale":"en"}}}}"#,
            "bench ".repeat(70)
        );
        InboundMessage {
            tenant: TENANT.parse().expect("a tenant"),
            headers: Headers::default(),
            body: body.into(),
            sequence: None,
        }
    }

    /// What decoding makes of it.
    pub fn decode(&self, message: &InboundMessage) -> Activity {
        decode(message, &self.settings.environment).expect("a message that can be read")
    }

    /// The machine with this scene's pack.
    pub fn machine(&self) -> Machine {
        let tenant: TenantId = TENANT.parse().expect("a tenant");
        let entry = self.loaded.registry.entry(&tenant, &Default::default());
        let Entry { pack, flow } = entry.expect("one flow is bound");
        Machine { pack, flow }
    }

    /// A worker with this scene's pack; it runs on the calling tokio, and logs as a released one does.
    pub fn worker(self) -> Talk {
        static LOG: Once = Once::new();
        LOG.call_once(|| telemetry::init(&self.settings.log).expect("a log"));
        let worker = Embedding::start(&self.settings, self.loaded);
        Talk {
            worker,
            _scratch: self._scratch,
        }
    }
}

/// The pure machine, and what the world would keep for it.
pub struct Machine {
    pack: Arc<BoundPack>,
    flow: FlowId,
}

/// What a conversation keeps between its turns.
#[derive(Default)]
pub struct Kept {
    parked: Option<Snapshot>,
    state: HashMap<String, Value>,
}

impl Machine {
    /// Runs a turn to its end or its wait; how many replies it gave.
    pub fn turn(&self, kept: &mut Kept, payload: Arc<Value>) -> usize {
        let run = match kept.parked.take() {
            Some(snapshot) => Run::parked(snapshot),
            None => Run::fresh(self.flow.clone()),
        };
        let context = Context {
            program: &self.pack.program,
            env: &self.pack.grants.env,
            now: OffsetDateTime::UNIX_EPOCH,
            slice: u64::MAX,
            monitor: &RunMonitor::default(),
        };
        let (mut run, mut event) = (Box::new(run), Event::Activity(payload));
        let effects = loop {
            match advance(&context, run, event).expect("a flow that runs") {
                Step::Ask(asking, Ask::State { key, .. }) => {
                    event = Event::State(kept.state.get(&key).cloned());
                    run = asking;
                }
                Step::Ask(_, Ask::Component(invocation)) => {
                    panic!("the scenes have no components: {invocation:?}")
                }
                Step::Paused(paused) => {
                    run = paused;
                    event = Event::Continue;
                }
                Step::Suspended(wait, effects) => {
                    kept.parked = Some(wait.snapshot);
                    break effects;
                }
                Step::Finished(effects) => break effects,
            }
        };
        for write in effects.state {
            match write.value {
                Some(value) => kept.state.insert(write.key, value),
                None => kept.state.remove(&write.key),
            };
        }
        effects.replies.len()
    }
}

/// A worker to talk to, over a transport and a store in memory.
pub struct Talk {
    worker: Embedding,
    _scratch: TempDir,
}

impl Talk {
    /// Sends a message and waits for its one reply.
    pub async fn turn(&mut self, message: InboundMessage) -> Bytes {
        self.worker.bus.send(message);
        let reply = self.worker.published.recv().await.expect("a reply");
        self.worker.bus.settled().await;
        assert!(!reply.dead_letter, "{:?}", reply.headers);
        reply.body
    }
}

/// Replies that say twenty times what the user said, each time found and rendered anew.
fn templates() -> String {
    let mut flow = String::from("id: main\ntype: messaging\nnodes:\n");
    let text: Vec<String> = (0..10)
        .map(|n| {
            format!(
                "{n}: {{{{in.from.id}}}} {{{{#if in.text}}}}{{{{in.metadata.locale}}}}{{{{/if}}}}"
            )
        })
        .collect();
    let text = text.join(", ");
    for (turn, end) in [("a", "[{to: wait}]"), ("b", "out")] {
        let _ = writeln!(
            flow,
            "  {turn}: {{emit.message: {{text: \"{text}\"}}, routing: {end}}}"
        );
    }
    flow.push_str("  wait: {session.wait: {reason: the answer}, routing: [{to: b}]}\n");
    flow
}

/// A hundred nodes a turn.
fn long() -> String {
    const NODES: usize = 100;
    let mut flow = String::from("id: main\ntype: messaging\nnodes:\n");
    for (turn, end) in [("a", "[{to: wait}]"), ("b", "out")] {
        for n in 0..NODES - 1 {
            let next = n + 1;
            let _ = writeln!(
                flow,
                "  {turn}{n}: {{var.set: {{name: v{n}, value: \"{{{{in.from.id}}}} {n}\"}}, routing: [{{condition: vars.v{n} == \"no\", to: wait}}, {{to: {turn}{next}}}]}}"
            );
        }
        let last = NODES - 1;
        let _ = writeln!(
            flow,
            "  {turn}{last}: {{emit.message: {{text: \"{{{{vars.v0}}}}\"}}, routing: {end}}}"
        );
    }
    flow.push_str("  wait: {session.wait: {reason: the answer}, routing: [{to: b0}]}\n");
    flow
}

/// The sources of a pack with one flow.
fn write(scratch: &Path, flow: &str) -> PathBuf {
    let sources = scratch.join("sources");
    fs::create_dir_all(sources.join("flows")).expect("a folder can be made");
    let config = "pack_id: bench-pack\nversion: 1.0.0\nkind: application\npublisher: benches\n";
    fs::write(sources.join("pack.yaml"), config).expect("a file can be written");
    fs::write(sources.join("flows/main.ygtc"), flow).expect("a file can be written");
    sources
}
