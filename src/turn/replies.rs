//! From what a flow emitted to the messages that are published.

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::to_raw_value;

use super::bounds::reply_bytes;
use super::envelope::{Content, Envelope};
use super::failure::TurnError;
use crate::flow::Reply;
use crate::model::{
    Activity, Headers, Outbound, OutboundHeaders, PackId, TraceContext, apology_id, header,
};

/// What all replies of a turn have in common.
pub struct Origin<'a> {
    /// The activity that they answer.
    pub activity: &'a Activity,
    /// The pack whose flow speaks.
    pub pack: PackId,
    /// The turn's trace context.
    pub trace: Option<&'a TraceContext>,
    /// The most bytes of all replies in the outbox.
    pub max_bytes: usize,
}

impl Origin<'_> {
    /// Makes a message of each reply. The last one carries the correlation id, if the flow waits for an answer to it.
    pub fn messages(
        &self,
        replies: Vec<Reply>,
        correlation: Option<&str>,
    ) -> Result<Vec<Outbound>, TurnError> {
        let last = replies.len().saturating_sub(1);
        let mut messages = Vec::with_capacity(replies.len());
        let mut bytes = 0;
        for (n, reply) in replies.into_iter().enumerate() {
            let message = self.message(n, reply, correlation.filter(|_| n == last))?;
            bytes += reply_bytes(&message);
            // Here, too, so that no more of them are made than can be stored.
            if bytes > self.max_bytes {
                return Err(TurnError::CommitTooLarge {
                    bytes,
                    limit: self.max_bytes,
                    largest: "its replies",
                });
            }
            messages.push(message);
        }
        Ok(messages)
    }

    fn message(
        &self,
        n: usize,
        reply: Reply,
        correlation: Option<&str>,
    ) -> Result<Outbound, serde_json::Error> {
        let id = format!("{}:{n}", self.activity.key.original());
        let content = Content::of(reply.payload);
        let envelope = Envelope::new(self.activity, id, content, correlation);
        Ok(Outbound {
            position: None,
            headers: OutboundHeaders {
                pack: self.pack,
                flow: reply.flow,
                correlation: correlation.map(str::to_owned),
                trace: self.trace.cloned(),
            },
            body: to_raw_value(&envelope)?,
        })
    }
}

/// What a user is told whose message was put aside: the headers and the body.
pub fn apology(activity: &Activity, text: &str) -> Result<(Headers, Bytes), serde_json::Error> {
    let mut headers = Headers::default();
    headers.push(header::MSG_ID, apology_id(&activity.tenant, &activity.key));
    headers.push(header::IN_REPLY_TO, activity.key.header_value());
    headers.push(header::TENANT, activity.tenant.as_str());
    headers.push(header::ENV, activity.env.as_str());
    let content = Content::of(Value::String(text.to_owned()));
    let id = format!("{}:apology", activity.key.original());
    let envelope = Envelope::new(activity, id, content, None);
    Ok((headers, serde_json::to_vec(&envelope)?.into()))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::super::envelope::CARD_TYPE;
    use super::*;
    use crate::model::{EnvId, FlowId, InboundMessage, TenantId, decode};

    pub fn activity() -> Activity {
        let body = json!({
            "id": "m1", "channel": "webchat", "from": {"id": "u1"},
            "reply_scope": {"conversation": "c1", "thread": "t1", "correlation": "old"},
        });
        let message = InboundMessage {
            tenant: TenantId::new("dev.local").unwrap(),
            headers: Headers::default(),
            body: body.to_string().into(),
            sequence: None,
        };
        decode(&message, &EnvId::new("dev").unwrap()).unwrap()
    }

    fn messages(payloads: &[Value], correlation: Option<&str>) -> Vec<(OutboundHeaders, Value)> {
        let activity = activity();
        let pack = PackId::of_archive(b"pack");
        let origin = Origin {
            activity: &activity,
            pack,
            trace: None,
            max_bytes: usize::MAX,
        };
        let flow = FlowId::new("main").unwrap();
        let replies = payloads.iter().map(|payload| Reply {
            flow: flow.clone(),
            payload: payload.clone(),
        });
        let messages = origin.messages(replies.collect(), correlation).unwrap();
        messages
            .into_iter()
            .map(|m| (m.headers, serde_json::from_str(m.body.get()).unwrap()))
            .collect()
    }

    /// Checks some fields of the envelope that a payload becomes.
    #[track_caller]
    fn check(payload: &Value, expected: &[(&str, Value)]) {
        let (_, body) = messages(std::slice::from_ref(payload), None).remove(0);
        for (pointer, value) in expected {
            let found = body.pointer(pointer).cloned().unwrap_or(Value::Null);
            assert_eq!(found, *value, "{pointer} of {body}");
        }
    }

    #[test]
    fn fields_of_the_envelope_go_there_and_anything_else_is_kept_whole() {
        check(
            &json!("hi"),
            &[("/text", json!("hi")), ("/extensions", Value::Null)],
        );
        check(
            &json!({"text": "hi"}),
            &[("/text", json!("hi")), ("/extensions", Value::Null)],
        );
        let rich = json!({"text": "hi", "metadata": {"a": "b"}, "to": [{"id": "x"}],
                          "attachments": [{"mime_type": "image/png", "url": "u"}]});
        check(
            &rich,
            &[
                ("/metadata/a", json!("b")),
                ("/to/0/id", json!("x")),
                ("/extensions", Value::Null),
            ],
        );
        check(
            &json!({"text": 5}),
            &[
                ("/text", json!("5")),
                ("/extensions/payload", json!({"text": 5})),
            ],
        );
        check(
            &json!({"text": "hi", "x": 1}),
            &[("/text", json!("hi")), ("/extensions/payload/x", json!(1))],
        );
        let numbers = json!({"metadata": {"n": 1}});
        check(
            &numbers,
            &[
                ("/metadata/n", json!("1")),
                ("/extensions/payload", numbers.clone()),
            ],
        );
        check(&json!([1, 2]), &[("/extensions/payload", json!([1, 2]))]);
        check(
            &json!({"attachments": [5]}),
            &[("/extensions/payload/attachments", json!([5]))],
        );
    }

    #[test]
    fn a_card_is_an_attachment_of_its_media_type() {
        let card = json!({"type": "AdaptiveCard", "body": []});
        let expected = [
            ("/attachments/0/mime_type", json!(CARD_TYPE)),
            ("/attachments/0/content", card.clone()),
            ("/extensions/adaptive_card", card.clone()),
        ];
        check(&card, &expected);
        check(&json!({"renderedCard": card.clone()}), &expected);
    }

    #[test]
    fn only_the_last_reply_of_a_waiting_turn_carries_the_correlation() {
        let both = messages(&[json!("a"), json!("b")], Some("k"));
        let (first, last) = (&both[0], &both[1]);
        assert_eq!(first.0.correlation, None);
        assert_eq!(
            first.1.pointer("/reply_scope"),
            Some(&json!({"conversation": "c1", "thread": "t1"}))
        );
        assert_eq!(last.0.correlation.as_deref(), Some("k"));
        for place in [
            "/correlation_id",
            "/metadata/correlation_id",
            "/reply_scope/correlation",
        ] {
            assert_eq!(last.1.pointer(place), Some(&json!("k")), "{place}");
        }
        assert_eq!(
            (&first.1["id"], &last.1["id"]),
            (&json!("m1:0"), &json!("m1:1"))
        );
    }
}
