//! One connection, shared by everything here: what is known of its state, and the ways to send on it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::client::{PublishErrorKind, RequestErrorKind};
use async_nats::connection::State;
use async_nats::jetstream::response::Response;
use async_nats::{Client, HeaderMap, Message, Request, Subject};
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::fault::Fault;
use super::names::Names;

/// How often to look for a connection besides waiting for the event, which the client drops when there are too many.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The connection, whatever happens to it.
pub(super) struct Link {
    /// Work that goes on after its caller has left, such as handing messages back; closing waits for it.
    pub(super) tasks: TaskTracker,
    live: RwLock<Arc<Live>>,
    closing: AtomicBool,
    request_timeout: Duration,
    /// The beginning of the subjects of JetStream's API, such as `$JS.API`.
    api: String,
    /// The names of subjects, streams and consumers.
    pub(super) names: Names,
}

/// A client with what is known of it. It reconnects by itself; only if it breaks down there is another one after it.
pub(super) struct Live {
    pub(super) client: Client,
    /// Ends with the client.
    pub(super) changes: watch::Receiver<Changes>,
}

/// The most subjects whose denials are kept: those of the worker's tenants are far fewer.
const MAX_DENIED: usize = 16 * 1024;

/// What the client reported so far. Only differences matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// How often it connected.
    pub(super) connected: u64,
    /// How often it lost the connection.
    pub(super) lost: u64,
    /// How often the server has said that we may not publish or subscribe to a subject.
    denied: HashMap<String, u64>,
    /// The inboxes that answers would come to, where the server has denied them on the connection that there is.
    pub(super) inbox_denied: Option<String>,
}

impl Changes {
    /// Notes that the server denies this subject; whether it is the first time.
    pub(super) fn deny(&mut self, subject: &str) -> bool {
        if self.denied.len() >= MAX_DENIED {
            self.denied.clear();
        }
        let times = self.denied.entry(subject.to_owned()).or_default();
        *times += 1;
        *times == 1
    }

    fn denials(&self, subject: &str) -> u64 {
        // Empty as a rule, and then nothing is hashed.
        match self.denied.is_empty() {
            true => 0,
            false => self.denied.get(subject).copied().unwrap_or_default(),
        }
    }
}

impl Live {
    /// Whether there is a connection now. Without the sender of changes there is no client any more, whatever state it
    /// was in last.
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected && !self.has_ended()
    }

    /// Whether the client is no more, by our will or because it broke down.
    pub(super) fn has_ended(&self) -> bool {
        self.changes.has_changed().is_err()
    }
}

impl Link {
    pub(super) fn new(live: Live, config: &Config) -> Self {
        Self {
            tasks: TaskTracker::new(),
            live: RwLock::new(Arc::new(live)),
            closing: AtomicBool::new(false),
            request_timeout: config.request_timeout,
            api: config.api_prefix(),
            names: config.names(),
        }
    }

