//! The digest of what a message says and of who says it. It tells a copy of a message from another one under the same id.

use std::fmt;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use greentic_types::ReplyScope;
use serde::Serialize;
use serde_json::Value;

use super::{FlowId, FlowTarget, PackId, TeamId, UserId};

/// The content of a message, as its turn sees it. The headers that come and go with each attempt to send it, such as a
/// trace context, are no part of it, and neither is the layout of its body.
#[derive(Serialize)]
pub struct Content<'a> {
    user: &'a str,
    team: Option<&'a str>,
    scope: Option<[Option<&'a str>; 4]>,
    target: (Option<PackId>, Option<&'a str>),
    caller: Option<&'a Value>,
    payload: &'a Value,
}

impl<'a> Content<'a> {
    /// The content that a message of this user has.
    pub fn new(
        (user, team): (&'a UserId, Option<&'a TeamId>),
        scope: Option<&'a ReplyScope>,
        target: &'a FlowTarget,
        (caller, payload): (Option<&'a Value>, &'a Value),
    ) -> Self {
        let parts = |scope: &'a ReplyScope| {
            [
                Some(scope.conversation.as_str()),
                scope.thread.as_deref(),
                scope.reply_to.as_deref(),
                scope.correlation.as_deref(),
            ]
        };
        Self {
            user: user.as_str(),
            team: team.map(TeamId::as_str),
            scope: scope.map(parts),
            target: (target.pack, target.flow.as_ref().map(FlowId::as_str)),
            caller,
            payload,
        }
    }
}

/// A short digest of a message's content, as text of [`ContentDigest::LEN`] letters, digits, `-` and `_`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ContentDigest([u8; Self::LEN]);

impl ContentDigest {
    /// Its length as text, in bytes.
    pub const LEN: usize = 16;
    /// The bytes that make this text.
    const BYTES: usize = Self::LEN / 4 * 3;

    /// The digest of a content. The order of an object's members does not count, since the payload keeps them sorted.
    pub fn of(content: &Content<'_>) -> Self {
        let mut hasher = ContentHasher::new();
        #[expect(
            clippy::expect_used,
            reason = "texts and JSON values can always be written as JSON, and the hasher takes all of it"
        )]
        serde_json::to_writer(&mut hasher, content).expect("JSON is JSON");
        let hash = hasher.finish();
        let mut text = [0; Self::LEN];
        #[expect(
            clippy::expect_used,
            reason = "three bytes are four letters, and there is room for so many"
        )]
        URL_SAFE_NO_PAD
            .encode_slice(&hash.as_bytes()[..Self::BYTES], &mut text)
            .expect("it has room");
        Self(text)
    }

    /// Splits a digest off the beginning of a record; none where there is something else.
    pub fn split_off(record: &[u8]) -> Option<(Self, &[u8])> {
        let (digest, rest) = record.split_first_chunk::<{ Self::LEN }>()?;
        let is_digest = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        digest
            .iter()
            .all(is_digest)
            .then_some((Self(*digest), rest))
    }

    /// The digest as bytes of text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentDigest({self})")
    }
}

/// Hashes JSON as it is written. The writer hands over a few bytes at a time, and each call of the hash costs more than the
/// bytes do, so they are gathered first.
struct ContentHasher {
    hasher: blake3::Hasher,
    gathered: [u8; 512],
    len: usize,
}

impl ContentHasher {
    fn new() -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            gathered: [0; 512],
            len: 0,
        }
    }

    fn finish(mut self) -> blake3::Hash {
        self.hasher.update(&self.gathered[..self.len]);
        self.hasher.finalize()
    }
}

