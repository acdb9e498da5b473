//! What a server refuses to one tenant is that tenant's trouble only: the others are served as if nothing was, and it goes
//! on by itself when it is over, with nothing lost and nothing doubled.

use std::ops::Range;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config as StreamConfig, DiscardPolicy};
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt;
use greentic_worker::model::header;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::harness::{
    ConnectedNeighbour, DEADLINE, FixturePack, MOST_SLOWDOWN, Message, NatsServer, Neighbour,
    Provider, RedisServer, Servers, Tenant, WorkerBuilder, WorkerProcess, fresh_tenant, poll,
    redis_connection,
};

const REFUSED: &str = "greentic_worker_tenant_refused";
const FLOWS: &[(&str, &str)] = &[
    (
        "main",
        "a: {emit.message: {text: \"{{in.text}}\"}, routing: out}",
    ),
    (
        "thrice",
        "a: {emit.message: {text: \"1 {{in.text}}\"}, routing: [{to: b}]}\n\
         b: {emit.message: {text: \"2 {{in.text}}{{in.text}}{{in.text}}\"}, routing: [{to: c}]}\n\
         c: {emit.message: {text: \"3 {{in.text}}\"}, routing: out}",
    ),
];

/// A tenant that will be refused something, and one that must not notice.
struct Site {
    nats: NatsServer,
    redis: RedisServer,
    servers: Servers,
    refused: Tenant,
    neighbour: Option<Neighbour>,
}

impl Site {
    async fn start_with(configuration: &str) -> Self {
        let (nats, redis) = tokio::join!(
            NatsServer::start_own_with(configuration),
            RedisServer::start_own()
        );
        let pack = FixturePack::of("echoes", FLOWS);
        Self {
            servers: Servers::own(&nats, &redis),
            nats,
            redis,
            refused: fresh_tenant().runs(&pack, &["main", "thrice"], ""),
            neighbour: Some(Neighbour::new()),
        }
    }

    fn worker(&self) -> WorkerBuilder {
        let worker = WorkerProcess::of(&self.servers).bindings(&self.refused);
        let worker = match &self.neighbour {
            Some(neighbour) => worker.bindings(neighbour.tenant()),
            None => worker,
        };
        worker
            .setting("NATS__USER", "worker")
            .setting("NATS__PASSWORD", "worker")
            .setting("WORKER__SLOTS", "8")
    }

    async fn provider(&self) -> Provider {
        Provider::connect(&self.servers, &self.refused).await
    }

    async fn admin(&self) -> Context {
        jetstream::new(async_nats::connect(self.nats.url()).await.unwrap())
    }
}

/// Whoever gives no name may do everything; the worker may not publish to these subjects.
fn denying(subjects: &[&str]) -> String {
    format!(
        "no_auth_user: admin\nauthorization {{ users: [\n{{ user: admin, password: admin }}\n\
         {{ user: worker, password: worker, permissions: {{ publish: {{ allow: \">\", deny: {subjects:?} }} }} }}\n] }}"
    )
}

fn say(flow: &str, text: &str, n: usize) -> Message {
    Message::new(&format!("c{n}"), text)
        .from(&format!("u{n}"))
        .header(header::FLOW_ID, flow)
}

/// Many conversations at once.
async fn flood(provider: &Provider, numbers: Range<usize>) {
    let sending =
        numbers.map(|n| async move { provider.send(&say("main", &n.to_string(), n)).await });
    futures_util::stream::iter(sending)
        .buffered(64)
        .count()
        .await;
}

/// What `/readyz` says of the refusals, as soon as it names this part and reason; the answer's status, too.
async fn named(worker: &WorkerProcess, tenant: &Tenant, part: &str, reason: &str) -> (u16, Value) {
    let last = std::cell::RefCell::new(String::new());
    let named = poll(DEADLINE, async || {
        let (status, body) = worker.get("/readyz").await?;
        last.replace(body.clone());
        let body: Value = serde_json::from_str(&body).unwrap();
        let refused = body["refused"].as_array()?.iter().any(|refused| {
            refused["tenant"] == tenant.id.as_str()
                && refused["part"] == part
                && refused["reason"] == reason
        });
        refused.then_some((status, body))
    });
    let named = named.await;
    named.unwrap_or_else(|| panic!("/readyz names no {part} {reason}: {}", last.borrow()))
}

