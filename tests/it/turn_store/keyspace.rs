//! What is left in the server, and for how long.

use std::time::Duration;

use greentic_types::SessionKey;
use greentic_worker::ports::{Claim, TurnStore};

use super::backend::Redis;
use crate::contract::talk::{LEASE, Talk, Turn, WAIT, begin, exclusive, ready, slot};
use crate::contract::{Backend, DEDUPE_WINDOW};

/// Exactly these keys are there, and each lasts about as long as it should.
async fn check_lives(redis: &Redis, expected: &mut [(String, Option<Duration>)]) {
    expected.sort();
    let found = redis.key_space().await;
    let names = |keys: &[(String, _)]| keys.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(expected));
    for ((key, lasts), (_, life)) in found.iter().zip(expected.iter()) {
        assert_eq!(lasts.is_some(), life.is_some(), "{key} lasts {lasts:?}");
        if let (Some(lasts), Some(life)) = (lasts, life) {
            let (lasts, least) = (*lasts, *life - Duration::from_secs(20));
            assert!(lasts <= *life && lasts > least, "{key} lasts {lasts:?}");
        }
    }
}

#[tokio::test]
async fn an_optimistic_begin_writes_nothing() {
    let redis = Redis::start().await;
    begin(&redis, &Talk::of(&redis).says("1"), Claim::Optimistic).await;
    assert_eq!(redis.key_names().await, [""; 0]);
}

#[tokio::test]
async fn an_exclusive_claim_does_not_last() {
    let redis = Redis::start().await;
    let activity = Talk::of(&redis).says("1");
    ready(&redis, &activity, exclusive("me")).await;
    let keys = redis.keys(&activity);
    let mut expected = [
        (keys.lease().to_string(), Some(LEASE)),
        (keys.claims().to_string(), Some(DEDUPE_WINDOW)),
    ];
    check_lives(&redis, &mut expected).await;
}

#[tokio::test]
async fn everything_but_state_has_an_end() {
    let redis = Redis::start().await;
    let activity = Talk::of(&redis).says("1");
    let opening = ready(&redis, &activity, exclusive("me")).await;
    Turn::after(&opening)
        .holding("me")
        .park(&activity, "w", Some("k"))
        .writes(&slot("visits"), "1")
        .replies("hi")
        .done(&redis, &activity)
        .await;
    let keys = redis.keys(&activity);
    let correlated = Talk::of(&redis).echoes("k", "1");
    let correlated = redis.keys(&correlated).echoed_scope().unwrap().to_string();
    let mut expected = [
        (keys.session("w").to_string(), Some(WAIT)),
        (keys.base_scope().unwrap().to_string(), Some(WAIT)),
        (correlated, Some(WAIT)),
        (keys.user_waits().to_string(), Some(WAIT)),
        (keys.applied().to_string(), Some(DEDUPE_WINDOW)),
        (keys.state(&slot("visits")), None),
        (keys.user_state_bytes().to_string(), None),
        (keys.tenant_state_bytes().to_string(), None),
    ];
    check_lives(&redis, &mut expected).await;
}

#[tokio::test]
async fn a_finished_conversation_leaves_its_record_and_its_state() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w1", "k1").await;
    talk.parks(&redis, "w2", "k2").await;
    // The older one by its echo, the later one by its conversation alone.
    for activity in [talk.echoes("k1", "1"), talk.says("2")] {
        let opening = ready(&redis, &activity, exclusive("me")).await;
        Turn::after(&opening)
            .holding("me")
            .writes(&slot("visits"), "1")
            .done(&redis, &activity)
            .await;
    }
    let applied = |key: &str| redis.keys(&talk.says(key)).applied().to_string();
    let mut expected = ["parks-w1", "parks-w2", "1", "2"]
        .map(|key| (applied(key), Some(DEDUPE_WINDOW)))
        .to_vec();
    let activity = talk.says("1");
    let keys = redis.keys(&activity);
    let state = [
        keys.state(&slot("visits")),
        keys.user_state_bytes().to_string(),
        keys.tenant_state_bytes().to_string(),
    ];
    expected.extend(state.map(|key| (key, None)));
    check_lives(&redis, &mut expected).await;
}

#[tokio::test]
async fn a_published_record_shrinks_and_keeps_its_life() {
    let redis = Redis::start().await;
    let activity = Talk::of(&redis).says("1");
    let opening = ready(&redis, &activity, Claim::Optimistic).await;
    let turn = Turn::after(&opening).replies(&"long ".repeat(1000));
    turn.done(&redis, &activity).await;
    redis.store.published(&activity).await.unwrap();
    let applied = redis.keys(&activity).applied().to_string();
    let record = redis.run::<String>(&["GET", &applied]).await;
    assert_eq!(record, format!("{}[]", activity.content));
    check_lives(&redis, &mut [(applied, Some(DEDUPE_WINDOW))]).await;
}

