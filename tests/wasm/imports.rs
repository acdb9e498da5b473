use std::net::SocketAddr;
use std::sync::Mutex;

use greentic_worker::adapters::wasm::HttpConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const STATE: Declared = Declared {
    http: false,
    secrets: false,
    state_read: true,
    state_write: true,
};
const SECRETS: Declared = Declared {
    http: false,
    secrets: true,
    state_read: false,
    state_write: false,
};
pub(super) const HTTP: Declared = Declared {
    http: true,
    secrets: false,
    state_read: false,
    state_write: false,
};

#[track_caller]
pub(super) fn check(answer: Result<Value, ComponentError>, expected: Value) {
    assert_eq!(answer.unwrap(), expected);
}

#[track_caller]
pub(super) fn check_error(answer: Result<Value, ComponentError>, code: &str) {
    let answer = answer.unwrap();
    assert_eq!(answer["error"]["code"], code, "{answer}");
}

#[test]
fn every_interface_of_the_wit_folder_is_there_as_it_is_written() {
    let everything = components::everything();
    let stats = worker(&config()).prepare([Code {
        digest: ComponentDigest::of(&everything),
        name: "everything",
        bytes: &everything,
    }]);
    assert_eq!(stats.unwrap().compiled, 1);
}

#[tokio::test]
async fn state_is_read_through_the_turn_once_and_written_with_it() {
    let mut bench = Bench::new("state").granted(STATE, &[]);
    check_error(bench.run("read", json!("")).await, "not_found");
    check(bench.run("write", json!(r#"{"n":1}"#)).await, json!(true));
    assert_eq!(bench.state["k"], json!({"n": 1}));
    check(bench.run("read", json!("")).await, json!({"n": 1}));
    assert_eq!(bench.asked, ["k", "k"]);
    check(bench.run("both", json!("[1, 2]")).await, json!([1, 2]));
    assert_eq!(
        bench.asked.len(),
        2,
        "it asked for what it had written itself"
    );
    check(bench.run("new", json!("5")).await, json!(false));
    check(bench.run("delete", json!("")).await, json!(true));
    assert!(bench.state.is_empty());
    check(bench.run("new", json!("5")).await, json!(true));
    assert_eq!(bench.state["k"], json!(5));
}

#[tokio::test]
async fn state_that_is_not_declared_or_anothers_is_refused() {
    let mut bench = Bench::new("state");
    bench.state.insert("k".to_owned(), json!({"n": 1}));
    for operation in ["read", "write", "delete", "new"] {
        check_error(bench.run(operation, json!("2")).await, "denied");
    }
    let read_only = Declared {
        state_write: false,
        ..STATE
    };
    let mut bench = bench.granted(read_only, &[]);
    check(bench.run("read", json!("")).await, json!({"n": 1}));
    check_error(bench.run("write", json!("2")).await, "denied");
    let mut bench = bench.granted(STATE, &[]);
    check_error(bench.run("foreign", json!("")).await, "denied");
    assert_eq!(bench.state["k"], json!({"n": 1}));
}

#[tokio::test]
async fn state_beyond_the_limit_is_refused() {
    let small = Config {
        output_bytes: 50.try_into().unwrap(),
        ..config()
    };
    let mut bench = Bench::with("state", &small).granted(STATE, &[]);
    let long = format!("\"{}\"", "x".repeat(100));
    check_error(bench.run("write", json!(long)).await, "too-large");
    assert!(bench.state.is_empty());
}

#[tokio::test]
async fn secrets_are_the_granted_variables_by_any_spelling_and_nothing_else() {
    const NOT_FOUND: &str = "0";
    const DENIED: &str = "1";
    let env = [("API_TOKEN", "geheim")];
    let mut bench = Bench::new("secret").granted(SECRETS, &env);
    for name in ["API_TOKEN", "api_token", "api-token"] {
        check(bench.run(name, json!(1)).await, json!("geheim"));
    }
    check_error(bench.run("HOME", json!(1)).await, NOT_FOUND);
    let error = bench.run("put", json!(1)).await.unwrap_err();
    let refused = "component `secret` may not write a secret: there is no store to keep it";
    assert_eq!(error.to_string(), refused);
    assert!(matches!(error, ComponentError::Refused { .. }), "{error:?}");
    let mut bench = bench.granted(Declared::default(), &env);
    check_error(bench.run("API_TOKEN", json!(1)).await, DENIED);
}

#[tokio::test]
async fn settings_of_the_pack_are_read_and_tokens_are_not_to_be_had() {
    let mut bench = Bench::new("secret");
    check(bench.run("config", json!(1)).await, json!("north"));
    check(bench.run("oauth", json!(1)).await, Value::Null);
}

/// A server of one page that remembers what it was asked.
pub(super) async fn server(answer: &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
            record.lock().unwrap().push(request);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

pub(super) fn http(allow: &[&str]) -> Config {
    Config {
        http: HttpConfig {
            allow: allow.iter().map(|host| host.parse().unwrap()).collect(),
            response_bytes: 100.try_into().unwrap(),
            ..HttpConfig::default()
        },
        ..config()
    }
}

pub(super) const PAGE: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n{\"hi\":1}";

#[tokio::test]
async fn an_allowed_host_is_reached_with_a_key_that_every_attempt_has_in_common() {
    let (address, asked) = server(PAGE).await;
    let mut bench = Bench::with("http", &http(&["127.0.0.1"])).granted(HTTP, &[]);
    let url = json!(format!("http://{address}/x?token=1"));
    check(bench.run("get", url.clone()).await, json!({"hi": 1}));
    check(bench.run("old", url.clone()).await, json!({"hi": 1}));
    check(bench.run("twice", url).await, json!({"hi": 1}));
    let asked = asked.lock().unwrap();
    let keys: Vec<&str> = asked
        .iter()
        .filter_map(|request| {
            request
                .lines()
                .find(|line| line.starts_with("idempotency-key"))
        })
        .collect();
    let (first, second) = ("idempotency-key: turn-0-0", "idempotency-key: turn-0-1");
    assert_eq!(keys, [first, first, first, second]);
    assert!(
        asked[0].starts_with("get /x?token=1 http/1.1"),
        "{}",
        asked[0]
    );
}

#[tokio::test]
async fn what_is_not_declared_or_not_allowed_is_not_reached() {
    let (address, asked) = server(PAGE).await;
    let url = json!(format!("http://{address}/"));
    let mut undeclared = Bench::with("http", &http(&["127.0.0.1"]));
    check_error(undeclared.run("get", url.clone()).await, "denied");
    let mut closed = Bench::with("http", &http(&[])).granted(HTTP, &[]);
    check_error(closed.run("get", url).await, "denied");
    let mut bench = Bench::with(
        "http",
        &http(&["169.254.169.254", "*.localhost", "127.0.0.1"]),
    )
    .granted(HTTP, &[]);
    check_error(
        bench.run("get", json!("http://169.254.169.254/")).await,
        "denied",
    );
    check_error(
        bench
            .run("get", json!("http://[::ffff:169.254.169.254]/"))
            .await,
        "denied",
    );
    check_error(
        bench.run("get", json!("file:///etc/passwd")).await,
        "denied",
    );
    check_error(bench.run("get", json!("no url")).await, "invalid-request");
    assert!(asked.lock().unwrap().is_empty(), "something left");
}

#[tokio::test]
async fn a_redirect_leads_only_where_a_request_may_go() {
    let away = "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (address, _) = server(away).await;
    let mut bench = Bench::with("http", &http(&["127.0.0.1"])).granted(HTTP, &[]);
    let url = json!(format!("http://{address}/"));
    check_error(bench.run("get", url).await, "denied");
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_must_be_allowed_by_itself() {
    let (address, asked) = server(PAGE).await;
    let url = json!(format!("http://localhost:{}/", address.port()));
    let mut bench = Bench::with("http", &http(&["localhost"])).granted(HTTP, &[]);
    check(bench.run("get", url).await, json!({"hi": 1}));
    assert_eq!(asked.lock().unwrap().len(), 1);
    let url = json!(format!("http://a.localhost:{}/", address.port()));
    let mut bench = Bench::with("http", &http(&["*.localhost"])).granted(HTTP, &[]);
    let answer = bench.run("get", url).await.unwrap();
    // Where such a name has no address at all, the host does not answer.
    let code = answer["error"]["code"].as_str().unwrap();
    assert!(["denied", "unavailable"].contains(&code), "{answer}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_whatever_it_says_of_itself() {
    let said = "HTTP/1.1 200 OK\r\nContent-Length: 200\r\nConnection: close\r\n\r\n";
    let (address, _) = server(said).await;
    let mut bench = Bench::with("http", &http(&["127.0.0.1"])).granted(HTTP, &[]);
    check_error(
        bench.run("get", json!(format!("http://{address}/"))).await,
        "too-large",
    );
    let unsaid = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    let (address, _) = server(unsaid).await;
    check_error(
        bench.run("get", json!(format!("http://{address}/"))).await,
        "too-large",
    );
}
