//! `greentic-worker deadletters`, on real servers: what was put aside is found, shown, dropped, and replayed exactly once.

use std::process::{Command, Output};

use async_nats::HeaderMap;
use async_nats::jetstream;
use greentic_worker::model::header;
use serde_json::Value;

use crate::harness::{
    FixturePack, Message, NatsServer, Provider, RedisServer, Servers, WorkerProcess, fresh_tenant,
};

/// Runs the command against this NATS server, with these variables besides.
async fn deadletters(nats: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greentic-worker"));
    command.arg("deadletters").args(args);
    command.env("GREENTIC_WORKER__NATS__URL", nats);
    command.envs(env.iter().copied());
    let running = tokio::task::spawn_blocking(move || command.output());
    running.await.unwrap().unwrap()
}

/// Runs it to its success; what it printed.
pub async fn well(nats: &str, args: &[&str]) -> String {
    let output = deadletters(nats, args, &[]).await;
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it to its failure; its exit code and what it complained of.
pub async fn fails(nats: &str, args: &[&str]) -> (i32, String) {
    fails_as(nats, args, &[]).await
}

async fn fails_as(nats: &str, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    // What will not come need not be waited for long.
    let impatient = [
        ("GREENTIC_WORKER__NATS__CONNECT_TIMEOUT", "2s"),
        ("GREENTIC_WORKER__NATS__REQUEST_TIMEOUT", "2s"),
    ];
    let output = deadletters(nats, args, &[&impatient, env].concat()).await;
    let code = output.status.code().unwrap();
    assert_ne!(code, 0, "{args:?}: {output:?}");
    (code, String::from_utf8(output.stderr).unwrap())
}

/// The dead letters of a tenant, as JSON.
async fn listed(servers: &Servers, tenant: &str, more: &[&str]) -> Vec<Value> {
    let args = [&["list", "--json", "--tenant", tenant], more].concat();
    let text = well(&servers.nats_url, &args).await;
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

fn column<'a>(letters: &'a [Value], name: &str) -> Vec<&'a str> {
    letters
        .iter()
        .map(|letter| letter[name].as_str().unwrap_or("-"))
        .collect()
}

