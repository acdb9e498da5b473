//! Messages over NATS: pulled from and published to JetStream, or plain NATS where there is no JetStream.
//!
//! - [`config`]: the settings. [`names`]: every name on the server.
//! - `connect`, `connect_error`, `credentials`, `link`: the connection and what is known of it. [`Fault`]: what can go wrong on it.
//! - `rights`, `advice`: what the account must allow, and what to do where it does not.
//! - `topology`, `stream_state`, `compare`, `commands`: the streams and consumers, made or compared, and how to make them by hand.
//!   `environment`: whose they are.
//! - `stored`, `pull`: inbound with JetStream. `core`: inbound without it.
//! - `outbound`, `headers`: publishing. `copies`: replies that are there already. `drops`: replies that a full stream drops. `unreadable`: messages that would cost us
//!   the connection.
//! - `backlog`: messages that wait. `unserved`: messages that no consumer takes. `survey`: what is on the server, without any change.
//! - `stream_reader`: streams, message by message. [`dead_letters`]: the stream of dead letters, for whoever looks after them.

mod advice;
mod backlog;
mod commands;
mod compare;
pub mod config;
mod connect;
mod connect_error;
mod copies;
mod core;
mod credentials;
pub mod dead_letters;
mod drops;
mod environment;
mod fault;
mod headers;
mod link;
pub mod names;
mod outbound;
mod pull;
mod rights;
mod stored;
mod stream_reader;
mod stream_state;
mod survey;
mod topology;
mod unreadable;
mod unserved;

use std::collections::BTreeMap;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use time::OffsetDateTime;
use tokio::time::timeout;

pub use config::Config;
pub use connect_error::ConnectError;
pub use fault::Fault;
pub use stream_state::StreamWindows;
pub use survey::{ConsumerSurvey, StreamSurvey, Survey};
pub use unserved::{Search, Unserved};

use crate::model::{EnvId, Headers, InboundMessage, Problems, TenantId};
use crate::ports::{self, Destination, Inbound, Publisher, TransportError};
use crate::telemetry::TenantBacklog;
use config::DeliveryMode;
use drops::Dropped;
use link::Link;
use names::StreamName;
use outbound::Outbound;
use stored::Consumers;
use topology::Topology;
pub use unreadable::UNREADABLE_HEADERS;
use unreadable::{DeadLettered, Unreadable};

/// A connection to NATS that messages come from and go to.
pub struct Nats {
    link: Arc<Link>,
    delivery: Delivering,
}

enum Delivering {
    JetStream {
        topology: Arc<Topology>,
        consumers: Consumers,
        outbound: Arc<Outbound>,
        dropped: Dropped,
        dead_lettered: DeadLettered,
    },
    Core(core::Queues),
}

impl Nats {
    /// Connects as a worker of this environment, waiting for a server for up to `connect_timeout`. From then on a lost
    /// connection is opened again, however long that takes.
    ///
    /// # Errors
    ///
    /// No server in time, credentials that are refused, no trusted TLS.
    pub async fn connect(config: &Config, env: &EnvId) -> Result<Self, ConnectError> {
        let link = connect::connect(config).await?;
        let delivery = match config.delivery {
            DeliveryMode::Core => {
                Delivering::Core(core::Queues::new(Arc::clone(&link), config.ack_wait))
            }
            DeliveryMode::JetStream => {
                let topology = Topology::new(Arc::clone(&link), config.clone(), env.clone());
                let topology = Arc::new(topology);
                let outbound = Arc::new(Outbound::new(Arc::clone(&link), Arc::clone(&topology)));
                let dead_lettered = DeadLettered::default();
                let unreadable = Unreadable::new(
                    Arc::clone(&link),
                    Arc::clone(&outbound),
                    Arc::clone(&dead_lettered),
                );
                let dropped = Dropped::default();
                let (weak, weak_topology) = (Arc::downgrade(&link), Arc::downgrade(&topology));
                tokio::spawn(drops::watch(weak, weak_topology, Arc::clone(&dropped)));
                Delivering::JetStream {
                    consumers: Consumers::new(Arc::clone(&link), Arc::clone(&topology), unreadable),
                    outbound,
                    topology,
                    dropped,
                    dead_lettered,
                }
            }
        };
        Ok(Self { link, delivery })
    }

