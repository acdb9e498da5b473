//! Bindings that cannot be used stop their tenant and no other one.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    DEADLINE, FixturePack, Message, NatsServer, Provider, RedisServer, Servers, Tenant,
    WorkerBuilder, WorkerProcess, fresh_tenant, poll, scratch,
};

const UNUSABLE: &str = "greentic_worker_bindings_unusable";

/// A folder of gtbinds of two tenants.
struct Site {
    folder: TempDir,
    good: Tenant,
    bad: Tenant,
    pack: FixturePack,
}

impl Site {
    /// With a good tenant bound.
    fn new() -> Self {
        let says = "a: {emit.message: {text: \"one {{in.text}}\"}, routing: out}";
        let site = Self {
            folder: scratch(),
            good: fresh_tenant(),
            bad: fresh_tenant(),
            pack: FixturePack::of("says", &[("main", says)]),
        };
        site.write(&site.good.id, &site.text(&site.good));
        site
    }

    fn text(&self, tenant: &Tenant) -> String {
        let (tenant, id, file) = (&tenant.id, &self.pack.id, self.pack.file.display());
        format!("tenant: {tenant}\npack_id: {id}\npack_ref: file://{file}\nflows: [{{id: main}}]\n")
    }

    /// The name of the bad tenant's gtbind, as `pack build --bind` names it.
    fn bad_file(&self) -> String {
        format!("{}.says", self.bad.id)
    }

    /// Writes a gtbind in one step.
    fn write(&self, name: &str, text: &str) {
        let whole = self.folder.path().join(format!(".{name}"));
        fs::write(&whole, text).unwrap();
        fs::rename(whole, self.folder.path().join(format!("{name}.gtbind"))).unwrap();
    }

    fn worker(&self, servers: &Servers) -> WorkerBuilder {
        WorkerProcess::of(servers)
            .bindings_dir(self.folder.path())
            .setting("RELOAD__EVERY", "50ms")
    }

    /// What `/readyz` says of the bad tenant, once it says this; ready all the while.
    async fn shown(&self, worker: &WorkerProcess, effect: &str) -> Value {
        let shown = poll(DEADLINE, async || {
            let (status, body) = worker.get("/readyz").await?;
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(status, 200, "{body}");
            let mut entries = body["unusable"].as_array()?.iter();
            let entry = entries.find(|entry| {
                entry["tenant"] == self.bad.id.as_str() && entry["effect"] == effect
            })?;
            assert_eq!(body["state"], "degraded", "{body}");
            Some(entry.clone())
        });
        let shown = shown.await;
        shown.unwrap_or_else(|| panic!("the tenant is not {effect}: {}", worker.log()))
    }

    async fn is_well(&self, worker: &WorkerProcess) {
        let well = poll(DEADLINE, async || {
            let (_, body) = worker.get("/readyz").await?;
            let body: Value = serde_json::from_str(&body).ok()?;
            body.get("state").is_none().then_some(())
        });
        assert!(well.await.is_some(), "{:?}", worker.get("/readyz").await);
        worker.expect_metric(UNUSABLE, &self.bad.id, 0.0).await;
    }
}

async fn says(provider: &mut Provider, text: &str, reply: &str) {
    provider.send(&Message::new("c", text)).await;
    provider.expect_text(reply).await;
}

/// `check` and `serve --strict` complain of this, and end.
async fn refused(site: &Site, servers: &Servers, complaint: &str) {
    let cache = scratch();
    let mut check = Command::new(env!("CARGO_BIN_EXE_greentic-worker"));
    check
        .args(["check", "--bindings-dir"])
        .arg(site.folder.path());
    check.env("GREENTIC_WORKER__PACKS__CACHE_DIR", cache.path());
    let output = tokio::task::spawn_blocking(move || check.output());
    let output = output.await.unwrap().unwrap();
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{complaints}");
    assert!(complaints.contains(complaint), "{complaints}");

    let strict = site.worker(servers).arg("--strict").without_waiting();
    let strict = strict.start().await;
    assert_eq!(strict.exited(DEADLINE).await, 64);
    assert!(strict.log().contains(complaint), "{}", strict.log());
}

