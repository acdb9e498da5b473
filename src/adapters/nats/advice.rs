//! Remedies for refusals of JetStream.

use async_nats::jetstream::ErrorCode;

use super::config::Config;
use super::environment;
use super::fault::Fault;
use super::names::StreamName;
use crate::model::Problem;

/// A fault as something for the operator to mend, or itself where waiting is what helps.
pub(super) fn problem(
    config: &Config,
    (what, stream): (&str, StreamName),
    fault: Fault,
) -> Result<Problem, Fault> {
    if let Fault::Missing { what, command } = &fault {
        let message = format!("{what} is missing and `nats.provision` is off");
        return Ok(Problem::error(message).remedy(format!("make it with: {command}")));
    }
    if let Fault::NoResponders { .. } = fault {
        return Ok(without_jetstream(config));
    }
    if let Fault::OtherEnvironment {
        stream,
        found,
        own,
        take_over,
    } = &fault
    {
        return Ok(environment::problem(stream, found, own, take_over));
    }
    if let Fault::Denied { what: subject } = &fault {
        return Ok(denied(config, what, subject));
    }
    let Some(code) = fault.code() else {
        return Err(fault);
    };
    if code == ErrorCode::CLUSTER_NOT_AVAILABLE {
        return Err(fault);
    }
    if matches!(
        code,
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
    ) {
        return Ok(without_jetstream(config));
    }
    let problem = Problem::error(format!("{what} cannot be used: {fault}"));
    Ok(match remedy(config, code, stream) {
        Some(remedy) => problem.remedy(remedy),
        None => problem,
    })
}

fn remedy(config: &Config, code: ErrorCode, stream: StreamName) -> Option<String> {
    let inbound = config.names().stream(StreamName::Inbound);
    let section = format!("nats.{}", stream.section());
    Some(match code {
        ErrorCode::STREAM_SUBJECT_OVERLAP => {
            "another stream has its subjects: find it with `nats stream ls` and take the subjects from it".to_owned()
        }
        ErrorCode::CONSUMER_WQ_CONSUMER_NOT_UNIQUE | ErrorCode::CONSUMER_WQ_MULTIPLE_UNFILTERED => format!(
            "another consumer of the stream takes the same messages: find it with `nats consumer ls {inbound}` and remove it"
        ),
        ErrorCode::STREAM_MAX_BYTES_REQUIRED => format!(
            "the account wants a size for every stream: set `{section}.max_bytes` (and that of the other streams)"
        ),
        ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => format!(
            "set `{section}.max_bytes` to at most what the account allows one stream (`nats account info`)"
        ),
        ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES => format!(
            "lower `{section}.max_bytes`, which is reserved when the stream is made, or `{section}.replicas`, or raise the \
             limit of the account (`nats account info`) or of the server (`max_file_store`, `max_memory_store`)"
        ),
        ErrorCode::NO_LIMITS => format!(
            "the account has no JetStream for this number of replicas: set `{section}.replicas` to one that its limits name, \
             or add a limit for it"
        ),
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => format!(
            "the server is not part of a cluster: set `{section}.replicas` to 1"
        ),
        ErrorCode::CLUSTER_NO_PEERS => format!(
            "set `{section}.replicas` to at most the number of servers that have JetStream and room, or start more of them"
        ),
        ErrorCode::MAXIMUM_STREAMS_LIMIT => {
            "the account has as many streams as it may: raise its `max_streams`, or remove some (`nats stream ls`)".to_owned()
        }
        ErrorCode::MAXIMUM_CONSUMERS_LIMIT => format!(
            "each tenant has a consumer: raise `max_consumers` of the account (`nats account info`) and of the stream, or \
             remove some (`nats consumer ls {inbound}`)"
        ),
        ErrorCode::CONSUMER_MAX_PENDING_ACK_EXCESS => {
            "the account or the stream caps `max_ack_pending`, which a worker's consumers leave open: raise it".to_owned()
        }
        ErrorCode::CONSUMER_REPLICAS_EXCEEDS_STREAM
        | ErrorCode::CONSUMER_REPLICAS_SHOULD_MATCH_STREAM => format!(
            "remove the consumer (`nats consumer rm {inbound}`): it is made again with the stream's replicas"
        ),
        _ => return None,
    })
}

fn denied(config: &Config, what: &str, subject: &str) -> Problem {
    let inboxes = config.inbox_prefix();
    if subject.starts_with(inboxes) {
        return Problem::error(format!("the NATS user may not subscribe to `{subject}`, where answers come to")).remedy(
            format!("give the user the permission to subscribe to `{inboxes}.>`, or set `nats.inbox_prefix` to what it may subscribe to"),
        );
    }
    Problem::error(format!("{what}: the NATS user may not publish to `{subject}`")).remedy(
        "give the user the permissions that docs/nats.md lists for the worker's `nats.provision` and `nats.delivery`",
    )
}

fn without_jetstream(config: &Config) -> Problem {
    let prefix = config.api_prefix();
    if config.jetstream.domain.is_some() || config.jetstream.api_prefix.is_some() {
        return Problem::error(format!("no JetStream answers at `{prefix}`")).remedy(
            "check `nats.jetstream.domain` and `nats.jetstream.api_prefix`, and that this account imports or reaches it",
        );
    }
    Problem::error("JetStream is off for this account of the NATS server").remedy(
        "start nats-server with `-js` (and enable the account); set `nats.jetstream.domain` if it is another server's; or set \
         `nats.delivery` to `core`, which delivers at most once",
    )
}