    /// The client as it is now.
    pub(super) fn live(&self) -> Arc<Live> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&live)
    }

    /// Puts a new client in the place of one that broke down.
    pub(super) fn replace(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.live().is_connected()
    }

    /// Whether the end of the client is meant.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Waits for a connection, as long as it takes.
    pub(super) async fn connected(&self) -> Result<(), Fault> {
        loop {
            let live = self.live();
            if live.is_connected() {
                return Ok(());
            }
            if self.is_closing() {
                return Err(Fault::Closed);
            }
            let mut changes = live.changes.clone();
            // What it reported before is no news: each wait would end at once, and take a core for as long as this lasts. News of
            // this very moment is found by looking again.
            changes.mark_unchanged();
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Sends what is still to be sent and ends the client.
    pub(super) async fn close(&self) -> Result<(), Fault> {
        self.closing.store(true, Ordering::Relaxed);
        self.tasks.close();
        self.tasks.wait().await;
        self.flush().await?;
        let live = self.live();
        live.client.drain().await.map_err(|_| Fault::Closed)?;
        let mut changes = live.changes.clone();
        while changes.changed().await.is_ok() {}
        Ok(())
    }

    /// A future that is ready when the connection that is there now is lost, or the server denies what is about to be sent to
    /// this subject: it gives no other answer to that.
    pub(super) fn interrupted<S: AsRef<str> + Send + Sync>(
        &self,
        subject: S,
    ) -> impl Future<Output = Fault> + Send + use<S> {
        let mut changes = self.live().changes.clone();
        let (lost, denied) = {
            let seen = changes.borrow();
            (seen.lost, seen.denials(subject.as_ref()))
        };
        async move {
            let news = |now: &Changes| {
                now.lost != lost
                    || now.inbox_denied.is_some()
                    || now.denials(subject.as_ref()) != denied
            };
            // An error means that the client is gone, and the connection with it.
            match changes.wait_for(news).await {
                Ok(now) if now.lost == lost && now.inbox_denied.is_some() => Fault::Denied {
                    what: now.inbox_denied.clone().unwrap_or_default(),
                },
                Ok(now) if now.lost == lost => Fault::Denied {
                    what: subject.as_ref().to_owned(),
                },
                Ok(_) | Err(_) => Fault::Lost,
            }
        }
    }

    /// How long an answer is awaited.
    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Tells a connection on which no answer can arrive.
    pub(super) fn inbox_denied(&self) -> bool {
        self.live().changes.borrow().inbox_denied.is_some()
    }

    /// Does something within the time for a request. `what` names it.
    // No `async fn`: that would keep the work twice, as it was given and as it is awaited, in every turn.
    pub(super) fn in_time<'a, T>(
        &'a self,
        what: &'a str,
        work: impl Future<Output = Result<T, Fault>> + 'a,
    ) -> impl Future<Output = Result<T, Fault>> + 'a {
        timeout(self.request_timeout, work).map(move |done| match done {
            Ok(done) => done,
            Err(_) if self.is_connected() => Err(Fault::Unanswered {
                what: what.to_owned(),
                within: self.request_timeout,
            }),
            Err(_) => Err(Fault::Disconnected),
        })
    }

    /// Sends without an answer. Waits only while the client's queue is full, as it gets when the connection is lost.
    pub(super) async fn send(&self, subject: Subject, payload: Bytes) -> Result<(), Fault> {
        let live = self.live();
        let sent = async { live.client.publish(subject, payload).await.map_err(refused) };
        match timeout(self.request_timeout, sent).await {
            Ok(done) => done,
            Err(_) => Err(Fault::Disconnected),
        }
    }

    /// Publishes without an answer, and waits until it has left this process.
    pub(super) async fn publish(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), Fault> {
        self.in_time(subject, async {
            self.connected().await?;
            self.live()
                .client
                .publish_with_headers(subject.to_owned(), headers, payload)
                .await
                .map_err(refused)?;
            self.flush().await
        })
        .await
    }

    /// Waits until everything that was sent has left this process.
    pub(super) async fn flush(&self) -> Result<(), Fault> {
        self.live().client.flush().await.map_err(|_| Fault::Closed)
    }

    /// Asks, and waits for the answer for as long as the connection lives.
    pub(super) async fn request(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, Fault> {
        let request = Request {
            payload: Some(payload),
            headers,
            timeout: Some(None),
            inbox: None,
        };
        let (live, interrupted) = (self.live(), self.interrupted(subject));
        let answer = tokio::select! {
            answer = live.client.send_request(subject.to_owned(), request) => answer,
            fault = interrupted => return Err(fault),
        };
        answer.map_err(|error| match error.kind() {
            RequestErrorKind::MaxPayloadExceeded => Fault::TooLarge(error.to_string()),
            RequestErrorKind::NoResponders => Fault::NoResponders {
                what: subject.to_owned(),
            },
            RequestErrorKind::TimedOut
            | RequestErrorKind::InvalidSubject
            | RequestErrorKind::Other => Fault::Client(Box::new(error)),
        })
    }

    /// The subject of a request to JetStream's API.
    pub(super) fn api_subject(&self, method: &str) -> String {
        [&self.api, ".", method].concat()
    }

    /// Asks JetStream's API, e.g. `STREAM.INFO.X`, within the time for a request.
    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        method: &str,
        payload: &impl Serialize,
    ) -> Result<T, Fault> {
        let unreadable = |error| Fault::Unreadable {
            what: method.to_owned(),
            error,
        };
        let payload = serde_json::to_vec(payload).map_err(unreadable)?;
        let subject = self.api_subject(method);
        let answer = self
            .in_time(method, async {
                self.connected().await?;
                self.request(&subject, None, payload.into()).await
            })
            .await?;
        match serde_json::from_slice(&answer.payload).map_err(unreadable)? {
            Response::Ok(answer) => Ok(answer),
            Response::Err { error } => Err(Fault::Refused {
                what: method.to_owned(),
                error,
            }),
        }
    }
}

/// What a publish without an answer fails with.
pub(super) fn refused(error: async_nats::PublishError) -> Fault {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Fault::TooLarge(error.to_string()),
        PublishErrorKind::Send => Fault::Closed,
        PublishErrorKind::InvalidSubject => Fault::Client(Box::new(error)),
    }
}
