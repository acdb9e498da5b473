//! What is stored but cannot be read: it is reported and left as it is.

use greentic_types::SessionKey;
use greentic_worker::model::Activity;
use greentic_worker::ports::{
    Begin, Begun, Claim, Commit, Committed, Quotas, StateSlot, StoreError, TurnStore,
};

use super::backend::Redis;
use crate::contract::talk::{
    LEASE, Talk, Turn, begin, exclusive, found, ready, reply, session_data, slot,
};

async fn begins(
    redis: &Redis,
    activity: &Activity,
    claim: Claim<'_>,
    state: &[StateSlot],
) -> Result<Begun, StoreError> {
    let begin = Begin {
        activity,
        claim,
        resume: true,
        state,
        state_bytes: 1000,
    };
    redis.store.begin(&begin).await
}

async fn commits(redis: &Redis, activity: &Activity) -> Result<Committed, StoreError> {
    let (key, data) = (SessionKey::new("w"), session_data(activity, "{}"));
    let commit = Commit {
        activity,
        lease: None,
        head: None,
        taken: None,
        park: Some(greentic_worker::ports::Park {
            key: &key,
            data: &data,
            correlation: None,
            ttl: LEASE,
        }),
        state_read: &[],
        state_written: &[(slot("a"), Some("1".to_owned()))],
        outbox: &[],
        quotas: Quotas::default(),
    };
    redis.store.commit(&commit).await
}

#[track_caller]
fn check_corrupt<T: std::fmt::Debug>(answer: Result<T, StoreError>, says: &str) {
    match answer {
        Err(StoreError::Corrupt { what, reason }) => assert_eq!(what, says, "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_that_is_no_session_data_is_corrupt() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w", "k").await;
    let activity = talk.says("1");
    let session = redis.keys(&activity).session("w").to_string();
    let _: () = redis.run(&["SET", &session, "{\"tenant_ctx\":"]).await;

    check_corrupt(
        begins(&redis, &activity, Claim::Optimistic, &[]).await,
        "session",
    );
    check_corrupt(
        begins(&redis, &activity, exclusive("me"), &[]).await,
        "session",
    );
    let left: String = redis.run(&["GET", &session]).await;
    assert_eq!(left, "{\"tenant_ctx\":");
    // The turn that did not run holds up nobody, and its attempt counts.
    let other = Begin {
        activity: &activity,
        claim: exclusive("you"),
        resume: false,
        state: &[],
        state_bytes: 0,
    };
    let begun = redis.store.begin(&other).await.unwrap();
    let Begun::Ready(opening) = begun else {
        panic!("{begun:?}")
    };
    assert_eq!(opening.claims, 2);
}

#[tokio::test]
async fn an_outbox_that_is_none_is_corrupt() {
    let redis = Redis::start().await;
    let activity = Talk::of(&redis).says("1");
    let applied = redis.keys(&activity).applied().to_string();
    let _: () = redis.run(&["SET", &applied, "{}"]).await;
    check_corrupt(
        begins(&redis, &activity, Claim::Optimistic, &[]).await,
        "outbox",
    );
    check_corrupt(commits(&redis, &activity).await, "outbox");
}

#[tokio::test]
async fn state_that_is_no_text_is_corrupt() {
    let redis = Redis::start().await;
    let activity = Talk::of(&redis).says("1");
    let mut set = redis::cmd("SET");
    set.arg(redis.keys(&activity).state(&slot("a")))
        .arg(b"\xff");
    let _: () = set
        .query_async(&mut redis.connection.clone())
        .await
        .unwrap();
    let slots = [slot("a")];
    check_corrupt(
        begins(&redis, &activity, Claim::Optimistic, &slots).await,
        "state",
    );
    check_corrupt(
        redis.store.read_state(&activity, &slots[0], 1000).await,
        "state",
    );
}

#[tokio::test]
async fn keys_of_another_type_are_corrupt_and_nothing_is_half_applied() {
    let redis = Redis::start().await;
    let activity = Talk::of(&redis).says("1");
    let keys = redis.keys(&activity);
    let user_waits = keys.user_waits().to_string();
    for key in [
        keys.applied().to_string(),
        keys.lease().to_string(),
        keys.base_scope().unwrap().to_string(),
        user_waits.clone(),
    ] {
        let _: i64 = redis.run(&["HSET", &key, "a", "b"]).await;
        if key != user_waits {
            check_corrupt(begins(&redis, &activity, exclusive("me"), &[]).await, "key");
            let attempts = [keys.claims().to_string(), keys.failures().to_string()];
            let _: i64 = redis.run(&["DEL", &attempts[0], &attempts[1]]).await;
        }
        // A look takes it for nothing; no turn gets further than its commit.
        let begun = begins(&redis, &activity, Claim::Optimistic, &[]).await;
        assert!(matches!(begun, Ok(Begun::Ready(_))), "{begun:?}");
        check_corrupt(commits(&redis, &activity).await, "key");
        assert_eq!(redis.key_names().await, [key.as_str()]);
        let _: i64 = redis.run(&["DEL", &key]).await;
    }
    assert!(matches!(
        commits(&redis, &activity).await,
        Ok(Committed::Done { .. })
    ));
}

#[tokio::test]
async fn taking_a_wait_fails_as_a_whole_too() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w", "k").await;
    let activity = talk.says("1");
    let opening = ready(&redis, &activity, Claim::Optimistic).await;
    let keys = redis.keys(&activity);
    let _: () = redis
        .run(&["SET", &keys.user_waits().to_string(), "x"])
        .await;
    let before = redis.key_names().await;
    let taken = opening.wait.unwrap();
    let commit = Commit {
        activity: &activity,
        lease: None,
        head: opening.head.as_ref(),
        taken: Some(greentic_worker::ports::Taken {
            key: &taken.key,
            correlation: Some("k"),
            shadowed: &[],
        }),
        park: None,
        state_read: &[],
        state_written: &[],
        outbox: &[],
        quotas: Quotas::default(),
    };
    check_corrupt(redis.store.commit(&commit).await, "key");
    assert_eq!(redis.key_names().await, before);
}

