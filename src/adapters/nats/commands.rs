//! The `nats` commands that make and mend by hand what the worker would make.

use std::time::Duration;

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::{
    Config as ServerStream, DiscardPolicy, RetentionPolicy, StorageType,
};

use super::environment;
use crate::model::EnvId;

/// Makes a stream.
pub(super) fn add_stream(stream: &ServerStream) -> String {
    let description = stream.description.iter();
    let description = description.map(|text| format!("--description='{text}'"));
    let options = options(stream).into_iter().map(|(_, option)| option);
    let options: Vec<String> = options.chain(description).collect();
    format!(
        "nats stream add {} {} --defaults",
        stream.name,
        options.join(" ")
    )
}

/// Changes one setting of a stream, by our name of it.
pub(super) fn edit_stream(stream: &ServerStream, setting: &str) -> String {
    let fixed = ["retention", "storage", "sealed"];
    match options(stream)
        .into_iter()
        .find(|(name, _)| *name == setting)
    {
        Some((name, option)) if !fixed.contains(&name) => {
            format!("nats stream edit {} {option}", stream.name)
        }
        _ => format!(
            "this cannot be changed; once the stream is empty or saved: nats stream rm {}; {}",
            stream.name,
            add_stream(stream)
        ),
    }
}

/// Marks a stream as an environment's.
pub(super) fn mark_stream(name: &str, env: &EnvId, has_metadata: bool) -> String {
    match has_metadata {
        true => format!(
            "nats stream edit {name} --metadata='{}'",
            environment::metadata(env)
        ),
        false => format!(
            "nats stream edit {name} --description='{}'",
            environment::description(env)
        ),
    }
}

/// Removes the messages of a subject.
pub(super) fn purge(stream: &str, subject: &str) -> String {
    format!("nats stream purge {stream} --subject={subject}")
}

/// Makes a consumer of a stream.
pub(super) fn add_consumer(stream: &str, consumer: &consumer::Config) -> String {
    format!(
        "nats consumer add {stream} {} --pull --filter='{}' --deliver=all --ack=explicit \
         --wait={} --max-deliver=-1 --max-pending=-1 --replay=instant --defaults",
        name(consumer),
        consumer.filter_subject,
        time(consumer.ack_wait),
    )
}

/// Replaces a consumer of a stream. The messages are the stream's, so none is lost.
pub(super) fn replace_consumer(stream: &str, consumer: &consumer::Config) -> String {
    format!(
        "nats consumer rm {stream} {} --force; {}",
        name(consumer),
        add_consumer(stream, consumer)
    )
}

fn name(consumer: &consumer::Config) -> &str {
    consumer.durable_name.as_deref().unwrap_or_default()
}

/// Our name of each setting, and its option.
fn options(stream: &ServerStream) -> Vec<(&'static str, String)> {
    let retention = match stream.retention {
        RetentionPolicy::WorkQueue => "work",
        RetentionPolicy::Limits => "limits",
        RetentionPolicy::Interest => "interest",
    };
    let storage = match stream.storage {
        StorageType::File => "file",
        StorageType::Memory => "memory",
    };
    let discard = match stream.discard {
        DiscardPolicy::New => "new",
        DiscardPolicy::Old => "old",
    };
    let age = if stream.max_age.is_zero() {
        "-1".to_owned()
    } else {
        time(stream.max_age)
    };
    vec![
        (
            "subjects",
            format!("--subjects='{}'", stream.subjects.join(",")),
        ),
        ("retention", format!("--retention={retention}")),
        ("storage", format!("--storage={storage}")),
        ("replicas", format!("--replicas={}", stream.num_replicas)),
        ("discard", format!("--discard={discard}")),
        ("max_age", format!("--max-age={age}")),
        ("max_bytes", format!("--max-bytes={}", stream.max_bytes)),
        (
            "duplicate_window",
            format!("--dupe-window={}", time(stream.duplicate_window)),
        ),
        ("no_ack", "--ack".to_owned()),
    ]
}

/// A duration as the `nats` command reads it.
fn time(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if millis > 0 {
        format!("{}ms", duration.as_millis())
    } else if seconds.is_multiple_of(3_600) {
        format!("{}h", seconds / 3_600)
    } else if seconds.is_multiple_of(60) {
        format!("{}m", seconds / 60)
    } else {
        format!("{seconds}s")
    }
}
