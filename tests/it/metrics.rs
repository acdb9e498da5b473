//! The page of metrics, as Prometheus and those who write alerts see it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use greentic_worker::model::TenantId;
use greentic_worker::turn::DEAD_LETTER_CODES;

use crate::harness::{
    DEADLINE, Message, NatsServer, Provider, RedisServer, Servers, Tenant, WorkerProcess,
    cpu_seconds, fresh_tenant, poll, redis_connection, resident_bytes,
};
use crate::nats::unreadable::send_raw;

const DEAD_LETTERS: &str = "greentic_worker_dead_letters_total";

async fn page(worker: &WorkerProcess) -> String {
    let (status, page) = worker.get("/metrics").await.unwrap();
    assert_eq!(status, 200);
    page
}

/// The samples of a metric: what is between the braces, and the value.
fn samples<'p>(page: &'p str, name: &str) -> Vec<(&'p str, f64)> {
    let samples = page.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        let is_whole = labels.is_empty() || labels.starts_with('{');
        is_whole.then(|| (labels, value.parse().unwrap()))
    });
    samples.collect()
}

/// The counters that the rules of the document look at.
fn counters_of_alerts() -> BTreeSet<String> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, rules) = document.split_once("### Worth an alert").unwrap();
    let (rules, _) = rules.split_once("\n## ").unwrap();
    let name = |text: &str| -> String {
        let of_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        text.chars().take_while(of_name).collect()
    };
    let counters = ["increase(", "rate("]
        .into_iter()
        .flat_map(|function| rules.split(function).skip(1));
    counters.map(name).collect()
}

/// Copies a tenant's gtbind into a folder of several.
fn bind(folder: &Path, tenant: &Tenant) {
    let to = folder.join(format!("{}.gtbind", tenant.id));
    fs::copy(tenant.dir().join("hello-pack.gtbind"), to).unwrap();
}

#[track_caller]
fn check_zeros(page: &str, tenant: &Tenant) {
    let of_tenant = format!("tenant=\"{}\"", tenant.id);
    let counters = counters_of_alerts();
    assert!(counters.len() > 8, "{counters:?}");
    for counter in counters {
        let all = samples(page, &counter);
        let has_tenants = all.iter().any(|(labels, _)| labels.contains("tenant="));
        let mut own = all.iter().filter(|(labels, _)| labels.contains(&of_tenant));
        let is_there = match has_tenants {
            true => own.next().is_some() && own.all(|(_, value)| *value == 0.0),
            false => !all.is_empty(),
        };
        assert!(is_there, "{counter} of {}: {all:?}", tenant.id);
    }
    for code in DEAD_LETTER_CODES.iter().chain(&["unreadable_headers"]) {
        let sample = format!("{DEAD_LETTERS}{{{of_tenant},code=\"{code}\"}} 0\n");
        assert!(page.contains(&sample), "no {sample}");
    }
}

#[tokio::test]
async fn what_an_alert_counts_is_there_before_it_happens_also_for_a_tenant_that_comes_later() {
    let servers = Servers::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let (tenant, later) = (
        fresh_tenant().binds("hello-pack", &["main"]),
        fresh_tenant().binds("hello-pack", &["main"]),
    );
    bind(folder.path(), &tenant);
    let worker = WorkerProcess::of(&servers)
        .bindings_dir(folder.path())
        .setting("RELOAD__EVERY", "50ms")
        .start()
        .await;
    check_zeros(&page(&worker).await, &tenant);
    bind(folder.path(), &later);
    let own = format!("tenant=\"{}\"", later.id);
    let bound = poll(DEADLINE, async || {
        page(&worker).await.contains(&own).then_some(())
    });
    assert!(bound.await.is_some());
    check_zeros(&page(&worker).await, &later);
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c", "hi").without("id")).await;
    assert_eq!(provider.expect_dead().await.code(), "missing_id");
    let own = format!("tenant=\"{}\",code=\"missing_id\"", tenant.id);
    worker.expect_metric(DEAD_LETTERS, &own, 1.0).await;
    worker.expect_metric(DEAD_LETTERS, "", 1.0).await;
}

#[tokio::test]
async fn dead_letters_of_unreadable_messages_are_counted_like_the_others() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    // Each of them sees the message that costs it the connection, and one of them removes it.
    let workers = [
        WorkerProcess::start(&servers, &tenant).await,
        WorkerProcess::start(&servers, &tenant).await,
    ];
    let mut provider = Provider::connect(&servers, &tenant).await;
    let id = TenantId::new(tenant.id.as_str()).unwrap();
    for headers in [
        b"NATS/1.0\r\na: \xff\r\n\r\n".as_slice(),
        b"NATS/1.0\r\na: x\ry\r\n\r\n",
    ] {
        send_raw(&nats, &id, headers).await;
        assert_eq!(provider.expect_dead().await.code(), "unreadable_headers");
    }
    let own = format!("tenant=\"{}\",code=\"unreadable_headers\"", tenant.id);
    let outcome = format!("tenant=\"{}\",outcome=\"dead_lettered\"", tenant.id);
    let counted = poll(DEADLINE, async || {
        let (mut letters, mut messages) = (0.0, 0.0);
        for worker in &workers {
            letters += worker.metric(DEAD_LETTERS, &own).await;
            messages += worker
                .metric("greentic_worker_messages_total", &outcome)
                .await;
        }
        assert!(letters <= 2.0 && messages <= 2.0, "{letters} {messages}");
        (letters == 2.0 && messages == 2.0).then_some(())
    });
    assert!(counted.await.is_some());
}