#[tokio::test]
async fn a_session_of_someone_else_is_passed_over_and_left() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w1", "k1").await;
    talk.parks(&redis, "w2", "k2").await;
    let activity = talk.echoes("k2", "1");
    let session = redis.keys(&activity).session("w2").to_string();
    let strangers = [
        talk.but(|t| t.env.push('2')),
        talk.but(|t| t.tenant = "other".to_owned()),
        talk.but(|t| t.team = Some("t".to_owned())),
        talk.but(|t| t.user = "bob".to_owned()),
    ];
    for stranger in strangers {
        let data = session_data(&stranger.says("1"), "{}");
        let json = serde_json::to_string(&data).unwrap();
        let _: () = redis.run(&["SET", &session, &json, "KEEPTTL"]).await;
        assert_eq!(found(&redis, &activity).await, None, "{stranger:?}");
        assert_eq!(redis.run::<String>(&["GET", &session]).await, json);
    }
    // The echo leads to a stranger's, the conversation to our own.
    let base = redis.keys(&activity).base_scope().unwrap().to_string();
    let _: () = redis.run(&["SET", &base, "w1"]).await;
    assert_eq!(found(&redis, &activity).await.as_deref(), Some("w1"));
    // A session that names no user is anyone's, as greentic-session has it.
    let mut data = session_data(&activity, "{}");
    (data.tenant_ctx.user, data.tenant_ctx.user_id) = (None, None);
    let json = serde_json::to_string(&data).unwrap();
    let _: () = redis.run(&["SET", &session, &json]).await;
    assert_eq!(found(&redis, &activity).await.as_deref(), Some("w2"));
}

#[tokio::test]
async fn a_lease_that_never_ends_is_waited_for() {
    let redis = Redis::start().await;
    let activity = Talk::of(&redis).says("1");
    let _: () = redis
        .run(&["SET", &redis.keys(&activity).lease().to_string(), "someone"])
        .await;
    let begun = begin(&redis, &activity, Claim::Optimistic).await;
    let Begun::Busy { retry_after } = begun else {
        panic!("{begun:?}")
    };
    assert!(!retry_after.is_zero());
    Turn::default().conflicts(&redis, &activity).await;
}

/// Workers of the version before know of no digests, and are replaced one by one.
#[tokio::test]
async fn a_record_without_a_digest_is_its_outbox_and_keeps_no_message_out() {
    let redis = Redis::start().await;
    let activity = Talk::of(&redis).says("1");
    let record = redis.keys(&activity).applied().to_string();
    let outbox = serde_json::to_string(&[reply("hi")]).unwrap();
    for (stored, expected) in [(outbox.as_str(), 1), ("[]", 0)] {
        let _: () = redis.run(&["SET", &record, stored]).await;
        for claim in [Claim::Optimistic, exclusive("me")] {
            let begun = begins(&redis, &activity, claim, &[]).await.unwrap();
            let Begun::Applied(found) = begun else {
                panic!("{begun:?}")
            };
            assert_eq!((found.content, found.outbox.len()), (None, expected));
        }
        let Committed::AlreadyApplied(found) = commits(&redis, &activity).await.unwrap() else {
            panic!("it is applied")
        };
        assert_eq!((found.content, found.outbox.len()), (None, expected));
    }
}
