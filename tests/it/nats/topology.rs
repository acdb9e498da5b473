//! Streams and consumers: made, compared, missing.

use async_nats::jetstream::stream::{RetentionPolicy, StorageType};
use greentic_worker::adapters::nats::config::{Provision, Storage};
use greentic_worker::model::Severity;

use super::*;

/// Connects, prepares and tells the problems.
async fn problems(config: &Config, tenant: &TenantId) -> Vec<(Severity, String)> {
    let nats = Nats::connect(config, &env()).await.unwrap();
    let problems = nats.prepare(std::slice::from_ref(tenant)).await.unwrap();
    problems
        .iter()
        .map(|problem| (problem.severity, problem.to_string()))
        .collect()
}

#[tokio::test]
async fn streams_and_consumer_are_made_as_the_contract_says() {
    let server = NatsServer::start_own().await;
    let tenant = TenantId::new("dev.local").unwrap();
    let _nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    for (name, subjects, retention, window) in [
        (
            "GREENTIC_INBOUND",
            "inbound.>",
            RetentionPolicy::WorkQueue,
            100,
        ),
        (
            "GREENTIC_OUTBOUND",
            "outbound.>",
            RetentionPolicy::Limits,
            600_000,
        ),
        (
            "GREENTIC_DEADLETTER",
            "deadletter.>",
            RetentionPolicy::Limits,
            600_000,
        ),
    ] {
        let mut stream = provider.get_stream(name).await.unwrap();
        let config = &stream.info().await.unwrap().config;
        assert_eq!(config.subjects, [subjects]);
        assert_eq!(config.retention, retention, "{name}");
        assert_eq!(config.storage, StorageType::File, "{name}");
        assert_eq!(
            config.duplicate_window,
            Duration::from_millis(window),
            "{name}"
        );
    }
    let stream = provider.get_stream("GREENTIC_INBOUND").await.unwrap();
    let consumer = stream.consumer_info("worker-dev=local").await.unwrap();
    assert_eq!(consumer.config.filter_subject, "inbound.dev.local");
    assert_eq!(consumer.config.max_deliver, -1);
    assert_eq!(consumer.config.max_ack_pending, -1);
    assert_eq!(consumer.config.ack_wait, Duration::from_secs(30));
}

#[tokio::test]
async fn what_is_there_as_wanted_is_no_problem_a_second_time() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    assert_eq!(problems(&config(&server), &tenant).await, []);
    assert_eq!(problems(&config(&server), &tenant).await, []);
    let off = Config {
        provision: Provision::Off,
        ..config(&server)
    };
    assert_eq!(problems(&off, &tenant).await, []);
}

#[tokio::test]
async fn workers_that_start_together_make_the_streams_once() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let config = config(&server);
    let connecting = (0..8).map(async |_| Nats::connect(&config, &env()).await.unwrap());
    let workers = futures_util::future::join_all(connecting).await;
    let provider = provider(&server).await;
    for round in 0..100 {
        let starting = workers.iter().map(async |worker| {
            let problems = worker.prepare(std::slice::from_ref(&tenant)).await.unwrap();
            assert!(problems.is_empty(), "in round {round}: {problems}");
        });
        futures_util::future::join_all(starting).await;
        for stream in [
            "GREENTIC_INBOUND",
            "GREENTIC_OUTBOUND",
            "GREENTIC_DEADLETTER",
        ] {
            provider.delete_stream(stream).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_stream_that_differs_is_told_and_left_alone() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let provider = provider(&server).await;
    let theirs = async_nats::jetstream::stream::Config {
        name: "GREENTIC_INBOUND".to_owned(),
        subjects: vec!["inbound.>".to_owned()],
        ..Default::default()
    };
    provider.create_stream(theirs).await.unwrap();
    let found = problems(&config(&server), &tenant).await;
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].0 == Severity::Error && found[0].1.contains("retention is Limits"));
    assert!(found[1].0 == Severity::Warning && found[1].1.contains("duplicate_window is 120s"));
    let mut stream = provider.get_stream("GREENTIC_INBOUND").await.unwrap();
    let config = &stream.info().await.unwrap().config;
    assert_eq!(config.retention, RetentionPolicy::Limits);
}