async fn all_well(worker: &WorkerProcess) {
    let well = poll(DEADLINE * 2, async || {
        let (status, body) = worker.get("/readyz").await?;
        (status == 200 && !body.contains("refused")).then_some(())
    });
    assert!(well.await.is_some(), "{:?}", worker.get("/readyz").await);
}

/// The neighbour is at most so much slower as the attack may make it.
async fn notices_nothing(neighbour: &mut ConnectedNeighbour, alone: Duration) {
    let floor = Duration::from_millis(10);
    let mut lowest = f64::INFINITY;
    for _ in 0..3 {
        let beside = neighbour.latency().await;
        let ratio = beside.max(floor).div_duration_f64(alone.max(floor));
        eprintln!("alone {alone:?}, beside {beside:?}, ratio {ratio:.2}");
        lowest = lowest.min(ratio);
        if lowest <= MOST_SLOWDOWN {
            return;
        }
    }
    panic!("a neighbour became {lowest:.1} times as slow");
}

fn times(worker: &WorkerProcess, text: &str) -> usize {
    worker.log().matches(text).count()
}

/// The worker may not publish there; a flood of the tenant's messages waits until it may.
async fn check_denied(denied: impl Fn(&str) -> String, part: &str) {
    let mut site = Site::start_with(&denying(&[])).await;
    let subject = denied(&site.refused.id);
    let worker = site.worker().start().await;
    let mut neighbour = site.neighbour.take().unwrap().connect(&site.servers).await;
    neighbour.latency().await;
    let alone = neighbour.latency().await;

    site.nats.reconfigure(&denying(&[&subject]));
    let provider = site.provider().await.patient(DEADLINE);
    // Not before the server has read its new rules is there anything to measure.
    flood(&provider, 0..300).await;
    let (status, body) = named(&worker, &site.refused, part, "permission").await;
    assert_eq!(
        (status, &body["state"]),
        (200, &"degraded".into()),
        "{body}"
    );
    assert_eq!(body["ready"], true, "{body}");
    assert!(
        body["refused"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("may not"),
        "{body}"
    );
    notices_nothing(&mut neighbour, alone).await;
    let labels = format!("part=\"{part}\"");
    worker.expect_metric(REFUSED, &labels, 1.0).await;
    assert_eq!(worker.metric(REFUSED, &site.refused.id).await, 1.0);
    let in_flight = worker.metric("greentic_worker_turns_in_flight", &site.refused.id);
    assert!(in_flight.await <= 1.0, "it holds more than a probe");
    assert_eq!(times(&worker, "this tenant is refused"), 1);

    // It ends at once, and another one is refused the same.
    let began = Instant::now();
    assert_eq!(worker.stop().await, 0);
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    let neighbours = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = site.worker().bindings(&neighbours).start().await;
    named(&worker, &site.refused, part, "permission").await;

    site.nats.reconfigure(&denying(&[]));
    provider.settled().await;
    assert_eq!(provider.published().await, (300, 0));
    all_well(&worker).await;
    worker.expect_metric(REFUSED, &site.refused.id, 0.0).await;
    assert_eq!(times(&worker, "this tenant is not refused any more"), 1);
}

#[tokio::test]
async fn replies_that_may_not_be_published() {
    check_denied(|tenant| format!("outbound.{tenant}"), "outbound").await;
}

#[tokio::test]
async fn messages_that_may_not_be_pulled() {
    let subject = |tenant: &str| {
        let consumer = tenant.replace('.', "=");
        format!("$JS.API.CONSUMER.MSG.NEXT.GREENTIC_INBOUND.worker-{consumer}")
    };
    check_denied(subject, "inbound").await;
}

#[tokio::test]
async fn dead_letters_that_may_not_be_published_hold_up_only_themselves() {
    let mut site = Site::start_with(&denying(&[])).await;
    let subject = format!("deadletter.{}", site.refused.id);
    site.nats.reconfigure(&denying(&[&subject]));
    let worker = site.worker().start().await;
    let mut neighbour = site.neighbour.take().unwrap().connect(&site.servers).await;
    let mut provider = site.provider().await.patient(DEADLINE);
    provider
        .send_raw(&site.refused.id, HeaderMap::new(), b"{".to_vec())
        .await;
    let lost = Message::new("c1", "hi").header(header::FLOW_ID, "nowhere");
    provider.send(&lost).await;
    let (status, _) = named(&worker, &site.refused, "deadletter", "permission").await;
    assert_eq!(status, 200);
    neighbour.latency().await;
    // Its own other messages are answered, too.
    provider.send(&say("main", "fine", 1)).await;
    provider.expect_text("fine").await;
    assert_eq!(
        worker
            .metric("greentic_worker_dead_letters_total", "")
            .await,
        0.0
    );
    // More probes than a message has attempts.
    let tried = poll(DEADLINE * 2, async || {
        let redelivered = worker.metric("greentic_worker_redeliveries_total", &site.refused.id);
        (redelivered.await >= 12.0).then_some(())
    });
    assert!(tried.await.is_some(), "it is not tried again");

    site.nats.reconfigure(&denying(&[]));
    let mut codes = Vec::new();
    for _ in 0..2 {
        codes.push(provider.expect_dead().await.code().to_owned());
    }
    codes.sort();
    assert_eq!(codes, ["no_such_flow", "unreadable_body"]);
    provider.settled().await;
    all_well(&worker).await;
    worker
        .expect_metric("greentic_worker_dead_letters_total", "", 2.0)
        .await;
}

/// The stream holds one reply of each subject and takes no second one until it is gone; and it forgets ids at once.
#[tokio::test]
async fn a_subject_that_is_full_gets_each_reply_once_and_in_order() {
    let mut site = Site::start_with(&denying(&[])).await;
    let admin = site.admin().await;
    let config = StreamConfig {
        name: "GREENTIC_OUTBOUND".to_owned(),
        subjects: vec!["outbound.>".to_owned()],
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        discard_new_per_subject: true,
        duplicate_window: Duration::from_millis(100),
        ..StreamConfig::default()
    };
    let stream = admin.create_stream(config).await.unwrap();
    let other = fresh_tenant().runs(&FixturePack::of("echoes", FLOWS), &["main"], "");
    site.neighbour = None;
    let worker = site.worker().bindings(&other).start().await;
    let provider = site.provider().await.patient(DEADLINE * 2);
    provider.send(&say("thrice", "x", 1)).await;
    provider.send(&say("thrice", "x", 1)).await;
    named(&worker, &site.refused, "outbound", "subject_full").await;
    let mut others = Provider::connect(&site.servers, &other).await;
    others.send(&say("main", "hi", 1)).await;
    others.expect_text("hi").await;

    let subject = format!("outbound.{}", site.refused.id);
    let mut read = Vec::new();
    for _ in 0..6 {
        let next = poll(DEADLINE * 2, async || {
            stream.get_last_raw_message_by_subject(&subject).await.ok()
        });
        let next = next.await.expect("the next reply comes once there is room");
        let body: Value = serde_json::from_slice(&next.payload).unwrap();
        read.push(body["text"].as_str().unwrap().to_owned());
        // Longer than the stream knows its id.
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.delete_message(next.sequence).await.unwrap();
    }
    assert_eq!(read, ["1 x", "2 xxx", "3 x", "1 x", "2 xxx", "3 x"]);
    provider.settled().await;
    assert_eq!(provider.published().await, (0, 0));
    all_well(&worker).await;
    worker
        .expect_metric("greentic_worker_replies_total", &site.refused.id, 6.0)
        .await;
}

#[tokio::test]
async fn a_full_stream_that_takes_nothing_new_refuses_everybody_until_there_is_room() {
    let mut site = Site::start_with(&denying(&[])).await;
    site.neighbour = None;
    let worker = site
        .worker()
        .setting("NATS__OUTBOUND__DISCARD", "new")
        .setting("NATS__OUTBOUND__MAX_BYTES", "20000")
        .start()
        .await;
    let provider = site.provider().await.patient(DEADLINE);
    flood(&provider, 0..100).await;
    let (status, body) = named(&worker, &site.refused, "outbound", "stream_full").await;
    // As soon as the next look at all tenants says so.
    let nobody = poll(DEADLINE, async || {
        (worker.status("/readyz").await == 503).then_some(())
    });
    assert!(
        nobody.await.is_some() || status == 503,
        "nobody is served: {body}"
    );
    assert_eq!(worker.status("/livez").await, 200);
    let stream = site
        .admin()
        .await
        .get_stream("GREENTIC_OUTBOUND")
        .await
        .unwrap();
    let mut gone = 0;
    let settled = poll(DEADLINE * 3, async || {
        gone += stream.purge().await.unwrap().purged;
        (provider.unsettled().await == 0).then_some(())
    });
    settled.await.expect("they go on");
    gone += stream.purge().await.unwrap().purged;
    assert_eq!(gone, 100);
    all_well(&worker).await;
}

#[tokio::test]
async fn replies_that_a_full_stream_drops_are_counted_and_named() {
    let mut site = Site::start_with(&denying(&[])).await;
    site.neighbour = None;
    let worker = site
        .worker()
        .setting("NATS__OUTBOUND__MAX_BYTES", "30000")
        .start()
        .await;
    let provider = site.provider().await;
    flood(&provider, 0..20).await;
    provider.settled().await;
    // It was looked at with the first of them in it.
    looked_at(&site).await;
    looked_at(&site).await;
    flood(&provider, 20..200).await;
    provider.settled().await;
    let admin = site.admin().await;
    let mut stream = admin.get_stream("GREENTIC_OUTBOUND").await.unwrap();
    let left = stream.info().await.unwrap().state.messages;
    assert!(left < 200, "nothing was dropped");
    let gone = 200.0 - f64::from(u32::try_from(left).unwrap());
    worker
        .expect_metric("greentic_worker_replies_dropped_total", "", gone)
        .await;
    let log = worker.log();
    let warned = log
        .lines()
        .find(|line| line.contains("is full and has dropped"));
    let warned = warned.expect("it is warned of");
    assert!(
        warned.contains(&format!("outbound.{}", site.refused.id)),
        "{warned}"
    );
}

/// Waits until the worker has just looked at its stream of replies.
async fn looked_at(site: &Site) {
    let client = async_nats::connect(site.nats.url()).await.unwrap();
    let subject = "$JS.API.STREAM.INFO.GREENTIC_OUTBOUND";
    let mut looks = client.subscribe(subject).await.unwrap();
    let look = tokio::time::timeout(DEADLINE, looks.next()).await;
    look.expect("it looks now and then").expect("NATS is there");
}

#[tokio::test]
async fn a_reply_over_the_streams_limit_is_known_before_commit_or_becomes_a_dead_letter() {
    let mut site = Site::start_with(&denying(&[])).await;
    site.neighbour = None;
    let worker = site.worker().start().await;
    let mut provider = site.provider().await;
    let admin = site.admin().await;
    let mut stream = admin.get_stream("GREENTIC_OUTBOUND").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_message_size = 2_000;
    // The next look is seconds away: the worker does not know of the new limit yet.
    looked_at(&site).await;
    admin.update_stream(config.clone()).await.unwrap();
    let text = "x".repeat(600);
    let id = provider.send(&say("thrice", &text, 1)).await;
    provider.expect_text(&format!("1 {text}")).await;
    provider.expect_text(&format!("3 {text}")).await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "reply_undeliverable", "{}", dead.reason());
    assert_eq!(dead.header(header::IN_REPLY_TO), Some(id.as_str()));
    let body: Value = serde_json::from_slice(&dead.body).unwrap();
    assert_eq!(body["text"], format!("2 {text}{text}{text}"));
    provider.settled().await;
    worker
        .expect_metric("greentic_worker_replies_total", &site.refused.id, 2.0)
        .await;
    worker
        .expect_metric(
            "greentic_worker_dead_letters_total",
            "reply_undeliverable",
            1.0,
        )
        .await;

    // Now it knows, and nothing is applied.
    provider.send(&say("thrice", &text, 2)).await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "reply_too_large", "{}", dead.reason());
    assert!(dead.reason().contains("2000"), "{}", dead.reason());

    // Raised again, and the reply is published from the dead letters.
    config.max_message_size = -1;
    admin.update_stream(config).await.unwrap();
    let replay = ["replay", "--code", "reply_undeliverable"];
    let replayed = crate::dead_letters::well(&site.servers.nats_url, &replay).await;
    assert_eq!(replayed, "");
    let reply = provider.expect_text(&format!("2 {text}{text}{text}")).await;
    assert_eq!(reply.in_reply_to(), Some(id.as_str()));
    assert_eq!(reply.header(header::ERROR_CODE), None);
    provider.settled().await;
}

