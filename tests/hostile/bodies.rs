//! The decoder: whatever arrives is an activity in order, or the reason why it is none.

use greentic_worker::model::{
    Activity, DecodeError, EnvId, Headers, IdempotencyKey, InboundMessage, TenantId, UserId,
    decode, header, id_in_body,
};
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::json;

fn message(headers: Vec<(String, String)>, body: Vec<u8>) -> InboundMessage {
    InboundMessage {
        tenant: TenantId::new("t").unwrap(),
        headers: headers.into_iter().collect::<Headers>(),
        body: body.into(),
        sequence: Some(1),
    }
}

fn decoded(message: &InboundMessage) -> Result<Activity, DecodeError> {
    decode(message, &EnvId::new("dev").unwrap())
}

/// What holds for every message, whatever is in it.
fn check(message: &InboundMessage) -> Result<(), TestCaseError> {
    match decoded(message) {
        Ok(activity) => {
            let key = activity.key.as_str();
            prop_assert!(!key.is_empty() && key.len() <= 128);
            prop_assert!(key.bytes().all(|b| b.is_ascii_graphic()), "{}", key);
            prop_assert!(UserId::new(activity.user.as_str()).is_ok());
            prop_assert!(activity.team.iter().all(|team| team.as_str() != "-"));
            prop_assert_eq!(activity.tenant.as_str(), "t");
            if let Some(scope) = &activity.reply_scope {
                let parts = [&scope.thread, &scope.reply_to, &scope.correlation];
                for part in parts.into_iter().flatten().chain([&scope.conversation]) {
                    prop_assert!(!part.is_empty() && !part.contains(char::is_control));
                }
            }
        }
        Err(error) => {
            if let DecodeError::Body { offset, .. } = &error {
                prop_assert!(*offset <= message.body.len());
            }
            prop_assert!(!error.code().is_empty());
        }
    }
    // The same name, however it is asked for.
    if message.headers == Headers::default()
        && let (Ok(activity), Some(id)) = (decoded(message), id_in_body(&message.body))
    {
        prop_assert_eq!(activity.key, IdempotencyKey::new(&id));
    }
    Ok(())
}

/// The names of a body's fields, at any place in it.
fn field() -> impl Strategy<Value = String> + Clone {
    prop::sample::select(vec![
        "id",
        "tenant",
        "tenant_id",
        "env",
        "team",
        "team_id",
        "user",
        "user_id",
        "channel",
        "session_id",
        "reply_scope",
        "conversation",
        "thread",
        "reply_to",
        "correlation",
        "from",
        "kind",
        "to",
        "correlation_id",
        "text",
        "attachments",
        "metadata",
        "extensions",
        "payload",
        "input",
    ])
    .prop_map(str::to_owned)
}

/// A body that is nearly in order: fields of the right types, some of them replaced by anything.
fn body() -> impl Strategy<Value = Value> {
    let fields = prop_oneof![
        (Just("id"), json::text().prop_map(Value::from)),
        (
            Just("from"),
            json::text().prop_map(|id| serde_json::json!({ "id": id }))
        ),
        (
            Just("reply_scope"),
            (json::text(), json::text()).prop_map(|(conversation, thread)| {
                serde_json::json!({ "conversation": conversation, "thread": thread })
            })
        ),
        (
            Just("tenant"),
            json::text().prop_map(|team| serde_json::json!({ "team": team }))
        ),
        (Just("session_id"), json::text().prop_map(Value::from)),
    ]
    .prop_map(|(name, value)| (name.to_owned(), value));
    let fields = prop_oneof![4 => fields, 1 => (field(), json::value(field()))];
    prop::collection::vec(fields, 0..7)
        .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into())
}

fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop::sample::select(vec![
        header::IDEMPOTENCY_KEY,
        header::MSG_ID,
        header::CORRELATION_ID,
        header::PACK_ID,
        header::FLOW_ID,
        header::TENANT,
        header::ENV,
        header::TRACEPARENT,
        "nats-msg-id",
    ]);
    prop::collection::vec((name.prop_map(str::to_owned), json::text()), 0..3)
}

proptest! {
    #![proptest_config(super::cases(2_000))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&message(Vec::new(), bytes))?;
    }

    #[test]
    fn any_json(headers in headers(), body in json::value(field())) {
        check(&message(headers, body.to_string().into_bytes()))?;
    }

    #[test]
    fn bodies_that_are_nearly_in_order(headers in headers(), body in body()) {
        check(&message(headers, body.to_string().into_bytes()))?;
    }

    #[test]
    fn bodies_with_broken_bytes(body in body(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = body.to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check(&message(Vec::new(), bytes))?;
    }
}

/// The generator must not prove its point by being refused.
#[test]
fn many_of_the_bodies_are_accepted() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let accepted = (0..500).filter(|_| {
        let body = body().new_tree(&mut runner).unwrap().current();
        decoded(&message(Vec::new(), body.to_string().into_bytes())).is_ok()
    });
    assert!(accepted.count() > 50);
}
