//! Headers between our form and the client's.

use std::borrow::Cow;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use tracing::warn;

use crate::model::{Headers, header};

/// Headers with this prefix are orders to the server (`Nats-Expected-Stream`, `Nats-Rollup`, `Nats-TTL`, ...).
const SERVER_PREFIX: &str = "Nats-";

/// The headers of a message that came. The client keeps names in no order; sorted, a name that is there in two
/// spellings is read the same way at every delivery.
pub(super) fn received(map: Option<HeaderMap>) -> Headers {
    let Some(map) = map else {
        return Headers::default();
    };
    let mut pairs: Vec<(&str, &str)> = map
        .iter()
        .flat_map(|(name, values)| values.iter().map(|value| (name.as_ref(), value.as_str())))
        .collect();
    // Stable, so the values of one name stay in the order they came.
    pairs.sort_by_key(|(name, _)| *name);
    pairs.into_iter().collect()
}

/// The headers of a message to publish.
///
/// What an inbound message ordered the server to do was meant for its own publish: on a dead letter, which carries the
/// original headers, it would be obeyed again or make the server refuse the message. So of the server's headers only
/// the first `Nats-Msg-Id` passes. Line breaks in a value become spaces.
pub(super) fn to_publish(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut has_id = false;
    for (at, (name, value)) in headers.pairs().iter().enumerate() {
        let msg_id = name.eq_ignore_ascii_case(header::MSG_ID);
        if is_for_server(name) && (!msg_id || has_id) {
            continue;
        }
        let known = match name {
            _ if msg_id => Some(header::MSG_ID),
            Cow::Borrowed(name) => Some(*name),
            Cow::Owned(_) => None,
        };
        let parsed = known.map_or_else(|| name.parse(), |name| Ok(HeaderName::from_static(name)));
        match (parsed, header_value(value)) {
            (Ok(parsed), Some(value)) => {
                has_id |= msg_id;
                // To look a name up takes a hash, so it is done only where it may be there already.
                let before = &headers.pairs()[..at];
                if before.iter().any(|(other, _)| other == name) {
                    map.append(parsed, value);
                } else {
                    map.insert(parsed, value);
                }
            }
            (Ok(_), None) | (Err(_), _) => {
                warn!(header = ?name, "a header that NATS does not take is left out")
            }
        }
    }
    map
}

fn is_for_server(name: &str) -> bool {
    name.get(..SERVER_PREFIX.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(SERVER_PREFIX))
}

fn header_value(value: &str) -> Option<HeaderValue> {
    let parsed = value.parse();
    parsed
        .or_else(|_| value.replace(['\r', '\n'], " ").parse())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(published: &[(&str, &str)], expected: &[(&str, &str)]) {
        let headers: Headers = published.iter().copied().collect();
        let expected: Headers = expected.iter().copied().collect();
        assert_eq!(received(Some(to_publish(&headers))), expected);
    }

    #[test]
    fn headers_survive_both_ways() {
        check(
            &[
                ("b", "2"),
                ("a", "1"),
                ("b", "3"),
                ("Ünicode", "x"),
                ("ok", "größe"),
            ],
            &[("a", "1"), ("b", "2"), ("b", "3"), ("ok", "größe")],
        );
    }

    #[test]
    fn orders_to_the_server_are_not_repeated() {
        check(
            &[
                ("Nats-Expected-Stream", "OTHER"),
                ("nats-rollup", "all"),
                ("nats-msg-id", "ours"),
                ("Nats-Msg-Id", "theirs"),
                ("Greentic-Error", "kept"),
            ],
            &[("Greentic-Error", "kept"), ("Nats-Msg-Id", "ours")],
        );
    }

    #[test]
    fn a_value_cannot_smuggle_in_another_header() {
        check(&[("a", "1\r\nb: 2")], &[("a", "1  b: 2")]);
    }

    #[test]
    fn no_headers_are_no_headers() {
        assert_eq!(received(None), Headers::default());
    }
}
