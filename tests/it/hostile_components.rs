//! Components that take what they can get, beside a tenant that must not notice.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::components;
use crate::harness::{
    DEADLINE, FixturePack, Message, Neighbour, Provider, Servers, Tenant, WorkerProcess,
    fresh_tenant, poll, resident_bytes,
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
