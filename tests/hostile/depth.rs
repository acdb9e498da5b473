//! JSON that nests as deep as it may, and deeper: it is refused with a reason, or it can be read back wherever it gets to.

use std::fs;
use std::time::Duration;

use greentic_worker::adapters::bus::{Bus, Published};
use greentic_worker::app::{self, Embedding};
use greentic_worker::catalog::build_pack;
use greentic_worker::model::{Headers, InboundMessage, MAX_BODY_DEPTH, TenantId, header};
use greentic_worker::settings::Settings;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

/// Says what it got, keeps it in every way there is, waits, and says it again.
const FLOW: &str = r#"
id: main
type: messaging
nodes:
  keep:
    var.set: { name: all, value: "{{in}}" }
    routing: [{ to: store }]
  store:
    state.set: { key: all, value: "{{in}}" }
    routing: [{ to: say }]
  say:
    emit.message: { input: "{{in}}" }
    routing: [{ to: wait }]
  wait:
    session.wait: { reason: x, all: "{{in.metadata.n}}" }
    routing: [{ to: load }]
  load:
    state.get: { key: all }
    routing: [{ to: again }]
  again:
    emit.message: { input: "{{vars.all}}" }
    routing: [{ to: before }]
  before:
    emit.message: { input: "{{node.say}}" }
    routing: [{ to: loaded }]
  loaded:
    emit.message: { input: "{{node.load.value}}" }
    routing: [{ to: waited }]
  waited:
    emit.message: { input: "{{node.wait.all}}" }
    routing: [{ out: true }]
"#;

/// Keeps what was submitted to its question without any template in between.
const PROMPT: &str = r#"
id: main
type: messaging
nodes:
  ask:
    emit.message: { text: what? }
    routing: [{ condition: 'in.metadata.action == "go"', to: hold }]
  hold:
    session.wait: { reason: x }
    routing: [{ to: say }]
  say:
    emit.message: { input: "{{node.ask.answers.f}}" }
    routing: [{ out: true }]
"#;

struct Talk {
    bus: Bus,
    published: UnboundedReceiver<Published>,
    tenant: TenantId,
    sent: u32,
    _files: TempDir,
}

impl Talk {
    fn begin(flow: &str) -> Self {
        let files = TempDir::new().unwrap();
        let at = |name: &str| files.path().join(name);
        fs::create_dir_all(at("pack/flows")).unwrap();
        let pack = "pack_id: deep\nversion: 1.0.0\nkind: application\npublisher: tests\n";
        fs::write(at("pack/pack.yaml"), pack).unwrap();
        fs::write(at("pack/flows/main.ygtc"), flow).unwrap();
        let built = build_pack(&at("pack")).unwrap_or_else(|problems| panic!("{problems}"));
        fs::write(at("deep.gtpack"), &built.bytes).unwrap();
        let (id, archive) = (built.id, at("deep.gtpack"));
        let gtbind = format!(
            "tenant: t\npack_id: {id}\npack_ref: file://{}\nflows:\n  - id: main\n",
            archive.display()
        );
        fs::write(at("t.gtbind"), gtbind).unwrap();

        let mut settings = Settings::defaults().unwrap();
        settings.bindings = vec![at("t.gtbind")];
        let loaded = app::load(&settings, &Default::default())
            .unwrap_or_else(|problems| panic!("{problems}"));
        let Embedding { bus, published, .. } = Embedding::start(&settings, loaded);
        Self {
            bus,
            published,
            tenant: TenantId::new("t").unwrap(),
            sent: 0,
            _files: files,
        }
    }

    fn send(&mut self, metadata: &str) {
        self.sent += 1;
        let body = format!(
            r#"{{"id":"m{}","from":{{"id":"u"}},"reply_scope":{{"conversation":"c"}},"metadata":{metadata}}}"#,
            self.sent
        );
        self.bus.send(InboundMessage {
            tenant: self.tenant.clone(),
            headers: Headers::default(),
            body: body.into(),
            sequence: None,
        });
    }

    async fn next(&mut self) -> Published {
        let next = tokio::time::timeout(Duration::from_secs(20), self.published.recv());
        next.await.expect("something is published").unwrap()
    }

    /// The next reply, as a provider reads it.
    async fn reply(&mut self) -> Value {
        let published = self.next().await;
        assert!(!published.dead_letter, "{:?}", published.headers);
        serde_json::from_slice(&published.body).unwrap()
    }

    async fn dead(&mut self) -> (String, String) {
        let published = self.next().await;
        assert!(published.dead_letter);
        let header = |name| published.headers.get(name).unwrap().to_owned();
        (header(header::ERROR_CODE), header(header::ERROR))
    }
}

fn arrays(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

#[tokio::test]
async fn the_deepest_body_survives_the_wait_the_state_and_the_outbox() {
    let mut talk = Talk::begin(FLOW);
    // Two levels are the body's own.
    let nested = arrays(MAX_BODY_DEPTH - 2);
    let sent: Value = serde_json::from_str(&nested).unwrap();
    talk.send(&format!(r#"{{"n":{nested}}}"#));
    let said = talk.reply().await;
    assert_eq!(said["extensions"]["payload"]["metadata"]["n"], sent);
    talk.send("{}");
    for n in 0..3 {
        let said = talk.reply().await;
        assert_eq!(said["extensions"]["payload"]["metadata"]["n"], sent, "{n}");
    }
    assert_eq!(talk.reply().await["extensions"]["payload"], sent);
}

#[tokio::test]
async fn a_submit_that_is_parked_as_it_came_can_be_read_back() {
    let mut talk = Talk::begin(PROMPT);
    talk.send("{}");
    assert_eq!(talk.reply().await["text"], "what?");
    let nested = arrays(MAX_BODY_DEPTH - 2);
    talk.send(&format!(r#"{{"action":"go","f":{nested}}}"#));
    talk.send("{}");
    let sent: Value = serde_json::from_str(&nested).unwrap();
    assert_eq!(talk.reply().await["extensions"]["payload"], sent);
}

#[tokio::test]
async fn one_level_more_is_refused_and_says_where() {
    let mut talk = Talk::begin(FLOW);
    for levels in [MAX_BODY_DEPTH - 1, 126, 127, 128, 100_000] {
        talk.send(&format!(r#"{{"n":{}}}"#, arrays(levels)));
        let (code, reason) = talk.dead().await;
        assert_eq!(code, "unreadable_body", "{levels}");
        assert!(reason.contains("60 levels"), "{reason}");
    }
    // And the worker is as it was.
    talk.send(r#"{"n":1}"#);
    assert_eq!(
        talk.reply().await["extensions"]["payload"]["metadata"],
        json!({"n": 1})
    );
}
