//! What log lines look like.

use std::io::Write;
use std::sync::{Arc, Mutex};

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
        ..Config::default()
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
fn turns_and_payloads_are_shown_where_they_are_asked_for_and_the_filter_lets_them_through() {
    #[track_caller]
    fn check((turns, payloads, filter): (bool, bool, &str), shown: &[&str], warned: &[&str]) {
        let lines = Lines::default();
        let config = Config {
            filter: filter.to_owned(),
            turns,
            payloads,
            ..Config::default()
        };
        let layer = layer(&config, lines.clone(), false).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(target: TURN_LOG, "one turn");
            tracing::debug!(target: PAYLOAD_LOG, "one payload");
            tracing::debug!("one step");
        });
        let bytes = lines.0.lock().unwrap().clone();
        let log = String::from_utf8(bytes).unwrap();
        let words = log.lines().filter_map(|line| line.rsplit(' ').next());
        assert_eq!(words.collect::<Vec<_>>(), shown, "{config:?}");
        let problems = config.problems();
        let places = problems
            .iter()
            .filter_map(|problem| problem.place.as_deref());
        assert_eq!(places.collect::<Vec<_>>(), warned, "{config:?}");
    }
    check((false, false, "debug"), &["step"], &[]);
    check((true, false, "debug"), &["turn", "step"], &[]);
    check((true, true, "trace"), &["turn", "payload", "step"], &[]);
    check((true, true, "info"), &["turn"], &["log.payloads"]);
    check((true, true, "warn"), &[], &["log.turns", "log.payloads"]);
    let own = "warn,greentic_worker=debug";
    check((true, true, own), &["turn", "payload", "step"], &[]);
    check((false, false, own), &["step"], &[]);
    // Whoever names the targets has not asked for them.
    let named = "info,greentic_worker::payloads=debug,greentic_worker::turns=trace";
    check((false, false, named), &[], &[]);
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
