//! The mark of an environment on streams, and names with a prefix.

use async_nats::jetstream::stream::{Config as ServerStream, RetentionPolicy};
use bytes::Bytes;
use greentic_worker::adapters::nats::config::{DeliveryMode, Provision};
use greentic_worker::model::{Secret, Severity};
use greentic_worker::ports::{Destination, Publisher};

use super::*;

const STREAMS: [(&str, &str); 3] = [
    ("GREENTIC_INBOUND", "inbound.>"),
    ("GREENTIC_OUTBOUND", "outbound.>"),
    ("GREENTIC_DEADLETTER", "deadletter.>"),
];

/// Streams without a mark, as an older worker made them.
async fn older_streams(provider: &async_nats::jetstream::Context, change: fn(&mut ServerStream)) {
    for (name, subjects) in STREAMS {
        let is_inbound = name == "GREENTIC_INBOUND";
        let mut stream = ServerStream {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            duplicate_window: Duration::from_millis(if is_inbound { 100 } else { 600_000 }),
            max_age: match name {
                "GREENTIC_OUTBOUND" => Duration::from_secs(7 * 24 * 60 * 60),
                _ => Duration::ZERO,
            },
            retention: match is_inbound {
                true => RetentionPolicy::WorkQueue,
                false => RetentionPolicy::Limits,
            },
            ..ServerStream::default()
        };
        change(&mut stream);
        provider.create_stream(stream).await.unwrap();
    }
}

async fn problems(config: &Config, env: &str, tenant: &TenantId) -> Vec<(Severity, String)> {
    let env = EnvId::new(env).unwrap();
    let nats = Nats::connect(config, &env).await.unwrap();
    let problems = nats.prepare(std::slice::from_ref(tenant)).await.unwrap();
    problems
        .iter()
        .map(|problem| (problem.severity, problem.to_string()))
        .collect()
}

/// The metadata and the description of each stream.
async fn marks(provider: &async_nats::jetstream::Context) -> Vec<(Option<String>, Option<String>)> {
    let mut marks = Vec::new();
    for (name, _) in STREAMS {
        let stream = provider.get_stream(name).await.unwrap();
        let config = &stream.cached_info().config;
        marks.push((
            config.metadata.get("greentic-env").cloned(),
            config.description.clone(),
        ));
    }
    marks
}

#[tokio::test]
async fn streams_that_are_made_carry_the_mark() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    assert_eq!(problems(&config(&server), "prod", &tenant).await, []);
    for (metadata, description) in marks(&provider(&server).await).await {
        assert_eq!(description.as_deref(), Some("greentic-env: prod"));
        // nats-server 2.9 keeps no metadata.
        assert!(metadata.is_none_or(|env| env == "prod"));
    }
    assert_eq!(problems(&config(&server), "prod", &tenant).await, []);
    let found = problems(&config(&server), "Prod", &tenant).await;
    assert_eq!(found.len(), 3, "{found:#?}");
    for ((severity, text), (name, _)) in found.iter().zip(STREAMS) {
        assert_eq!(*severity, Severity::Error);
        let start = format!("error: stream {name}: it belongs to environment `prod`");
        assert!(text.starts_with(&start), "{text}");
    }
}

#[tokio::test]
async fn streams_without_a_mark_are_marked_and_else_left_as_they_are() {
    let server = NatsServer::start_own().await;
    let (tenant, provider) = (tenant(), provider(&server).await);
    older_streams(&provider, |stream| {
        stream.deny_purge = true;
        stream.max_message_size = 4_000;
    })
    .await;
    assert_eq!(problems(&config(&server), "prod", &tenant).await, []);
    for (_, description) in marks(&provider).await {
        assert_eq!(description.as_deref(), Some("greentic-env: prod"));
    }
    for (name, _) in STREAMS {
        let stream = provider.get_stream(name).await.unwrap();
        let config = &stream.cached_info().config;
        assert!(
            config.deny_purge && config.max_message_size == 4_000,
            "{config:?}"
        );
    }
    assert_eq!(
        problems(&config(&server), "staging", &tenant).await.len(),
        3
    );
}

#[tokio::test]
async fn a_description_of_somebody_else_stays() {
    let server = NatsServer::start_own().await;
    let (tenant, provider) = (tenant(), provider(&server).await);
    older_streams(&provider, |stream| {
        stream.description = Some("of team A".to_owned());
    })
    .await;
    let found = problems(&config(&server), "prod", &tenant).await;
    let kept = marks(&provider).await;
    assert!(
        kept.iter()
            .all(|(_, description)| description.as_deref() == Some("of team A"))
    );
    let has_metadata = kept.iter().all(|(env, _)| env.as_deref() == Some("prod"));
    if has_metadata {
        assert_eq!(found, []);
        return;
    }
    // nats-server 2.9 has no other place for it.
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].0 == Severity::Warning && found[0].1.contains("carries no mark"));
    let command = "nats stream edit GREENTIC_INBOUND --description='greentic-env: prod'";
    assert!(found[0].1.contains(command), "{found:#?}");
}

