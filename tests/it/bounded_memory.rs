//! What stays in Redis, counted: nothing of what is over, and a known number of bytes of what waits.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use greentic_worker::ports::{Claim, TurnStore};
use redis::aio::MultiplexedConnection;

use crate::contract::Backend;
use crate::contract::talk::{Talk, Turn, exclusive, lease, ready, session_data, slot};
use crate::harness::{RedisServer, poll};
use crate::turn_store::backend::Redis;

/// How many turns are under way at once.
const AT_ONCE: usize = 64;

/// The session of docs/redis.md: 900 bytes of JSON.
const SESSION_BYTES: usize = 900;

/// A server of this test's own, since it counts every byte on it. In memory only: what is counted is not the log's.
async fn server() -> RedisServer {
    RedisServer::start_own_with(&["--appendonly", "no"]).await
}

async fn used_memory(connection: &MultiplexedConnection) -> u64 {
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let text: String = info.query_async(&mut connection.clone()).await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().trim().parse().unwrap()
}

async fn size(redis: &Redis) -> u64 {
    redis.run(&["DBSIZE"]).await
}

/// All keys of the server, by SCAN.
async fn all_keys(redis: &Redis) -> Vec<String> {
    let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
    loop {
        let (next, some): (String, Vec<String>) =
            redis.run(&["SCAN", &cursor, "COUNT", "1000"]).await;
        keys.extend(some);
        if next == "0" {
            return keys;
        }
        cursor = next;
    }
}

/// Two turns: a question that waits, and its answer. Every tenth one is delivered twice, and takes the lease.
async fn converse(redis: &Redis, n: usize, wait: Duration) {
    let talk = Talk::of(redis).but(|talk| {
        talk.user = format!("u{}", n / 4);
        talk.conversation = Some(format!("c{n}"));
    });
    let asks = talk.says(&format!("asks-{n}"));
    let opening = ready(redis, &asks, Claim::Optimistic).await;
    Turn::after(&opening)
        .park_for(wait, &asks, &format!("s{n}"), Some(&format!("k{n}")))
        .replies("name?")
        .done(redis, &asks)
        .await;
    redis.store().published(&asks).await.unwrap();
    let answers = talk.says(&format!("answers-{n}"));
    let claimed = n.is_multiple_of(10);
    let claim = if claimed {
        exclusive("me")
    } else {
        Claim::Optimistic
    };
    let opening = ready(redis, &answers, claim).await;
    assert!(opening.wait.is_some(), "the wait of {n} is gone");
    let turn = Turn::after(&opening).replies("hi");
    let turn = if claimed { turn.holding("me") } else { turn };
    turn.done(redis, &answers).await;
    redis.store().published(&answers).await.unwrap();
    // And one that is claimed, and never comes to its end.
    if claimed {
        let lost = talk.says(&format!("lost-{n}"));
        let claim = Claim::Exclusive {
            lease: lease("gone"),
            ttl: Duration::from_millis(500),
        };
        ready(redis, &lost, claim).await;
    }
}

#[tokio::test]
async fn finished_conversations_leave_nothing_behind() {
    const CONVERSATIONS: usize = 5_000;
    let server = server().await;
    let redis = Redis::on_with(&server.url(), Duration::from_secs(3)).await;
    let before = used_memory(&redis.connection).await;
    stream::iter(0..CONVERSATIONS)
        .for_each_concurrent(AT_ONCE, |n| converse(&redis, n, Duration::from_secs(600)))
        .await;
    // Nothing waits any more: what is there is the record of what was applied, and it has an end.
    for key in all_keys(&redis).await {
        assert!(
            [":applied:", ":claims:", ":lease:"]
                .iter()
                .any(|kind| key.contains(kind)),
            "{key} is left of conversations that are over"
        );
    }
    let emptied = poll(Duration::from_secs(60), async || {
        (size(&redis).await == 0).then_some(())
    })
    .await;
    assert!(
        emptied.is_some(),
        "left behind: {:?}",
        all_keys(&redis).await.first()
    );
    // Buffers of connections and scripts come and go; what grows with conversations would be megabytes.
    let after = used_memory(&redis.connection).await;
    assert!(after < before + 2_000_000, "{before} bytes became {after}");
}

