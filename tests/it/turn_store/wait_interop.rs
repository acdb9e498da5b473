//! Waits, with greentic-session's stock Redis store on the other side.

use std::time::Duration;

use greentic_session::{SessionBackendConfig, SessionStore, create_session_store};
use greentic_types::{SessionData, SessionKey};
use greentic_worker::model::{Activity, ReplyScope};
use greentic_worker::ports::Claim;

use super::backend::Redis;
use crate::contract::DEDUPE_WINDOW;
use crate::contract::talk::{Talk, Turn, WAIT, found, ready, session_data};

/// The stock store of the activity's tenant.
fn stock(redis: &Redis, activity: &Activity) -> Box<dyn SessionStore> {
    create_session_store(SessionBackendConfig::RedisUrlWithNamespace {
        url: redis.config.url.expose().to_owned(),
        namespace: redis.keys(activity).tenant_namespace().to_string(),
    })
    .unwrap()
}

fn stock_finds(redis: &Redis, activity: &Activity, scope: &ReplyScope) -> Option<String> {
    let key = stock(redis, activity)
        .find_wait_by_scope(&activity.tenant_ctx(), &activity.user, scope)
        .unwrap();
    key.map(|key| key.0)
}

fn stock_lists(redis: &Redis, activity: &Activity) -> Vec<String> {
    let keys = stock(redis, activity)
        .list_waits_for_user(&activity.tenant_ctx(), &activity.user)
        .unwrap();
    let mut keys: Vec<_> = keys.into_iter().map(|key| key.0).collect();
    keys.sort();
    keys
}

fn stock_registers(
    redis: &Redis,
    activity: &Activity,
    key: &str,
    ttl: Option<Duration>,
) -> SessionData {
    let data = session_data(activity, r#"{"stock":true}"#);
    let scope = activity.reply_scope.as_ref().unwrap();
    let context = activity.tenant_ctx();
    stock(redis, activity)
        .register_wait(
            &context,
            &activity.user,
            scope,
            &SessionKey::new(key),
            data.clone(),
            ttl,
        )
        .unwrap();
    data
}

fn stock_clears(redis: &Redis, activity: &Activity, scope: &ReplyScope) {
    stock(redis, activity)
        .clear_wait(&activity.tenant_ctx(), &activity.user, scope)
        .unwrap();
}

/// Talks that differ in what their keys are built from.
fn talks(redis: &Redis) -> [Talk; 2] {
    let talk = Talk::of(redis);
    let other = talk.but(|t| {
        t.team = Some("support".to_owned());
        t.thread = Some("t1".to_owned());
        t.tenant = "dev.local".to_owned();
    });
    [talk, other]
}

async fn takes(redis: &Redis, activity: &Activity) -> Option<String> {
    let opening = ready(redis, activity, Claim::Optimistic).await;
    Turn::after(&opening).done(redis, activity).await;
    opening.wait.map(|wait| wait.key.0)
}

#[tokio::test]
async fn the_stock_store_finds_and_lists_what_we_park() {
    let redis = Redis::start().await;
    for talk in talks(&redis) {
        let activity = talk.echoes("k", "1");
        let opening = ready(&redis, &activity, Claim::Optimistic).await;
        let turn = Turn::after(&opening).park(&activity, "w", Some("k"));
        turn.done(&redis, &activity).await;
        let base = activity.base_scope().unwrap();
        let echoed = activity.reply_scope.as_ref().unwrap();
        for scope in [&base, echoed] {
            let key = stock_finds(&redis, &activity, scope);
            assert_eq!(key.as_deref(), Some("w"));
        }
        assert_eq!(stock_lists(&redis, &activity), ["w"]);
        let data = stock(&redis, &activity).get_session(&SessionKey::new("w"));
        assert_eq!(data.unwrap(), Some(turn.park.unwrap().1));
    }
}

#[tokio::test]
async fn the_stock_store_sees_that_we_took_it() {
    let redis = Redis::start().await;
    for talk in talks(&redis) {
        talk.parks(&redis, "w", "k").await;
        let activity = talk.echoes("k", "1");
        assert_eq!(takes(&redis, &activity).await.as_deref(), Some("w"));
        assert_eq!(stock_lists(&redis, &activity), [""; 0]);
        let base = activity.base_scope().unwrap();
        for scope in [&base, activity.reply_scope.as_ref().unwrap()] {
            assert_eq!(stock_finds(&redis, &activity, scope), None);
        }
    }
}

/// The stock store drops a wait that is pushed aside from its user's set; it can still be answered, so we keep it.
#[tokio::test]
async fn a_wait_that_is_pushed_aside_stays_listed() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w1", "k1").await;
    talk.parks(&redis, "w2", "k2").await;
    let activity = talk.says("1");
    assert_eq!(stock_lists(&redis, &activity), ["w1", "w2"]);
    assert_eq!(takes(&redis, &activity).await.as_deref(), Some("w2"));
    assert_eq!(stock_lists(&redis, &activity), ["w1"]);
    let base = activity.base_scope().unwrap();
    let key = stock_finds(&redis, &activity, &base);
    assert_eq!(key.as_deref(), Some("w1"));
}

