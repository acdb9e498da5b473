//! Every kind of address against a server of its kind, on this machine.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::config::{Az, Gs, Host, S3};
use super::*;
use crate::model::{PackRef, Secret};

mod registry;

const ARCHIVE: &[u8] = b"the bytes of an archive";
const LIMIT: u64 = 1000;

/// What was asked of a server: method, path with its query, and the authorization.
type Asked = (String, String, String);

/// A web server that answers as the test says.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `answer` gets the number of the request, from 1, and what is asked.
    async fn start(
        answer: impl Fn(usize, &Asked) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let app = Router::new().fallback(move |request: Request| {
            let uri = request.uri();
            let path = uri.path_and_query().map(ToString::to_string);
            let login = request.headers().get("authorization");
            let login = login.map(|value| value.to_str().unwrap().to_owned());
            let request = (
                request.method().to_string(),
                path.unwrap_or_default(),
                login.unwrap_or_default(),
            );
            let mut all = seen.lock().unwrap();
            all.push(request.clone());
            let response = answer(all.len(), &request);
            std::future::ready(response)
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(status: u16, body: &[u8]) -> Response {
    let response = Response::builder().status(status);
    response.body(Body::from(body.to_vec())).unwrap()
}

fn pack() -> PackId {
    PackId::of_archive(ARCHIVE)
}

fn remote(reference: &str) -> RemoteRef {
    match PackRef::parse(reference, Path::new("")).unwrap() {
        PackRef::Remote(remote) => remote,
        other @ (PackRef::Store { .. } | PackRef::File(_)) => panic!("{other} is not remote"),
    }
}

async fn fetch(access: Access, reference: &str) -> Result<Vec<u8>, FetchError> {
    let remotes = Remote::new(access, BTreeMap::new());
    remotes.fetch(&pack(), &remote(reference), LIMIT).await
}

/// What fetching a file comes to from a server that gives these statuses in turn, the last one for ever; and how often
/// it was asked.
async fn after(statuses: &'static [u16]) -> (Result<Vec<u8>, FetchError>, usize) {
    let server = Server::start(move |n, _| {
        let status = statuses[(n - 1).min(statuses.len() - 1)];
        answer(status, if status == 200 { ARCHIVE } else { b"no" })
    })
    .await;
    let fetched = fetch(Access::default(), &server.url("/a.gtpack")).await;
    (fetched, server.asked().len())
}

#[tokio::test]
async fn trouble_that_may_pass_is_waited_out_and_the_rest_told_at_once() {
    let (fetched, asked) = after(&[200]).await;
    assert_eq!((fetched.unwrap().as_slice(), asked), (ARCHIVE, 1));
    let (fetched, asked) = after(&[500, 503, 200]).await;
    assert_eq!((fetched.unwrap().as_slice(), asked), (ARCHIVE, 3));
    let (fetched, asked) = after(&[429]).await;
    assert!(
        matches!(fetched, Err(FetchError::Unavailable(_))),
        "{fetched:?}"
    );
    assert_eq!(asked, 4);
    for status in [404, 410] {
        let (fetched, asked) = after(if status == 404 { &[404] } else { &[410] }).await;
        assert!(
            matches!(fetched, Err(FetchError::NotFound(_))),
            "{fetched:?}"
        );
        assert_eq!(asked, 1);
    }
    let (fetched, asked) = after(&[401]).await;
    assert!(matches!(fetched, Err(FetchError::Denied(_))), "{fetched:?}");
    assert_eq!(asked, 1);
    let (fetched, asked) = after(&[400]).await;
    assert!(
        matches!(fetched, Err(FetchError::Refused(_))),
        "{fetched:?}"
    );
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let fetched = fetch(Access::default(), &format!("http://{address}/a")).await;
    assert!(
        matches!(fetched, Err(FetchError::Unavailable(_))),
        "{fetched:?}"
    );
}

#[tokio::test]
async fn what_comes_is_the_pack_that_was_asked_for_or_nothing() {
    let server = Server::start(|_, _| answer(200, b"something else")).await;
    let fetched = fetch(Access::default(), &server.url("/a")).await;
    assert!(
        matches!(fetched, Err(FetchError::Identity { .. })),
        "{fetched:?}"
    );
    assert_eq!(server.asked().len(), 1, "the same thing was fetched again");
}

#[tokio::test]
async fn a_download_ends_as_soon_as_it_is_too_large() {
    let told = Server::start(|_, _| answer(200, &[0; 1001])).await;
    // Without a length the limit shows on the way.
    let endless = Server::start(|_, _| {
        let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 300]));
        Response::new(Body::from_stream(pieces))
    })
    .await;
    for server in [told, endless] {
        let fetched = fetch(Access::default(), &server.url("/a")).await;
        assert!(
            matches!(fetched, Err(FetchError::TooLarge { limit: LIMIT })),
            "{fetched:?}"
        );
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_is_begun_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let sent = if n == 0 { &ARCHIVE[..7] } else { ARCHIVE };
            serve_file(stream.unwrap(), sent);
        }
    });
    let fetched = fetch(Access::default(), &format!("http://{address}/a")).await;
    assert_eq!(fetched.unwrap(), ARCHIVE);
}

