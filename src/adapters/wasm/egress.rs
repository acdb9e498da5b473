//! The way out for components: HTTP to allowed hosts, never to an address that no allowed name should lead to.
//!
//! The name is checked when the request is made and at every redirect; the address when a connection is opened, so that
//! a name cannot be pointed elsewhere between the check and the use. Proxies of the environment are not used: they would
//! look up names behind our back.

mod addresses;
mod names;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Url};

use super::config::HttpConfig;
use names::{Allowed, Forbidden};

/// Redirects followed for one request.
const REDIRECTS: usize = 5;
/// Named by the guest, or made of the call and the number of the request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Headers that belong to the connection, and `Host`, which could name another host than the one that is allowed.
const NOT_THEIRS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The clients of a worker, made when first needed.
#[derive(Debug)]
pub(super) struct Egress {
    allowed: Arc<Allowed>,
    config: HttpConfig,
    following: OnceLock<Option<Client>>,
    staying: OnceLock<Option<Client>>,
}

/// A request as a component makes it.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) timeout: Option<Duration>,
    pub(super) follow_redirects: bool,
    pub(super) idempotency_key: String,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// Why nothing came back. The texts hold nothing of the URL: it may carry a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Denied(#[from] Forbidden),
    #[error("the request cannot be made: {0}")]
    Invalid(&'static str),
    #[error("the {0} is larger than {1} bytes")]
    TooLarge(&'static str, usize),
    #[error("the host did not answer: {0}")]
    Unavailable(String),
}

impl Error {
    /// The code that components are told.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => "denied",
            Self::Invalid(_) => "invalid-request",
            Self::TooLarge(..) => "too-large",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl Egress {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self {
            allowed: Arc::new(Allowed::new(&config.allow)),
            config: config.clone(),
            following: OnceLock::new(),
            staying: OnceLock::new(),
        }
    }

    /// Sends a request and reads its answer.
    pub(super) async fn send(&self, exchange: Exchange) -> Result<Answer, Error> {
        let url = Url::parse(&exchange.url).map_err(|_| Error::Invalid("its URL is none"))?;
        self.allowed.check(&url)?;
        let most = self.config.request_bytes.get();
        if exchange.body.as_ref().is_some_and(|body| body.len() > most) {
            return Err(Error::TooLarge("body of the request", most));
        }
        let method = Method::from_bytes(exchange.method.as_bytes())
            .map_err(|_| Error::Invalid("its method is none"))?;
        let client = self.client(exchange.follow_redirects)?;
        let timeout = exchange
            .timeout
            .map_or(self.config.timeout, |asked| asked.min(self.config.timeout));
        let mut request = client.request(method, url).timeout(timeout);
        request = request.headers(headers(exchange.headers, &exchange.idempotency_key)?);
        if let Some(body) = exchange.body {
            request = request.body(body);
        }
        let response = request.send().await.map_err(failure)?;
        self.read(response).await
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Answer, Error> {
        let most = self.config.response_bytes.get();
        let too_large = || Error::TooLarge("body of the answer", most);
        if response
            .content_length()
            .is_some_and(|length| length > most as u64)
        {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            if body.len() + chunk.len() > most {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let headers = response.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        Ok(Answer {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body,
        })
    }

    fn client(&self, follow_redirects: bool) -> Result<&Client, Error> {
        let slot = match follow_redirects {
            true => &self.following,
            false => &self.staying,
        };
        let client = slot.get_or_init(|| {
            let built = build(&self.allowed, follow_redirects);
            built
                .inspect_err(
                    |error| tracing::error!(%error, "there is no HTTP client for components"),
                )
                .ok()
        });
        let none = || Error::Unavailable("the worker has no HTTP client".to_owned());
        client.as_ref().ok_or_else(none)
    }
}

fn build(allowed: &Arc<Allowed>, follow_redirects: bool) -> reqwest::Result<Client> {
    // Another part of the worker may have chosen the same one already.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let at_redirect = Arc::clone(allowed);
    let policy = match follow_redirects {
        true => Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS {
                return attempt.error("it was redirected too often");
            }
            match at_redirect.check(attempt.url()) {
                Ok(()) => attempt.follow(),
                Err(forbidden) => attempt.error(forbidden),
            }
        }),
        false => Policy::none(),
    };
    Client::builder()
        .redirect(policy)
        .referer(false)
        .no_proxy()
        .dns_resolver(Arc::clone(allowed))
        .user_agent(concat!("greentic-worker/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn headers(given: Vec<(String, String)>, idempotency_key: &str) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(given.len() + 1);
    for (name, value) in given {
        let name: HeaderName = name
            .parse()
            .map_err(|_| Error::Invalid("a header's name is none"))?;
        if NOT_THEIRS.contains(&name.as_str()) {
            continue;
        }
        let value = HeaderValue::from_str(&value)
            .map_err(|_| Error::Invalid("a header's value is none"))?;
        headers.append(name, value);
    }
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        let key = HeaderValue::from_str(idempotency_key)
            .map_err(|_| Error::Invalid("its idempotency key is none"))?;
        headers.insert(IDEMPOTENCY_KEY, key);
    }
    Ok(headers)
}

/// What failed, by its innermost cause and without the URL.
fn failure(error: reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = &error;
    loop {
        if let Some(forbidden) = cause.downcast_ref::<Forbidden>() {
            return Error::Denied(forbidden.clone());
        }
        match cause.source() {
            Some(inner) => cause = inner,
            None => break,
        }
    }
    if error.is_timeout() {
        return Error::Unavailable("it took too long".to_owned());
    }
    let innermost = cause.to_string();
    Error::Unavailable(match std::ptr::addr_eq(cause, &raw const error) {
        true => error.without_url().to_string(),
        false => innermost,
    })
}
