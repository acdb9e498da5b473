//! A look at everything on the server, for `check --connect`. Nothing is made or changed.

use std::time::Duration;

use async_nats::jetstream::consumer::IntoConsumerConfig;
use async_nats::jetstream::stream::Config as ServerStream;
use async_nats::jetstream::{ErrorCode, consumer};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::config::{Config, Provision};
use super::fault::Fault;
use super::link::Link;
use super::names::{self, StreamName};
use super::topology::{self, Topology};
use super::{advice, commands, compare, rights};
use crate::model::{Problem, Problems, TenantId};

/// The result of a look at the server.
#[derive(Debug, Default)]
pub struct Survey {
    /// The server's version.
    pub version: String,
    /// The time that an answer took; none without JetStream.
    pub answers_in: Option<Duration>,
    /// The streams.
    pub streams: Vec<StreamSurvey>,
    /// The tenants' consumers.
    pub consumers: Vec<ConsumerSurvey>,
    /// The problems.
    pub problems: Problems,
}

/// A stream; none of its numbers where it is missing.
#[derive(Debug)]
pub struct StreamSurvey {
    /// Which one it is.
    pub stream: StreamName,
    /// Its name.
    pub name: String,
    /// The number of its messages, and their size in bytes.
    pub holds: Option<(u64, u64)>,
}

/// A consumer; none of its numbers where it is missing.
#[derive(Debug)]
pub struct ConsumerSurvey {
    /// Its name.
    pub name: String,
    /// The number of messages that wait, and of those that were delivered and are not acknowledged yet.
    pub has: Option<(u64, u64)>,
}

#[derive(Deserialize)]
struct StreamInfo {
    config: ServerStream,
    state: Holding,
}

#[derive(Deserialize)]
struct Holding {
    messages: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    config: consumer::Config,
    num_pending: u64,
    num_ack_pending: u64,
}

#[derive(Deserialize)]
struct Account {
    streams: i64,
    consumers: i64,
    limits: Limits,
}

/// A negative number is no limit.
#[derive(Deserialize)]
struct Limits {
    max_streams: i64,
    max_consumers: i64,
    #[serde(default)]
    max_bytes_required: bool,
}

pub(super) async fn survey(
    link: &Link,
    topology: Option<&Topology>,
    tenants: &[TenantId],
) -> Result<Survey, Fault> {
    let mut survey = Survey {
        version: link.live().client.server_info().version,
        problems: topology::unfit(tenants),
        ..Survey::default()
    };
    let Some(topology) = topology else {
        return Ok(survey);
    };
    let tenants: Vec<&TenantId> = tenants
        .iter()
        .filter(|tenant| names::fits_a_subject(tenant))
        .collect();
    let config = topology.config();
    for stream in StreamName::ALL {
        look_at_stream(topology, stream, &tenants, &mut survey).await?;
    }
    if survey.problems.has_errors() {
        return Ok(survey);
    }
    survey.problems.extend(rights::check(link, &tenants).await?);
    for tenant in tenants {
        look_at_consumer(topology, tenant, &mut survey).await?;
    }
    look_at_account(link, config, &mut survey).await;
    Ok(survey)
}

async fn look_at_stream(
    topology: &Topology,
    stream: StreamName,
    tenants: &[&TenantId],
    survey: &mut Survey,
) -> Result<(), Fault> {
    let (link, config) = (&topology.link, topology.config());
    let wanted = topology::server_stream(config, &topology.env, stream);
    let name = link.names.stream(stream);
    let asked = Instant::now();
    let method = format!("STREAM.INFO.{name}");
    let mut holds = None;
    match link.api::<StreamInfo>(&method, &json!({})).await {
        Ok(StreamInfo {
            config: found,
            state,
        }) => {
            holds = Some((state.messages, state.bytes));
            topology.remember(stream, &found);
            match topology.check_mark(stream, &found) {
                Err(fault) => {
                    let problem = advice::problem(config, (&name, stream), fault)?;
                    survey.problems.push(problem);
                }
                Ok(()) => {
                    let named = (&link.names, stream);
                    let differences = compare::stream(named, &wanted, &found, tenants);
                    survey.problems.extend(differences);
                    // Else a start marks it.
                    if config.provision == Provision::Off {
                        survey.problems.extend(topology.unmarked(stream, &found));
                    }
                }
            }
        }
        Err(fault) if fault.code() == Some(ErrorCode::STREAM_NOT_FOUND) => {
            let missing = Fault::Missing {
                what: format!("stream {name}"),
                command: commands::add_stream(&wanted),
            };
            if config.provision == Provision::Off {
                let problem = advice::problem(config, (&name, stream), missing)?;
                survey.problems.push(problem);
            }
        }
        Err(fault) => {
            let what = format!("stream {name}");
            let problem = advice::problem(config, (&what, stream), fault)?;
            survey.problems.push(problem);
        }
    }
    survey.answers_in = Some(asked.elapsed());
    survey.streams.push(StreamSurvey {
        stream,
        name,
        holds,
    });
    Ok(())
}

