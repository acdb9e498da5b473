//! State, with greentic-state's stock Redis store on the other side.

use greentic_state::redis_store::RedisStateStore;
use greentic_state::{StateKey, StateStore};
use greentic_types::TenantCtx;
use greentic_worker::model::Activity;
use greentic_worker::ports::{StateSlot, StoredState, TurnStore};
use serde_json::{Value, json};

use super::backend::Redis;
use crate::contract::talk::{Talk, Turn, slot};

/// Where the stock store has a slot.
struct Place {
    context: TenantCtx,
    prefix: String,
    key: StateKey,
}

impl Place {
    fn of(activity: &Activity, slot: &StateSlot) -> Self {
        let (pack, flow, user) = (slot.pack.stored(), &slot.flow, &activity.user);
        Self {
            context: activity.tenant_ctx(),
            prefix: format!("pack/{pack}/flow/{flow}/user/{user}"),
            key: StateKey::new(&slot.key),
        }
    }

    fn get(&self, stock: &RedisStateStore) -> Option<Value> {
        stock
            .get_json(&self.context, &self.prefix, &self.key, None)
            .unwrap()
    }

    fn set(&self, stock: &RedisStateStore, value: &Value, ttl_secs: Option<u32>) {
        stock
            .set_json(
                &self.context,
                &self.prefix,
                &self.key,
                None,
                value,
                ttl_secs,
            )
            .unwrap();
    }
}

#[tokio::test]
async fn each_reads_what_the_other_wrote() {
    let redis = Redis::start().await;
    let stock = RedisStateStore::from_url(redis.config.url.expose()).unwrap();
    let talk = Talk::of(&redis);
    let talks = [talk.clone(), talk.but(|t| t.team = Some("x".to_owned()))];
    for (i, talk) in talks.iter().enumerate() {
        for key in ["visits", "a:b/c", "ü"] {
            let activity = talk.says(&format!("{i}-{key}"));
            let place = Place::of(&activity, &slot(key));
            assert_eq!(place.get(&stock), None);
            Turn::default()
                .writes(&slot(key), r#"{"n":1}"#)
                .done(&redis, &activity)
                .await;
            assert_eq!(place.get(&stock), Some(json!({"n": 1})));

            place.set(&stock, &json!([2]), None);
            let read = redis.store.read_state(&activity, &slot(key), 1000).await;
            assert_eq!(read.unwrap(), StoredState::Text("[2]".to_owned()));
        }
    }
}

#[tokio::test]
async fn what_the_stock_store_writes_meanwhile_is_a_conflict() {
    let redis = Redis::start().await;
    let stock = RedisStateStore::from_url(redis.config.url.expose()).unwrap();
    let activity = Talk::of(&redis).says("1");
    let place = Place::of(&activity, &slot("a"));
    place.set(&stock, &json!(1), None);
    let turn = Turn::default().reads(&slot("a"), Some("1"));
    place.set(&stock, &json!(2), None);
    turn.conflicts(&redis, &activity).await;
    stock
        .del(&place.context, &place.prefix, &place.key)
        .unwrap();
    turn.conflicts(&redis, &activity).await;
    Turn::default()
        .reads(&slot("a"), None)
        .done(&redis, &activity)
        .await;
}

/// As the stock store does without a time of its own.
#[tokio::test]
async fn a_value_keeps_the_end_that_it_was_given() {
    let redis = Redis::start().await;
    let stock = RedisStateStore::from_url(redis.config.url.expose()).unwrap();
    let activity = Talk::of(&redis).says("1");
    Place::of(&activity, &slot("a")).set(&stock, &json!(1), Some(100));
    Turn::default()
        .writes(&slot("a"), "2")
        .done(&redis, &activity)
        .await;
    let key = redis.keys(&activity).state(&slot("a"));
    assert_eq!(redis.run::<String>(&["GET", &key]).await, "2");
    let lasts: i64 = redis.run(&["TTL", &key]).await;
    assert!((1..=100).contains(&lasts), "{lasts}");
}