fn named(key: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::MSG_ID, key);
    headers
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_dropped() {
    let servers = Servers::shared().await;
    let nats = servers.nats_url.as_str();
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    let body = b"{\"id\": nonsense\x1b".to_vec();
    provider.send_raw(&tenant.id, named("m1"), body).await;
    provider.expect_dead().await;
    let lost = Message::new("c1", "hi")
        .id("m2")
        .header(header::FLOW_ID, "nowhere");
    provider.send(&lost).await;
    provider.expect_dead().await;
    let no_scope = Message::new("c1", "hi").id("m3").without("reply_scope");
    provider.send(&no_scope).await;
    provider.expect_dead().await;

    let all = listed(&servers, &tenant.id, &[]).await;
    let codes = ["unreadable_body", "no_such_flow", "reply_scope_missing"];
    assert_eq!(column(&all, "code"), codes);
    assert_eq!(column(&all, "key"), ["m1", "m2", "m3"]);
    for (filter, expected) in [
        (vec!["--code", "no_such_flow"], vec!["m2"]),
        (
            vec!["--code", codes[0], "--code", codes[2]],
            vec!["m1", "m3"],
        ),
        (vec!["--key", "m3"], vec!["m3"]),
        (vec!["--since", "1h"], vec!["m1", "m2", "m3"]),
        (vec!["--until", "1h"], vec![]),
        (
            vec!["--since", all[1]["time"].as_str().unwrap()],
            vec!["m2", "m3"],
        ),
        (
            vec!["--until", all[1]["time"].as_str().unwrap()],
            vec!["m1"],
        ),
        (vec!["--limit", "1"], vec!["m1"]),
    ] {
        let found = listed(&servers, &tenant.id, &filter).await;
        assert_eq!(column(&found, "key"), expected, "{filter:?}");
    }
    let table = well(nats, &["list", "--tenant", &tenant.id]).await;
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.starts_with("SEQ "), "{table}");

    let sequences: Vec<String> = all
        .iter()
        .map(|letter| letter["sequence"].to_string())
        .collect();
    let shown = well(nats, &["show", &sequences[0]]).await;
    for part in [
        "unreadable_body",
        "byte 8",
        "Greentic-Idempotency-Key: m1",
        "nonsense\u{fffd}",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = well(nats, &["show", "--json", &sequences[1]]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(
        shown["body"].as_str().unwrap().contains(r#""id":"m2""#),
        "{shown}"
    );

    let (code, told) = fails(nats, &["drop", &sequences[0]]).await;
    assert!(code == 64 && told.contains("--yes"), "{told}");
    let (code, told) = fails(nats, &["drop", "--yes"]).await;
    assert!(code == 64 && told.contains("--all"), "{told}");
    well(nats, &["drop", &sequences[0], "--dry-run"]).await;
    assert_eq!(listed(&servers, &tenant.id, &[]).await, all);
    well(nats, &["drop", &sequences[0], "--yes"]).await;
    well(
        nats,
        &["drop", "--tenant", &tenant.id, "--code", codes[1], "--yes"],
    )
    .await;
    assert_eq!(listed(&servers, &tenant.id, &[]).await, all[2..]);
    let (code, told) = fails(nats, &["show", &sequences[0]]).await;
    assert!(code == 1 && told.contains("no dead letter"), "{told}");
}

#[tokio::test]
async fn a_replay_is_answered_once_and_finds_its_wait() {
    let servers = Servers::shared().await;
    let nats = servers.nats_url.as_str();
    let asks = "ask: {emit.message: {text: Who?}, routing: [{to: wait}]}\n\
                wait: {session.wait: {reason: name}, routing: [{to: greet}]}\n\
                greet: {emit.message: {text: \"Hello {{in.text}}\"}, routing: out}";
    let pack = FixturePack::of("asks", &[("main", asks)]);
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c1", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
    worker.stop().await;

    // The pack of the wait is not bound any more and nowhere else, so its answer is put aside.
    let mended = tenant;
    let broken = mended
        .with_other_bindings()
        .binds("approval-pack", &["main"]);
    pack.hide();
    let worker = WorkerProcess::of(&servers)
        .bindings(&broken)
        .setting("PACKS__GONE_AFTER", "1s")
        .start()
        .await;
    // Named by nothing but its body.
    provider.send(&Message::new("c1", "Ada").id("answer")).await;
    assert_eq!(provider.expect_dead().await.code(), "wait_pack_gone");
    worker.stop().await;

    // Mended; the dead letter is what is left of the answer.
    pack.show();
    let _worker = WorkerProcess::start(&servers, &mended).await;
    let before = listed(&servers, &mended.id, &[]).await;
    assert_eq!(column(&before, "key"), ["answer"]);
    let select = ["replay", "--tenant", &mended.id, "--code", "wait_pack_gone"];
    let would = well(nats, &[&select[..], &["--dry-run"]].concat()).await;
    assert!(
        would.contains("would replay") && would.contains("as answer"),
        "{would}"
    );
    assert_eq!(listed(&servers, &mended.id, &[]).await, before);

    well(nats, &select).await;
    let greeting = provider.expect_reply().await;
    assert!(greeting.text().contains("Ada"), "{greeting:?}");
    assert_eq!(greeting.in_reply_to(), Some("answer"));
    assert!(listed(&servers, &mended.id, &[]).await.is_empty());

    // A copy that was replayed by a run which died before it removed the dead letter: applied already, so it changes nothing.
    let letter = before[0].clone();
    put_back(&servers, &mended.id, &letter).await;
    well(nats, &select).await;
    assert!(listed(&servers, &mended.id, &[]).await.is_empty());
    provider.send(&Message::new("c2", "hi").id("next")).await;
    assert_eq!(provider.expect_reply().await.in_reply_to(), Some("next"));
}

#[tokio::test]
async fn what_fails_again_is_put_aside_again_and_a_replay_ends() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    for n in 0..5 {
        let lost = Message::new("c1", "hi")
            .id(&format!("m{n}"))
            .header(header::FLOW_ID, "nowhere");
        provider.send(&lost).await;
        provider.expect_dead().await;
    }
    let select = ["replay", "--tenant", tenant.id.as_str()];
    well(&servers.nats_url, &select).await;
    for _ in 0..5 {
        let dead = provider.expect_dead().await;
        assert_eq!(dead.code(), "no_such_flow");
        assert_eq!(dead.headers.get_all(header::ERROR_CODE).count(), 1);
    }
    let again = listed(&servers, &tenant.id, &[]).await;
    let mut keys = column(&again, "key");
    keys.sort_unstable();
    assert_eq!(keys, ["m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test]
async fn errors_say_what_is_missing() {
    let own = NatsServer::start_own().await;
    let (code, told) = fails(&own.url(), &["list"]).await;
    assert!(
        code == 69 && told.contains("no stream GREENTIC_DEADLETTER"),
        "{told}"
    );

    let core = NatsServer::start_without_jetstream().await;
    let (code, told) = fails(&core.url(), &["list"]).await;
    assert!(code == 69 && told.contains("JetStream"), "{told}");

    let (code, told) = fails("nats://127.0.0.1:1", &["list"]).await;
    assert!(code == 69 && told.contains("no NATS server"), "{told}");

    let walled = NatsServer::start_own_with(
        "authorization { users = [ { user: w, password: w, permissions: { \
           publish: { deny: [\"$JS.API.STREAM.INFO.>\"] } } } ] }",
    )
    .await;
    let (user, password) = (
        "GREENTIC_WORKER__NATS__USER",
        "GREENTIC_WORKER__NATS__PASSWORD",
    );
    let (code, told) = fails_as(&walled.url(), &["list"], &[(user, "w"), (password, "w")]).await;
    assert!(code == 69 && told.contains("permission"), "{told}");
}

#[tokio::test]
async fn thousands_are_read_without_gaps() {
    let (nats, redis) = (
        NatsServer::start_own().await,
        RedisServer::start_own().await,
    );
    let servers = Servers::own(&nats, &redis);
    let client = async_nats::connect(nats.url()).await.unwrap();
    let jetstream = jetstream::new(client);
    let config = jetstream::stream::Config {
        name: "GREENTIC_DEADLETTER".to_owned(),
        subjects: vec!["deadletter.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let tenants = ["rare", "usual"];
    for n in 0..3_000_u32 {
        let tenant = tenants[usize::from(n % 500 != 0)];
        let stored = jetstream.publish_with_headers(
            format!("deadletter.{tenant}"),
            named(&format!("m{n}")),
            n.to_string().into(),
        );
        stored.await.unwrap().await.unwrap();
    }
    // Holes of all sizes.
    well(&nats.url(), &["drop", "5", "6", "1999", "2000", "--yes"]).await;
    assert_eq!(listed(&servers, "rare", &[]).await.len(), 6);
    let usual = listed(&servers, "usual", &[]).await;
    assert_eq!(usual.len(), 2_990);
    let positions = usual
        .iter()
        .map(|letter| letter["sequence"].as_u64().unwrap());
    assert!(positions.is_sorted_by(|a, b| a < b));
    well(&nats.url(), &["drop", "--tenant", "usual", "--yes"]).await;
    assert_eq!(listed(&servers, "usual", &[]).await.len(), 0);
    assert_eq!(listed(&servers, "rare", &[]).await.len(), 6);
}

/// Puts a dead letter that was shown back into the stream.
async fn put_back(servers: &Servers, tenant: &str, letter: &Value) {
    let client = async_nats::connect(&servers.nats_url).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(header::ERROR_CODE, letter["code"].as_str().unwrap());
    headers.insert(header::IDEMPOTENCY_KEY, letter["key"].as_str().unwrap());
    let body =
        r#"{"id":"answer","from":{"id":"user1"},"reply_scope":{"conversation":"c1"},"text":"Ada"}"#;
    let jetstream = jetstream::new(client);
    let stored =
        jetstream.publish_with_headers(format!("deadletter.{tenant}"), headers, body.into());
    stored.await.unwrap().await.unwrap();
}
