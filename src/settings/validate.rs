//! What no value shows by itself: combinations that cannot work, and legal ones that are risky.

use std::num::NonZeroUsize;
use std::time::Duration;

use humantime_serde::re::humantime::format_duration;

use super::{MemoryLimit, Settings, windows};
use crate::adapters::nats::config::DeliveryMode;
use crate::budget::DECODED_FACTOR;
use crate::model::{Problem, Problems};
use crate::pack::SignaturePolicy;
use crate::worker::IDLE_WAIT;

/// Orchestrators kill a process this long after they asked it to stop, unless told otherwise.
const USUAL_GRACE: Duration = Duration::from_secs(30);

/// The least `limits.memory`.
const MIN_MEMORY: u64 = 64 * 1024 * 1024;

pub(super) fn check(settings: &Settings) -> Problems {
    let mut problems = Problems::default();
    no_zero(settings, &mut problems);
    worker(settings, &mut problems);
    slots(settings, &mut problems);
    memory(settings, &mut problems);
    bounds(settings, &mut problems);
    reload(settings, &mut problems);
    delivery(settings, &mut problems);
    signatures(settings, &mut problems);
    problems.extend(settings.packs.access().problems());
    problems.extend(settings.log.problems());
    problems.extend(settings.nats.validate());
    problems.extend(settings.redis.problems());
    problems.extend(settings.components.problems());
    windows::check(settings, &mut problems);
    problems
}

fn signatures(settings: &Settings, problems: &mut Problems) {
    let signatures = &settings.packs.signatures;
    if signatures.policy != SignaturePolicy::Off && signatures.keys.is_empty() {
        problems.push(
            Problem::error("there is no key that a pack could be signed with")
                .at("packs.signatures")
                .remedy("list the publishers' public keys in `packs.signatures.keys`, or set the policy to `off`"),
        );
    }
}

fn no_zero(settings: &Settings, problems: &mut Problems) {
    let worker = &settings.worker;
    let durations = [
        ("worker.turn_timeout", worker.turn_timeout),
        ("worker.retry.initial", worker.retry.initial),
        ("worker.lease_ttl", worker.lease_ttl),
        ("worker.wait_ttl", worker.wait_ttl),
        ("http.stalled_after", settings.http.stalled_after),
        ("http.timeout", settings.http.timeout),
    ];
    for (key, duration) in durations {
        if duration < Duration::from_millis(1) {
            problems.push(Problem::error("it must be 1ms or more").at(key));
        }
    }
}

fn worker(settings: &Settings, problems: &mut Problems) {
    let worker = &settings.worker;
    if worker.retry.initial > worker.retry.max {
        problems.push(
            Problem::error("the first pause is longer than the longest one")
                .at("worker.retry")
                .remedy("set `worker.retry.initial` to at most `worker.retry.max`"),
        );
    }
    if settings.http.stalled_after <= worker.turn_timeout {
        problems.push(too_short(
            "http.stalled_after",
            settings.http.stalled_after,
            worker.turn_timeout,
            "a worker whose slots are all taken by long turns is killed as stalled",
        ));
    }
    if settings.http.stalled_after <= IDLE_WAIT {
        let (given, idle) = (settings.http.stalled_after, IDLE_WAIT);
        let (given, idle) = (format_duration(given), format_duration(idle));
        problems.push(
            Problem::warning(format!(
                "{given} is too short where a pull may take {idle}: an idle worker is killed as stalled"
            ))
            .at("http.stalled_after")
            .remedy(format!("raise `http.stalled_after` to more than {idle}")),
        );
    }
    if worker.drain_timeout >= USUAL_GRACE {
        let given = format_duration(worker.drain_timeout);
        problems.push(
            Problem::warning(format!(
                "draining may take {given}, but Kubernetes and others kill a process 30s after they asked it to stop"
            ))
            .at("worker.drain_timeout")
            .remedy("give the process a longer grace period, or drain in less than 30s"),
        );
    }
}

fn too_short(key: &str, value: Duration, turn: Duration, so: &str) -> Problem {
    let (value, turn) = (format_duration(value), format_duration(turn));
    Problem::warning(format!(
        "{value} is too short where a turn may take {turn}: {so}"
    ))
    .at(key)
    .remedy(format!("raise `{key}` or lower `worker.turn_timeout`"))
}

