//! Redirects, one hop at a time: each is checked as the first request was, and may need another connection.

use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName,
    LOCATION, PROXY_AUTHORIZATION, TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use reqwest::{Client, Method, Response, StatusCode, Url};

/// Headers that describe a body.
const OF_BODY: [HeaderName; 4] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    TRANSFER_ENCODING,
];
/// Headers that are for one host only.
const OF_HOST: [HeaderName; 4] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE];

/// A request that can be sent again.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
}

impl Request {
    pub(super) async fn send(self, client: &Client) -> reqwest::Result<Response> {
        let mut request = client.request(self.method, self.url).headers(self.headers);
        if let Some(body) = self.body {
            request = request.body(body);
        }
        request.send().await
    }

    /// The request that this answer asks for in place of this one.
    pub(super) fn redirected(&self, answer: &Response) -> Option<Self> {
        let location = answer.headers().get(LOCATION)?.to_str().ok()?;
        self.moved(answer.status(), location)
    }

    fn moved(&self, status: StatusCode, location: &str) -> Option<Self> {
        let reads_only = [Method::GET, Method::HEAD].contains(&self.method);
        let becomes_get = match status {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            StatusCode::SEE_OTHER => !reads_only,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => false,
            _ => return None,
        };
        let mut next = Self {
            url: self.url.join(location).ok()?,
            ..self.clone()
        };
        if becomes_get {
            next.method = Method::GET;
            next.body = None;
            OF_BODY
                .iter()
                .for_each(|name| drop(next.headers.remove(name)));
        }
        if next.url.origin() != self.url.origin() {
            OF_HOST
                .iter()
                .for_each(|name| drop(next.headers.remove(name)));
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method) -> Request {
        let headers = [
            (AUTHORIZATION, "secret"),
            (CONTENT_TYPE, "text/plain"),
            (HeaderName::from_static("x-a"), "b"),
        ];
        let headers = headers.map(|(name, value)| (name, value.parse().unwrap()));
        Request {
            method,
            url: Url::parse("https://a.example/x/y").unwrap(),
            headers: headers.into_iter().collect(),
            body: Some(Bytes::from_static(b"body")),
        }
    }

    #[track_caller]
    fn check(method: Method, status: u16, becomes: Option<(Method, bool)>) {
        let status = StatusCode::from_u16(status).unwrap();
        let moved = request(method).moved(status, "../z");
        let found = moved.map(|next| {
            assert_eq!(next.url.as_str(), "https://a.example/z");
            assert_eq!(next.headers.contains_key(CONTENT_TYPE), next.body.is_some());
            (next.method, next.body.is_some())
        });
        assert_eq!(found, becomes, "{status}");
    }

    #[test]
    fn a_redirect_keeps_the_request_or_makes_it_a_get() {
        let get = || Some((Method::GET, false));
        for status in [301, 302] {
            check(Method::POST, status, get());
            check(Method::PUT, status, Some((Method::PUT, true)));
        }
        check(Method::PUT, 303, get());
        check(Method::POST, 307, Some((Method::POST, true)));
        check(Method::POST, 308, Some((Method::POST, true)));
        check(Method::POST, 304, None);
        check(Method::POST, 200, None);
    }

    #[test]
    fn another_host_is_not_told_the_credentials() {
        let moved = |location| {
            request(Method::GET)
                .moved(StatusCode::FOUND, location)
                .unwrap()
        };
        for (location, told) in [
            ("https://a.example/other", true),
            ("https://b.example/", false),
            ("https://a.example:8443/", false),
            ("http://a.example/", false),
        ] {
            let next = moved(location);
            assert_eq!(next.headers.contains_key(AUTHORIZATION), told, "{location}");
            assert!(next.headers.contains_key("x-a"));
        }
    }
}
