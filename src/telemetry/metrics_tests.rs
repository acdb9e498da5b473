//! What the page of metrics looks like.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::budget::{MemoryBudget, MemoryKind};
use crate::model::TenantId;

fn tenant() -> TenantId {
    TenantId::new("dev.local").unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_metrics_page_says_what_happened() {
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let metrics = Metrics::new(health.clone());
    let tenant = metrics.tenant(&tenant());
    let page = metrics.render(Exposition::OpenMetrics).unwrap();
    assert!(
        page.contains(
            "greentic_worker_messages_total{tenant=\"dev.local\",outcome=\"finished\"} 0\n"
        ),
        "{page}"
    );

    let first = tenant.turn_began();
    let second = tenant.turn_began();
    drop(first);
    tenant.turn_finished(Outcome::Parked, Duration::from_millis(2));
    tenant.turn_finished(Outcome::DeadLettered, Duration::from_millis(2));
    tenant.dead_letter("tenant_mismatch");
    tenant.redelivered();
    tenant.lease_conflict();
    tenant.commit_conflict();
    tenant.wait_parked();
    tenant.wait_resumed();
    tenant.stale_echo();
    metrics.waits_expired(&self::tenant(), 2);
    tenant.replied(3);
    tenant.state_bytes(1_000);
    tokio::time::advance(Duration::from_secs(50)).await;
    tenant.pulled();
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(health.live(), Ok(()));

    let page = metrics.render(Exposition::OpenMetrics).unwrap();
    let mut lines: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("greentic_worker_") && !line.contains("_bucket"))
        .collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n"), EXPECTED_PAGE);
    drop(second);
    let page = metrics.render(Exposition::OpenMetrics).unwrap();
    assert!(
        page.contains("greentic_worker_turns_in_flight{tenant=\"dev.local\"} 0\n"),
        "{page}"
    );
}

const EXPECTED_PAGE: &str = r#"greentic_worker_bindings_unusable{tenant="",effect="ignored"} 0
greentic_worker_build_info{version="0.1.0"} 1
greentic_worker_commit_conflicts_total{tenant="dev.local"} 1
greentic_worker_compute_runs_total{tenant="dev.local"} 0
greentic_worker_compute_seconds_total{tenant="dev.local"} 0.0
greentic_worker_dead_letters_total{tenant="dev.local",code="tenant_mismatch"} 1
greentic_worker_last_pull_age_seconds{tenant="dev.local"} 20.0
greentic_worker_lease_conflicts_total{tenant="dev.local"} 1
greentic_worker_messages_total{tenant="dev.local",outcome="dead_lettered"} 1
greentic_worker_messages_total{tenant="dev.local",outcome="duplicate"} 0
greentic_worker_messages_total{tenant="dev.local",outcome="finished"} 0
greentic_worker_messages_total{tenant="dev.local",outcome="parked"} 1
greentic_worker_messages_total{tenant="dev.local",outcome="retried"} 0
greentic_worker_packs_left_out{tenant="dev.local"} 0
greentic_worker_pulls_total{tenant="dev.local"} 1
greentic_worker_ready 0
greentic_worker_redeliveries_total{tenant="dev.local"} 1
greentic_worker_reloads_total{outcome="applied"} 0
greentic_worker_reloads_total{outcome="partial"} 0
greentic_worker_reloads_total{outcome="refused"} 0
greentic_worker_reloads_total{outcome="unavailable"} 0
greentic_worker_replies_dropped_total 0
greentic_worker_replies_total{tenant="dev.local"} 3
greentic_worker_stale_echoes_total{tenant="dev.local"} 1
greentic_worker_stalls_total{tenant="dev.local"} 0
greentic_worker_state_bytes{tenant="dev.local"} 1000
greentic_worker_turn_duration_seconds_count{tenant="dev.local"} 2
greentic_worker_turn_duration_seconds_sum{tenant="dev.local"} 0.004
greentic_worker_turns_in_flight{tenant="dev.local"} 1
greentic_worker_unserved_messages{subject="(others)"} 0
greentic_worker_waits_expired_total{tenant="dev.local"} 2
greentic_worker_waits_parked_total{tenant="dev.local"} 1
greentic_worker_waits_resumed_total{tenant="dev.local"} 1"#;

fn refused() -> Refused {
    Refused {
        tenant: "dev.local".to_owned(),
        part: "outbound",
        reason: "permission",
        detail: "no".to_owned(),
    }
}

#[test]
fn a_refusal_is_a_gauge_while_it_lasts_and_a_count() {
    let metrics = Metrics::new(Arc::new(Health::new(Duration::from_secs(60))));
    let labels = r#"{tenant="dev.local",part="outbound",reason="permission"}"#;
    let check = |lasts: u32, begun: u32| {
        let page = metrics.render(Exposition::OpenMetrics).unwrap();
        for (name, value) in [("tenant_refused", lasts), ("tenant_refusals_total", begun)] {
            let line = format!("greentic_worker_{name}{labels} {value}\n");
            assert!(page.contains(&line), "no {line} in {page}");
        }
    };
    metrics.refused(&[refused()]);
    metrics.refused(&[refused()]);
    check(1, 1);
    metrics.refused(&[]);
    check(0, 1);
    metrics.refused(&[refused()]);
    check(1, 2);
}