impl io::Write for ContentHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.gathered.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => {
                self.hasher.update(&self.gathered[..self.len]);
                self.hasher.update(bytes);
                self.len = 0;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EnvId, Headers, InboundMessage, TenantId, decode, header};

    const BODY: &str = r#"{"id":"1","from":{"id":"u"},"reply_scope":{"conversation":"c"},"text":"hi",
                           "metadata":{"a":1,"b":{"c":2,"d":3}}}"#;

    fn digest(headers: &[(&'static str, &str)], body: &str) -> ContentDigest {
        let message = InboundMessage {
            tenant: TenantId::new("t").unwrap(),
            headers: headers.iter().copied().collect::<Headers>(),
            body: body.to_owned().into(),
            sequence: None,
        };
        decode(&message, &EnvId::new("dev").unwrap())
            .unwrap()
            .content
    }

    #[track_caller]
    fn check(headers: &[(&'static str, &str)], body: &str, is_copy: bool) {
        assert_eq!(
            digest(headers, body) == digest(&[], BODY),
            is_copy,
            "{body}"
        );
    }

    #[test]
    fn a_copy_may_be_laid_out_otherwise_and_have_other_headers() {
        check(&[], BODY, true);
        check(
            &[
                (
                    header::TRACEPARENT,
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                ),
                ("X-Sent-At", "2026-01-01T00:00:00Z"),
                (header::IDEMPOTENCY_KEY, "1"),
                (header::TENANT, "t"),
            ],
            BODY,
            true,
        );
        check(
            &[],
            r#"{ "metadata": {"b": {"d": 3, "c": 2}, "a": 1}, "attachments": [], "to": [], "text": "h\u0069",
                 "reply_scope": {"thread": "", "conversation": "c"}, "from": {"id": "u"}, "channel": null, "id": "1",
                 "tenant": {"env": "dev"}, "session_id": "c", "unknown": 1 }"#,
            true,
        );
    }

    #[test]
    fn who_says_what_where_makes_another_message() {
        for (field, other) in [
            ("/text", "ho".into()),
            ("/text", Value::Null),
            ("/from/id", "v".into()),
            ("/reply_scope/conversation", "d".into()),
            ("/reply_scope/correlation", "k".into()),
            ("/reply_scope", Value::Null),
            ("/metadata/a", "1".into()),
            ("/metadata/b/c", 3.into()),
        ] {
            let mut body: Value = serde_json::from_str(BODY).unwrap();
            let (parent, name) = field.rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap()[name] = other;
            check(&[], &body.to_string(), false);
        }
        check(&[(header::FLOW_ID, "side")], BODY, false);
        check(&[(header::CORRELATION_ID, "k")], BODY, false);
        let event = |payload| format!(r#"{{"id":"1","extensions":{{"payload":{payload}}}}}"#);
        assert_ne!(digest(&[], &event(1)), digest(&[], &event(2)));
    }

    #[test]
    fn what_is_written_in_pieces_is_hashed_as_a_whole() {
        let text: Vec<u8> = (0..3_000_u32).map(|n| n as u8).collect();
        for piece in [1, 7, 511, 512, 513, 3_000] {
            let mut hasher = ContentHasher::new();
            for piece in text.chunks(piece) {
                io::Write::write_all(&mut hasher, piece).unwrap();
            }
            assert_eq!(hasher.finish(), blake3::hash(&text), "{piece}");
        }
    }

    /// Records hold it, and workers of other versions read them.
    #[test]
    fn a_digest_stays_what_it_is() {
        assert_eq!(digest(&[], BODY).to_string(), "SMT6E2BpNeLFfM8U");
        let long = BODY.replace("hi", &"long ".repeat(1_000));
        assert_eq!(digest(&[], &long).to_string(), "QvSCDM3VWa9JYS5f");
        let record = [digest(&[], BODY).as_bytes(), b"[]"].concat();
        let (found, rest) = ContentDigest::split_off(&record).unwrap();
        assert_eq!((found, rest), (digest(&[], BODY), &b"[]"[..]));
        assert_eq!(ContentDigest::split_off(b"[]"), None);
        assert_eq!(ContentDigest::split_off(br#"[{"pack":"sha256:0"}]"#), None);
    }
}
