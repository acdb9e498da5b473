//! From a delivered message to an [`Activity`], or to the reason why it is none.

use std::sync::Arc;

use greentic_types::ReplyScope;
use serde_json::{Map, Value};

use super::{
    Activity, Content, ContentDigest, EnvId, FlowId, FlowTarget, HashedScope, Headers,
    IdempotencyKey, InboundBody, InboundMessage, MAX_BODY_DEPTH, TeamId, TenantRef, TraceContext,
    header, storage_user_id, too_deep_at,
};

/// Why a message is no activity. It never will be, so it goes to the dead letters at once.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The body is not the JSON that is expected.
    #[error("the body cannot be read at byte {offset}: {reason}")]
    Body {
        /// Where in the body, in bytes from its start.
        offset: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The body or a header names another tenant or environment than the subject and the settings.
    #[error("`{field}` says `{found}`, but the message came for `{expected}`")]
    TenantMismatch {
        /// The field or header.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// Nothing names the message.
    #[error(
        "the message has no id: set `id` in the body, or the header Greentic-Idempotency-Key or Nats-Msg-Id"
    )]
    MissingId,
    /// A field or header has a value that it cannot have.
    #[error("`{field}` is invalid: {reason}")]
    Field {
        /// The field or header.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl DecodeError {
    /// The code that the dead letter carries.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Body { .. } => "unreadable_body",
            Self::TenantMismatch { .. } => "tenant_mismatch",
            Self::MissingId => "missing_id",
            Self::Field { .. } => "invalid_field",
        }
    }
}

/// The idempotency key that a message's headers give, if they do: known even where the body cannot be read.
pub fn key_from_headers(headers: &Headers) -> Option<IdempotencyKey> {
    [header::IDEMPOTENCY_KEY, header::MSG_ID]
        .into_iter()
        .filter_map(|name| headers.get(name))
        .find(|value| !value.is_empty())
        .map(IdempotencyKey::new)
}

/// The name that a body gives its message, if it does, whether or not the rest of it is in order.
pub fn id_in_body(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        id: Option<String>,
    }
    let named: Named = serde_json::from_slice(body).ok()?;
    named.id.filter(|id| !id.is_empty())
}

/// Reads a message for the worker's environment.
pub fn decode(message: &InboundMessage, env: &EnvId) -> Result<Activity, DecodeError> {
    if let Some(offset) = too_deep_at(&message.body, MAX_BODY_DEPTH) {
        let reason = format!("it nests deeper than {MAX_BODY_DEPTH} levels");
        return Err(DecodeError::Body { offset, reason });
    }
    let mut body: InboundBody =
        serde_json::from_slice(&message.body).map_err(|error| unreadable(&message.body, &error))?;
    let named = body.tenant.take().unwrap_or_default();
    check_tenant(message, &named, env)?;

    let key = key_from_headers(&message.headers)
        .or_else(|| {
            body.id
                .as_deref()
                .filter(|id| !id.is_empty())
                .map(IdempotencyKey::new)
        })
        .ok_or(DecodeError::MissingId)?;
    let echoed = message.headers.get(header::CORRELATION_ID);
    let reply_scope = body
        .reply_scope
        .take()
        .map(|scope| checked_scope(scope, echoed))
        .transpose()?;
    body.reply_scope.clone_from(&reply_scope);

    let session_id = body.session_id.get_or_insert_with(|| match &reply_scope {
        Some(scope) => scope.conversation.clone(),
        None => key.as_str().to_owned(),
    });
    let user = named.user_id.as_deref().or(named.user.as_deref());
    let user = user
        .or(body.from.as_ref().map(|from| from.id.as_str()))
        .unwrap_or(session_id);
    if user.is_empty() {
        return Err(field("from.id", "it is empty"));
    }

    let (user, team) = (storage_user_id(user), team(&named)?);
    let (session_id, channel) = (session_id.clone(), body.channel.clone());
    let (from, caller) = (body.from.clone(), body.extensions.get("caller").cloned());
    let (target, payload) = (target(&message.headers)?, payload(body));
    let content = Content::new(
        (&user, team.as_ref()),
        reply_scope.as_ref(),
        &target,
        (caller.as_ref(), &payload),
    );
    Ok(Activity {
        content: ContentDigest::of(&content),
        env: env.clone(),
        tenant: message.tenant.clone(),
        user,
        team,
        reply_scope: reply_scope.map(HashedScope::from),
        channel: channel.unwrap_or_default(),
        session_id,
        from,
        target,
        caller,
        trace: trace(&message.headers),
        key,
        payload: Arc::new(payload),
    })
}