    /// Makes the streams and these tenants' consumers, or compares those that exist with the settings. What is wrong with
    /// them comes back as problems; with an error among them the worker cannot do its work.
    ///
    /// # Errors
    ///
    /// The server gives no answer.
    pub async fn prepare(&self, tenants: &[TenantId]) -> Result<Problems, TransportError> {
        let problems = match &self.delivery {
            Delivering::JetStream { topology, .. } => topology.prepare(tenants).await?,
            Delivering::Core(_) => topology::unfit(tenants),
        };
        Ok(problems)
    }

    /// The durations of the streams as they were looked at last; none with plain NATS.
    pub fn windows(&self) -> Vec<StreamWindows> {
        match &self.delivery {
            Delivering::JetStream { topology, .. } => topology.windows(),
            Delivering::Core(_) => Vec::new(),
        }
    }

    /// How many replies were seen to be dropped by a full stream since this was asked last.
    pub fn dropped_replies(&self) -> u64 {
        match &self.delivery {
            Delivering::JetStream { dropped, .. } => dropped.swap(0, Ordering::Relaxed),
            Delivering::Core(_) => 0,
        }
    }

    /// How many messages of each tenant were dead-lettered because of their headers since this was asked last.
    pub fn dead_lettered(&self) -> BTreeMap<TenantId, u64> {
        match &self.delivery {
            Delivering::JetStream { dead_lettered, .. } => {
                let mut counts = dead_lettered.lock().unwrap_or_else(PoisonError::into_inner);
                mem::take(&mut *counts)
            }
            Delivering::Core(_) => BTreeMap::new(),
        }
    }

    /// The subjects whose messages no consumer takes, those with the most messages first.
    ///
    /// # Errors
    ///
    /// The server gives no answer.
    pub async fn unserved(
        &self,
        search: &mut Search,
        served: &[TenantId],
    ) -> Result<Vec<Unserved>, TransportError> {
        Ok(match &self.delivery {
            Delivering::JetStream { .. } => search.look(&self.link, served).await?,
            Delivering::Core(_) => Vec::new(),
        })
    }

    /// What waits for these tenants in the inbound stream; `None` with core delivery, where nothing does.
    ///
    /// # Errors
    ///
    /// The server gives no answer, or there is no stream.
    pub async fn backlog(
        &self,
        tenants: &[TenantId],
    ) -> Result<Option<Vec<TenantBacklog>>, TransportError> {
        Ok(match &self.delivery {
            Delivering::JetStream { .. } => Some(backlog::look(&self.link, tenants).await?),
            Delivering::Core(_) => None,
        })
    }

    /// The command that removes the inbound messages of a subject.
    pub fn purge_command(&self, subject: &str) -> String {
        commands::purge(&self.link.names.stream(StreamName::Inbound), subject)
    }

    /// Looks at everything on the server, and makes or changes nothing.
    ///
    /// # Errors
    ///
    /// The server gives no answer.
    pub async fn survey(&self, tenants: &[TenantId]) -> Result<Survey, TransportError> {
        let topology = match &self.delivery {
            Delivering::JetStream { topology, .. } => Some(&**topology),
            Delivering::Core(_) => None,
        };
        Ok(survey::survey(&self.link, topology, tenants).await?)
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Sends what is still to be sent (acks, messages handed back) and closes the connection, within this time.
    ///
    /// # Errors
    ///
    /// The time was not enough. What was not sent comes again after the ack wait.
    pub async fn close(&self, within: Duration) -> Result<(), TransportError> {
        match timeout(within, self.link.close()).await {
            Ok(closed) => Ok(closed?),
            Err(_) => Err(Fault::Unanswered {
                what: "closing the connection".to_owned(),
                within,
            }
            .into()),
        }
    }
}

/// A plain client for these settings, for whoever is no worker: it publishes and subscribes, and knows of no streams.
///
/// # Errors
///
/// As [`Nats::connect`].
pub async fn client(config: &Config) -> Result<async_nats::Client, ConnectError> {
    Ok(connect::connect(config).await?.live().client.clone())
}

impl Inbound for Nats {
    type Delivery = Delivery;
    type Pull = Pull;

