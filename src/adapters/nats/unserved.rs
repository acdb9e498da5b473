//! Messages that no consumer takes: those of tenants that nobody serves, often a typo in a subject. They stay in the inbound
//! stream, which all tenants share, until somebody serves their tenant or they are removed.

use std::collections::{HashMap, HashSet};

use async_nats::jetstream::ErrorCode;
use serde::Deserialize;
use serde_json::json;

use super::fault::Fault;
use super::link::Link;
use super::names::{self, Names, StreamName};
use crate::model::TenantId;

/// The most subjects of other workers' tenants that are looked up at a time, those with the most messages first.
const LOOKED_UP: usize = 64;
/// The most subjects with a consumer that are remembered.
const REMEMBERED: usize = 10_000;

/// A subject whose messages no consumer takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unserved {
    /// The subject.
    pub subject: String,
    /// The number of its messages in the stream.
    pub messages: u64,
    /// Its tenant is one that this worker would serve, and cannot.
    pub is_stopped: bool,
}

/// Looks for such messages again and again. It remembers which subjects have a consumer, so that each look gets further.
#[derive(Debug, Default)]
pub struct Search {
    consumed: HashSet<String>,
    stopped: HashSet<TenantId>,
}

#[derive(Deserialize)]
struct Info {
    state: State,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    /// Pulls that wait for messages.
    #[serde(default)]
    num_waiting: u64,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

impl Search {
    /// The subjects found by now, those with the most messages first; none without an inbound stream.
    pub(super) async fn look(
        &mut self,
        link: &Link,
        served: &[TenantId],
    ) -> Result<Vec<Unserved>, Fault> {
        let (names, stream) = (&link.names, StreamName::Inbound);
        let method = format!("STREAM.INFO.{}", names.stream(stream));
        let order = json!({ "subjects_filter": names.subjects(stream) });
        let info: Info = match link.api(&method, &order).await {
            Err(fault) if fault.code() == Some(ErrorCode::STREAM_NOT_FOUND) => {
                return Ok(Vec::new());
            }
            info => info?,
        };
        let stopped = self.stopped.iter();
        let stopped: HashSet<String> = stopped
            .map(|tenant| names.subject(stream, tenant))
            .collect();
        let served = served.iter().map(|tenant| names.subject(stream, tenant));
        let served: HashSet<String> = served.collect();
        let all = info.state.subjects.unwrap_or_default().into_iter();
        let mut rest: Vec<Unserved> = all
            .filter(|(subject, _)| !served.contains(subject) && !self.consumed.contains(subject))
            .map(|(subject, messages)| Unserved {
                is_stopped: stopped.contains(&subject),
                subject,
                messages,
            })
            .collect();
        rest.sort_unstable_by(|a, b| {
            b.messages
                .cmp(&a.messages)
                .then_with(|| a.subject.cmp(&b.subject))
        });
        let mut found = Vec::new();
        let mut left = LOOKED_UP;
        for unserved in rest {
            let Some(consumer) = consumer_of(names, &unserved.subject) else {
                found.push(unserved);
                continue;
            };
            let Some(less) = left.checked_sub(1) else {
                continue;
            };
            left = less;
            match consumer_info(link, &consumer).await? {
                // This worker does not pull for it, so another one has to.
                Some(info) if unserved.is_stopped && info.num_waiting == 0 => found.push(unserved),
                Some(_) if unserved.is_stopped => {}
                Some(_) => self.remember(unserved.subject),
                None => found.push(unserved),
            }
        }
        Ok(found)
    }

    /// Consumers come and go, so what is remembered is forgotten now and then.
    fn remember(&mut self, subject: String) {
        if self.consumed.len() >= REMEMBERED {
            self.consumed.clear();
        }
        self.consumed.insert(subject);
    }

    /// Names the tenants that this worker would serve, and cannot: a consumer alone does not serve them.
    pub fn stopped(&mut self, tenants: impl IntoIterator<Item = TenantId>) {
        let stopped: HashSet<TenantId> = tenants.into_iter().collect();
        if stopped != self.stopped {
            self.consumed.clear();
            self.stopped = stopped;
        }
    }

    /// Has the next look ask for every consumer again.
    pub fn forget(&mut self) {
        self.consumed.clear();
    }
}

/// The consumer that would take a subject's messages; none if no tenant can have this subject.
fn consumer_of(names: &Names, subject: &str) -> Option<String> {
    let tenant = names.tenant_part(StreamName::Inbound, subject)?;
    let tenant = TenantId::new(tenant).ok()?;
    names::fits_a_subject(&tenant).then(|| names.consumer(&tenant))
}

async fn consumer_info(link: &Link, consumer: &str) -> Result<Option<ConsumerInfo>, Fault> {
    let stream = link.names.stream(StreamName::Inbound);
    let method = format!("CONSUMER.INFO.{stream}.{consumer}");
    match link.api::<ConsumerInfo>(&method, &json!({})).await {
        Ok(info) => Ok(Some(info)),
        Err(fault) if fault.code() == Some(ErrorCode::CONSUMER_NOT_FOUND) => Ok(None),
        Err(fault) => Err(fault),
    }
}
