//! The streams and consumers: what they should be, making what is missing, comparing what is there.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, IntoConsumerConfig};
use async_nats::jetstream::stream::{
    Config as ServerStream, DiscardPolicy, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{ErrorCode, consumer};
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::info;

use super::config::{Config, Discard, Provision, Storage};
use super::fault::Fault;
use super::link::Link;
use super::names::{self, StreamName};
use super::stream_state::{Described, KnownStream};
use super::{advice, commands, compare, environment, rights};
use crate::model::{EnvId, Problem, Problems, TenantId};

/// How many consumers are looked after at once.
const CONSUMERS_AT_ONCE: usize = 64;

/// Knows what must be on the server.
pub(super) struct Topology {
    pub(super) link: Arc<Link>,
    /// The worker's environment, whose mark the streams carry.
    pub(super) env: EnvId,
    config: Config,
    /// One repair at a time: a thousand publishes that find their stream gone make it once. When each was looked at last, and
    /// whether it was made then; nothing if the server was away.
    repairing: Mutex<HashMap<StreamName, (Instant, Option<bool>)>>,
    /// The streams as they were when they were last looked at.
    pub(super) known: [KnownStream; 3],
}

impl Topology {
    pub(super) fn new(link: Arc<Link>, config: Config, env: EnvId) -> Self {
        Self {
            link,
            env,
            config,
            repairing: Mutex::default(),
            known: Default::default(),
        }
    }

    /// The settings.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Makes or checks the streams and the tenants' consumers, and tells all that is wrong. Fails only when the server
    /// does not answer.
    pub(super) async fn prepare(&self, tenants: &[TenantId]) -> Result<Problems, Fault> {
        let mut problems = unfit(tenants);
        let tenants: Vec<_> = tenants
            .iter()
            .filter(|tenant| names::fits_a_subject(tenant))
            .collect();
        for stream in StreamName::ALL {
            match self.prepare_stream(stream, &tenants).await {
                Ok(found) => problems.extend(found),
                Err(fault) => {
                    let what = format!("stream {}", self.link.names.stream(stream));
                    problems.push(advice::problem(&self.config, (&what, stream), fault)?);
                }
            }
        }
        if problems.has_errors() {
            return Ok(problems);
        }
        problems.extend(rights::check(&self.link, &tenants).await?);
        let each = tenants.into_iter();
        let each =
            each.map(|tenant| async move { (tenant, self.look_after_consumer(tenant).await) });
        // Gathered first: what holds a closure over references cannot be sent to another thread.
        let each: Vec<_> = each.collect();
        let mut consumers = futures_util::stream::iter(each).buffer_unordered(CONSUMERS_AT_ONCE);
        while let Some((tenant, looked)) = consumers.next().await {
            match looked {
                Ok(found) => {
                    let stream = self.link.names.stream(StreamName::Inbound);
                    let wanted = server_consumer(&self.config, tenant).into_consumer_config();
                    problems.extend(compare::consumer(&stream, &wanted, &found));
                }
                Err(fault) => {
                    let what = format!("consumer {}", self.link.names.consumer(tenant));
                    let about = (what.as_str(), StreamName::Inbound);
                    problems.push(advice::problem(&self.config, about, fault)?);
                }
            }
        }
        Ok(problems)
    }

    /// Makes a stream, or compares one that exists with the settings and gives it the environment's mark if it has none.
    async fn prepare_stream(
        &self,
        stream: StreamName,
        tenants: &[&TenantId],
    ) -> Result<Vec<Problem>, Fault> {
        let Some(found) = self.look_after_stream(stream).await? else {
            return Ok(Vec::new());
        };
        let wanted = server_stream(&self.config, &self.env, stream);
        let named = (&self.link.names, stream);
        let mut problems = compare::stream(named, &wanted, &found, tenants);
        problems.extend(self.mark_stream(stream, &found).await?);
        Ok(problems)
    }

    /// Makes a stream again that is gone; whether it was.
    pub(super) async fn repair_stream(&self, stream: StreamName) -> Result<bool, Fault> {
        let since = Instant::now();
        let mut repaired = self.repairing.lock().await;
        // Somebody else has looked while this one waited.
        if let Some((_, made)) = repaired.get(&stream).filter(|(at, _)| *at >= since) {
            return made.ok_or(Fault::Disconnected);
        }
        let looked = self.look_after_stream(stream).await;
        let made = match &looked {
            Ok(found) => Some(found.is_none()),
            Err(fault) if fault.is_refusal() => return looked.map(|_| false),
            Err(_) => None,
        };
        repaired.insert(stream, (Instant::now(), made));
        looked.map(|found| found.is_none())
    }

    /// Makes sure that a tenant can be pulled for. The stream comes first: one that another environment has made meanwhile
    /// may have a consumer of this name.
    pub(super) async fn repair_consumer(&self, tenant: &TenantId) -> Result<(), Fault> {
        let _made = self.repair_stream(StreamName::Inbound).await?;
        self.look_after_consumer(tenant).await.map(drop)
    }

    /// What a stream is, or nothing if it was made just now.
    async fn look_after_stream(&self, stream: StreamName) -> Result<Option<ServerStream>, Fault> {
        match self.stream(stream).await {
            Err(fault) if fault.code() == Some(ErrorCode::STREAM_NOT_FOUND) => {}
            found => return found.map(Some),
        }
        let wanted = server_stream(&self.config, &self.env, stream);
        if self.config.provision == Provision::Off {
            return Err(Fault::Missing {
                what: format!("stream {}", wanted.name),
                command: commands::add_stream(&wanted),
            });
        }
        let method = format!("STREAM.CREATE.{}", wanted.name);
        match self
            .link
            .api::<Described<ServerStream>>(&method, &wanted)
            .await
        {
            Ok(made) => {
                info!(stream = wanted.name, "made the stream");
                self.remember(stream, &made.config);
                self.note_made(stream);
                Ok(None)
            }
            // Another worker was faster. With the same settings the name is no offence; the server may see first that its
            // subjects are taken, or its folder, by this very stream.
            Err(fault)
                if matches!(
                    fault.code(),
                    Some(
                        ErrorCode::STREAM_NAME_EXIST
                            | ErrorCode::STREAM_SUBJECT_OVERLAP
                            | ErrorCode::STREAM_CREATE
                    )
                ) =>
            {
                match self.stream(stream).await {
                    Err(missing) if missing.code() == Some(ErrorCode::STREAM_NOT_FOUND) => {
                        Err(fault)
                    }
                    found => found.map(Some),
                }
            }
            Err(fault) => Err(fault),
        }
    }

    /// A stream as it is, unless it is another environment's.
    async fn stream(&self, stream: StreamName) -> Result<ServerStream, Fault> {
        let (found, _) = self.look_at(stream, None).await?;
        self.check_mark(stream, &found)?;
        Ok(found)
    }

    /// What a tenant's consumer is. Where we may make it, it is made to be as the settings say: it holds no data that
    /// this could harm, and a changed ack wait takes effect.
    async fn look_after_consumer(&self, tenant: &TenantId) -> Result<consumer::Config, Fault> {
        let stream = self.link.names.stream(StreamName::Inbound);
        let name = self.link.names.consumer(tenant);
        let wanted = server_consumer(&self.config, tenant).into_consumer_config();
        let method = format!("CONSUMER.INFO.{stream}.{name}");
        let found: Result<Described<consumer::Config>, Fault> =
            self.link.api(&method, &json!({})).await;
        let missing = match found {
            Ok(found) => {
                let is_right = compare::consumer(&stream, &wanted, &found.config).is_empty();
                if is_right || self.config.provision == Provision::Off {
                    return Ok(found.config);
                }
                false
            }
            Err(fault) if fault.code() == Some(ErrorCode::CONSUMER_NOT_FOUND) => true,
            Err(fault) => return Err(fault),
        };
        if self.config.provision == Provision::Off {
            return Err(Fault::Missing {
                what: format!("consumer {name}"),
                command: commands::add_consumer(&stream, &wanted),
            });
        }
        let method = format!("CONSUMER.CREATE.{stream}.{name}.{}", wanted.filter_subject);
        let order = json!({ "stream_name": stream, "config": wanted });
        let made: Described<consumer::Config> = self.link.api(&method, &order).await?;
        info!(
            consumer = name,
            missing, "made the consumer as the settings say"
        );
        Ok(made.config)
    }
}

/// The tenants that no subject can be made of.
pub(super) fn unfit(tenants: &[TenantId]) -> Problems {
    let mut problems = Problems::default();
    problems.extend(
        tenants
            .iter()
            .filter(|tenant| !names::fits_a_subject(tenant))
            .map(|tenant| {
                Problem::error(Fault::NoSubject(tenant.to_string()).to_string())
                    .remedy("name the tenant without leading, trailing or doubled dots")
            }),
    );
    problems
}

/// A stream as the settings want it, with the mark of the environment.
pub(super) fn server_stream(config: &Config, env: &EnvId, stream: StreamName) -> ServerStream {
    let (settings, names) = (config.stream(stream), config.names());
    let mut wanted = ServerStream {
        name: names.stream(stream),
        subjects: vec![names.subjects(stream)],
        retention: match stream {
            StreamName::Inbound => RetentionPolicy::WorkQueue,
            StreamName::Outbound | StreamName::DeadLetter => RetentionPolicy::Limits,
        },
        // What nobody has dealt with yet is not pushed out by what is new, unless the settings say so.
        discard: match stream {
            StreamName::Inbound | StreamName::DeadLetter => DiscardPolicy::New,
            StreamName::Outbound => match config.outbound.discard {
                Discard::Old => DiscardPolicy::Old,
                Discard::New => DiscardPolicy::New,
            },
        },
        storage: match settings.storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        },
        num_replicas: settings.replicas,
        max_age: settings.max_age.unwrap_or_default(),
        max_bytes: settings
            .max_bytes
            .map_or(-1, |max| i64::try_from(max).unwrap_or(i64::MAX)),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        duplicate_window: config.window(stream),
        ..ServerStream::default()
    };
    environment::mark(&mut wanted, env);
    wanted
}

/// A tenant's consumer as the settings want it.
pub(super) fn server_consumer(config: &Config, tenant: &TenantId) -> ConsumerConfig {
    let names = config.names();
    ConsumerConfig {
        durable_name: Some(names.consumer(tenant)),
        filter_subject: names.subject(StreamName::Inbound, tenant),
        ack_policy: AckPolicy::Explicit,
        ack_wait: config.ack_wait,
        // Attempts are counted in Redis, where a message that kills its worker is counted too.
        max_deliver: -1,
        // How much is in flight is the workers' to say, and grows with their number.
        max_ack_pending: -1,
        ..ConsumerConfig::default()
    }
}
