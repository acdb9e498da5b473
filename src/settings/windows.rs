//! Durations that contradict each other. What one part of the worker forgets, another one must not bring back later.

use std::time::Duration;

use humantime_serde::re::humantime::format_duration;

use super::Settings;
use crate::adapters::nats::StreamWindows;
use crate::adapters::nats::config::DeliveryMode;
use crate::adapters::nats::names::StreamName;
use crate::model::{Problem, Problems};

/// A duration that something must outlast, as the sum of settings.
struct Sum<'a> {
    parts: Vec<(&'a str, Duration)>,
}

impl<'a> Sum<'a> {
    fn of(parts: impl IntoIterator<Item = (&'a str, Duration)>) -> Self {
        let parts = parts.into_iter().collect();
        Self { parts }
    }

    /// The time until a message whose worker dies is run again: it is delivered again, and may wait for the turn before it.
    fn until_run_again(settings: &Settings) -> Self {
        Self::of([
            ("nats.ack_wait", settings.nats.ack_wait),
            ("worker.turn_timeout", settings.worker.turn_timeout),
        ])
    }

    fn and(mut self, name: &'a str, duration: Duration) -> Self {
        self.parts.push((name, duration));
        self
    }

    fn total(&self) -> Duration {
        let parts = self.parts.iter();
        parts.fold(Duration::ZERO, |sum, (_, part)| sum.saturating_add(*part))
    }

    /// The arithmetic: `nats.ack_wait (30s) + worker.turn_timeout (30s) = 1m`.
    fn text(&self) -> String {
        let part = |(name, duration): &(&str, Duration)| {
            let duration = format_duration(*duration);
            format!("{name} ({duration})")
        };
        let parts: Vec<String> = self.parts.iter().map(part).collect();
        match &parts[..] {
            [alone] => alone.clone(),
            parts => {
                let total = format_duration(self.total());
                format!("{} = {total}", parts.join(" + "))
            }
        }
    }

    /// Why a value is too short; nothing if it is not, or if it is zero, which is told by itself.
    fn why_short(&self, value: Duration, so: &str) -> Option<String> {
        (!value.is_zero() && value < self.total()).then(|| {
            let (value, text) = (format_duration(value), self.text());
            format!("{value} is less than {text}: {so}")
        })
    }

    fn remedy(&self, key: &str) -> String {
        let total = format_duration(self.total());
        let others = match &self.parts[..] {
            [(alone, _)] => format!("`{alone}`"),
            _ => "the others".to_owned(),
        };
        format!("set `{key}` to at least {total}, or lower {others}")
    }

    fn error(&self, key: &str, value: Duration, so: &str) -> Option<Problem> {
        let why = self.why_short(value, so)?;
        Some(Problem::error(why).at(key).remedy(self.remedy(key)))
    }

    fn warning(&self, key: &str, value: Duration, so: &str) -> Option<Problem> {
        let why = self.why_short(value, so)?;
        Some(Problem::warning(why).at(key).remedy(self.remedy(key)))
    }
}

/// The contradictions between settings.
pub(super) fn check(settings: &Settings, problems: &mut Problems) {
    problems.extend(dedupe(settings));
    problems.extend(attempts(settings));
    problems.extend(lease(settings));
    problems.extend(answers(settings));
    problems.extend(calls(settings));
    if settings.nats.delivery == DeliveryMode::JetStream {
        problems.extend(inbound_age(settings));
        problems.extend(republish(settings));
    }
}

/// The contradictions between settings and streams that exist, whose own windows count.
pub(super) fn check_streams(settings: &Settings, streams: &[StreamWindows]) -> Problems {
    let mut problems = Problems::default();
    for found in streams {
        problems.extend(match found.stream {
            StreamName::Inbound => found
                .max_age
                .and_then(|age| too_young(settings, found, age)),
            StreamName::Outbound => longer_window(settings, found),
            StreamName::DeadLetter => None,
        });
    }
    problems
}

const APPLIED_TWICE: &str = "a message whose worker dies after it was applied may come again when that is forgotten, and is applied \
                             twice";
const SWALLOWED: &str = "a copy that comes between the two is applied as a new message, and the stream drops its replies as \
                         copies of the first ones";
const LOST: &str = "a message whose worker dies is dropped from the stream before it is run again";

fn dedupe(settings: &Settings) -> Option<Problem> {
    let (key, window) = ("redis.dedupe_window", settings.redis.dedupe_window);
    let again = Sum::until_run_again(settings);
    let twice = again.error(key, window, APPLIED_TWICE);
    if twice.is_some() || settings.nats.delivery == DeliveryMode::Core {
        return twice;
    }
    again
        .and("nats.duplicate_window", settings.nats.duplicate_window)
        .error(key, window, SWALLOWED)
}

fn attempts(settings: &Settings) -> Option<Problem> {
    let worker = &settings.worker;
    let next = Sum::of([
        ("worker.retry.max", worker.retry.max),
        ("worker.turn_timeout", worker.turn_timeout),
    ]);
    next.error(
        "redis.dedupe_window",
        settings.redis.dedupe_window,
        "the attempts of a message are forgotten between two of them, and it is tried for ever",
    )
}

fn lease(settings: &Settings) -> Option<Problem> {
    let answer = Sum::of([("redis.response_timeout", settings.redis.response_timeout)]);
    answer.error(
        "worker.lease_ttl",
        settings.worker.lease_ttl,
        "a lease may expire before the worker learns that it has it",
    )
}

fn answers(settings: &Settings) -> Option<Problem> {
    Sum::until_run_again(settings).warning(
        "worker.wait_ttl",
        settings.worker.wait_ttl,
        "when the worker of an answer dies, the question has expired before the answer is run again",
    )
}

fn calls(settings: &Settings) -> Option<Problem> {
    let call = Sum::of([("components.call_timeout", settings.components.call_timeout)]);
    call.warning(
        "worker.turn_timeout",
        settings.worker.turn_timeout,
        "the turn's limit ends a call before its own does",
    )
}

fn inbound_age(settings: &Settings) -> Option<Problem> {
    let (key, age) = ("nats.inbound.max_age", settings.nats.inbound.max_age?);
    let lost = Sum::until_run_again(settings).error(key, age, LOST);
    lost.or_else(|| {
        let worker = &settings.worker;
        let attempts = worker.attempts.get();
        let all = Sum::of([
            (
                "worker.attempts x worker.turn_timeout",
                worker.turn_timeout.saturating_mul(attempts),
            ),
            (
                "the pauses between them",
                worker.retry.max.saturating_mul(attempts.saturating_sub(1)),
            ),
        ]);
        all.warning(
            key,
            age,
            "a message that fails may be dropped from the stream before it is dead-lettered",
        )
    })
}

fn republish(settings: &Settings) -> Option<Problem> {
    let again = Sum::until_run_again(settings);
    let again = again.and("nats.request_timeout", settings.nats.request_timeout);
    again.warning(
        "nats.duplicate_window",
        settings.nats.duplicate_window,
        "when a worker dies before it notes that a reply is out, the stream no longer recognises the reply when it is \
         published again",
    )
}

/// An inbound stream that exists drops messages too early.
fn too_young(settings: &Settings, found: &StreamWindows, age: Duration) -> Option<Problem> {
    let again = Sum::until_run_again(settings);
    let why = again.why_short(age, LOST)?;
    let (name, total) = (&found.name, format_duration(again.total()));
    Some(
        Problem::error(format!("its max_age of {why}"))
            .at(format!("stream {name}"))
            .remedy(format!(
                "raise it to at least {total}, or lower the settings: nats stream edit {name} --max-age={}s",
                again.total().as_secs().saturating_add(1)
            )),
    )
}

/// A stream of replies that exists recognises duplicates for longer than activities are remembered.
fn longer_window(settings: &Settings, found: &StreamWindows) -> Option<Problem> {
    let name = format!("duplicate_window of stream {}", found.name);
    let dedupe = settings.redis.dedupe_window;
    let sum = Sum::until_run_again(settings).and(&name, found.duplicate_window);
    sum.error("redis.dedupe_window", dedupe, SWALLOWED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stream: StreamName, window: u64, max_age: Option<u64>) -> StreamWindows {
        StreamWindows {
            stream,
            name: "STREAM".to_owned(),
            duplicate_window: Duration::from_secs(window),
            max_age: max_age.map(Duration::from_secs),
        }
    }

    #[track_caller]
    fn check(found: StreamWindows, expected: &str) {
        let settings = Settings::defaults().unwrap();
        let problems = check_streams(&settings, &[found]).to_string();
        assert_eq!(problems.trim(), expected);
    }

    #[test]
    fn a_stream_that_exists_counts_with_its_own_windows() {
        const DAY: u64 = 24 * 3_600;
        check(found(StreamName::Outbound, DAY - 60, None), "");
        check(
            found(StreamName::Outbound, DAY - 59, None),
            "error: redis.dedupe_window: 1day is less than nats.ack_wait (30s) + worker.turn_timeout (30s) + duplicate_window of \
             stream STREAM (23h 59m 1s) = 1day 1s: a copy that comes between the two is applied as a new message, and the stream \
             drops its replies as copies of the first ones\n  help: set `redis.dedupe_window` to at least 1day 1s, or lower the \
             others",
        );
        check(found(StreamName::Inbound, DAY, Some(60)), "");
        check(found(StreamName::Inbound, DAY, None), "");
        check(
            found(StreamName::Inbound, 0, Some(59)),
            "error: stream STREAM: its max_age of 59s is less than nats.ack_wait (30s) + worker.turn_timeout (30s) = 1m: a message \
             whose worker dies is dropped from the stream before it is run again\n  help: raise it to at least 1m, or lower the \
             settings: nats stream edit STREAM --max-age=61s",
        );
        check(found(StreamName::DeadLetter, 10 * DAY, Some(1)), "");
    }
}