/// Starts with bindings of one tenant of two that cannot be used, and mends them while the worker runs.
async fn stops_one(broken: impl Fn(&Site) -> String, problem: &str, place: &str) {
    let servers = Servers::shared().await;
    let site = Site::new();
    site.write(&site.bad_file(), &broken(&site));
    refused(&site, &servers, problem).await;

    let worker = site.worker(&servers).start().await;
    let shown = site.shown(&worker, "stopped").await;
    let file = format!("{}.gtbind", site.bad_file());
    assert!(shown["file"].as_str().unwrap().ends_with(&file), "{shown}");
    assert!(
        shown["problem"].as_str().unwrap().contains(problem),
        "{shown}"
    );
    assert!(
        shown["place"].as_str().unwrap_or_default().ends_with(place),
        "{shown}"
    );
    assert!(shown["help"].is_string(), "{shown}");
    let label = format!("tenant=\"{}\",effect=\"stopped\"", site.bad.id);
    worker.expect_metric(UNUSABLE, &label, 1.0).await;

    let mut good = Provider::connect(&servers, &site.good).await;
    let mut bad = Provider::connect(&servers, &site.bad).await;
    bad.send(&Message::new("c", "early")).await;
    says(&mut good, "hi", "one hi").await;
    assert_eq!(
        bad.unsettled().await,
        1,
        "a stopped tenant's message is gone"
    );
    let log = worker.log();
    assert_eq!(log.matches(problem).count(), 1, "{log}");
    assert!(log.contains("the tenant is stopped"), "{log}");

    site.write(&site.bad_file(), &site.text(&site.bad));
    bad.expect_text("one early").await;
    site.is_well(&worker).await;
    assert!(!worker.log().contains("dead"), "{}", worker.log());
}

#[tokio::test]
async fn text_that_is_not_yaml() {
    let broken = |site: &Site| format!("tenant: {}\nflows: [", site.bad.id);
    stops_one(broken, "this is not valid YAML", "").await;
}

#[tokio::test]
async fn text_that_tells_nothing_but_by_the_name_of_its_file() {
    stops_one(|_| "[".to_owned(), "this is not valid YAML", "").await;
}

#[tokio::test]
async fn an_unknown_field() {
    let broken = |site: &Site| site.text(&site.bad) + "chanels: []\n";
    stops_one(broken, "unknown field `chanels`", "chanels").await;
}

#[tokio::test]
async fn a_pack_that_is_not_there() {
    let broken = |site: &Site| site.text(&site.bad).replace("file://", "file:///nowhere");
    stops_one(broken, "there is no ", "pack_ref").await;
}

#[tokio::test]
async fn another_archive_than_the_one_that_is_meant() {
    let broken = |site: &Site| {
        let other = format!("sha256:{}", "0".repeat(64));
        site.text(&site.bad)
            .replace(&site.pack.id.to_string(), &other)
    };
    stops_one(broken, "is refused: the archive is sha256:", "pack_ref").await;
}

#[tokio::test]
async fn a_flow_that_the_pack_does_not_have() {
    let broken = |site: &Site| site.text(&site.bad).replace("main", "absent");
    stops_one(broken, "has no flow `absent`", "flows[0].id").await;
}

#[tokio::test]
async fn a_variable_that_is_denied() {
    let broken = |site: &Site| site.text(&site.bad) + "env_passthrough: [HOME]\n";
    stops_one(
        broken,
        "the variable `HOME` is not allowed",
        "env_passthrough[0]",
    )
    .await;
}