#[tokio::test]
async fn what_the_stock_store_clears_is_no_wait_of_ours() {
    let redis = Redis::start().await;
    for talk in talks(&redis) {
        let activity = talk.echoes("k", "1");
        for scope in [
            activity.base_scope(),
            activity.reply_scope.as_deref().cloned(),
        ] {
            let session = format!("w{}", scope.as_ref().unwrap().scope_hash());
            talk.parks(&redis, &session, "k").await;
            assert_eq!(found(&redis, &activity).await, Some(session));
            stock_clears(&redis, &activity, &scope.unwrap());
            assert_eq!(found(&redis, &activity).await, None);
            assert_eq!(stock_lists(&redis, &activity), [""; 0]);
        }
        // The pointer that it left is in nobody's way.
        talk.parks(&redis, "next", "k").await;
        assert_eq!(takes(&redis, &activity).await.as_deref(), Some("next"));
    }
}

#[tokio::test]
async fn we_resume_and_clear_what_the_stock_store_registers() {
    let redis = Redis::start().await;
    for talk in talks(&redis) {
        for (key, ttl) in [("w1", Some(WAIT)), ("w2", None)] {
            let activity = talk.says(key);
            let data = stock_registers(&redis, &activity, key, ttl);
            let opening = ready(&redis, &activity, Claim::Optimistic).await;
            let wait = opening.wait.as_ref().unwrap();
            assert_eq!((wait.key.as_str(), &wait.data), (key, &data));
            assert_eq!(opening.head, Some(SessionKey::new(key)));
            Turn::after(&opening).done(&redis, &activity).await;
            let base = activity.base_scope().unwrap();
            assert_eq!(stock_finds(&redis, &activity, &base), None);
        }
    }
    let left = redis.key_names().await;
    assert!(left.iter().all(|key| key.contains(":applied:")), "{left:?}");
}

/// A wait that is registered under its correlation id alone, which ours never is, is found by it and cleared whole.
#[tokio::test]
async fn a_stock_wait_may_have_a_correlation_only() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    let activity = talk.echoes("k", "1");
    stock_registers(&redis, &activity, "w", None);
    assert_eq!(talk.resumes(&redis).await, None);
    assert_eq!(takes(&redis, &activity).await.as_deref(), Some("w"));
    assert_eq!(
        redis.key_names().await,
        [redis.keys(&activity).applied().to_string()]
    );
}

#[tokio::test]
async fn a_stock_wait_that_comes_between_is_a_conflict() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w", "k").await;
    let activity = talk.says("1");
    let opening = ready(&redis, &activity, Claim::Optimistic).await;
    stock_registers(&redis, &talk.says("x"), "stock", Some(WAIT));
    Turn::after(&opening).conflicts(&redis, &activity).await;
    assert_eq!(takes(&redis, &activity).await.as_deref(), Some("stock"));
}

/// What the stock store made without an end, we do not end: there may be a wait in it that has none either.
#[tokio::test]
async fn what_has_no_end_keeps_none() {
    let redis = Redis::start().await;
    let talk = Talk::of(&redis);
    let activity = talk.says("1");
    stock_registers(&redis, &activity, "stock", None);
    talk.parks(&redis, "w", "k").await;
    let keys = redis.keys(&activity);
    let base = keys.base_scope().unwrap().to_string();
    assert!(redis.run::<i64>(&["PTTL", &base]).await > 0);
    assert_eq!(takes(&redis, &activity).await.as_deref(), Some("w"));

    assert_eq!(talk.resumes(&redis).await.as_deref(), Some("stock"));
    for key in [
        keys.user_waits().to_string(),
        base,
        keys.session("stock").to_string(),
    ] {
        assert_eq!(redis.run::<i64>(&["PTTL", &key]).await, -1, "{key}");
    }
    // With its last wait the set is gone, and the next one ends again.
    assert_eq!(
        takes(&redis, &talk.says("2")).await.as_deref(),
        Some("stock")
    );
    talk.parks(&redis, "w2", "k2").await;
    for (key, lasts) in redis.key_space().await {
        assert!(lasts.is_some_and(|lasts| lasts <= DEDUPE_WINDOW), "{key}");
    }
}
