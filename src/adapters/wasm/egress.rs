//! The way out for components: HTTP to allowed hosts, never to an address that no allowed name should lead to.
//!
//! The name is checked when the request is made and at every redirect; the address when a connection is opened, so that
//! a name cannot be pointed elsewhere between the check and the use. Proxies of the environment are not used: they would
//! look up names behind our back.

mod addresses;
mod names;
mod own_servers;
mod redirect;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Url};

use super::config::HttpConfig;
use super::host_pattern::HostPattern;
use crate::model::TenantId;
use names::{Allowed, Forbidden, Lookup};
pub(super) use own_servers::OwnServers;
use redirect::Request;

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

/// The ways out of a worker's tenants.
#[derive(Debug)]
pub(super) struct Egresses {
    common: Arc<Egress>,
    /// Of tenants that have a list of their own: they share no connection with others.
    tenants: BTreeMap<TenantId, Arc<Egress>>,
}

/// One way out: a list of hosts, and the clients that go by it, made when first needed.
#[derive(Debug)]
pub(super) struct Egress {
    allowed: Allowed,
    config: HttpConfig,
    /// By the port, if it is that of a server of the worker's own.
    clients: Mutex<HashMap<Option<u16>, Client>>,
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

impl Egresses {
    /// The ways out: tenants that have a list of their own go by that in place of the common one.
    pub(super) fn new(
        config: &HttpConfig,
        tenants: &BTreeMap<TenantId, Vec<HostPattern>>,
        own: &Arc<OwnServers>,
    ) -> Self {
        let egress = |allow: &[HostPattern]| {
            Arc::new(Egress {
                allowed: Allowed::new(allow, Arc::clone(own)),
                config: config.clone(),
                clients: Mutex::default(),
            })
        };
        Self {
            common: egress(&config.allow),
            tenants: tenants
                .iter()
                .map(|(tenant, allow)| (tenant.clone(), egress(allow)))
                .collect(),
        }
    }

    /// The way out of this tenant.
    pub(super) fn of(&self, tenant: &TenantId) -> &Arc<Egress> {
        self.tenants.get(tenant).unwrap_or(&self.common)
    }
}

impl Egress {
    /// Sends a request and reads its answer.
    pub(super) async fn send(&self, exchange: Exchange) -> Result<Answer, Error> {
        let timeout = exchange
            .timeout
            .map_or(self.config.timeout, |asked| asked.min(self.config.timeout));
        let sent = tokio::time::timeout(timeout, self.exchange(exchange)).await;
        sent.unwrap_or_else(|_| Err(Error::Unavailable("it took too long".to_owned())))
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Answer, Error> {
        let most = self.config.request_bytes.get();
        let url = Url::parse(&exchange.url).map_err(|_| Error::Invalid("its URL is none"))?;
        let own_port = self.allowed.check(&url).await?;
        if exchange.body.as_ref().is_some_and(|body| body.len() > most) {
            return Err(Error::TooLarge("body of the request", most));
        }
        let mut request = Request {
            method: Method::from_bytes(exchange.method.as_bytes())
                .map_err(|_| Error::Invalid("its method is none"))?,
            url,
            headers: headers(exchange.headers, &exchange.idempotency_key)?,
            body: exchange.body.map(Bytes::from),
        };
        let mut client = self.client(own_port)?;
        for _ in 0..=REDIRECTS {
            let response = request.clone().send(&client).await.map_err(failure)?;
            let next = match exchange.follow_redirects {
                true => request.redirected(&response),
                false => None,
            };
            let Some(next) = next else {
                return self.read(response).await;
            };
            client = self.client(self.allowed.check(&next.url).await?)?;
            request = next;
        }
        Err(Error::Unavailable("it was redirected too often".to_owned()))
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

    fn client(&self, own_port: Option<u16>) -> Result<Client, Error> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&own_port) {
            return Ok(client.clone());
        }
        let allowed = self.allowed.clone();
        let client = build(Lookup { allowed, own_port }).map_err(|error| {
            tracing::error!(%error, "there is no HTTP client for components");
            Error::Unavailable("the worker has no HTTP client".to_owned())
        })?;
        clients.insert(own_port, client.clone());
        Ok(client)
    }
}

fn build(lookup: Lookup) -> reqwest::Result<Client> {
    // Another part of the worker may have chosen the same one already.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .dns_resolver(Arc::new(lookup))
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
    let innermost = cause.to_string();
    Error::Unavailable(match std::ptr::addr_eq(cause, &raw const error) {
        true => error.without_url().to_string(),
        false => innermost,
    })
}
