//! Notes that replies are out.

use greentic_worker::adapters::redis::Config;
use greentic_worker::model::{Activity, IdempotencyKey, Secret};
use greentic_worker::ports::{Claim, StoreError, TurnStore};

use super::backend::Redis;
use crate::contract::talk::{Talk, Turn, ready};
use crate::harness::{DEADLINE, RedisServer, poll};

/// Notes of many tenants go to Redis in one call; what the ACL denies to one of them is not denied to the others.
#[tokio::test]
async fn a_note_that_is_refused_is_its_own_tenants_and_is_written_when_it_may_be() {
    let server = RedisServer::start_own().await;
    let admin = Redis::on(&server.url()).await;
    let allow = async |rules: &[&str]| {
        let user = ["ACL", "SETUSER", "worker", "on", ">worker", "+@all"];
        let _: () = admin.run(&[&user[..], rules].concat()).await;
    };
    allow(&["~*"]).await;
    let config = Config {
        username: Some("worker".to_owned()),
        password: Some(Secret::new("worker")),
        ..admin.config.clone()
    };
    let redis = Redis::with(config, admin.connection.clone()).await;
    let mut activities = Vec::new();
    for n in 0..100 {
        let tenant = if n % 2 == 0 { "acme" } else { "beta" };
        let talk = Talk::of(&redis).but(|talk| talk.tenant = tenant.to_owned());
        let activity = talk.but(|talk| talk.user = format!("u{n}")).says("1");
        let activity = Activity {
            key: IdempotencyKey::new(&n.to_string()),
            ..activity
        };
        let opening = ready(&redis, &activity, Claim::Optimistic).await;
        let turn = Turn::after(&opening).replies("hello");
        turn.done(&redis, &activity).await;
        activities.push(activity);
    }
    allow(&["resetkeys", "~*beta*"]).await;
    let noting = activities
        .iter()
        .map(|activity| redis.store.published(activity));
    let answers = futures_util::future::join_all(noting).await;
    for (activity, answer) in activities.iter().zip(answers) {
        let refused = matches!(answer, Err(StoreError::Refused(_)));
        assert_eq!(refused, activity.tenant.as_str() == "acme", "{answer:?}");
    }
    allow(&["~*"]).await;
    let noted = poll(DEADLINE, async || {
        for activity in &activities {
            let applied = redis.keys(activity).applied().to_string();
            let record: String = redis.run(&["GET", &applied]).await;
            if !record.ends_with("[]") {
                return None;
            }
        }
        Some(())
    });
    noted.await.expect("they are noted without being asked for");
}