#[tokio::test]
async fn a_users_set_lasts_as_long_as_the_longest_wait() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    let user_waits = redis.keys(&talk.says("1")).user_waits().to_string();
    for (key, wait, expected) in [
        ("1", WAIT, WAIT),
        ("2", WAIT / 2, WAIT),
        ("3", WAIT * 2, WAIT * 2),
    ] {
        let activity = talk.says(key);
        let opening = ready(&redis, &activity, Claim::Optimistic).await;
        let turn = Turn {
            taken: None,
            ..Turn::after(&opening)
        };
        turn.park_for(wait, &activity, key, None)
            .done(&redis, &activity)
            .await;
        let lasts: u64 = redis.run(&["PTTL", &user_waits]).await;
        let lasts = Duration::from_millis(lasts);
        assert!(lasts <= expected && lasts > expected - LEASE, "{lasts:?}");
    }
    let mut members: Vec<String> = redis.run(&["SMEMBERS", &user_waits]).await;
    members.sort();
    assert_eq!(members, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_user_who_never_answers_does_not_fill_the_memory() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    let user_waits = redis.keys(&talk.says("1")).user_waits().to_string();
    for i in 0..60 {
        talk.parks(&redis, &format!("w{i}"), &format!("k{i}")).await;
        redis.pass(WAIT / 2 + Duration::from_secs(1)).await;
    }
    // Two of them are alive at any time.
    let count: usize = redis.run(&["SCARD", &user_waits]).await;
    assert!(count < 20, "{count}");
    let listed: bool = redis.run(&["SISMEMBER", &user_waits, "w59"]).await;
    assert!(listed);
}

#[tokio::test]
async fn living_waits_stay_in_their_users_set_however_many_there_are() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    for i in 0..40 {
        talk.parks(&redis, &format!("w{i}"), &format!("k{i}")).await;
    }
    let user_waits = redis.keys(&talk.says("1")).user_waits().to_string();
    let count: usize = redis.run(&["SCARD", &user_waits]).await;
    assert_eq!(count, 40);
}

#[tokio::test]
async fn a_pointer_to_a_session_that_is_gone_is_no_wait() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w1", "k1").await;
    talk.parks(&redis, "w2", "k2").await;
    let prefix = redis.keys(&talk.says("1")).session_prefix().to_string();
    let _: i64 = redis.run(&["DEL", &(prefix.clone() + "w1")]).await;
    // The echo leads nowhere, the conversation to its latest.
    let opening = ready(&redis, &talk.echoes("k1", "1"), Claim::Optimistic).await;
    assert_eq!(opening.wait.unwrap().key.as_str(), "w2");

    let _: i64 = redis.run(&["DEL", &(prefix + "w2")]).await;
    let activity = talk.echoes("k2", "2");
    let opening = ready(&redis, &activity, Claim::Optimistic).await;
    assert!(opening.wait.is_none());
    // What the pointer says is still what the commit compares.
    assert_eq!(opening.head, Some(SessionKey::new("w2")));
    Turn::after(&opening)
        .park(&activity, "w3", Some("k3"))
        .done(&redis, &activity)
        .await;
    assert_eq!(talk.resumes(&redis).await.as_deref(), Some("w3"));
}

#[tokio::test]
async fn counted_state_is_what_is_there_and_leaves_nothing() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    let activity = talk.says("1");
    let keys = redis.keys(&activity);
    let counters = [keys.user_state_bytes(), keys.tenant_state_bytes()].map(|key| key.to_string());
    Turn::default()
        .writes(&slot("a"), "12345")
        .writes(&slot("b"), "1")
        .done(&redis, &activity)
        .await;
    let turn = Turn::default().writes(&slot("a"), "1").deletes(&slot("b"));
    turn.done(&redis, &talk.says("2")).await;
    // As docs/redis.md has it.
    let expected = 1 + keys.state(&slot("a")).len() + 256;
    for counter in &counters {
        assert_eq!(redis.run::<usize>(&["GET", counter]).await, expected);
    }
    let deletes = Turn::default().deletes(&slot("a"));
    deletes.done(&redis, &talk.says("3")).await;
    let records = redis.key_names().await;
    assert!(
        records.iter().all(|key| key.contains(":applied:")),
        "{records:?}"
    );
}

/// Counters that are not there, or say less than there is, as after an upgrade, never get in the way.
#[tokio::test]
async fn counters_that_drifted_hold_up_nobody() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    Turn::default()
        .writes(&slot("a"), "12345")
        .writes(&slot("b"), "1")
        .done(&redis, &talk.says("1"))
        .await;
    let activity = talk.says("2");
    let counter = redis.keys(&activity).user_state_bytes().to_string();
    let _: i64 = redis.run(&["DEL", &counter]).await;
    let deletes = Turn::default().deletes(&slot("a"));
    deletes.done(&redis, &activity).await;
    assert_eq!(redis.run::<Option<String>>(&["GET", &counter]).await, None);
    let _: () = redis.run(&["SET", &counter, "many"]).await;
    let writes = Turn::default().writes(&slot("a"), "1");
    writes.done(&redis, &talk.says("3")).await;
    assert!(redis.run::<usize>(&["GET", &counter]).await > 256);
    // A key of another type is no counter, and is one again after the next write.
    let _: i64 = redis.run(&["DEL", &counter]).await;
    let _: i64 = redis.run(&["RPUSH", &counter, "x"]).await;
    let writes = Turn::default().writes(&slot("c"), "1");
    writes.done(&redis, &talk.says("4")).await;
    assert!(redis.run::<usize>(&["GET", &counter]).await > 256);
}