    async fn pull(
        &self,
        tenant: &TenantId,
        max: usize,
        wait: Duration,
    ) -> Result<Pull, TransportError> {
        Ok(match &self.delivery {
            Delivering::JetStream { consumers, .. } => {
                Pull::Stored(consumers.pull(tenant, max, wait).await?)
            }
            Delivering::Core(queues) => Pull::Core(queues.pull(tenant, max, wait).await?),
        })
    }

    fn leave(&self, tenant: &TenantId) {
        match &self.delivery {
            // A consumer is asked or gives nothing.
            Delivering::JetStream { .. } => {}
            Delivering::Core(queues) => queues.leave(tenant),
        }
    }
}

impl Publisher for Nats {
    async fn publish(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
    ) -> Result<(), TransportError> {
        let published = match &self.delivery {
            Delivering::JetStream { outbound, .. } => outbound.publish(to, headers, body).await,
            Delivering::Core(_) => {
                let subject = self.link.names.destination_subject(to);
                let headers = headers::to_publish(headers);
                self.link.publish(&subject, headers, body).await
            }
        };
        Ok(published?)
    }

    async fn publish_in_time(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, TransportError> {
        match &self.delivery {
            Delivering::JetStream { outbound, .. } => {
                match outbound.publish_in_time(to, headers, body, in_time).await {
                    Err(Fault::TooLate) => Ok(false),
                    published => Ok(published.map(|()| true)?),
                }
            }
            Delivering::Core(_) => self.publish(to, headers, body).await.map(|()| true),
        }
    }

    fn duplicate_window(&self, to: Destination<'_>) -> Option<Duration> {
        match &self.delivery {
            Delivering::JetStream { topology, .. } => topology.window(to.into()),
            Delivering::Core(_) => None,
        }
    }

    async fn held(
        &self,
        tenant: &TenantId,
        ids: &[&str],
        since: Option<OffsetDateTime>,
    ) -> Result<Vec<bool>, TransportError> {
        match &self.delivery {
            Delivering::JetStream { .. } => {
                Ok(copies::held(&self.link, tenant, (ids, since)).await?)
            }
            Delivering::Core(_) => Ok(vec![false; ids.len()]),
        }
    }

    fn max_message_bytes(&self, to: Destination<'_>) -> usize {
        match &self.delivery {
            Delivering::JetStream { outbound, .. } => outbound.max_message_bytes(to),
            Delivering::Core(_) => self.link.live().client.max_payload(),
        }
    }
}

/// The messages of one pull. Dropped before its end, what had arrived is delivered again at once.
pub enum Pull {
    /// From JetStream.
    Stored(pull::Pull),
    /// From plain NATS.
    Core(core::Pull),
}

impl Stream for Pull {
    type Item = Result<Delivery, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match &mut *self {
            Self::Stored(pull) => pull.poll_next_unpin(cx).map_ok(Delivery::Stored),
            Self::Core(pull) => pull.poll_next_unpin(cx).map_ok(Delivery::Core),
        };
        next.map_err(TransportError::from)
    }
}

/// A message in our hands.
pub enum Delivery {
    /// From JetStream.
    Stored(stored::Delivery),
    /// From plain NATS.
    Core(core::Delivery),
}

impl ports::Delivery for Delivery {
    fn message(&self) -> &InboundMessage {
        match self {
            Self::Stored(delivery) => delivery.message(),
            Self::Core(delivery) => delivery.message(),
        }
    }

    fn delivered(&self) -> u64 {
        match self {
            Self::Stored(delivery) => delivery.delivered(),
            Self::Core(delivery) => delivery.delivered(),
        }
    }

    fn stored(&self) -> Option<u64> {
        match self {
            Self::Stored(delivery) => delivery.stored(),
            Self::Core(delivery) => delivery.stored(),
        }
    }

    async fn progress(&self) -> Result<(), TransportError> {
        match self {
            Self::Stored(delivery) => delivery.progress().await,
            Self::Core(delivery) => delivery.progress().await,
        }
    }

    async fn ack(self) -> Result<(), TransportError> {
        match self {
            Self::Stored(delivery) => delivery.ack().await,
            Self::Core(delivery) => delivery.ack().await,
        }
    }

    async fn hand_back(self, after: Duration) -> Result<(), TransportError> {
        match self {
            Self::Stored(delivery) => delivery.hand_back(after).await,
            Self::Core(delivery) => delivery.hand_back(after).await,
        }
    }
}