#[tokio::test]
async fn waits_that_expired_and_answers_that_found_none_are_counted_where_they_are_seen() {
    const EXPIRED: &str = "greentic_worker_waits_expired_total";
    const STALE: &str = "greentic_worker_stale_echoes_total";
    const WAITS: usize = 10;
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("LIMITS__WAITS_PER_USER", &WAITS.to_string())
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    for n in 0..WAITS {
        provider.send(&Message::new(&format!("c{n}"), "hi")).await;
        assert!(provider.expect_reply().await.expects_reply());
    }
    // As Redis does when their time is over.
    let mut redis = redis_connection(&servers.redis_url).await;
    let pattern = format!("*{{{}}}:session:*", tenant.id);
    let mut keys = redis::cmd("KEYS");
    let sessions: Vec<String> = keys.arg(pattern).query_async(&mut redis).await.unwrap();
    assert_eq!(sessions.len(), WAITS);
    let mut delete = redis::cmd("DEL");
    let _gone: usize = delete.arg(&sessions).query_async(&mut redis).await.unwrap();

    provider.send(&Message::new("late", "hi")).await;
    let asked = provider.expect_reply().await;
    let own = format!("tenant=\"{}\"", tenant.id);
    worker.expect_metric(EXPIRED, &own, WAITS as f64).await;
    worker.expect_metric(STALE, &own, 0.0).await;
    let echo = asked.correlation().unwrap().to_owned();
    let answer = |text: &str| Message::new("late", text).correlation(&echo);
    provider.send(&answer("Ada")).await;
    provider.expect_reply().await;
    provider.settled().await;
    worker.expect_metric(STALE, &own, 0.0).await;
    provider.send(&answer("Ada again")).await;
    provider.expect_reply().await;
    worker.expect_metric(STALE, &own, 1.0).await;
    worker.expect_metric(EXPIRED, &own, WAITS as f64).await;
}

#[tokio::test]
async fn the_process_and_its_limits_are_shown_as_the_system_and_the_settings_say() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .descriptors(500)
        .setting("WORKER__SLOTS", "33")
        .setting("WORKER__TENANT_SLOTS", "7")
        .setting("STATE__TENANT_BYTES", "1000000")
        .start()
        .await;
    let page = page(&worker).await;
    let one = |name: &str| {
        let all = samples(&page, name);
        assert_eq!(all.len(), 1, "{name}");
        all[0].1
    };
    assert_eq!(one("greentic_worker_turns_in_flight_limit"), 33.0);
    assert_eq!(one("greentic_worker_tenant_turns_in_flight_limit"), 7.0);
    assert_eq!(one("greentic_worker_state_limit_bytes"), 1e6);
    let (Some(seconds), Some(resident)) = (cpu_seconds(worker.pid()), resident_bytes(worker.pid()))
    else {
        return;
    };
    let (shown, resident) = (one("process_cpu_seconds_total"), resident as f64);
    assert!(shown > 0.0 && shown <= seconds, "{shown} and {seconds}");
    let shown = one("process_resident_memory_bytes");
    let near = resident * 0.5..resident * 1.5;
    assert!(near.contains(&shown), "{shown} and {resident}");
    assert_eq!(one("process_max_fds"), 500.0);
    let open = fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap();
    let open = open.count() as f64;
    let shown = one("process_open_fds");
    assert!(
        (open - 5.0..=open + 5.0).contains(&shown),
        "{shown} and {open}"
    );
    let threads = fs::read_dir(format!("/proc/{}/task", worker.pid())).unwrap();
    let (threads, shown) = (threads.count() as f64, one("process_threads"));
    assert!((threads - 3.0..=threads + 3.0).contains(&shown));
    let started = fs::metadata(format!("/proc/{}", worker.pid())).unwrap();
    let started = started.modified().unwrap();
    let started = started.duration_since(std::time::UNIX_EPOCH).unwrap();
    let apart = one("process_start_time_seconds") - started.as_secs_f64();
    assert!(apart.abs() < 60.0, "{apart}");
}

/// `promtool` finds nothing to complain about. A machine without it checks nothing.
#[tokio::test]
async fn the_page_is_as_prometheus_wants_it() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c", "hi")).await;
    provider.expect_reply().await;
    let page = page(&worker).await;
    for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
        let kind = line.rsplit(' ').next().unwrap();
        let is_counter = line.contains("_total ");
        assert_eq!(is_counter, kind == "counter", "{line}");
    }
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut check) = check else {
        return;
    };
    let mut stdin = check.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).unwrap();
    drop(stdin);
    let said = check.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{complaints}");
}