#[tokio::test]
async fn a_stream_that_may_not_be_marked_is_told_and_used() {
    let lines = r#"authorization { users: [ { user: admin, password: admin },
        { user: worker, password: worker, permissions: { publish: { deny: ["$JS.API.STREAM.UPDATE.*"] } } } ] }"#;
    let server = NatsServer::start_own_with(lines).await;
    let as_user = |user: &str| Config {
        user: Some(user.to_owned()),
        password: Some(Secret::new(user)),
        ..config(&server)
    };
    let tenant = tenant();
    let options =
        async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), "admin".to_owned());
    let client = options.connect(server.url()).await.unwrap();
    let provider = async_nats::jetstream::new(client);
    older_streams(&provider, |_| {}).await;
    let off = Config {
        provision: Provision::Off,
        ..as_user("admin")
    };
    for config in [as_user("worker"), off] {
        let mut found = problems(&config, "prod", &tenant).await;
        found.retain(|(_, text)| !text.contains("consumer"));
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found.iter().all(|(severity, text)| {
            *severity == Severity::Warning && text.contains("mark it: nats stream edit")
        }));
    }
    assert!(
        marks(&provider)
            .await
            .iter()
            .all(|mark| *mark == (None, None))
    );
    let nats = Nats::connect(&as_user("worker"), &env()).await.unwrap();
    provide(&provider, &tenant, &["used"]).await;
    assert_eq!(body(&one(&nats, &tenant).await), "used");
}

#[tokio::test]
async fn a_stream_that_becomes_another_environments_is_left_alone() {
    let server = NatsServer::start_own().await;
    let (tenant, config) = (tenant(), config(&server));
    let ours = nats(&config, &tenant).await;
    let to = Destination::Outbound(&tenant);
    ours.publish(to, &headers(&[]), Bytes::from("x"))
        .await
        .unwrap();
    let provider = provider(&server).await;
    provider.delete_stream("GREENTIC_OUTBOUND").await.unwrap();
    let theirs = EnvId::new("other").unwrap();
    let theirs = Nats::connect(&config, &theirs).await.unwrap();
    let _only_outbound = theirs.prepare(&[]).await.unwrap();
    let refused = crate::harness::poll(SOON, async || {
        let sent = ours.publish(to, &headers(&[]), Bytes::from("x")).await;
        sent.err().map(|error| error.to_string())
    });
    let said = refused.await.expect("it is refused");
    assert!(
        said.contains("GREENTIC_OUTBOUND belongs to environment `other`"),
        "{said}"
    );
    provider.delete_stream("GREENTIC_OUTBOUND").await.unwrap();
    ours.publish(to, &headers(&[]), Bytes::from("x"))
        .await
        .unwrap();
}

#[tokio::test]
async fn core_delivery_keeps_environments_apart_by_their_prefixes() {
    let server = NatsServer::start_without_jetstream().await;
    let tenant = tenant();
    let of = |prefix: Option<&str>| Config {
        delivery: DeliveryMode::Core,
        prefix: prefix.map(str::to_owned),
        ..config(&server)
    };
    let (plain, a) = (
        nats(&of(None), &tenant).await,
        nats(&of(Some("a")), &tenant).await,
    );
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut replies = client
        .subscribe(format!("a.outbound.{tenant}"))
        .await
        .unwrap();
    none(&plain, &tenant).await;
    none(&a, &tenant).await;
    for (subject, text) in [("a.inbound", "of a"), ("inbound", "plain")] {
        let subject = format!("{subject}.{tenant}");
        client.publish(subject, text.into()).await.unwrap();
    }
    assert_eq!(body(&one(&a, &tenant).await), "of a");
    assert_eq!(body(&one(&plain, &tenant).await), "plain");
    none(&a, &tenant).await;
    none(&plain, &tenant).await;
    let to = Destination::Outbound(&tenant);
    a.publish(to, &headers(&[]), Bytes::from("reply"))
        .await
        .unwrap();
    assert_eq!(replies.next().await.unwrap().payload, "reply");
}

#[tokio::test]
async fn rights_are_those_of_the_prefix() {
    let lines = r#"authorization { users: [ { user: w, password: w, permissions: { publish: { deny: ["p.outbound.>"] } } } ] }"#;
    let server = NatsServer::start_own_with(lines).await;
    let with = |prefix: Option<&str>| Config {
        user: Some("w".to_owned()),
        password: Some(Secret::new("w")),
        prefix: prefix.map(str::to_owned),
        ..config(&server)
    };
    let tenant = TenantId::new("acme").unwrap();
    assert_eq!(problems(&with(None), "prod", &tenant).await, []);
    let found = problems(&with(Some("p")), "prod", &tenant).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    for part in [
        "may not publish to p.outbound.acme",
        "`p.outbound.>` and `p.deadletter.>`",
    ] {
        assert!(found[0].1.contains(part), "{found:#?}");
    }
}
