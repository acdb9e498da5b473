//! Archives on web servers.

use std::net::{IpAddr, Ipv6Addr};

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, ClientBuilder};

use super::error::chain;
use super::intake::Intake;
use super::{Access, CONNECT_TIMEOUT, FetchError, READ_TIMEOUT, config::Host, roots};
use crate::model::{RemoteRef, WebRef};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// A client for web servers, with the authorities that the settings add.
pub(super) fn client(access: &Access) -> Result<Client, FetchError> {
    let unfit = |error| FetchError::Settings {
        section: "packs.ca_file",
        reason: chain(error),
    };
    let mut builder = ClientBuilder::new()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(concat!("greentic-worker/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::custom(follow));
    if let Some(pem) = roots(access)? {
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(unfit)?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(unfit)
}

/// Follows as long as no redirect leads from TLS to plain HTTP.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let is_plain = |url: &reqwest::Url| url.scheme() != "https";
    let downgraded = is_plain(attempt.url()) && !attempt.previous().iter().all(is_plain);
    if downgraded {
        attempt.error("the server redirects to plain HTTP")
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("the server redirects again and again")
    } else {
        attempt.follow()
    }
}

/// Fetches a file.
pub(super) async fn fetch(
    client: &Client,
    host: Option<&Host>,
    (web, reference): (&WebRef, &RemoteRef),
    limit: u64,
) -> Result<Vec<u8>, FetchError> {
    if !web.tls && !is_loopback(&web.host) && !host.is_some_and(|host| host.plain_http) {
        return Err(FetchError::Plain {
            host: web.host.clone(),
        });
    }
    let mut request = client.get(web.url());
    if let Some(host) = host {
        request = match (&host.token, &host.username) {
            (Some(token), _) => request.bearer_auth(token.expose()),
            (None, Some(user)) => {
                request.basic_auth(user, host.password.as_ref().map(|word| word.expose()))
            }
            (None, None) => request,
        };
    }
    let mut answer = request.send().await.map_err(failed)?;
    if let Some(error) = FetchError::of_status(answer.status().as_u16()) {
        return Err(error);
    }
    let mut intake = Intake::new(reference, limit, answer.content_length())?;
    while let Some(piece) = answer.chunk().await.map_err(failed)? {
        intake.take(&piece)?;
    }
    intake.finish()
}

/// Whether a host, with or without a port, is this machine.
fn is_loopback(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[') {
        let address = v6.split(']').next().unwrap_or_default();
        return address.parse().is_ok_and(|v6: Ipv6Addr| v6.is_loopback());
    }
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Without the address: a query may hold a signature, and the message names the reference anyway.
fn failed(error: reqwest::Error) -> FetchError {
    let hopeless = error.is_builder() || error.is_redirect();
    let reason = chain(error.without_url());
    if hopeless {
        FetchError::Refused(reason)
    } else {
        FetchError::Unavailable(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:8080", true),
            ("127.0.0.1:1", true),
            ("127.9.9.9", true),
            ("[::1]:443", true),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("[::2]", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
