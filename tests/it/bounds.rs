//! State without a bound, as attackers use it: what they get, what Redis keeps of it, and that their neighbours notice
//! nothing.

use greentic_worker::model::header;
use greentic_worker::ports::Quotas;

use crate::contract::talk::{Talk, Turn, session_data, slot};

use crate::harness::{
    DEADLINE, FixturePack, MOST_SLOWDOWN, Message, Neighbour, Provider, RedisServer, Servers,
    Tenant, WorkerProcess, fresh_tenant, poll,
};
use crate::turn_store::backend::Redis;

const GLUTTON: &str = r#"
ask: {component.exec: {component: tests.glutton, operation: "{{in.text}}", input: {}}, routing: [{to: say}]}
say: {emit.message: {text: "done"}, routing: out}
"#;

const FLOWS: &[(&str, &str)] = &[
    (
        "keys",
        r#"
more: {var.set: {name: n, value: "{{vars.n}}x"}, routing: [{to: get}]}
get: {state.get: {key: "{{vars.n}}"}, routing: [{to: more}]}
"#,
    ),
    (
        "keep",
        r#"
set: {state.set: {key: "{{in.id}}", value: "{{in.text}}"}, routing: [{to: say}]}
say: {emit.message: {text: "kept"}, routing: out}
"#,
    ),
    (
        "ask",
        r#"
ask: {emit.message: {text: "Yes?"}, routing: [{to: hear}]}
hear: {session.wait: {reason: anything}, routing: [{to: say}]}
say: {emit.message: {text: "{{prev}}"}, routing: out}
"#,
    ),
];

fn tenant() -> Tenant {
    let pack = FixturePack::of("bounds", FLOWS);
    let flows: Vec<&str> = FLOWS.iter().map(|(id, _)| *id).collect();
    fresh_tenant().runs(&pack, &flows, "")
}

fn to(flow: &str, text: &str) -> Message {
    Message::new("c1", text).header(header::FLOW_ID, flow)
}

/// Messages that each make the component do this.
fn attacks(operation: &str, count: usize) -> impl Iterator<Item = Message> {
    let message = |n| Message::new(&format!("c{n}"), operation).from(&format!("user{n}"));
    (0..count).map(message)
}

#[tokio::test]
async fn a_component_that_devours_state_is_its_own_trouble_only() {
    const AT_ONCE: usize = 6;
    let servers = Servers::shared().await;
    let code = crate::components::component("glutton");
    let pack = FixturePack::with_component(
        "glutton",
        &[("main", GLUTTON)],
        (
            "tests.glutton",
            &code,
            "{host: {state: {read: true, write: true}}}",
        ),
    );
    let attacker = fresh_tenant().runs(&pack, &["main"], "");
    let neighbour = Neighbour::new();
    let worker = WorkerProcess::of(&servers)
        .bindings(&attacker)
        .bindings(neighbour.tenant())
        .setting("WORKER__ATTEMPTS", "1")
        .start()
        .await;
    let mut neighbour = neighbour.connect(&servers).await;
    let provider = Provider::connect(&servers, &attacker).await;
    let provider = tokio::sync::Mutex::new(provider.patient(DEADLINE * 3));

    for (operation, says) in [
        ("read", "limits.state_key_bytes = 512"),
        ("many", "limits.state_keys = 256"),
        ("write", "limits.state_keys = 256"),
    ] {
        let attack = async || {
            provider
                .lock()
                .await
                .flood(attacks(operation, AT_ONCE))
                .await
        };
        let over = async || {
            let mut provider = provider.lock().await;
            for _ in 0..AT_ONCE {
                let dead = provider.expect_dead().await;
                assert_eq!(dead.code(), "component_failed", "{}", dead.reason());
                assert!(dead.reason().contains(says), "{}", dead.reason());
                assert_eq!(dead.header(header::ATTEMPTS), Some("1"));
            }
        };
        let slowdown = neighbour.slowdown(attack, over).await;
        assert!(slowdown <= MOST_SLOWDOWN, "{operation}: {slowdown}");
    }
    // One that takes no notice of refusals gets no further.
    for operation in ["Read", "Many", "Write"] {
        let attack = async || {
            provider
                .lock()
                .await
                .flood(attacks(operation, AT_ONCE))
                .await
        };
        let over = async || provider.lock().await.settled().await;
        let slowdown = neighbour.slowdown(attack, over).await;
        assert!(slowdown <= MOST_SLOWDOWN, "{operation}: {slowdown}");
    }
    let log = worker.log();
    assert!(!log.contains("infrastructure is away"), "{log}");
    let stored = worker
        .metric("greentic_worker_state_bytes", &attacker.id)
        .await;
    let most = 1_100_000.0 * f64::from(u32::try_from(AT_ONCE).unwrap());
    assert!((0.0..most).contains(&stored), "{stored}");
}

