//! `greentic:http/http-client`, its alias `client`, and the older `greentic:host/http-v1`: requests to hosts that the
//! operator allows.

use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::super::egress::{self, Exchange};
use super::super::guest::Guest;
use super::types::{HostError, TenantCtx};
use crate::telemetry::Capability;

pub(super) const NAMES: &[&str] = &[
    CLIENT_1_0[0],
    CLIENT_1_0[1],
    CLIENT_1_1[0],
    CLIENT_1_1[1],
    HOST,
];
const CLIENT_1_0: [&str; 2] = [
    "greentic:http/http-client@1.0.0",
    "greentic:http/client@1.0.0",
];
const CLIENT_1_1: [&str; 2] = [
    "greentic:http/http-client@1.1.0",
    "greentic:http/client@1.1.0",
];
const HOST: &str = "greentic:host/http-v1@1.0.0";

#[derive(ComponentType, Lift)]
#[component(record)]
struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct RequestOptions {
    #[component(name = "timeout-ms")]
    timeout_ms: Option<u32>,
    #[component(name = "allow-insecure")]
    allow_insecure: Option<bool>,
    #[component(name = "follow-redirects")]
    follow_redirects: Option<bool>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

type Store<'a> = StoreContextMut<'a, Guest>;

pub(super) fn add(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in CLIENT_1_0 {
        linker.instance(name)?.func_wrap_async(
            "send",
            |mut store: Store<'_>, (request, _): (Request, Option<TenantCtx>)| {
                Box::new(async move { Ok((send(store.data_mut(), request, None).await,)) })
            },
        )?;
    }
    for name in CLIENT_1_1 {
        linker.instance(name)?.func_wrap_async(
            "send",
            |mut store: Store<'_>,
             (request, options, _): (Request, Option<RequestOptions>, Option<TenantCtx>)| {
                Box::new(async move { Ok((send(store.data_mut(), request, options).await,)) })
            },
        )?;
    }
    linker.instance(HOST)?.func_wrap_async(
        "request",
        |mut store: Store<'_>,
         (method, url, headers, body): (String, String, Vec<String>, Option<Vec<u8>>)| {
            Box::new(async move {
                let request = Request {
                    method,
                    url,
                    headers: pairs(headers),
                    body,
                };
                let sent = send(store.data_mut(), request, None).await;
                let body = sent.map(|response| response.body.unwrap_or_default());
                Ok((body.map_err(|error| error.message),))
            })
        },
    )
}

async fn send(
    guest: &mut Guest,
    request: Request,
    options: Option<RequestOptions>,
) -> Result<Response, HostError> {
    if !guest.declared().http {
        guest.refused(Capability::Http);
        let why = "the pack's manifest does not declare that the component uses HTTP";
        return Err(HostError::new("denied", why));
    }
    let number = guest.requests;
    guest.requests += 1;
    let options = options.as_ref();
    if options.and_then(|options| options.allow_insecure) == Some(true) && guest.call.log.take() {
        tracing::debug!("a component asked for TLS without checks, and gets it with them");
    }
    let exchange = Exchange {
        method: request.method,
        url: request.url,
        headers: request.headers,
        body: request.body,
        timeout: options
            .and_then(|options| options.timeout_ms)
            .map(|ms| Duration::from_millis(ms.into())),
        follow_redirects: options
            .and_then(|options| options.follow_redirects)
            .unwrap_or(true),
        idempotency_key: format!("{}-{number}", guest.call.idempotency_key),
    };
    match guest.egress.send(exchange).await {
        Ok(answer) => Ok(Response {
            status: answer.status,
            headers: answer.headers,
            body: Some(answer.body),
        }),
        Err(error) => {
            if matches!(error, egress::Error::Denied(_)) {
                guest.refused(Capability::Http);
            }
            Err(HostError::new(error.code(), error.to_string()))
        }
    }
}

/// Names and values in turn; a name without a value is dropped.
fn pairs(headers: Vec<String>) -> Vec<(String, String)> {
    let mut pairs = Vec::with_capacity(headers.len() / 2);
    let mut headers = headers.into_iter();
    while let (Some(name), Some(value)) = (headers.next(), headers.next()) {
        pairs.push((name, value));
    }
    pairs
}