/// Neither does its dead letter, where that is refused.
#[tokio::test]
async fn a_reply_that_does_not_fit_holds_up_none_of_those_after_it() {
    let mut site = Site::start_with(&denying(&[])).await;
    site.neighbour = None;
    let worker = site.worker().start().await;
    let subject = format!("deadletter.{}", site.refused.id);
    site.nats.reconfigure(&denying(&[&subject]));
    let mut provider = site.provider().await.patient(DEADLINE);
    let admin = site.admin().await;
    let mut stream = admin.get_stream("GREENTIC_OUTBOUND").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_message_size = 2_000;
    looked_at(&site).await;
    admin.update_stream(config).await.unwrap();
    let text = "x".repeat(600);
    provider.send(&say("thrice", &text, 1)).await;
    provider.expect_text(&format!("1 {text}")).await;
    provider.expect_text(&format!("3 {text}")).await;
    named(&worker, &site.refused, "deadletter", "permission").await;
    assert_eq!(provider.unsettled().await, 1);
    site.nats.reconfigure(&denying(&[]));
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "reply_undeliverable", "{}", dead.reason());
    let body: Value = serde_json::from_slice(&dead.body).unwrap();
    assert_eq!(body["text"], format!("2 {text}{text}{text}"));
    assert!(body["id"].as_str().unwrap().ends_with(":1"), "{body}");
    provider.settled().await;
    assert_eq!(provider.published().await, (2, 1));
    let replies = "greentic_worker_replies_total";
    worker.expect_metric(replies, &site.refused.id, 2.0).await;
}

