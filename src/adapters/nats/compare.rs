//! How a stream or consumer that exists differs from what the settings want, and whether the worker can live with it.

use std::fmt::Debug;

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::{Config as ServerStream, DiscardPolicy, RetentionPolicy};

use super::commands;
use super::names::{self, Names, StreamName};
use crate::model::{Problem, Severity, TenantId};

/// One setting that differs.
struct Difference {
    severity: Severity,
    setting: &'static str,
    wanted: String,
    found: String,
    /// What follows from it, where that is not plain.
    meaning: &'static str,
}

/// The differences of a stream.
pub(super) fn stream(
    (names, stream): (&Names, StreamName),
    wanted: &ServerStream,
    found: &ServerStream,
    tenants: &[&TenantId],
) -> Vec<Problem> {
    let mut differences = Vec::new();
    differences.extend(retention(stream, wanted, found));
    let of_tenants = tenants.iter().map(|tenant| names.subject(stream, tenant));
    differences.extend(subjects(wanted, found, of_tenants));
    differences.extend(never(
        found.no_ack,
        "no_ack",
        "publishes would never be acknowledged",
    ));
    differences.extend(never(found.sealed, "sealed", "it takes no messages"));
    differences.extend(window(stream, wanted, found));
    differences.extend(discard(stream, wanted, found));
    differences.extend(differs("storage", &wanted.storage, &found.storage));
    differences.extend(differs(
        "replicas",
        &wanted.num_replicas,
        &found.num_replicas,
    ));
    differences.extend(differs("max_age", &wanted.max_age, &found.max_age));
    differences.extend(differs(
        "max_bytes",
        &limit(wanted.max_bytes),
        &limit(found.max_bytes),
    ));
    let name = format!("stream {}", wanted.name);
    differences
        .into_iter()
        .map(|difference| {
            let remedy = commands::edit_stream(wanted, difference.setting);
            difference.problem(&name).remedy(remedy)
        })
        .collect()
}

/// The differences of a consumer of a stream.
pub(super) fn consumer(
    stream: &str,
    wanted: &consumer::Config,
    found: &consumer::Config,
) -> Vec<Problem> {
    let name = wanted.durable_name.clone().unwrap_or_default();
    let filters = |config: &consumer::Config| {
        let mut filters = config.filter_subjects.clone();
        filters.extend((!config.filter_subject.is_empty()).then(|| config.filter_subject.clone()));
        filters
    };
    let mut differences = Vec::new();
    differences.extend(
        differs("filter", &filters(wanted), &filters(found)).map(|difference| Difference {
            severity: Severity::Error,
            meaning: "the tenant would get other messages than its own",
            ..difference
        }),
    );
    differences.extend(
        differs("ack", &wanted.ack_policy, &found.ack_policy).map(|difference| Difference {
            severity: Severity::Error,
            meaning: "messages would be settled before they are dealt with",
            ..difference
        }),
    );
    differences.extend(never(
        found.deliver_subject.is_some(),
        "push delivery",
        "workers pull",
    ));
    differences.extend(
        differs(
            "max_deliver",
            &limit(wanted.max_deliver),
            &limit(found.max_deliver),
        )
        .map(|difference| Difference {
            meaning: "a message that was delivered that often is stuck",
            ..difference
        }),
    );
    differences.extend(
        differs("ack_wait", &wanted.ack_wait, &found.ack_wait).map(|difference| Difference {
            meaning: "it must match `nats.ack_wait`, by which signs of life are sent",
            ..difference
        }),
    );
    differences.extend(differs(
        "max_ack_pending",
        &limit(wanted.max_ack_pending),
        &limit(found.max_ack_pending),
    ));
    let remedy = commands::replace_consumer(stream, wanted);
    differences
        .into_iter()
        .map(|difference| {
            difference
                .problem(&format!("consumer {name}"))
                .remedy(remedy.clone())
        })
        .collect()
}

impl Difference {
    fn problem(self, name: &str) -> Problem {
        let Self {
            severity,
            setting,
            wanted,
            found,
            meaning,
        } = self;
        let mut message = format!("{setting} is {found}, wanted {wanted}");
        if !meaning.is_empty() {
            message = format!("{message}: {meaning}");
        }
        Problem {
            severity,
            ..Problem::error(message).at(name)
        }
    }
}

