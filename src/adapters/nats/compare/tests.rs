use std::time::Duration;

use async_nats::jetstream::consumer::IntoConsumerConfig;
use async_nats::jetstream::stream::StorageType;

use super::super::config::Config;
use super::super::topology::{server_consumer, server_stream};
use super::*;
use crate::model::EnvId;

fn dev() -> EnvId {
    EnvId::new("dev").unwrap()
}

/// Compares a stream changed like this with what the defaults want; expects problems that begin and go on like these.
#[track_caller]
fn check(name: StreamName, change: impl Fn(&mut ServerStream), expected: &[&str]) {
    let wanted = server_stream(&Config::default(), &dev(), name);
    let mut found = wanted.clone();
    change(&mut found);
    let tenant = TenantId::new("dev.local").unwrap();
    let names = Names::default();
    let found = stream((&names, name), &wanted, &found, &[&tenant]);
    compared(&found, expected);
}

#[track_caller]
fn compared(found: &[Problem], expected: &[&str]) {
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (problem, start) in found.iter().zip(expected) {
        assert!(problem.starts_with(start), "{problem}");
        assert!(problem.contains("help: "), "{problem}");
    }
}

#[test]
fn what_is_as_wanted_is_no_problem() {
    for name in StreamName::ALL {
        check(name, |_| {}, &[]);
        check(name, |found| found.subjects = vec![">".to_owned()], &[]);
        check(name, |found| found.max_bytes = 0, &[]);
    }
}

#[test]
fn an_inbound_stream_must_be_a_work_queue() {
    check(
        StreamName::Inbound,
        |found| found.retention = RetentionPolicy::Limits,
        &["error: stream GREENTIC_INBOUND: retention is Limits, wanted WorkQueue: "],
    );
    check(
        StreamName::Inbound,
        |found| found.retention = RetentionPolicy::Interest,
        &["error: stream GREENTIC_INBOUND: retention is Interest"],
    );
    check(
        StreamName::Outbound,
        |found| found.retention = RetentionPolicy::Interest,
        &["warning: stream GREENTIC_OUTBOUND: retention"],
    );
}

#[test]
fn subjects_matter_as_far_as_tenants_are_left_out() {
    check(
        StreamName::Outbound,
        |found| found.subjects = vec!["outbound.other".to_owned()],
        &["error: stream GREENTIC_OUTBOUND: subjects"],
    );
    check(
        StreamName::Outbound,
        |found| found.subjects = vec!["outbound.dev.*".to_owned()],
        &["warning: stream GREENTIC_OUTBOUND: subjects"],
    );
}

#[test]
fn windows_matter_in_one_direction() {
    let hour = Duration::from_secs(3_600);
    check(
        StreamName::Inbound,
        |found| found.duplicate_window = hour,
        &["warning: stream GREENTIC_INBOUND: duplicate_window is 3600s, wanted 100ms: two tenants"],
    );
    check(
        StreamName::Outbound,
        |found| found.duplicate_window = hour,
        &[],
    );
    check(
        StreamName::DeadLetter,
        |found| found.duplicate_window = Duration::from_secs(1),
        &["warning: stream GREENTIC_DEADLETTER: duplicate_window is 1s"],
    );
}

#[test]
fn a_stream_that_takes_nothing_is_an_error() {
    check(
        StreamName::DeadLetter,
        |found| (found.no_ack, found.sealed) = (true, true),
        &[
            "error: stream GREENTIC_DEADLETTER: no_ack",
            "error: stream GREENTIC_DEADLETTER: sealed",
        ],
    );
}

#[test]
fn other_differences_are_warnings() {
    check(
        StreamName::Inbound,
        |found| {
            found.discard = DiscardPolicy::Old;
            found.storage = StorageType::Memory;
            found.num_replicas = 3;
            found.max_age = Duration::from_secs(1);
            found.max_bytes = 1_000;
        },
        &[
            "warning: stream GREENTIC_INBOUND: discard is Old, wanted New: ",
            "warning: stream GREENTIC_INBOUND: storage",
            "warning: stream GREENTIC_INBOUND: replicas",
            "warning: stream GREENTIC_INBOUND: max_age",
            "warning: stream GREENTIC_INBOUND: max_bytes is Some(1000), wanted None",
        ],
    );
    check(
        StreamName::Inbound,
        |found| found.discard = DiscardPolicy::Old,
        &[],
    );
}

#[test]
fn a_consumer_is_compared_too() {
    let tenant = TenantId::new("dev.local").unwrap();
    let wanted = server_consumer(&Config::default(), &tenant).into_consumer_config();
    let stream = "GREENTIC_INBOUND";
    compared(&consumer(stream, &wanted, &wanted), &[]);
    let found = consumer::Config {
        filter_subject: "inbound.>".to_owned(),
        ack_wait: Duration::from_secs(1),
        max_deliver: 5,
        deliver_subject: Some("push".to_owned()),
        ..wanted.clone()
    };
    compared(
        &consumer(stream, &wanted, &found),
        &[
            "error: consumer worker-dev=local: filter",
            "error: consumer worker-dev=local: push delivery",
            "warning: consumer worker-dev=local: max_deliver is Some(5), wanted None: ",
            "warning: consumer worker-dev=local: ack_wait is 1s, wanted 30s: ",
        ],
    );
}

#[test]
fn commands_make_what_the_worker_would_make() {
    let config = Config::default();
    assert_eq!(
        commands::add_stream(&server_stream(&config, &dev(), StreamName::Inbound)),
        "nats stream add GREENTIC_INBOUND --subjects='inbound.>' --retention=work --storage=file --replicas=1 \
         --discard=new --max-age=-1 --max-bytes=-1 --dupe-window=100ms --ack --description='greentic-env: dev' --defaults"
    );
    assert_eq!(
        commands::edit_stream(
            &server_stream(&config, &dev(), StreamName::Outbound),
            "duplicate_window"
        ),
        "nats stream edit GREENTIC_OUTBOUND --dupe-window=10m"
    );
    let tenant = TenantId::new("dev.local").unwrap();
    assert_eq!(
        commands::add_consumer(
            "GREENTIC_INBOUND",
            &server_consumer(&config, &tenant).into_consumer_config()
        ),
        "nats consumer add GREENTIC_INBOUND worker-dev=local --pull --filter='inbound.dev.local' --deliver=all \
         --ack=explicit --wait=30s --max-deliver=-1 --max-pending=-1 --replay=instant --defaults"
    );
}

#[test]
fn the_docs_have_the_commands_of_the_defaults() {
    let docs = include_str!("../../../../docs/nats.md").replace(" \\\n  ", " ");
    let config = Config::default();
    for name in StreamName::ALL {
        let command = commands::add_stream(&server_stream(&config, &dev(), name));
        assert!(docs.contains(&command), "docs/nats.md lacks: {command}");
    }
    let tenant = TenantId::new("dev.local").unwrap();
    let consumer = server_consumer(&config, &tenant).into_consumer_config();
    let command = commands::add_consumer("GREENTIC_INBOUND", &consumer);
    assert!(docs.contains(&command), "docs/nats.md lacks: {command}");
}