#[tokio::test]
async fn a_changed_ack_wait_reaches_the_consumer() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let longer = Config {
        ack_wait: Duration::from_secs(77),
        ..config(&server)
    };
    assert_eq!(problems(&config(&server), &tenant).await, []);
    // Where it may not be changed, it is told.
    let off = Config {
        provision: Provision::Off,
        ..longer.clone()
    };
    let found = problems(&off, &tenant).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].0 == Severity::Warning && found[0].1.contains("ack_wait is 30s, wanted 77s"));
    assert_eq!(problems(&longer, &tenant).await, []);
    assert_eq!(problems(&off, &tenant).await, []);
}

#[tokio::test]
async fn with_provision_off_nothing_is_made_and_all_that_is_missing_is_told() {
    let server = NatsServer::start_own().await;
    let tenant = TenantId::new("dev.local").unwrap();
    let off = Config {
        provision: Provision::Off,
        ..config(&server)
    };
    let found = problems(&off, &tenant).await;
    assert_eq!(found.len(), 3, "{found:#?}");
    for ((severity, text), stream) in found.iter().zip([
        "GREENTIC_INBOUND",
        "GREENTIC_OUTBOUND",
        "GREENTIC_DEADLETTER",
    ]) {
        assert_eq!(*severity, Severity::Error);
        assert!(
            text.contains(&format!("nats stream add {stream} ")),
            "{text}"
        );
    }
    let provider = provider(&server).await;
    assert!(provider.get_stream("GREENTIC_INBOUND").await.is_err());

    // With the streams there, the consumer is what is missing.
    let _made = nats(&config(&server), &super::tenant()).await;
    let found = problems(&off, &tenant).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0]
            .1
            .contains("nats consumer add GREENTIC_INBOUND worker-dev=local ")
    );
    // And a pull says the same rather than making it.
    let nats = Nats::connect(&off, &env()).await.unwrap();
    let refused = nats.pull(&tenant, 1, SHORTLY).await.err().unwrap();
    assert!(
        refused.to_string().contains("nats consumer add"),
        "{refused}"
    );
}

#[tokio::test]
async fn streams_of_others_with_our_subjects_are_told() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let theirs = async_nats::jetstream::stream::Config {
        name: "THEIRS".to_owned(),
        subjects: vec!["outbound.>".to_owned()],
        ..Default::default()
    };
    provider(&server).await.create_stream(theirs).await.unwrap();
    let found = problems(&config(&server), &tenant).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].1.contains("another stream has its subjects"),
        "{found:#?}"
    );
}

#[tokio::test]
async fn a_server_without_jetstream_is_told() {
    let server = NatsServer::start_without_jetstream().await;
    let found = problems(&config(&server), &tenant()).await;
    assert!(found[0].1.contains("JetStream is off"), "{found:#?}");
    assert!(found[0].1.contains("nats.delivery"), "{found:#?}");
}

#[tokio::test]
async fn a_tenant_without_a_subject_is_told() {
    let server = NatsServer::start_own().await;
    let found = problems(&config(&server), &TenantId::new("a..b").unwrap()).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].1.contains("`a..b`"), "{found:#?}");
}

#[tokio::test]
async fn settings_of_the_streams_reach_the_server() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let mut config = config(&server);
    config.inbound.storage = Storage::Memory;
    config.outbound.max_bytes = Some(1_000_000);
    config.outbound.max_age = None;
    assert_eq!(problems(&config, &tenant).await, []);
    let provider = provider(&server).await;
    let inbound = provider.get_stream("GREENTIC_INBOUND").await.unwrap();
    assert_eq!(inbound.cached_info().config.storage, StorageType::Memory);
    let outbound = provider.get_stream("GREENTIC_OUTBOUND").await.unwrap();
    assert_eq!(outbound.cached_info().config.max_bytes, 1_000_000);
    assert_eq!(outbound.cached_info().config.max_age, Duration::ZERO);
}