#[tokio::test]
async fn what_a_flow_reads_and_keeps_is_bounded() {
    let servers = Servers::shared().await;
    let tenant = tenant();
    let config = tenant.dir().join("settings.yaml");
    let settings = format!("tenants:\n  {}: {{state_user_bytes: 3000}}\n", tenant.id);
    std::fs::write(&config, settings).unwrap();
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("LIMITS__WAITS_PER_USER", "2")
        .arg("--config")
        .arg(config.to_str().unwrap())
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    provider.send(&to("keys", "hi")).await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "state_limit");
    assert!(
        dead.reason().contains("flow keys, node get"),
        "{}",
        dead.reason()
    );
    assert_eq!(dead.header(header::ATTEMPTS), Some("1"));

    let text = "x".repeat(1_000);
    for _ in 0..2 {
        provider.send(&to("keep", &text)).await;
        provider.expect_text("kept").await;
    }
    provider.send(&to("keep", &text)).await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "user_state_quota", "{}", dead.reason());
    assert!(
        dead.reason().contains("state.user_bytes = 3000"),
        "{}",
        dead.reason()
    );
    // Another user of the tenant has room.
    provider.send(&to("keep", &text).from("other")).await;
    provider.expect_text("kept").await;
    let told = poll(DEADLINE, async || {
        let used = worker
            .metric("greentic_worker_state_bytes", &tenant.id)
            .await;
        (used > 3_000.0 && used < 6_000.0).then_some(())
    });
    told.await.expect("the tenant's state is told");

    for conversation in ["w1", "w2"] {
        let message = Message::new(conversation, "hi").header(header::FLOW_ID, "ask");
        provider.send(&message).await;
        provider.expect_text("Yes?").await;
    }
    let message = Message::new("w3", "hi").header(header::FLOW_ID, "ask");
    provider.send(&message).await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "wait_limit", "{}", dead.reason());
    // Those that wait still do, and their answers make room.
    for conversation in ["w1", "w2"] {
        provider.send(&Message::new(conversation, "yes")).await;
        provider.expect_reply().await;
    }
    provider.send(&message.id("again")).await;
    provider.expect_text("Yes?").await;
    let log = worker.log();
    assert!(!log.contains("infrastructure is away"), "{log}");
}

/// The microseconds that Redis spends on a commit, by its own count.
async fn commit_micros(redis: &Redis, commits: usize, turn: impl Fn(usize) -> (Turn, Talk)) -> f64 {
    let _: () = redis.run(&["CONFIG", "RESETSTAT"]).await;
    for n in 0..commits {
        let (turn, talk) = turn(n);
        let activity = talk.says(&format!("{:016x}", fastrand::u64(..)));
        turn.commit(redis, &activity).await;
    }
    let mut info = redis::cmd("INFO");
    info.arg("commandstats");
    let mut connection = redis.connection.clone();
    let text: String = info.query_async(&mut connection).await.unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("cmdstat_evalsha:"));
    let micros = line.and_then(|line| line.split("usec_per_call=").nth(1));
    let micros = micros.and_then(|rest| rest.split(',').next());
    micros.unwrap().parse().unwrap()
}

/// The figures that docs/redis.md states: `cargo test --features it --test it the_largest_commit -- --nocapture`.
#[tokio::test]
async fn the_largest_commit_takes_a_bounded_multiple_of_a_plain_one() {
    const KEYS: usize = 256;
    // 2 MiB in all: a quarter each for what is read, what is written, the session and a reply.
    const QUARTER: usize = 512 * 1024;
    const EACH: usize = QUARTER / KEYS - 256 - 3;
    let server = RedisServer::start_own_with(&["--appendonly", "no"]).await;
    let redis = Redis::on(&server.url()).await;
    let talk = |n: usize| {
        Talk::of(&redis).but(|talk| {
            talk.user = format!("u{n}");
            talk.conversation = Some(format!("c{n}"));
        })
    };
    let plain = commit_micros(&redis, 500, |n| {
        let talk = talk(n);
        let activity = talk.says("x");
        let session = format!("s{n}");
        let turn = Turn::default().park(&activity, &session, Some(&session));
        (turn.replies("name?"), talk)
    })
    .await;
    let value = |letter: &str| format!("\"{}\"", letter.repeat(EACH - 2));
    let full = |n: usize, read: Option<&str>, written: &str| {
        let talk = talk(1_000_000 + n);
        let activity = talk.says("x");
        let session = format!("l{written}{n}");
        let mut turn = Turn::default().park(&activity, &session, Some(&session));
        // Conversations of their own, so that each is the first of its own.
        turn.park.as_mut().unwrap().1 = session_data(&activity, &"x".repeat(QUARTER));
        for key in 0..KEYS {
            let slot = slot(&format!("{key:03}"));
            let read = read.map(value);
            turn = turn
                .reads(&slot, read.as_deref())
                .writes(&slot, &value(written));
        }
        let talk = talk.but(|talk| talk.conversation = Some(format!("{written}{n}")));
        (turn.replies(&"x".repeat(QUARTER)), talk)
    };
    let first = commit_micros(&redis, 8, |n| full(n, None, "a")).await;
    let largest = commit_micros(&redis, 8, |n| full(n, Some("a"), "b")).await;
    // A user with as many waits as there may be, the one more being refused.
    let most = Quotas::default().waits_per_user as usize;
    let busy = Talk::of(&redis).but(|talk| talk.user = "busy".to_owned());
    for n in 0..most {
        let talk = busy.but(|talk| talk.conversation = Some(format!("c{n}")));
        talk.parks(&redis, &format!("w{n}"), &format!("k{n}")).await;
    }
    let waits = commit_micros(&redis, 100, |n| {
        let talk = busy.but(|talk| talk.conversation = Some(format!("d{n}")));
        let session = format!("x{n}");
        let turn = Turn::default().park(&talk.says("x"), &session, Some(&session));
        (turn, talk)
    })
    .await;
    let ratio = |micros: f64| micros / plain;
    eprintln!(
        "a plain commit: {plain:.0} us; the largest: {largest:.0} us ({:.0} times), with new keys {first:.0} us ({:.0} times); \
         one of a user with {most} waits: {waits:.0} us ({:.1} times)",
        ratio(largest),
        ratio(first),
        ratio(waits)
    );
    assert!(ratio(largest) < 1_000.0 && ratio(first) < 1_000.0);
    assert!(
        largest.max(first) < 500_000.0,
        "a quarter of redis.response_timeout"
    );
}