/// serde_json tells line and column; a dead letter wants the byte.
fn unreadable(body: &[u8], error: &serde_json::Error) -> DecodeError {
    let before: usize = body
        .split_inclusive(|b| *b == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let offset = (before + error.column().saturating_sub(1)).min(body.len());
    DecodeError::Body {
        offset,
        reason: error.to_string(),
    }
}

/// The subject and the settings are the authority; whoever else names a tenant or environment must agree.
fn check_tenant(
    message: &InboundMessage,
    named: &TenantRef,
    env: &EnvId,
) -> Result<(), DecodeError> {
    let tenant = message.tenant.as_str();
    let claims = [
        ("tenant.tenant_id", named.tenant_id.as_deref(), tenant),
        ("tenant.tenant", named.tenant.as_deref(), tenant),
        ("tenant.env", named.env.as_deref(), env.as_str()),
        (header::TENANT, message.headers.get(header::TENANT), tenant),
        (header::ENV, message.headers.get(header::ENV), env.as_str()),
    ];
    for (field, found, expected) in claims {
        if let Some(found) = found.filter(|found| *found != expected) {
            let (found, expected) = (found.to_owned(), expected.to_owned());
            return Err(DecodeError::TenantMismatch {
                field,
                found,
                expected,
            });
        }
    }
    Ok(())
}

/// A scope as it is stored: empty parts are absent ones, since they hash alike, and control characters are refused,
/// since a line feed in one field would make it hash like another scope.
fn checked_scope(scope: ReplyScope, echoed: Option<&str>) -> Result<ReplyScope, DecodeError> {
    if scope.conversation.is_empty() {
        return Err(field("reply_scope.conversation", "it is empty"));
    }
    let correlation = scope.correlation.or_else(|| echoed.map(str::to_owned));
    let scope = ReplyScope {
        conversation: scope.conversation,
        thread: scope.thread.filter(|part| !part.is_empty()),
        reply_to: scope.reply_to.filter(|part| !part.is_empty()),
        correlation: correlation.filter(|part| !part.is_empty()),
    };
    let parts = [
        ("reply_scope.conversation", Some(&scope.conversation)),
        ("reply_scope.thread", scope.thread.as_ref()),
        ("reply_scope.reply_to", scope.reply_to.as_ref()),
        ("reply_scope.correlation", scope.correlation.as_ref()),
    ];
    for (name, part) in parts {
        if part.is_some_and(|part| part.chars().any(char::is_control)) {
            return Err(field(name, "it holds a control character"));
        }
    }
    Ok(scope)
}

/// The longest team, in bytes: it is part of every key of its users.
const MAX_TEAM: usize = 128;

/// The longest `tracestate`, in bytes, which is what the W3C recommendation asks for: it is stored with each reply.
const MAX_TRACESTATE: usize = 512;

fn team(named: &TenantRef) -> Result<Option<TeamId>, DecodeError> {
    let team = named.team_id.as_deref().or(named.team.as_deref());
    if team == Some("-") {
        // greentic-session writes it where there is no team: its waits would mix with those of users in none.
        return Err(field("tenant.team_id", "`-` stands for no team"));
    }
    if team.is_some_and(|team| team.len() > MAX_TEAM) {
        let reason = format!("it is longer than {MAX_TEAM} bytes");
        return Err(field("tenant.team_id", &reason));
    }
    team.map(|team| TeamId::new(team).map_err(|error| field("tenant.team_id", &error.to_string())))
        .transpose()
}

fn target(headers: &Headers) -> Result<FlowTarget, DecodeError> {
    let pack = headers.get(header::PACK_ID).map(str::parse).transpose();
    let flow = headers.get(header::FLOW_ID).map(FlowId::new).transpose();
    Ok(FlowTarget {
        pack: pack.map_err(|error| field(header::PACK_ID, &error))?,
        flow: flow.map_err(|error| field(header::FLOW_ID, &error))?,
    })
}

fn trace(headers: &Headers) -> Option<TraceContext> {
    let tracestate = headers.get(header::TRACESTATE);
    let tracestate = tracestate.filter(|state| state.len() <= MAX_TRACESTATE);
    Some(TraceContext {
        traceparent: headers.get(header::TRACEPARENT)?.to_owned(),
        tracestate: tracestate.map(str::to_owned),
    })
}

/// What the flow sees: `extensions.payload` where it is there, else the body without its tenant.
fn payload(mut body: InboundBody) -> Value {
    if let Some(payload) = body.extensions.remove("payload") {
        return payload;
    }
    let mut seen = Map::new();
    let mut text = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            seen.insert(name.to_owned(), Value::String(value));
        }
    };
    text("id", body.id);
    text("channel", body.channel);
    text("session_id", body.session_id);
    text("correlation_id", body.correlation_id);
    text("text", body.text);
    if let Some(from) = body.from {
        let mut actor = Map::new();
        actor.insert("id".to_owned(), Value::String(from.id));
        if let Some(kind) = from.kind {
            actor.insert("kind".to_owned(), Value::String(kind));
        }
        seen.insert("from".to_owned(), Value::Object(actor));
    }
    if let Some(scope) = body.reply_scope {
        seen.insert("reply_scope".to_owned(), scope_value(scope));
    }
    if !body.to.is_empty() {
        seen.insert("to".to_owned(), Value::Array(body.to));
    }
    seen.insert("attachments".to_owned(), Value::Array(body.attachments));
    seen.insert("metadata".to_owned(), Value::Object(body.metadata));
    if !body.extensions.is_empty() {
        seen.insert("extensions".to_owned(), Value::Object(body.extensions));
    }
    Value::Object(seen)
}