#[tokio::test]
async fn dead_letters_of_a_stream_that_begins_anew_are_kept() {
    let mut site = Site::start_with(&denying(&[])).await;
    site.neighbour = None;
    let _worker = site.worker().start().await;
    let mut provider = site.provider().await.patient(DEADLINE);
    let admin = site.admin().await;
    for round in 0..2 {
        if round > 0 {
            admin.delete_stream("GREENTIC_INBOUND").await.unwrap();
        }
        let body = format!("{{ {round}").into_bytes();
        let tenant = &site.refused.id;
        provider
            .send_raw(tenant, HeaderMap::new(), body.clone())
            .await;
        let dead = provider.expect_dead().await;
        assert_eq!(dead.code(), "unreadable_body");
        assert_eq!(dead.body, body);
        provider.settled().await;
    }
    assert_eq!(provider.published().await, (0, 2));
}

#[tokio::test]
async fn a_message_too_large_for_a_dead_letter_is_cut_and_settled() {
    let mut site = Site::start_with(&format!("max_payload: 10000\n{}", denying(&[]))).await;
    site.neighbour = None;
    let worker = site.worker().start().await;
    let mut provider = site.provider().await;
    let body = vec![b'{'; 9_900];
    provider
        .send_raw(&site.refused.id, HeaderMap::new(), body.clone())
        .await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "unreadable_body");
    assert!(
        dead.body.len() < body.len() && dead.body.len() > 9_000,
        "{}",
        dead.body.len()
    );
    assert_eq!(dead.body, body[..dead.body.len()]);
    assert_eq!(dead.header(header::BODY_BYTES), Some("9900"));
    let digest: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(dead.header(header::BODY_SHA256), Some(digest.as_str()));
    provider.settled().await;
    worker
        .expect_metric("greentic_worker_dead_letters_total", &site.refused.id, 1.0)
        .await;
    let (_, why) = crate::dead_letters::fails(&site.servers.nats_url, &["replay", "--all"]).await;
    assert!(why.contains("of the 9900 bytes"), "{why}");
    assert_eq!(provider.published().await, (0, 1));
}

