//! Components that take what they can get, beside a tenant that must not notice.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};

use crate::components;
use crate::harness::{
    DEADLINE, FixturePack, MOST_SLOWDOWN, Message, Neighbour, Provider, Servers, Tenant,
    WorkerProcess, fresh_tenant, poll, resident_bytes,
};

const MIB: u64 = 1024 * 1024;

/// A pack whose one flow calls its one component.
fn calling(name: &str, operation: &str, code: &[u8]) -> FixturePack {
    let nodes = format!(
        "a: {{component.exec: {{component: code, operation: {operation}}}, routing: [{{to: b}}]}}\n\
         b: {{emit.message: {{text: done}}, routing: out}}"
    );
    FixturePack::with(name, &[("main", &nodes)], &[("code", code)])
}

/// Binds a pack to a tenant in a folder of several tenants.
fn bind(folder: &Path, tenant: &Tenant, pack: &FixturePack) {
    let (tenant, id, file) = (&tenant.id, &pack.id, pack.file.display());
    let text = format!(
        "tenant: {tenant}\npack_id: {id}\npack_ref: file://{file}\nflows: [{{id: main}}]\n"
    );
    fs::write(folder.join(format!("{tenant}.gtbind")), text).unwrap();
}

async fn logs(worker: &WorkerProcess, words: &[&str], within: Duration) {
    let said = poll(within, async || {
        let log = worker.log();
        words.iter().all(|word| log.contains(word)).then_some(())
    });
    assert!(said.await.is_some(), "{words:?} is not in {}", worker.log());
}

#[tokio::test]
async fn a_component_that_takes_too_much_to_compile_is_left_out_and_others_are_bound_meanwhile() {
    let servers = Servers::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let neighbour = Neighbour::new();
    let says = "a: {emit.message: {text: \"{{in.text}}\"}, routing: out}";
    let plain_pack = FixturePack::of("plain", &[("main", says)]);
    bind(folder.path(), &fresh_tenant(), &plain_pack);
    let worker = WorkerProcess::of(&servers)
        .bindings(neighbour.tenant())
        .bindings_dir(folder.path())
        .setting("RELOAD__EVERY", "50ms")
        .setting("COMPONENTS__COMPILE__TIMEOUT", "15s")
        .start()
        .await;
    let mut neighbour = neighbour.connect(&servers).await;
    neighbour.latency().await;
    let before = resident_bytes(worker.pid()).unwrap();

    let bombs = [
        ("slow", components::heavy_functions(200)),
        (
            "large",
            format!("(func {})", "(drop (i32.const 1))".repeat(400_000)),
        ),
    ];
    let bombs = bombs.map(|(name, fields)| {
        let code = components::from_text("", &fields);
        (fresh_tenant(), calling(name, "run", &code))
    });
    for (tenant, pack) in &bombs {
        bind(folder.path(), tenant, pack);
    }
    // While the first one is being compiled.
    let (plain, calls) = (fresh_tenant(), fresh_tenant());
    bind(folder.path(), &plain, &plain_pack);
    let calls_pack = calling("calls", "run", &components::component("echo"));
    bind(folder.path(), &calls, &calls_pack);
    for (tenant, expected) in [(&plain, "hi"), (&calls, "done")] {
        let mut provider = Provider::connect(&servers, tenant).await;
        provider.send(&Message::new("c", "hi")).await;
        provider.expect_text(expected).await;
    }
    assert!(
        !worker.log().contains("components.compile.timeout"),
        "nothing was compiled any more by then"
    );
    let large = [
        "component code: function 0 of its code has",
        "components.compile.function_bytes",
    ];
    logs(&worker, &large, DEADLINE).await;
    let slow =
        ["component code: compiling it takes longer than 15s (`components.compile.timeout`)"];
    logs(&worker, &slow, DEADLINE * 2).await;
    for (tenant, _) in &bombs {
        worker
            .expect_metric("greentic_worker_packs_left_out", &tenant.id, 1.0)
            .await;
    }
    let after = resident_bytes(worker.pid()).unwrap();
    assert!(
        after < before + 300 * MIB,
        "{} MiB became {} MiB",
        before / MIB,
        after / MIB
    );
    assert_eq!(worker.status("/readyz").await, 200);

    // Nor does it keep the next worker from starting.
    assert_eq!(worker.stop().await, 0);
    let next = WorkerProcess::of(&servers)
        .bindings_dir(folder.path())
        .setting("COMPONENTS__COMPILE__TIMEOUT", "1s")
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &calls).await;
    provider.send(&Message::new("d", "hi")).await;
    provider.expect_text("done").await;
    logs(&next, &["compiling it takes longer than 1s"], DEADLINE).await;
}

/// A neighbour whose flow calls a component.
fn neighbour_with_component() -> Neighbour {
    let nodes = "a: {component.exec: {component: code, operation: run}, routing: [{to: b}]}\n\
                 b: {emit.message: {text: \"{{in.text}}\"}, routing: out}";
    let code = components::component("echo");
    Neighbour::running(&FixturePack::with(
        "neighbour",
        &[("main", nodes)],
        &[("code", &code)],
    ))
}

fn messages(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|n| Message::new(&format!("c{n}"), "hi").from(&format!("user{n}")))
}

/// The most memory that a worker has resident, from when this is made until it is asked for.
struct Peak(tokio::task::JoinHandle<()>, Arc<AtomicU64>);

