//! The operator's endpoint: `GET /livez`, `/readyz` and `/metrics`.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::telemetry::{Health, Metrics};

/// The settings under `http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the endpoint listens.
    pub listen: Listen,
    /// The worker counts as stalled when no pull has come to its end for this long.
    #[serde(with = "humantime_serde")]
    pub stalled_after: Duration,
}

/// Where the endpoint listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

/// A text that is neither an address nor `off`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is nowhere to listen: expected an address such as `127.0.0.1:8080`, or `off`")]
pub struct InvalidListen(String);

/// What the endpoint tells of.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// For `/livez` and `/readyz`.
    pub health: Arc<Health>,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
}

/// Serves the endpoint on a bound listener until `shutdown` ends, then finishes the answers that are under way. A client
/// that does not read its answer can hold that up: drop the future to stop at once.
///
/// # Errors
/// None at present: what fails to be accepted is tried again.
pub async fn serve(
    listener: TcpListener,
    endpoint: Endpoint,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(endpoint))
        .with_graceful_shutdown(shutdown)
        .await
}

fn router(endpoint: Endpoint) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(endpoint)
}

async fn livez(State(endpoint): State<Endpoint>) -> (StatusCode, String) {
    match endpoint.health.live() {
        Ok(()) => (StatusCode::OK, "alive\n".to_owned()),
        Err(age) => {
            let seconds = age.as_secs();
            let text = format!("stalled: no pull has come to its end for {seconds}s\n");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

async fn readyz(State(endpoint): State<Endpoint>) -> Response {
    let (status, reasons) = match endpoint.health.ready() {
        Ok(()) => (StatusCode::OK, Vec::new()),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    };
    let reasons: Vec<&str> = reasons.iter().map(|reason| reason.as_str()).collect();
    let mut body = serde_json::json!({"ready": reasons.is_empty(), "reasons": reasons});
    let refused = endpoint.health.refusals();
    if !refused.is_empty() {
        body["state"] = "degraded".into();
        body["refused"] = serde_json::json!(refused);
    }
    let json = [(CONTENT_TYPE, "application/json")];
    (status, json, format!("{body}\n")).into_response()
}

async fn metrics(State(endpoint): State<Endpoint>) -> Response {
    match endpoint.metrics.render() {
        Ok(page) => ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 8080))),
            stalled_after: Duration::from_secs(60),
        }
    }
}

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| InvalidListen(text.to_owned()))
    }
}

impl TryFrom<String> for Listen {
    type Error = InvalidListen;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::model::TenantId;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[track_caller]
    fn check(answer: &str, status: &str, parts: &[&str]) {
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        for part in parts {
            assert!(answer.contains(part), "no {part} in {answer}");
        }
    }

    #[tokio::test]
    async fn the_endpoint_tells_of_life_readiness_and_metrics_until_it_is_stopped() {
        let health = Arc::new(Health::new(Duration::from_secs(60)));
        let metrics = Arc::new(Metrics::new(health.clone()));
        metrics
            .tenant(&TenantId::new("dev.local").unwrap())
            .redelivered();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let endpoint = Endpoint {
            health: health.clone(),
            metrics,
        };
        let served = tokio::spawn(serve(listener, endpoint, async {
            stopped.await.unwrap_or_default();
        }));

        check(&get(address, "/livez").await, "200", &["alive"]);
        check(
            &get(address, "/readyz").await,
            "503",
            &[
                "application/json",
                r#"{"ready":false,"reasons":["starting","nats is unreachable","redis is unreachable"]}"#,
            ],
        );
        health.started();
        health.nats_up(true);
        health.redis_up(true);
        check(
            &get(address, "/readyz").await,
            "200",
            &[r#"{"ready":true,"reasons":[]}"#],
        );
        let counted = r#"greentic_worker_redeliveries_total{tenant="dev.local"} 1"#;
        check(
            &get(address, "/metrics").await,
            "200",
            &["openmetrics-text", counted, "greentic_worker_ready 1"],
        );
        check(&get(address, "/").await, "404", &[]);

        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_stalled_worker_is_not_alive_and_says_since_when() {
        let health = Arc::new(Health::new(Duration::ZERO));
        let metrics = Arc::new(Metrics::new(health.clone()));
        let (status, text) = livez(State(Endpoint { health, metrics })).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(
            text.starts_with("stalled: no pull has come to its end for 0s"),
            "{text}"
        );
    }
}
