//! What a dead letter says beside the untouched body, and what of it is published when it is replayed.

use crate::model::{
    Activity, Headers, IdempotencyKey, InboundMessage, dead_letter_id, header, id_in_body,
    key_from_headers,
};
use crate::turn::{ID_REUSED, Rejection, TurnError};
use time::OffsetDateTime;

/// The longest reason in words, in bytes: headers count against the server's `max_payload`.
const MAX_REASON: usize = 1_024;

/// What only a dead letter has. A provider that sends such a header says nothing of ours by it.
const REASON: [&str; 7] = [
    header::ERROR_CODE,
    header::ERROR,
    header::ATTEMPTS,
    header::BODY_BYTES,
    header::BODY_SHA256,
    header::HEADERS_CUT,
    header::CONTENT_DIGEST,
];

/// The original headers, with the reason beside them. The original `Nats-Msg-Id` gives way to the dead letter's own; it
/// stays as the idempotency key, so that a replay is the same activity. `stored` is the time at which the stream stored the
/// message, in nanoseconds.
pub fn headers(
    message: &InboundMessage,
    stored: Option<u64>,
    activity: Option<&Activity>,
    rejection: &Rejection,
) -> Headers {
    let mut headers = without_reason(&message.headers);
    keep_key(&mut headers, message.headers.get(header::MSG_ID));
    if let Some(sequence) = message.sequence {
        let key = activity
            .map(|activity| activity.key.clone())
            .or_else(|| key_from_headers(&message.headers));
        headers.push(
            header::MSG_ID,
            dead_letter_id(&message.tenant, key.as_ref(), (sequence, stored)),
        );
    }
    headers.push(header::ERROR_CODE, rejection.error.code());
    headers.push(header::ERROR, one_line(rejection.error.to_string()));
    headers.push(header::ATTEMPTS, rejection.attempts.to_string());
    if let (TurnError::IdReused, Some(activity)) = (&rejection.error, activity) {
        headers.push(header::CONTENT_DIGEST, activity.content.to_string());
    }
    headers
}

/// The headers under which the untouched body of a dead letter is published again, and the name under which it will be
/// applied at most once. The message id is new, and the same whenever this dead letter is replayed: it alone names a message
/// that never had a name. One that is named by its body in a way that no header can repeat goes without. One whose name is
/// another message's gets a name of its own.
pub fn replayed(dead: &Headers, body: &[u8], sequence: u64, stored: OffsetDateTime) -> Headers {
    let mut headers = without_reason(dead);
    if let Some(own) = own_name(dead, body) {
        headers = named(&headers, &own);
    }
    // Without a name in the headers it was the one in the body, which the new message id must not outrank.
    let in_body = id_in_body(body);
    keep_key(
        &mut headers,
        in_body.as_deref().filter(|id| fits_a_header(id)),
    );
    let only_body_names_it = in_body.is_some() && !is_named(&headers);
    if !only_body_names_it {
        let nanos = stored.unix_timestamp_nanos();
        headers.push(header::MSG_ID, format!("replay-{sequence}-{nanos}"));
    }
    headers
}

/// The name that a message gets whose own is another one's: the same for all copies of it, so that they are applied once,
/// however many of them are replayed.
fn own_name(dead: &Headers, body: &[u8]) -> Option<String> {
    let reused = dead.get(header::ERROR_CODE) == Some(ID_REUSED);
    let name = name(dead, body).filter(|_| reused)?;
    let digest = dead.get(header::CONTENT_DIGEST)?;
    Some(match fits_a_header(&name) {
        true => format!("{name}:{digest}"),
        false => format!("{}:{digest}", IdempotencyKey::new(&name)),
    })
}

/// The headers under which a reply is published again that the stream of replies did not take.
pub fn replayed_reply(dead: &Headers, sequence: u64, stored: OffsetDateTime) -> Headers {
    let mut headers = without_reason(dead);
    let nanos = stored.unix_timestamp_nanos();
    headers.push(header::MSG_ID, format!("replay-{sequence}-{nanos}"));
    headers
}

/// Whether a value comes out of a header as it went in.
fn fits_a_header(value: &str) -> bool {
    value.trim() == value && !value.contains(char::is_control)
}

/// The name under which the message of a dead letter is applied, as its provider wrote it.
pub fn name(dead: &Headers, body: &[u8]) -> Option<String> {
    let named = dead.get(header::IDEMPOTENCY_KEY).map(str::to_owned);
    named
        .filter(|name| !name.is_empty())
        .or_else(|| id_in_body(body))
}

fn without_reason(headers: &Headers) -> Headers {
    let ours = |name: &str| {
        let mut names = REASON.iter().chain([&header::MSG_ID]);
        names.any(|ours| name.eq_ignore_ascii_case(ours))
    };
    headers.iter().filter(|(name, _)| !ours(name)).collect()
}

fn is_named(headers: &Headers) -> bool {
    headers
        .get(header::IDEMPOTENCY_KEY)
        .is_some_and(|name| !name.is_empty())
}

/// Makes sure that the headers name the message; an empty name is none.
fn keep_key(headers: &mut Headers, name: Option<&str>) {
    let Some(name) = name.filter(|name| !name.is_empty() && !is_named(headers)) else {
        return;
    };
    *headers = named(headers, name);
}