/// Answers one request with a file that claims to be the archive.
fn serve_file(mut stream: impl std::io::Read + Write, sent: &[u8]) {
    read_head(&mut stream);
    let length = ARCHIVE.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(sent).unwrap();
    stream.flush().unwrap();
}

/// Reads a request to the end of its head: a client takes an answer that comes before for none of its own.
fn read_head(stream: impl std::io::Read) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
}

#[tokio::test]
async fn credentials_of_the_settings_are_sent_and_only_to_their_host() {
    let theirs = Server::start(|_, _| answer(200, ARCHIVE)).await;
    let elsewhere = format!("http://localhost:{}/moved", theirs.address.port());
    let ours = Server::start(move |_, asked| {
        let moved = asked.1 == "/moves";
        let response = Response::builder().status(if moved { 302 } else { 200 });
        let response = response.header("location", &elsewhere);
        response.body(Body::from(ARCHIVE)).unwrap()
    })
    .await;
    let secret = |text: &str| Some(Secret::new(text));
    let basic = Host {
        username: Some("u".to_owned()),
        password: secret("p"),
        ..Host::default()
    };
    let bearer = Host {
        token: secret("t"),
        ..Host::default()
    };
    for (host, path, expected) in [(basic, "/a", "Basic dTpw"), (bearer, "/moves", "Bearer t")] {
        let access = Access {
            hosts: BTreeMap::from([(ours.address.to_string(), host)]),
            ..Access::default()
        };
        assert_eq!(fetch(access, &ours.url(path)).await.unwrap(), ARCHIVE);
        assert_eq!(ours.asked().pop().unwrap().2, expected);
    }
    assert_eq!(
        theirs.asked().pop().unwrap().2,
        "",
        "the token went elsewhere"
    );
}

#[tokio::test]
async fn plain_http_is_for_this_machine_or_where_the_settings_allow_it() {
    let reference = "http://packs.invalid/a.gtpack";
    let fetched = fetch(Access::default(), reference).await;
    assert!(
        matches!(fetched, Err(FetchError::Plain { .. })),
        "{fetched:?}"
    );
    let allowed = Host {
        plain_http: true,
        ..Host::default()
    };
    let access = Access {
        hosts: BTreeMap::from([("packs.invalid".to_owned(), allowed)]),
        ..Access::default()
    };
    // There is no such host, but it was looked for.
    let fetched = fetch(access, reference).await;
    assert!(
        matches!(fetched, Err(FetchError::Unavailable(_))),
        "{fetched:?}"
    );
}

fn tls_file(name: &str) -> PathBuf {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/turn_store/tls");
    files.join(name)
}

/// A TLS server on a thread of its own that answers every request with the archive, or with a redirect.
fn tls_server(redirect: Option<String>) -> SocketAddr {
    let certificates = CertificateDer::pem_file_iter(tls_file("server.pem")).unwrap();
    let certificates: Vec<_> = certificates.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            // A client that does not trust us hangs up in the middle.
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                continue;
            }
            match &redirect {
                None => serve_file(&mut stream, ARCHIVE),
                Some(to) => {
                    read_head(&mut stream);
                    let head = format!(
                        "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
                    );
                    stream.write_all(head.as_bytes()).unwrap();
                }
            }
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