async fn look_at_consumer(
    topology: &Topology,
    tenant: &TenantId,
    survey: &mut Survey,
) -> Result<(), Fault> {
    let (link, config) = (&topology.link, topology.config());
    let stream = link.names.stream(StreamName::Inbound);
    let name = link.names.consumer(tenant);
    let wanted = topology::server_consumer(config, tenant).into_consumer_config();
    let method = format!("CONSUMER.INFO.{stream}.{name}");
    let mut has = None;
    match link.api::<ConsumerInfo>(&method, &json!({})).await {
        Ok(found) => {
            has = Some((found.num_pending, found.num_ack_pending));
            // Else the worker sets it right.
            if config.provision == Provision::Off {
                survey
                    .problems
                    .extend(compare::consumer(&stream, &wanted, &found.config));
            }
        }
        Err(fault)
            if matches!(
                fault.code(),
                Some(ErrorCode::CONSUMER_NOT_FOUND | ErrorCode::STREAM_NOT_FOUND)
            ) =>
        {
            if config.provision == Provision::Off {
                let missing = Fault::Missing {
                    what: format!("consumer {name}"),
                    command: commands::add_consumer(&stream, &wanted),
                };
                let problem = advice::problem(config, (&name, StreamName::Inbound), missing)?;
                survey.problems.push(problem);
            }
        }
        Err(fault) => {
            let what = format!("consumer {name}");
            let problem = advice::problem(config, (&what, StreamName::Inbound), fault)?;
            survey.problems.push(problem);
        }
    }
    survey.consumers.push(ConsumerSurvey { name, has });
    Ok(())
}

/// Compares the room in the account with what a start would make. Where it may not be asked for, a start finds out.
async fn look_at_account(link: &Link, config: &Config, survey: &mut Survey) {
    let Ok(account) = link.api::<Account>("INFO", &json!({})).await else {
        return;
    };
    let missing = |all: usize| i64::try_from(all).unwrap_or(i64::MAX);
    let streams = survey
        .streams
        .iter()
        .filter(|stream| stream.holds.is_none());
    let streams = missing(streams.count());
    let consumers = survey.consumers.iter().filter(|one| one.has.is_none());
    let consumers = missing(consumers.count());
    let limits = &account.limits;
    for (what, has, more, most) in [
        ("max_streams", account.streams, streams, limits.max_streams),
        (
            "max_consumers",
            account.consumers,
            consumers,
            limits.max_consumers,
        ),
    ] {
        if most >= 0 && more > 0 && has.saturating_add(more) > most {
            survey.problems.push(
                Problem::error(format!(
                    "the NATS account has room for {most} ({what}) and {has} are there, but {more} more must be made"
                ))
                .remedy(format!("raise the account's `{what}`, or remove what is no longer used")),
            );
        }
    }
    for stream in &survey.streams {
        let is_unsized = config.stream(stream.stream).max_bytes.is_none();
        if limits.max_bytes_required && stream.holds.is_none() && is_unsized {
            survey.problems.push(
                Problem::error(format!(
                    "the NATS account wants a size for stream {}",
                    stream.name
                ))
                .remedy(format!("set `nats.{}.max_bytes`", stream.stream.section())),
            );
        }
    }
}