/// Redis lets the worker have the keys of all tenants but one.
#[tokio::test]
async fn keys_that_redis_denies_stop_their_tenant_only() {
    let mut site = Site::start_with(&denying(&[])).await;
    let mut redis = redis_connection(&site.redis.url()).await;
    let acl = |rules: &[&str]| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("worker").arg(rules);
        command
    };
    let all = acl(&["reset", "on", ">worker", "+@all", "~*", "&*"]);
    all.query_async::<()>(&mut redis).await.unwrap();
    let worker = site
        .worker()
        .setting("REDIS__USERNAME", "worker")
        .setting("REDIS__PASSWORD", "worker")
        // A message that is refused has used up no attempt.
        .setting("WORKER__ATTEMPTS", "2")
        .start()
        .await;
    let neighbour = site.neighbour.take().unwrap();
    let healthy = format!("~*{}*", neighbour.tenant().id);
    let mut neighbour = neighbour.connect(&site.servers).await;
    neighbour.latency().await;
    let alone = neighbour.latency().await;
    let some = acl(&["resetkeys", &healthy]);
    some.query_async::<()>(&mut redis).await.unwrap();
    let provider = site.provider().await.patient(DEADLINE);
    flood(&provider, 0..100).await;
    let (status, body) = named(&worker, &site.refused, "store", "permission").await;
    assert_eq!(status, 200, "{body}");
    notices_nothing(&mut neighbour, alone).await;
    // Nothing is given up, however often it is tried: more often than a message has attempts.
    let tried = poll(DEADLINE * 2, async || {
        let redelivered = worker.metric("greentic_worker_redeliveries_total", &site.refused.id);
        (redelivered.await >= 4.0).then_some(())
    });
    assert!(tried.await.is_some(), "it is not tried again");
    all.query_async::<()>(&mut redis).await.unwrap();
    provider.settled().await;
    assert_eq!(provider.published().await, (100, 0));
    all_well(&worker).await;
}