#[tokio::test]
async fn files_that_contradict_each_other_stop_their_tenant() {
    let servers = Servers::shared().await;
    let site = Site::new();
    let (one, two) = (format!("{}.a", site.bad.id), format!("{}.b", site.bad.id));
    site.write(&one, &site.text(&site.bad));
    let other = site.pack.file.with_extension("other");
    fs::copy(&site.pack.file, &other).unwrap();
    let file = site.pack.file.display().to_string();
    let contradicts = site
        .text(&site.bad)
        .replace(&file, &other.display().to_string());
    site.write(&two, &contradicts);
    let worker = site.worker(&servers).start().await;
    let shown = site.shown(&worker, "stopped").await;
    assert!(
        shown["file"]
            .as_str()
            .unwrap()
            .ends_with(&format!("{two}.gtbind")),
        "{shown}"
    );
    assert!(shown["problem"].as_str().unwrap().contains(&one), "{shown}");
    fs::remove_file(site.folder.path().join(format!("{two}.gtbind"))).unwrap();
    let mut bad = Provider::connect(&servers, &site.bad).await;
    says(&mut bad, "hi", "one hi").await;
}

#[tokio::test]
async fn half_of_a_tenants_bindings_start_no_other_flow() {
    let servers = Servers::shared().await;
    let site = Site::new();
    let says_two = "a: {emit.message: {text: \"two {{in.text}}\"}, routing: out}";
    let two = FixturePack::of("two", &[("other", says_two)]);
    site.write(&format!("{}.says", site.bad.id), "tenant: [");
    let text = format!(
        "tenant: {}\npack_id: {}\npack_ref: file://{}\nflows: [{{id: other}}]\n",
        site.bad.id,
        two.id,
        two.file.display()
    );
    site.write(&format!("{}.two", site.bad.id), &text);
    let worker = site.worker(&servers).start().await;
    site.shown(&worker, "stopped").await;
    let (mut good, mut bad) = (
        Provider::connect(&servers, &site.good).await,
        Provider::connect(&servers, &site.bad).await,
    );
    bad.send(&Message::new("c", "hi")).await;
    says(&mut good, "hi", "one hi").await;
    assert_eq!(bad.unsettled().await, 1);
    // Whole, the tenant starts the flow that is meant.
    site.write(&format!("{}.says", site.bad.id), &site.text(&site.bad));
    bad.expect_text("one hi").await;
}

#[tokio::test]
async fn what_breaks_while_the_worker_runs_changes_nothing_for_its_tenant_and_others_change() {
    let servers = Servers::shared().await;
    let site = Site::new();
    site.write("x", &site.text(&site.bad));
    let worker = site.worker(&servers).start().await;
    let mut good = Provider::connect(&servers, &site.good).await;
    let mut bad = Provider::connect(&servers, &site.bad).await;
    says(&mut bad, "hi", "one hi").await;

    // Nothing in it tells its tenant any more, but it had one.
    site.write("x", "");
    let shown = site.shown(&worker, "unchanged").await;
    assert!(
        shown["file"].as_str().unwrap().ends_with("x.gtbind"),
        "{shown}"
    );
    let label = format!("tenant=\"{}\",effect=\"unchanged\"", site.bad.id);
    worker.expect_metric(UNUSABLE, &label, 1.0).await;
    says(&mut bad, "still", "one still").await;

    let says_two = "a: {emit.message: {text: \"two {{in.text}}\"}, routing: out}";
    let two = FixturePack::of("says", &[("main", says_two)]);
    let (id, file) = (two.id, two.file.display());
    let good_text = format!(
        "tenant: {}\npack_id: {id}\npack_ref: file://{file}\nflows: [{{id: main}}]\n",
        site.good.id
    );
    let before = worker
        .metric("greentic_worker_reloads_total", "partial")
        .await;
    site.write(&site.good.id, &good_text);
    let loaded = poll(DEADLINE, async || {
        let now = worker
            .metric("greentic_worker_reloads_total", "partial")
            .await;
        (now > before).then_some(())
    });
    assert!(loaded.await.is_some());
    says(&mut good, "hi", "two hi").await;
    says(&mut bad, "on", "one on").await;
    let told = worker
        .log()
        .matches("the tenant goes on with what it had")
        .count();
    assert_eq!(told, 1, "{}", worker.log());

    site.write("x", &site.text(&site.bad).replace("flows", "# ours\nflows"));
    site.is_well(&worker).await;
    says(&mut bad, "after", "one after").await;
}