#[tokio::test]
async fn tls_trusts_the_authorities_of_the_settings_and_no_others() {
    let reference = format!("https://{}/a", tls_server(None));
    let trusting = || Access {
        ca_file: Some(tls_file("ca.pem")),
        ..Access::default()
    };
    assert_eq!(fetch(trusting(), &reference).await.unwrap(), ARCHIVE);
    let fetched = fetch(Access::default(), &reference).await;
    assert!(
        matches!(fetched, Err(FetchError::Unavailable(_))),
        "{fetched:?}"
    );

    let plain = Server::start(|_, _| answer(200, ARCHIVE)).await;
    let downgrading = format!("https://{}/a", tls_server(Some(plain.url("/a"))));
    let fetched = fetch(trusting(), &downgrading).await;
    assert!(
        matches!(fetched, Err(FetchError::Refused(_))),
        "{fetched:?}"
    );
    assert!(plain.asked().is_empty());
}

#[tokio::test]
async fn objects_come_from_buckets_with_signed_requests() {
    let server = Server::start(|_, asked| match asked.1.replace("%2F", "/").as_str() {
        "/bucket/some/key" => {
            let response = Response::builder()
                .header("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT")
                .header("etag", "\"1\"");
            response.body(Body::from(ARCHIVE)).unwrap()
        }
        "/bucket/secret" => answer(403, b"<Error><Code>AccessDenied</Code></Error>"),
        _ => answer(404, b"<Error><Code>NoSuchKey</Code></Error>"),
    })
    .await;
    let access = || Access {
        s3: S3 {
            endpoint: Some(server.url("")),
            region: Some("here".to_owned()),
            access_key_id: Some("key-id".to_owned()),
            secret_access_key: Some(Secret::new("hush")),
            ..S3::default()
        },
        gs: Gs {
            endpoint: Some(server.url("")),
            anonymous: true,
            ..Gs::default()
        },
        az: Az {
            endpoint: Some(server.url("")),
            account: Some("account".to_owned()),
            access_key: Some(Secret::new("aHVzaA==")),
            ..Az::default()
        },
        ..Access::default()
    };
    for (cloud, signed) in [
        ("s3", "AWS4-HMAC-SHA256 Credential=key-id/"),
        ("gs", ""),
        ("az", "SharedKey account:"),
    ] {
        let fetched = fetch(access(), &format!("{cloud}://bucket/some/key")).await;
        assert_eq!(fetched.unwrap(), ARCHIVE, "{cloud}");
        let (_, path, login) = server.asked().pop().unwrap();
        assert!(login.starts_with(signed), "{cloud}: {path}: {login}");
        assert!(!login.contains("hush"));
        let fetched = fetch(access(), &format!("{cloud}://bucket/absent")).await;
        assert!(
            matches!(fetched, Err(FetchError::NotFound(_))),
            "{fetched:?}"
        );
        let fetched = fetch(access(), &format!("{cloud}://bucket/secret")).await;
        assert!(matches!(fetched, Err(FetchError::Denied(_))), "{fetched:?}");
    }
}

#[tokio::test]
async fn what_the_settings_leave_open_is_taken_from_the_clouds_own_variables() {
    let server = Server::start(|_, _| answer(404, b"")).await;
    let variables = [
        ("AWS_ACCESS_KEY_ID", "from-the-environment"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("AWS_REGION", "there"),
        ("AWS_UNHEARD_OF", "x"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let access = Access {
        s3: S3 {
            endpoint: Some(server.url("")),
            ..S3::default()
        },
        ..Access::default()
    };
    let remotes = Remote::new(access, variables.into_iter().collect());
    let fetched = remotes.fetch(&pack(), &remote("s3://b/k"), LIMIT).await;
    assert!(
        matches!(fetched, Err(FetchError::NotFound(_))),
        "{fetched:?}"
    );
    let login = server.asked().pop().unwrap().2;
    assert!(
        login.contains("Credential=from-the-environment/"),
        "{login}"
    );
    assert!(login.contains("/there/s3/"), "{login}");
}