fn differs<T: PartialEq + Debug>(
    setting: &'static str,
    wanted: &T,
    found: &T,
) -> Option<Difference> {
    (wanted != found).then(|| Difference {
        severity: Severity::Warning,
        setting,
        wanted: format!("{wanted:?}"),
        found: format!("{found:?}"),
        meaning: "",
    })
}

fn never(is_so: bool, setting: &'static str, meaning: &'static str) -> Option<Difference> {
    is_so.then(|| Difference {
        severity: Severity::Error,
        setting,
        wanted: "off".to_owned(),
        found: "on".to_owned(),
        meaning,
    })
}

/// All that is not a limit, as one value.
fn limit(value: i64) -> Option<i64> {
    (value > 0).then_some(value)
}

fn retention(
    stream: StreamName,
    wanted: &ServerStream,
    found: &ServerStream,
) -> Option<Difference> {
    let difference = differs("retention", &wanted.retention, &found.retention)?;
    Some(match (stream, found.retention) {
        (StreamName::Inbound, RetentionPolicy::Limits) => Difference {
            severity: Severity::Error,
            meaning: "messages stay after they were dealt with, and a consumer made anew repeats them all",
            ..difference
        },
        (StreamName::Inbound, _) => Difference {
            severity: Severity::Error,
            meaning: "messages of a tenant that no worker has consumed yet are dropped",
            ..difference
        },
        _ => difference,
    })
}

/// Subjects that the stream lacks. That is an error only if a tenant of this worker is left out.
fn subjects(
    wanted: &ServerStream,
    found: &ServerStream,
    mut of_tenants: impl Iterator<Item = String>,
) -> Option<Difference> {
    let stored = |subject: &str| {
        found
            .subjects
            .iter()
            .any(|filter| names::covers(filter, subject))
    };
    if wanted.subjects.iter().all(|subject| stored(subject)) {
        return None;
    }
    let left_out = of_tenants.any(|subject| !stored(&subject));
    let difference = differs("subjects", &wanted.subjects, &found.subjects)?;
    Some(if left_out {
        Difference {
            severity: Severity::Error,
            meaning: "messages of tenants of this worker are not stored",
            ..difference
        }
    } else {
        Difference {
            meaning: "other tenants' messages are not stored",
            ..difference
        }
    })
}

fn window(stream: StreamName, wanted: &ServerStream, found: &ServerStream) -> Option<Difference> {
    let harmful = match stream {
        StreamName::Inbound => found.duplicate_window > wanted.duplicate_window,
        StreamName::Outbound | StreamName::DeadLetter => {
            found.duplicate_window < wanted.duplicate_window
        }
    };
    let meaning = match stream {
        StreamName::Inbound => {
            "two tenants' messages with the same Nats-Msg-Id swallow each other that long"
        }
        StreamName::Outbound | StreamName::DeadLetter => {
            "a message that is published again after that is doubled"
        }
    };
    let difference = differs(
        "duplicate_window",
        &wanted.duplicate_window,
        &found.duplicate_window,
    )?;
    harmful.then_some(Difference {
        meaning,
        ..difference
    })
}

/// Matters only where a limit can be reached.
fn discard(stream: StreamName, wanted: &ServerStream, found: &ServerStream) -> Option<Difference> {
    let limited = [
        found.max_bytes,
        found.max_messages,
        found.max_messages_per_subject,
    ]
    .into_iter()
    .any(|value| limit(value).is_some());
    let difference = differs("discard", &wanted.discard, &found.discard)?;
    let meaning = match (stream, found.discard) {
        _ if !limited => return None,
        (StreamName::Outbound, DiscardPolicy::Old) => {
            "a full stream drops its oldest replies, read or not"
        }
        (StreamName::Outbound, DiscardPolicy::New) => {
            "a full stream refuses replies, and their turns wait"
        }
        (StreamName::Inbound | StreamName::DeadLetter, _) => {
            "a full stream drops messages that nobody has dealt with"
        }
    };
    Some(Difference {
        meaning,
        ..difference
    })
}

#[cfg(test)]
mod tests;