#[tokio::test]
async fn with_strict_what_breaks_while_the_worker_runs_stops_every_change() {
    let servers = Servers::shared().await;
    let site = Site::new();
    let worker = site.worker(&servers).arg("--strict").start().await;
    site.write(&site.bad_file(), "tenant: [");
    let refused = poll(DEADLINE, async || {
        let refused = worker
            .metric("greentic_worker_reloads_total", "refused")
            .await;
        (refused > 0.0).then_some(())
    });
    assert!(refused.await.is_some());
    assert_eq!(worker.status("/readyz").await, 200);
    site.write(&site.bad_file(), &site.text(&site.bad));
    let mut bad = Provider::connect(&servers, &site.bad).await;
    says(&mut bad, "hi", "one hi").await;
}

#[tokio::test]
async fn a_file_whose_tenant_nobody_knows_stops_nothing_and_is_named_everywhere() {
    let servers = Servers::shared().await;
    let site = Site::new();
    site.write(&site.bad_file(), &site.text(&site.bad));
    site.write("nonsense", "[");
    let worker = site.worker(&servers).start().await;
    let mut bad = Provider::connect(&servers, &site.bad).await;
    says(&mut bad, "hi", "one hi").await;
    let (_, body) = worker.get("/readyz").await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let entry = &body["unusable"][0];
    assert!(
        entry["tenant"].is_null() && entry["effect"] == "ignored",
        "{body}"
    );
    assert!(
        entry["file"].as_str().unwrap().ends_with("nonsense.gtbind"),
        "{body}"
    );
    worker
        .expect_metric(UNUSABLE, "tenant=\"\",effect=\"ignored\"", 1.0)
        .await;
    assert!(
        worker.log().contains("nothing tells its tenant"),
        "{}",
        worker.log()
    );
    refused(&site, &servers, "nonsense.gtbind").await;
}

#[tokio::test]
async fn a_worker_that_can_serve_nobody_does_not_start() {
    let servers = Servers::shared().await;
    let site = Site::new();
    site.write(&site.good.id, "tenant: [");
    let worker = site.worker(&servers).without_waiting().start().await;
    assert_eq!(worker.exited(DEADLINE).await, 64);
    assert!(
        worker.log().contains("this is not valid YAML"),
        "{}",
        worker.log()
    );
}

#[tokio::test]
async fn messages_of_a_stopped_tenant_count_as_unserved_with_the_reason() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let site = Site::new();
    site.write(&site.bad_file(), &site.text(&site.bad));
    // Its consumer is there already.
    site.worker(&servers).start().await.stop().await;
    site.write(&site.bad_file(), "tenant: [");
    let worker = site
        .worker(&servers)
        .setting("NATS__UNSERVED_EVERY", "100ms");
    let worker = worker.start().await;
    let bad = Provider::connect(&servers, &site.bad).await;
    bad.send(&Message::new("c", "hi")).await;
    let label = format!("subject=\"inbound.{}\"", site.bad.id);
    let gauge = "greentic_worker_unserved_messages";
    worker.expect_metric(gauge, &label, 1.0).await;
    let told = poll(DEADLINE, async || {
        let log = worker.log();
        assert!(!log.contains("nobody serves"), "{log}");
        log.contains("the tenant of this subject is stopped")
            .then_some(())
    });
    assert!(told.await.is_some());
    site.write(&site.bad_file(), &site.text(&site.bad));
    worker.expect_metric(gauge, &label, 0.0).await;
}

/// A path of a worker's own settings that is not there is nobody's trouble but the operator's.
#[tokio::test]
async fn a_folder_that_is_not_there_stops_the_start() {
    let servers = Servers::shared().await;
    let site = Site::new();
    let worker = site
        .worker(&servers)
        .bindings_dir(Path::new("/nowhere"))
        .without_waiting()
        .start()
        .await;
    assert_eq!(worker.exited(DEADLINE).await, 64);
    assert!(worker.log().contains("/nowhere"), "{}", worker.log());
}