impl Peak {
    fn of(worker: &WorkerProcess) -> Self {
        let (pid, most) = (worker.pid(), Arc::<AtomicU64>::default());
        let seen = Arc::clone(&most);
        let looking = async move {
            loop {
                seen.fetch_max(resident_bytes(pid).unwrap_or(0), Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        Self(tokio::spawn(looking), most)
    }

    fn bytes(&self) -> u64 {
        self.1.load(Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Memory comes back after a peak: soon no more than this is resident.
async fn comes_back(worker: &WorkerProcess, most: u64) {
    let pid = worker.pid();
    let back = poll(DEADLINE, async || {
        (resident_bytes(pid)? < most).then_some(())
    });
    let back = back.await.is_some();
    let now = resident_bytes(pid).unwrap() / MIB;
    assert!(
        back,
        "{now} MiB are resident, of {} at the most",
        most / MIB
    );
}

#[tokio::test]
async fn calls_that_compute_make_a_neighbours_calls_at_most_twice_as_slow() {
    let servers = Servers::shared().await;
    let neighbour = neighbour_with_component();
    let looping = calling("looping", "loop", &components::component("misbehave"));
    let attacker = fresh_tenant().runs(&looping, &["main"], "");
    let _worker = WorkerProcess::of(&servers)
        .bindings(&attacker)
        .bindings(neighbour.tenant())
        .setting("COMPONENTS__CALL_TIMEOUT", "4s")
        .setting("COMPONENTS__HTTP__TIMEOUT", "1s")
        .setting("WORKER__ATTEMPTS", "1")
        .start()
        .await;
    let attack = Provider::connect(&servers, &attacker)
        .await
        .patient(DEADLINE * 3);
    let mut neighbour = neighbour.connect(&servers).await;
    let slowdown = neighbour.slowdown(
        async || attack.flood(messages(64)).await,
        async || attack.settled().await,
    );
    assert!(slowdown.await <= MOST_SLOWDOWN);
}

#[tokio::test]
async fn calls_that_hoard_memory_get_their_tenants_share_of_it_and_give_it_back() {
    const LIMIT: u64 = 256 * MIB;
    let servers = Servers::shared().await;
    let neighbour = neighbour_with_component();
    let hoarding = calling("hoarding", "hoard", &components::component("misbehave"));
    let attacker = fresh_tenant().runs(&hoarding, &["main"], "");
    let worker = WorkerProcess::of(&servers)
        .bindings(&attacker)
        .bindings(neighbour.tenant())
        .setting("LIMITS__MEMORY", &LIMIT.to_string())
        .setting("COMPONENTS__MEMORY_BYTES", &(64 * MIB).to_string())
        .setting("COMPONENTS__CALL_TIMEOUT", "4s")
        .setting("COMPONENTS__HTTP__TIMEOUT", "1s")
        .setting("WORKER__ATTEMPTS", "1")
        .start()
        .await;
    let mut attack = Provider::connect(&servers, &attacker)
        .await
        .patient(DEADLINE * 6);
    let mut neighbour = neighbour.connect(&servers).await;
    neighbour.latency().await;
    let before = resident_bytes(worker.pid()).unwrap();
    let peak = Peak::of(&worker);
    let slowdown = neighbour.slowdown(
        async || attack.flood(messages(24)).await,
        async || attack.settled().await,
    );
    assert!(slowdown.await <= MOST_SLOWDOWN);
    let most = peak.bytes();
    assert!(
        most < before + LIMIT + 64 * MIB,
        "{} MiB became {} MiB",
        before / MIB,
        most / MIB
    );
    assert!(most > before + 100 * MIB, "nothing was hoarded");
    assert_eq!(attack.expect_dead().await.code(), "component_limit");
    let held_back = worker.metric("greentic_worker_memory_denials_total", &attacker.id);
    assert!(held_back.await > 0.0);
    comes_back(&worker, before + 64 * MIB).await;
}

#[tokio::test]
async fn large_bodies_wait_in_the_stream_while_there_is_no_memory_for_them() {
    const LIMIT: u64 = 128 * MIB;
    let servers = Servers::shared().await;
    let neighbour = Neighbour::new();
    // Each value is two bytes of text, and dozens in memory.
    let large = Value::Array(vec![json!(0); 450_000]);
    let echo = "a: {emit.message: {text: done}, routing: out}";
    let pack = FixturePack::of("large", &[("main", echo)]);
    let attacker = fresh_tenant().runs(&pack, &["main"], "");
    let worker = WorkerProcess::of(&servers)
        .bindings(&attacker)
        .bindings(neighbour.tenant())
        .setting("LIMITS__MEMORY", &LIMIT.to_string())
        .setting("COMPONENTS__MEMORY_BYTES", &(32 * MIB).to_string())
        .start()
        .await;
    let flood = Provider::connect(&servers, &attacker)
        .await
        .patient(DEADLINE * 6);
    let mut neighbour = neighbour.connect(&servers).await;
    neighbour.latency().await;
    let before = resident_bytes(worker.pid()).unwrap();
    let peak = Peak::of(&worker);
    let bodies = || messages(40).map(|message| message.field("metadata", json!({"list": large})));
    for message in bodies() {
        flood.send(&message).await;
    }
    flood.settled().await;
    let all = poll(DEADLINE, async || {
        (flood.published().await == (40, 0)).then_some(())
    });
    if all.await.is_none() {
        let (_, metrics) = worker.get("/metrics").await.unwrap();
        panic!("{:?}\n{}\n{metrics}", flood.published().await, worker.log());
    }
    neighbour.latency().await;
    let most = peak.bytes();
    eprintln!("{} MiB became {} MiB", before / MIB, most / MIB);
    assert!(most < before + LIMIT + 64 * MIB);
    comes_back(&worker, before + 64 * MIB).await;
}
