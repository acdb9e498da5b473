use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::model::TenantId;
use crate::telemetry::Exposition;

/// An endpoint that is served until this is dropped.
struct Served {
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

async fn served(config: Config) -> Served {
    let health = Arc::new(Health::new(config.stalled_after));
    let metrics = Arc::new(Metrics::new(health.clone()));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = Endpoint {
        health: health.clone(),
        metrics: metrics.clone(),
    };
    let task = tokio::spawn(serve(listener, endpoint, config));
    Served {
        address,
        health,
        metrics,
        _task: tokio_util::task::AbortOnDropHandle::new(task),
    }
}

/// A connection on which this was sent.
async fn sent(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Everything that comes until the connection is closed.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // One that is reset is closed, too.
    let _closed = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    rest(sent(address, &request).await).await
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
    let served = served(Config::default()).await;
    let (address, health) = (served.address, served.health.clone());
    let tenant = TenantId::new("dev.local").unwrap();
    served.metrics.tenant(&tenant).redelivered();
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
        &[
            "text/plain; version=0.0.4",
            counted,
            "# TYPE greentic_worker_redeliveries_total counter",
            "greentic_worker_ready 1",
        ],
    );
    let openmetrics = "GET /metrics HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\
                       Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.3\r\n\r\n";
    check(
        &rest(sent(address, openmetrics).await).await,
        "200",
        &["openmetrics-text", counted, "# EOF"],
    );
    check(&get(address, "/").await, "404", &[]);
    drop(served);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stalled_worker_is_not_alive_and_says_since_when() {
    let config = Config {
        stalled_after: Duration::ZERO,
        ..Config::default()
    };
    let served = served(config).await;
    served.health.started();
    check(
        &get(served.address, "/livez").await,
        "503",
        &["stalled: no pull has come to its end for 0s"],
    );
}

#[tokio::test]
async fn a_request_may_have_no_body_no_large_head_and_no_other_method() {
    let address = served(Config::default()).await;
    let ask = async |request: String| rest(sent(address.address, &request).await).await;
    let body = "GET /livez HTTP/1.1\r\nHost: w\r\nContent-Length: 1000000\r\n\r\n".to_owned();
    check(&ask(body).await, "413", &[]);
    let chunked = "POST /livez HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n";
    check(&ask(chunked.to_owned()).await, "413", &[]);
    let post = "POST /livez HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n".to_owned();
    check(&ask(post).await, "405", &["allow: GET, HEAD"]);
    let large = format!(
        "GET /livez HTTP/1.1\r\nHost: w\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    check(&ask(large).await, "431", &[]);
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(200));
    check(&ask(many).await, "431", &[]);
}

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: w\r\n\r\n";

fn closing_after(timeout: Duration) -> Config {
    Config {
        timeout,
        ..Config::default()
    }
}

#[tokio::test]
async fn a_connection_closes_when_no_request_is_completed() {
    let timeout = Duration::from_secs(2);
    let served = served(closing_after(timeout)).await;
    let half = sent(served.address, &LIVEZ[..30]).await;
    let mut idle = sent(served.address, LIVEZ).await;
    tokio::time::sleep(timeout / 4).await;
    // A request gives the connection its time anew.
    let asked = Instant::now();
    idle.write_all(LIVEZ.as_bytes()).await.unwrap();
    let answers = rest(idle).await;
    assert_eq!(answers.matches("alive").count(), 2, "{answers}");
    assert!(asked.elapsed() >= timeout, "{:?}", asked.elapsed());
    assert_eq!(rest(half).await, "");
}

#[tokio::test]
async fn a_connection_closes_when_an_answer_is_not_read() {
    let timeout = Duration::from_secs(2);
    let served = served(closing_after(timeout)).await;
    for n in 0..3_000 {
        let tenant = TenantId::new(format!("tenant-{n}").as_str()).unwrap();
        served.metrics.tenant(&tenant).redelivered();
    }
    // More than the sockets between the two hold.
    let unread = sent(served.address, &LIVEZ.replace("livez", "metrics").repeat(3)).await;
    tokio::time::sleep(timeout * 2).await;
    let read = rest(unread).await;
    assert!(read.contains("200 OK"));
    // The last metric of a page.
    let last = "# TYPE process_max_fds gauge";
    assert!(read.matches(last).count() < 3);
}

#[tokio::test]
async fn a_new_connection_takes_the_place_of_the_oldest() {
    let config = Config {
        connections: NonZeroUsize::new(8).unwrap(),
        timeout: Duration::from_secs(3600),
        ..Config::default()
    };
    let served = served(config).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(sent(served.address, "GET /livez HTTP/1.1\r\n").await);
        check(&get(served.address, "/livez").await, "200", &["alive"]);
    }
    // The last ones of them are still open, and the first are not.
    let mut last = held.pop().unwrap();
    last.write_all(b"Host: w\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    check(&rest(last).await, "200", &["alive"]);
    assert_eq!(rest(held.swap_remove(0)).await, "");
}

#[tokio::test]
async fn slow_clients_hold_a_few_pages_of_metrics_at_the_most() {
    let health = Arc::new(Health::new(Duration::from_secs(60)));
    let metrics = Arc::new(Metrics::new(health.clone()));
    let pages = pages::Pages::new(Endpoint { health, metrics });
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(
            pages
                .metrics_page(Exposition::Prometheus)
                .await
                .ok()
                .unwrap(),
        );
    }
    held.dedup_by(|a, b| Arc::ptr_eq(a, b));
    assert_eq!(held.len(), 4);
    drop(held);
    pages
        .metrics_page(Exposition::OpenMetrics)
        .await
        .ok()
        .unwrap();
    assert_eq!(pages.held().await, 0);
}