/// The headers with this name for the message, whatever it was called before.
fn named(headers: &Headers, name: &str) -> Headers {
    let others = headers
        .iter()
        .filter(|(other, _)| !other.eq_ignore_ascii_case(header::IDEMPOTENCY_KEY));
    let mut named: Headers = others.collect();
    named.push(header::IDEMPOTENCY_KEY, name);
    named
}

/// Headers hold no line breaks, and a reason may quote the message.
fn one_line(reason: String) -> String {
    let mut line = reason.replace(|c: char| c.is_control(), " ");
    if line.len() > MAX_REASON {
        let end = (0..=MAX_REASON)
            .rev()
            .find(|at| line.is_char_boundary(*at))
            .unwrap_or(0);
        line.truncate(end);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TenantId;
    use crate::turn::TurnError;

    #[test]
    fn a_dead_letter_keeps_the_logical_name_and_gets_its_own_message_id() {
        let message = InboundMessage {
            tenant: TenantId::new("t").unwrap(),
            headers: [
                ("nats-msg-id", "m1"),
                ("X-Other", "kept"),
                ("greentic-idempotency-key", ""),
                ("greentic-error-code", "forged"),
            ]
            .into_iter()
            .collect(),
            body: "{".into(),
            sequence: Some(7),
        };
        let error = TurnError::Panicked("a\nb".to_owned() + &"é".repeat(MAX_REASON));
        let rejection = Rejection { error, attempts: 3 };
        let headers = headers(&message, Some(99), None, &rejection);
        assert_eq!(headers.get(header::IDEMPOTENCY_KEY), Some("m1"));
        assert_eq!(headers.get(header::MSG_ID), Some("t:m1:dead:7-99"));
        assert_eq!(headers.get("X-Other"), Some("kept"));
        assert_eq!(headers.get(header::ERROR_CODE), Some("panic"));
        assert_eq!(headers.get(header::ATTEMPTS), Some("3"));
        let reason = headers.get(header::ERROR).unwrap();
        assert!(
            reason.contains("a b") && reason.len() <= MAX_REASON,
            "{reason}"
        );
    }

    #[track_caller]
    fn check_replay(dead: &[(&str, &str)], body: &str, key: Option<&str>) -> Headers {
        let dead: Headers = dead.iter().copied().collect();
        let stored = time::macros::datetime!(2026-01-01 0:00 UTC);
        let replay = replayed(&dead, body.as_bytes(), 9, stored);
        assert_eq!(replay.get(header::IDEMPOTENCY_KEY), key);
        assert_eq!(name(&dead, body.as_bytes()).as_deref(), key);
        assert_eq!(
            replay.get(header::MSG_ID),
            Some("replay-9-1767225600000000000")
        );
        for ours in REASON {
            assert_eq!(replay.get(ours), None);
        }
        replay
    }

    #[test]
    fn a_replay_is_the_same_activity_under_a_new_message_id() {
        let dead = [
            ("X-Other", "kept"),
            ("greentic-idempotency-key", "m1"),
            ("Nats-Msg-Id", "t:m1:dead:7"),
            ("Greentic-Error-Code", "panic"),
            ("Greentic-Error", "a"),
            ("Greentic-Attempts", "3"),
        ];
        let replay = check_replay(&dead, r#"{"id":"body"}"#, Some("m1"));
        assert_eq!(replay.get("X-Other"), Some("kept"));
        check_replay(&dead[2..], r#"{"id":"body"}"#, Some("body"));
        check_replay(&[(header::IDEMPOTENCY_KEY, "")], r#"{"id":"b"}"#, Some("b"));
        check_replay(&dead[2..], r#"{"id":5}"#, None);
        check_replay(&dead[2..], "{", None);
        let replay = replayed(
            &Headers::default(),
            br#"{"id":"a\nb"}"#,
            1,
            OffsetDateTime::UNIX_EPOCH,
        );
        assert_eq!(replay, Headers::default(), "only the body can say its name");
    }

    #[test]
    fn a_message_whose_name_is_anothers_is_replayed_under_its_own() {
        let replay = |key: &str, code: &'static str, digest: Option<&str>| {
            let digest = digest.map(|digest| (header::CONTENT_DIGEST, digest));
            let dead = [(header::IDEMPOTENCY_KEY, key), (header::ERROR_CODE, code)];
            let dead: Headers = dead.into_iter().chain(digest).collect();
            let replay = replayed(&dead, b"{}", 9, OffsetDateTime::UNIX_EPOCH);
            assert_eq!(replay.get(header::CONTENT_DIGEST), None);
            assert_eq!(replay.get(header::MSG_ID), Some("replay-9-0"));
            replay.get(header::IDEMPOTENCY_KEY).unwrap().to_owned()
        };
        assert_eq!(replay("m1", ID_REUSED, Some("abc")), "m1:abc");
        assert_eq!(replay("a b", ID_REUSED, Some("abc")), "a b:abc");
        let odd = replay("a\nb", ID_REUSED, Some("abc"));
        assert!(odd.starts_with("key-") && odd.ends_with(":abc"), "{odd}");
        // Not ours to rename.
        assert_eq!(replay("m1", "panic", Some("abc")), "m1");
        assert_eq!(replay("m1", ID_REUSED, None), "m1");
    }
}