fn scope_value(scope: ReplyScope) -> Value {
    let parts = [
        ("conversation", Some(scope.conversation)),
        ("thread", scope.thread),
        ("reply_to", scope.reply_to),
        ("correlation", scope.correlation),
    ];
    let present = parts
        .into_iter()
        .filter_map(|(name, part)| Some((name.to_owned(), Value::String(part?))));
    Value::Object(present.collect())
}

fn field(field: &'static str, reason: &(impl ToString + ?Sized)) -> DecodeError {
    DecodeError::Field {
        field,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::TenantId;

    fn message(headers: &[(&str, &str)], body: &str) -> InboundMessage {
        InboundMessage {
            tenant: TenantId::new("dev.local").unwrap(),
            headers: headers.iter().copied().collect(),
            body: body.to_owned().into(),
            sequence: None,
        }
    }

    #[track_caller]
    fn check_ok(headers: &[(&str, &str)], body: &str) -> Activity {
        decode(&message(headers, body), &EnvId::new("dev").unwrap()).unwrap()
    }

    #[track_caller]
    fn check_err(headers: &[(&str, &str)], body: &str, code: &str, says: &str) {
        let error = decode(&message(headers, body), &EnvId::new("dev").unwrap()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }

    #[test]
    fn a_lean_body_is_a_whole_activity() {
        let body =
            r#"{"id":"1","from":{"id":"u1"},"reply_scope":{"conversation":"c1"},"text":"hi"}"#;
        let activity = check_ok(&[], body);
        assert_eq!(activity.key.as_str(), "1");
        assert_eq!(activity.user.as_str(), "u1");
        assert_eq!(activity.session_id, "c1");
        assert_eq!(
            *activity.payload,
            json!({"id": "1", "from": {"id": "u1"}, "reply_scope": {"conversation": "c1"}, "session_id": "c1",
                   "text": "hi", "attachments": [], "metadata": {}})
        );
    }

    #[test]
    fn a_full_envelope_of_the_ecosystem_is_read_and_its_tenant_not_shown_to_the_flow() {
        let body = json!({
            "id": "1", "channel": "webchat", "session_id": "s", "from": {"id": "u1", "kind": "user"},
            "tenant": {"env": "dev", "tenant": "dev.local", "tenant_id": "dev.local", "team_id": "t", "user_id": "ada",
                       "attempt": 0},
            "reply_scope": {"conversation": "c", "thread": "", "correlation": "k"}, "metadata": {"n": 1, "b": true}
        });
        let activity = check_ok(&[], &body.to_string());
        assert_eq!(activity.user.as_str(), "ada");
        assert_eq!(activity.team.as_ref().unwrap().as_str(), "t");
        assert_eq!(activity.correlation(), Some("k"));
        assert_eq!(activity.base_scope().unwrap().thread, None);
        assert_eq!(activity.payload["metadata"], json!({"n": 1, "b": true}));
        assert!(activity.payload.get("tenant").is_none());
    }

    #[test]
    fn the_key_is_the_header_then_the_message_id_then_the_body() {
        let body = r#"{"id":"body"}"#;
        let both = [("nats-msg-id", "msg"), ("greentic-idempotency-key", "key")];
        assert_eq!(check_ok(&both, body).key.as_str(), "key");
        assert_eq!(check_ok(&both[..1], body).key.as_str(), "msg");
        assert_eq!(check_ok(&[], body).key.as_str(), "body");
        check_err(&[], "{}", "missing_id", "Greentic-Idempotency-Key");
    }

    #[test]
    fn the_echo_is_found_in_the_header_too() {
        let body = r#"{"id":"1","reply_scope":{"conversation":"c"}}"#;
        assert_eq!(
            check_ok(&[(header::CORRELATION_ID, "k")], body).correlation(),
            Some("k")
        );
    }

    #[test]
    fn a_payload_extension_is_all_that_the_flow_sees() {
        let activity = check_ok(&[], r#"{"id":"1","extensions":{"payload":[1,2]}}"#);
        assert_eq!(*activity.payload, json!([1, 2]));
        assert_eq!(activity.session_id, "1");
    }

    #[test]
    fn only_the_body_itself_says_who_the_caller_is() {
        let caller = json!({"user_verified": true, "sub": "ann"});
        let body = json!({"id": "1", "extensions": {"caller": caller}});
        assert_eq!(
            check_ok(&[], &body.to_string()).caller,
            Some(caller.clone())
        );
        let forged =
            json!({"id": "1", "extensions": {"payload": {"extensions": {"caller": caller}}}});
        let activity = check_ok(&[], &forged.to_string());
        assert_eq!(activity.caller, None);
        assert_eq!(activity.payload["extensions"]["caller"], caller);
    }

    #[test]
    fn what_cannot_be_read_says_where_and_why() {
        check_err(
            &[],
            "{\"id\":\"1\",\n \"text\": 5}",
            "unreadable_body",
            "at byte 20",
        );
        check_err(&[], "", "unreadable_body", "at byte 0");
        check_err(&[], "[1]", "unreadable_body", "byte");
        let nested = |levels| {
            format!(
                r#"{{"id":"1","x":{}}}"#,
                "[".repeat(levels) + &"]".repeat(levels)
            )
        };
        check_ok(&[], &nested(MAX_BODY_DEPTH - 1));
        check_err(
            &[],
            &nested(MAX_BODY_DEPTH),
            "unreadable_body",
            "at byte 73",
        );
        check_err(&[], &"[".repeat(1_000_000), "unreadable_body", "60 levels");
    }

    #[test]
    fn another_tenant_or_environment_is_never_run() {
        check_err(
            &[],
            r#"{"id":"1","tenant":{"tenant_id":"evil"}}"#,
            "tenant_mismatch",
            "`evil`",
        );
        check_err(
            &[],
            r#"{"id":"1","tenant":{"env":"prod"}}"#,
            "tenant_mismatch",
            "tenant.env",
        );
        check_err(
            &[(header::TENANT, "evil")],
            r#"{"id":"1"}"#,
            "tenant_mismatch",
            "Greentic-Tenant",
        );
    }

    #[test]
    fn scopes_that_could_pose_as_others_are_refused() {
        let body = r#"{"id":"1","reply_scope":{"conversation":"a\nb"}}"#;
        check_err(&[], body, "invalid_field", "reply_scope.conversation");
        let body = r#"{"id":"1","tenant":{"team":"-"}}"#;
        check_err(&[], body, "invalid_field", "stands for no team");
        let body = format!(r#"{{"id":"1","tenant":{{"team":"{}"}}}}"#, "x".repeat(129));
        check_err(&[], &body, "invalid_field", "longer than 128 bytes");
        check_err(
            &[(header::FLOW_ID, "a b")],
            r#"{"id":"1"}"#,
            "invalid_field",
            "Greentic-Flow-Id",
        );
    }
}
