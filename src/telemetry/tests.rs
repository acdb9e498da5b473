//! What log lines and the metrics page look like.

use crate::budget::{MemoryBudget, MemoryKind};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::model::{FlowId, IdempotencyKey, PackId, TenantId, TraceContext};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

fn log(format: Format, filter: &str, work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let config = Config {
        format,
        filter: filter.to_owned(),
    };
    let layer = layer(&config, lines.clone(), false).unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn tenant() -> TenantId {
    TenantId::new("dev.local").unwrap()
}

fn turn() {
    let turn = TurnSpan::new(&tenant());
    turn.message(&IdempotencyKey::new("m-1"));
    turn.within(|| tracing::warn!("early"));
    turn.correlation("c\n\"1\"");
    turn.flow(&PackId::of_archive(b"x"), &FlowId::new("main").unwrap());
    turn.parked_in(&TraceContext {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        tracestate: None,
    });
    turn.within(|| {
        let _inner = tracing::info_span!("publish", n = 2).entered();
        tracing::error!(count = 3, ok = true, why = "a \"b\"\n", "no\u{1b}[31m way");
    });
}

#[test]
fn each_json_line_of_a_turn_carries_its_fields_whatever_the_filter() {
    for filter in ["info", "error", "greentic_worker::telemetry::tests=warn"] {
        let text = log(Format::Json, filter, turn);
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let last = lines.last().unwrap();
        assert_eq!(
            last["turn"],
            serde_json::json!({
                "tenant": "dev.local",
                "message": "m-1",
                "correlation": "c\n\"1\"",
                "pack": PackId::of_archive(b"x").to_string(),
                "flow": "main",
                "parked_trace_id": "0af7651916cd43dd8448eb211c80319c",
            }),
            "{filter}"
        );
        assert_eq!(last["level"], "ERROR");
        assert_eq!(last["target"], "greentic_worker::telemetry::tests");
        assert_eq!(last["message"], "no\u{1b}[31m way");
        assert_eq!(last["count"], 3);
        assert_eq!(last["ok"], true);
        assert_eq!(last["why"], "a \"b\"\n");
        assert_eq!(lines.len(), if filter == "error" { 1 } else { 2 });
    }
}

#[test]
fn a_line_for_people_is_one_line_and_names_its_turn() {
    let text = log(Format::Human, "info", turn);
    let lines: Vec<&str> = text
        .lines()
        .map(|line| &line["2026-01-31T12:00:00.000000Z".len()..])
        .collect();
    let pack = PackId::of_archive(b"x");
    assert_eq!(
        lines,
        [
            "  WARN turn{tenant=dev.local message=m-1}: greentic_worker::telemetry::tests: early"
                .to_owned(),
            format!(
                " ERROR turn{{tenant=dev.local message=m-1 correlation=\"c\\n\\\"1\\\"\" pack={pack} flow=main \
                 parked_trace_id=0af7651916cd43dd8448eb211c80319c}}: publish{{n=2}}: \
                 greentic_worker::telemetry::tests: no\\u001b[31m way count=3 ok=true why=\"a \\\"b\\\"\\n\""
            ),
        ]
    );
}

#[test]
fn a_filter_that_cannot_be_read_is_an_error_that_names_it() {
    let config = Config {
        filter: "a=b=c".to_owned(),
        ..Config::default()
    };
    let error = init(&config).unwrap_err();
    assert!(matches!(error, InitError::Filter { .. }), "{error}");
    assert!(error.to_string().starts_with("`a=b=c` is no log filter"));
}

#[tokio::test(start_paused = true)]
async fn the_metrics_page_says_what_happened() {
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let metrics = Metrics::new(health.clone());
    let tenant = metrics.tenant(&tenant());
    let page = metrics.render().unwrap();
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
    tenant.replied(3);
    tenant.state_bytes(1_000);
    tokio::time::advance(Duration::from_secs(50)).await;
    tenant.pulled();
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(health.live(), Ok(()));

    let page = metrics.render().unwrap();
    let mut lines: Vec<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket"))
        .collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n"), EXPECTED_PAGE);
    drop(second);
    let page = metrics.render().unwrap();
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
greentic_worker_stalls_total{tenant="dev.local"} 0
greentic_worker_state_bytes{tenant="dev.local"} 1000
greentic_worker_turn_duration_seconds_count{tenant="dev.local"} 2
greentic_worker_turn_duration_seconds_sum{tenant="dev.local"} 0.004
greentic_worker_turns_in_flight{tenant="dev.local"} 1
greentic_worker_unserved_messages{subject="(others)"} 0
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
        let page = metrics.render().unwrap();
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
        .with_memory(&memory);
    metrics.tenant(&tenant()).dead_letter("code");
    metrics.refused(&[refused()]);
    metrics.left_out(&[(tenant(), 1)].into());
    let page = metrics.render().unwrap();
    let mut counted: Vec<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket{"))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(|name| name.trim_end_matches("_sum").trim_end_matches("_count"))
        .collect();
    let document = include_str!("../../docs/metrics.md");
    let mut named: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `greentic_worker_"))
        .filter_map(|line| line.split('`').next())
        .collect();
    for names in [&mut counted, &mut named] {
        names.sort_unstable();
        names.dedup();
    }
    let counted: Vec<&str> = counted
        .iter()
        .filter_map(|name| name.strip_prefix("greentic_worker_"))
        .collect();
    assert_eq!(named, counted);
}

#[test]
fn no_text_changes_how_a_line_is_shown() {
    let hidden = [
        '\u{1b}',
        '\u{7f}',
        '\u{9b}',
        '\u{ad}',
        '\u{61c}',
        '\u{200b}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{206f}',
        '\u{feff}',
        '\u{fff9}',
        '\u{3164}',
        '\u{e0041}',
    ];
    let text: String = hidden
        .iter()
        .flat_map(|c| ['a', *c])
        .chain("\u{e9}\u{1f600}".chars())
        .collect();
    let said = || {
        let turn = TurnSpan::new(&tenant());
        turn.correlation(&text);
        turn.within(|| tracing::info!(shown = %text, quoted = ?text, plain = text, "{text}"));
    };
    for format in [Format::Human, Format::Json] {
        let line = log(format, "info", said);
        let found: Vec<char> = line.chars().filter(|c| hidden.contains(c)).collect();
        assert!(found.is_empty(), "{format:?}: {found:?} in {line}");
        assert!(
            line.contains("a\\u202e") && line.contains("\u{e9}\u{1f600}"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }
    let line: Value = serde_json::from_str(&log(Format::Json, "info", said)).unwrap();
    for field in ["message", "shown", "plain"] {
        assert_eq!(line[field], text.as_str(), "{field}");
    }
    assert_eq!(line["turn"]["correlation"], text.as_str());
}

#[test]
fn a_value_ends_somewhere_and_a_terminal_is_told_what_it_would_not_show() {
    let long = "y".repeat(1 << 20);
    for format in [Format::Human, Format::Json] {
        let line = log(
            format,
            "info",
            || tracing::info!(error = %long, next = 1, "said"),
        );
        assert!(line.len() < 20_000, "{}", line.len());
        assert!(
            line.contains("y... (cut)") && line.contains("next"),
            "{format:?}"
        );
    }
    let line = log(
        Format::Json,
        "info",
        || tracing::info!(error = %long, "said"),
    );
    assert!(serde_json::from_str::<Value>(&line).is_ok());
    assert_eq!(
        printable("a\u{202e}b\n c\u{1b}[31m\\"),
        "a\\u202eb\n c\\u001b[31m\\"
    );
}

#[test]
fn problems_are_lines_of_their_own_for_people() {
    let said =
        || tracing::error!(problems = %"error: a\u{1b}[31m\n  help: b", count = 1, "refused");
    let text = log(Format::Human, "info", said);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("refused"), "{text}");
    assert_eq!(lines[1], "    | error: a\\u001b[31m");
    assert!(lines[2].starts_with("    |   help: b"), "{text}");
    let line: Value = serde_json::from_str(&log(Format::Json, "info", said)).unwrap();
    assert_eq!(line["problems"], "error: a\u{1b}[31m\n  help: b");
}

#[test]
fn memory_is_told_by_tenant_and_kind() {
    let memory = MemoryBudget::new(1000);
    let _held = memory.tenant(&tenant()).charge(MemoryKind::Turns, 7);
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let page = Metrics::new(health).with_memory(&memory).render().unwrap();
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