#[tokio::test]
async fn a_tenant_that_is_bound_later_and_refused_something_is_served_as_far_as_it_can_be() {
    let mut site = Site::start_with(&denying(&[])).await;
    let subject = format!("outbound.{}", site.refused.id);
    site.nats.reconfigure(&denying(&[&subject]));
    let bindings = crate::harness::scratch();
    let bind = |tenant: &Tenant| {
        for entry in std::fs::read_dir(tenant.dir()).unwrap() {
            let file = entry.unwrap();
            let name = format!("{}.{}", tenant.id, file.file_name().to_string_lossy());
            std::fs::copy(file.path(), bindings.path().join(name)).unwrap();
        }
    };
    let neighbour = site.neighbour.take().unwrap();
    bind(neighbour.tenant());
    let worker = WorkerProcess::of(&site.servers)
        .bindings_dir(bindings.path())
        .setting("NATS__USER", "worker")
        .setting("NATS__PASSWORD", "worker")
        .setting("RELOAD__EVERY", "100ms")
        .start()
        .await;
    let mut neighbour = neighbour.connect(&site.servers).await;
    let mut provider = site.provider().await.patient(DEADLINE);
    provider.send(&say("main", "hello", 1)).await;
    bind(&site.refused);
    let (status, _) = named(&worker, &site.refused, "outbound", "permission").await;
    assert_eq!(status, 200);
    neighbour.latency().await;
    site.nats.reconfigure(&denying(&[]));
    provider.expect_text("hello").await;
    provider.settled().await;
}