/// One message, and one call of a component, must fit.
fn memory(settings: &Settings, problems: &mut Problems) {
    let MemoryLimit::Bytes(limit) = settings.limits.memory else {
        return;
    };
    if limit.get() < MIN_MEMORY {
        problems
            .push(Problem::error(format!("it must be {MIN_MEMORY} or more")).at("limits.memory"));
        return;
    }
    let message = DECODED_FACTOR * settings.limits.payload_bytes.get() as u64;
    let component = settings.components.memory_bytes.get() as u64;
    for (what, bytes, key) in [
        (
            "a message of the largest size",
            message,
            "limits.payload_bytes",
        ),
        (
            "one call of a component",
            component,
            "components.memory_bytes",
        ),
    ] {
        if bytes > limit.get() / 2 {
            problems.push(
                Problem::warning(format!(
                    "{what} may count as {bytes} bytes, more than half of it: few go on at once"
                ))
                .at("limits.memory")
                .remedy(format!("raise it, or lower `{key}`")),
            );
        }
    }
}

/// The most open waits of a user: a commit that finds as many looks at each of them.
const MOST_WAITS: u32 = 10_000;

/// More than this in one commit takes Redis some hundred milliseconds.
const MUCH: NonZeroUsize = NonZeroUsize::new(64 * 1024 * 1024).unwrap();

fn bounds(settings: &Settings, problems: &mut Problems) {
    let limits = &settings.limits;
    if limits.waits_per_user.get() > MOST_WAITS {
        problems.push(
            Problem::error(format!("it must be {MOST_WAITS} or less"))
                .at("limits.waits_per_user")
                .remedy("lower it: Redis looks at all open waits of a user who has that many"),
        );
    }
    if limits.commit_bytes > MUCH {
        let bytes = limits.commit_bytes;
        problems.push(
            Problem::warning(format!(
                "a commit of {bytes} bytes holds up Redis, and with it every tenant, for a good part of a second"
            ))
            .at("limits.commit_bytes")
            .remedy("lower it; docs/redis.md says how to measure what a commit takes"),
        );
    }
    if limits.session_bytes > limits.commit_bytes {
        let (session, commit) = (limits.session_bytes, limits.commit_bytes);
        problems.push(
            Problem::warning(format!(
                "no session of {session} bytes is ever stored: a turn may store {commit} bytes in all"
            ))
            .at("limits.session_bytes")
            .remedy("lower it, or raise `limits.commit_bytes`"),
        );
    }
}

/// What looks without a pause does nothing else.
fn reload(settings: &Settings, problems: &mut Problems) {
    let every = settings.reload.every;
    if !every.is_zero() && every < Duration::from_millis(10) {
        problems.push(
            Problem::error("it must be 10ms or more")
                .at("reload.every")
                .remedy("set a duration such as `2s`, or 0s to load on SIGHUP only"),
        );
    }
}

fn slots(settings: &Settings, problems: &mut Problems) {
    let slots = settings.worker.slots;
    let of_all = settings
        .worker
        .tenant_slots
        .map(|most| ("worker.tenant_slots".to_owned(), most));
    let of_each = settings.tenants.iter().filter_map(|(tenant, given)| {
        let most = given.max_in_flight?;
        Some((format!("tenants.{tenant}.max_in_flight"), most))
    });
    for (key, most) in of_all.into_iter().chain(of_each) {
        if most > slots {
            problems.push(
                Problem::warning(format!(
                    "{most} turns of a tenant are never in flight: the worker has {slots} slots"
                ))
                .at(key)
                .remedy("lower it, or raise `worker.slots`"),
            );
        }
    }
}

fn delivery(settings: &Settings, problems: &mut Problems) {
    let turn = settings.worker.turn_timeout;
    match settings.nats.delivery {
        DeliveryMode::JetStream => {
            let wait = settings.nats.ack_wait;
            if wait < turn {
                problems.push(too_short(
                    "nats.ack_wait",
                    wait,
                    turn,
                    "a worker that is held up for that long gets its message delivered to another one meanwhile",
                ));
            }
        }
        DeliveryMode::Core => problems.push(
            Problem::warning(
                "core delivery is at most once: a message that no worker is there to take, or whose worker dies, is lost",
            )
            .at("nats.delivery")
            .remedy("use `jetstream` where messages must not be lost"),
        ),
    }
}
