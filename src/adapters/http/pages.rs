//! The pages of the endpoint. Those of health are made where they are asked for. Metrics are written on another thread,
//! one page at a time, and of pages that clients have not finished reading there are only a few.

use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Mutex;

use super::Endpoint;
use crate::telemetry::Exposition;

/// The most pages of metrics in memory of each format. Each is as large as there are tenants; while slow clients hold so many,
/// others get the last one of them.
const METRICS_PAGES: usize = 4;

/// The most problems of bindings that `/readyz` lists.
const UNUSABLE_SHOWN: usize = 100;

pub(super) type Answer = Response<Full<Bytes>>;

/// The answer to a request.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    endpoint: Endpoint,
    /// The pages of metrics that are still being read. Locked by the one that is being written.
    unread: Arc<Mutex<Vec<Weak<MetricsPage>>>>,
}

/// One page of metrics, shared by all who read it.
#[derive(Debug)]
pub(super) struct MetricsPage {
    format: Exposition,
    text: String,
}

/// A share in a page of metrics.
struct Share(Arc<MetricsPage>);

impl AsRef<[u8]> for Share {
    fn as_ref(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

/// A page of metrics that could not be written.
pub(super) enum Unwritten {
    Format(fmt::Error),
    Thread(tokio::task::JoinError),
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(error) => error.fmt(f),
            Self::Thread(error) => error.fmt(f),
        }
    }
}

impl Pages {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            unread: Arc::default(),
        }
    }

    /// Answers a request. One with a body is refused: the connection closes rather than read it.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        if !request.body().is_end_stream() {
            let refused = plain(StatusCode::PAYLOAD_TOO_LARGE, "no body is taken here\n");
            return with(refused, CONNECTION, "close");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET\n");
            return with(refused, ALLOW, "GET, HEAD");
        }
        match request.uri().path() {
            "/livez" => self.livez(),
            "/readyz" => self.readyz(),
            "/metrics" => self.metrics(accepted(&request)).await,
            _ => plain(StatusCode::NOT_FOUND, "/livez, /readyz, /metrics\n"),
        }
    }

    fn livez(&self) -> Answer {
        match self.endpoint.health.live() {
            Ok(()) => plain(StatusCode::OK, "alive\n"),
            Err(stall) => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("stalled: {stall}\n"),
            ),
        }
    }

    fn readyz(&self) -> Answer {
        let (status, reasons) = match self.endpoint.health.ready() {
            Ok(()) => (StatusCode::OK, Vec::new()),
            Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons),
        };
        let reasons: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
        let mut body = serde_json::json!({"ready": reasons.is_empty(), "reasons": reasons});
        let refused = self.endpoint.health.refusals();
        if !refused.is_empty() {
            body["state"] = "degraded".into();
            body["refused"] = serde_json::json!(refused);
        }
        let mut unusable = self.endpoint.health.unusable_bindings();
        if !unusable.is_empty() {
            let more = unusable.len().saturating_sub(UNUSABLE_SHOWN);
            unusable.truncate(UNUSABLE_SHOWN);
            body["state"] = "degraded".into();
            body["unusable"] = serde_json::json!(unusable);
            body["unusable_more"] = more.into();
        }
        with(
            plain(status, format!("{body}\n")),
            CONTENT_TYPE,
            "application/json",
        )
    }

    async fn metrics(&self, format: Exposition) -> Answer {
        match self.metrics_page(format).await {
            Ok(page) => with(
                plain(StatusCode::OK, Bytes::from_owner(Share(page))),
                CONTENT_TYPE,
                format.content_type(),
            ),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written");
                plain(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
            }
        }
    }

    /// The metrics as they are now, or the last page of those that slow clients hold. The lock goes along to the thread that
    /// writes, so that clients which give up do not let a second one begin.
    pub(super) async fn metrics_page(
        &self,
        format: Exposition,
    ) -> Result<Arc<MetricsPage>, Unwritten> {
        let mut unread = Arc::clone(&self.unread).lock_owned().await;
        unread.retain(|page| page.strong_count() > 0);
        let pages = unread.iter().filter_map(Weak::upgrade);
        let mut same: Vec<_> = pages.filter(|page| page.format == format).collect();
        if same.len() >= METRICS_PAGES
            && let Some(page) = same.pop()
        {
            return Ok(page);
        }
        let metrics = Arc::clone(&self.endpoint.metrics);
        let written = tokio::task::spawn_blocking(move || {
            let text = metrics.render(format)?;
            let page = Arc::new(MetricsPage { format, text });
            unread.push(Arc::downgrade(&page));
            Ok(page)
        });
        let written = written.await.map_err(Unwritten::Thread)?;
        written.map_err(Unwritten::Format)
    }
}

#[cfg(test)]
impl Pages {
    /// Returns the number of pages that are still being read.
    pub(super) async fn held(&self) -> usize {
        let unread = self.unread.lock().await;
        unread.iter().filter(|page| page.strong_count() > 0).count()
    }
}

fn accepted(request: &Request<Incoming>) -> Exposition {
    let accept = request.headers().get(ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    Exposition::accepted(accept.unwrap_or_default())
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    with(answer, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut answer: Answer, name: hyper::header::HeaderName, value: &'static str) -> Answer {
    let value = HeaderValue::from_static(value);
    answer.headers_mut().insert(name, value);
    answer
}
