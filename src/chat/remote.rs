//! Talks to flows through a real NATS server, as any provider would.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber, jetstream};
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use serde_json::Value;

use super::{Link, Received};
use crate::adapters::nats::names::{Names, StreamName};
use crate::model::{Headers, TenantId};

/// The way to flows behind a NATS server.
pub struct Remote {
    client: Client,
    inbound: String,
    back: SelectAll<Subscriber>,
    dead_letters: String,
}

/// Why a server does not carry the conversation.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The replies cannot be listened to.
    #[error("cannot subscribe: {0}")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// The activity was not taken.
    #[error("cannot publish to `{subject}`: {reason}; is a worker up that provisions the streams?")]
    Publish {
        /// Where to.
        subject: String,
        /// Why not.
        reason: String,
    },
}

impl Remote {
    /// Listens to a tenant's replies and dead letters. Both pass by as plain messages besides going into their streams,
    /// so a terminal needs no consumer.
    pub async fn open(
        client: Client,
        names: &Names,
        tenant: &TenantId,
    ) -> Result<Self, RemoteError> {
        let dead_letters = names.subject(StreamName::DeadLetter, tenant);
        let replies = names.subject(StreamName::Outbound, tenant);
        let back = vec![
            client.subscribe(replies).await?,
            client.subscribe(dead_letters.clone()).await?,
        ];
        Ok(Self {
            client,
            inbound: names.subject(StreamName::Inbound, tenant),
            back: select_all(back),
            dead_letters,
        })
    }

    fn received(&self, message: &Message) -> Received {
        let pairs = message.headers.iter().flat_map(HeaderMap::iter);
        let headers: Headers = pairs
            .flat_map(|(name, values)| {
                values
                    .iter()
                    .map(move |value| (name.to_string(), value.to_string()))
            })
            .collect();
        Received {
            headers,
            body: serde_json::from_slice(&message.payload).unwrap_or(Value::Null),
            dead_letter: message.subject.as_str() == self.dead_letters,
        }
    }
}

impl Link for Remote {
    type Error = RemoteError;

    async fn send(&mut self, headers: Headers, body: Value) -> Result<(), RemoteError> {
        let subject = self.inbound.clone();
        let failed = |reason: String| RemoteError::Publish {
            subject: subject.clone(),
            reason,
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter() {
            map.append(name, value);
        }
        let body = body.to_string().into();
        if self.client.server_info().jetstream {
            let stream = jetstream::new(self.client.clone());
            let ack = stream
                .publish_with_headers(subject.clone(), map, body)
                .await;
            let ack = ack.map_err(|error| failed(error.to_string()))?;
            ack.await.map_err(|error| failed(error.to_string()))?;
            return Ok(());
        }
        let sent = self
            .client
            .publish_with_headers(subject.clone(), map, body)
            .await;
        sent.map_err(|error| failed(error.to_string()))?;
        self.client
            .flush()
            .await
            .map_err(|error| failed(error.to_string()))
    }

    async fn receive(&mut self, patience: Duration) -> Result<Option<Received>, RemoteError> {
        let message = tokio::time::timeout(patience, self.back.next())
            .await
            .ok()
            .flatten();
        Ok(message.map(|message| self.received(&message)))
    }
}