#[tokio::test]
async fn only_state_has_no_end() {
    let server = server().await;
    let redis = Redis::on(&server.url()).await;
    let state = slot("visits");
    stream::iter(0..200_usize)
        .for_each_concurrent(AT_ONCE, |n| {
            let (redis, state) = (&redis, &state);
            async move {
                converse(redis, n, Duration::from_secs(600)).await;
                // Waits that are pushed aside, waits without echo, state, and turns that never end.
                let talk = Talk::of(redis).but(|talk| talk.user = format!("v{n}"));
                talk.parks(redis, &format!("first-{n}"), "k1").await;
                talk.parks(redis, &format!("second-{n}"), "k2").await;
                let activity = talk.says(&format!("state-{n}"));
                let opening = ready(redis, &activity, exclusive("me")).await;
                Turn::after(&opening)
                    .holding("me")
                    .park(&activity, &format!("third-{n}"), None)
                    .writes(state, "1")
                    .done(redis, &activity)
                    .await;
                let lost = talk
                    .but(|talk| talk.conversation = None)
                    .says(&format!("lost-{n}"));
                ready(redis, &lost, exclusive("gone")).await;
            }
        })
        .await;
    let keys = all_keys(&redis).await;
    let mut kinds = std::collections::BTreeSet::new();
    let mut states = 0;
    for key in &keys {
        let lasts: i64 = redis.run(&["PTTL", key]).await;
        if key.starts_with("greentic:state:") {
            states += 1;
            assert_eq!(lasts, -1, "{key}");
        } else if key.contains("}:state_bytes:") {
            // Counts that state, for as long as there is any.
            assert_eq!(lasts, -1, "{key}");
        } else {
            assert_ne!(lasts, -1, "{key} is there for ever");
            kinds.insert(
                key.split("}:")
                    .nth(1)
                    .and_then(|rest| rest.split(':').next())
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    assert_eq!(states, 200);
    let expected = ["applied", "claims", "lease", "session", "waits"];
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        expected,
        "the run left a kind of key out"
    );
}

/// Parks so many conversations; the bytes that each of them takes, the server's tables included.
async fn bytes_a_wait(redis: &Redis, waits: usize) -> u64 {
    let before = used_memory(&redis.connection).await;
    stream::iter(0..waits)
        .for_each_concurrent(AT_ONCE, |n| async move {
            let talk = Talk::of(redis).but(|talk| {
                talk.user = format!("u{n:07}");
                talk.conversation = Some(format!("c{n:07}"));
            });
            let activity = talk.says(&format!("m{n:035}"));
            let session = format!("{n:036}");
            let mut turn = Turn::default().park(&activity, &session, Some(&session));
            let (_, data, _, _) = turn.park.as_mut().unwrap();
            let rest = serde_json::to_string(&session_data(&activity, ""))
                .unwrap()
                .len();
            data.context_json = "x".repeat(SESSION_BYTES - rest);
            turn.done(redis, &activity).await;
            redis.store().published(&activity).await.unwrap();
        })
        .await;
    let parked = used_memory(&redis.connection).await - before;
    parked / waits as u64
}

/// The number that docs/redis.md states, on other counts: `IT_PARKED=1000000 cargo test --features it bytes_of_a_parked -- --nocapture`.
#[tokio::test]
async fn the_bytes_of_a_parked_conversation_are_those_of_the_docs() {
    let counts = crate::harness::setting("IT_PARKED")
        .map_or(vec![2_000, 20_000], |count| vec![count.parse().unwrap()]);
    for count in counts {
        let server = server().await;
        let redis = Redis::on_with(&server.url(), Duration::from_secs(3600)).await;
        let bytes = bytes_a_wait(&redis, count).await;
        eprintln!("{count} parked conversations: {bytes} bytes each");
        assert!(
            (1_800..3_000).contains(&bytes),
            "{bytes} bytes a parked conversation"
        );
    }
}