#[test]
fn the_document_names_every_metric_and_no_other() {
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let components = ComponentMetrics::default();
    components.called(&tenant(), CallOutcome::Done, Duration::from_millis(1));
    components.refused(&tenant(), Capability::Http);
    let memory = MemoryBudget::new(1000);
    memory.tenant(&tenant());
    let metrics = Metrics::new(health)
        .with_components(&components)
        .with_limits(limits())
        .with_memory(&memory);
    metrics.tenant(&tenant()).dead_letter("code");
    metrics.refused(&[refused()]);
    metrics.left_out(&[(tenant(), 1)].into());
    metrics.backlog().show(vec![TenantBacklog {
        tenant: tenant().as_str().into(),
        messages: 1,
        unacknowledged: Some(1),
        oldest_age: Some(Duration::ZERO),
    }]);
    let page = metrics.render(Exposition::OpenMetrics).unwrap();
    let mut counted: Vec<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket{"))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(|name| name.trim_end_matches("_sum").trim_end_matches("_count"))
        .collect();
    let document = include_str!("../../docs/metrics.md");
    let mut named: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split('`').next())
        .filter(|name| name.starts_with("greentic_worker_") || name.starts_with("process_"))
        .collect();
    let is_once = named.len();
    for names in [&mut counted, &mut named] {
        names.sort_unstable();
        names.dedup();
    }
    assert_eq!(named.len(), is_once, "a metric has two rows");
    // A system without /proc has none of the process.
    if !counted.iter().any(|name| name.starts_with("process_")) {
        named.retain(|name| !name.starts_with("process_"));
    }
    assert_eq!(named, counted);
}

fn limits() -> Limits {
    let everyone = TenantLimits {
        turns: 256,
        state_bytes: Some(1 << 30),
        user_state_bytes: Some(1 << 23),
    };
    let own = TenantLimits {
        turns: 3,
        state_bytes: None,
        ..everyone
    };
    Limits {
        turns: 256,
        attempts: 5,
        turn_timeout: Duration::from_millis(30_500),
        wait_ttl: Duration::from_secs(60),
        payload_bytes: 1 << 20,
        user_waits: 100,
        compute_threads: 2,
        everyone,
        tenants: [(TenantId::new("own").unwrap(), own)].into(),
    }
}

#[test]
fn a_tenant_has_the_limits_of_everyone_or_its_own() {
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let metrics = Metrics::new(health).with_limits(limits());
    metrics.tenant(&tenant());
    metrics.tenant(&TenantId::new("own").unwrap());
    let page = metrics.render(Exposition::OpenMetrics).unwrap();
    for line in [
        "greentic_worker_turns_in_flight_limit 256",
        "greentic_worker_turn_timeout_seconds 30.5",
        "greentic_worker_tenant_turns_in_flight_limit{tenant=\"dev.local\"} 256",
        "greentic_worker_tenant_turns_in_flight_limit{tenant=\"own\"} 3",
        "greentic_worker_state_limit_bytes{tenant=\"dev.local\"} 1073741824",
        "greentic_worker_user_state_limit_bytes{tenant=\"own\"} 8388608",
    ] {
        assert!(page.contains(line), "no {line} in {page}");
    }
    let unlimited = "state_limit_bytes{tenant=\"own\"}";
    assert_eq!(page.matches(unlimited).count(), 1, "{page}");
}

#[test]
fn what_is_known_before_it_happens_is_counted_from_zero() {
    let labels = KnownLabels {
        codes: vec!["panic", "no_such_flow"],
        parts: vec!["inbound"],
        reasons: vec!["permission"],
    };
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let metrics = Metrics::new(health)
        .with_components(&ComponentMetrics::default())
        .with_labels(labels);
    let own = metrics.tenant(&tenant());
    own.dead_letter("panic");
    metrics.dead_lettered(&tenant(), "unreadable_headers", 2);
    let page = metrics.render(Exposition::OpenMetrics).unwrap();
    for line in [
        "dead_letters_total{tenant=\"dev.local\",code=\"panic\"} 1",
        "dead_letters_total{tenant=\"dev.local\",code=\"no_such_flow\"} 0",
        "dead_letters_total{tenant=\"dev.local\",code=\"unreadable_headers\"} 2",
        "messages_total{tenant=\"dev.local\",outcome=\"dead_lettered\"} 2",
        "tenant_refusals_total{tenant=\"dev.local\",part=\"inbound\",reason=\"permission\"} 0",
        "component_calls_total{tenant=\"dev.local\",outcome=\"dropped\"} 0",
        "component_refusals_total{tenant=\"dev.local\",capability=\"http\"} 0",
    ] {
        assert!(page.contains(line), "no {line} in {page}");
    }
}

#[test]
fn memory_is_told_by_tenant_and_kind() {
    let memory = MemoryBudget::new(1000);
    let _held = memory.tenant(&tenant()).charge(MemoryKind::Turns, 7);
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let page = Metrics::new(health)
        .with_memory(&memory)
        .render(Exposition::OpenMetrics)
        .unwrap();
    for line in [
        "greentic_worker_memory_limit_bytes 1000",
        "greentic_worker_memory_used_bytes{tenant=\"dev.local\",kind=\"turns\"} 7",
        "greentic_worker_memory_used_bytes{tenant=\"dev.local\",kind=\"messages\"} 0",
        "greentic_worker_memory_waits_total{tenant=\"dev.local\"} 0",
        "greentic_worker_memory_denials_total{tenant=\"dev.local\"} 0",
    ] {
        assert!(page.contains(line), "no {line} in {page}");
    }
}
