//! The envelope of a reply: what a flow emitted, sorted into the fields of greentic-types.

use std::collections::BTreeMap;

use greentic_types::messaging::extensions::ext_keys;
use greentic_types::{Attachment, Destination};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::Activity;

/// The media type of an adaptive card.
pub(super) const CARD_TYPE: &str = "application/vnd.microsoft.card.adaptive";
/// Where an emitted payload goes that is more than text, attachments, metadata and destinations.
const PAYLOAD_EXTENSION: &str = "payload";

/// A `greentic_types::ChannelMessageEnvelope` as JSON. That type owns all that it consists of; this one borrows what an
/// activity says already, since there is one for each reply.
#[derive(Serialize)]
pub(super) struct Envelope<'a> {
    id: String,
    tenant: Tenant<'a>,
    channel: &'a str,
    session_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_scope: Option<Scope<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    to: Vec<Destination>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<Attachment>,
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: BTreeMap<String, Value>,
}

/// The `greentic_types::TenantCtx` of [`Activity::tenant_ctx`].
#[derive(Serialize)]
struct Tenant<'a> {
    env: &'a str,
    tenant: &'a str,
    tenant_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    team_id: Option<&'a str>,
    user: &'a str,
    user_id: &'a str,
    session_id: &'a str,
    attempt: u32,
}

/// A `greentic_types::ReplyScope`.
#[derive(Serialize)]
struct Scope<'a> {
    conversation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// The envelope of this id and content; with a correlation id, the flow waits for an answer to it.
    pub(super) fn new(
        activity: &'a Activity,
        id: String,
        content: Content,
        correlation: Option<&'a str>,
    ) -> Self {
        let mut metadata = content.metadata;
        if let Some(correlation) = correlation {
            metadata.insert("correlation_id".to_owned(), correlation.to_owned());
        }
        let (tenant, user) = (activity.tenant.as_str(), activity.user.as_str());
        let team = activity.team.as_ref().map(|team| team.as_str());
        Self {
            id,
            tenant: Tenant {
                env: activity.env.as_str(),
                tenant,
                tenant_id: tenant,
                team,
                team_id: team,
                user,
                user_id: user,
                session_id: &activity.session_id,
                attempt: 0,
            },
            channel: &activity.channel,
            session_id: &activity.session_id,
            reply_scope: activity.reply_scope.as_ref().map(|scope| Scope {
                conversation: &scope.conversation,
                thread: scope.thread.as_deref(),
                reply_to: scope.reply_to.as_deref(),
                correlation,
            }),
            to: content.to,
            correlation_id: correlation,
            text: content.text,
            attachments: content.attachments,
            metadata,
            extensions: content.extensions,
        }
    }
}

/// An emitted payload, sorted into the envelope's fields.
#[derive(Default)]
pub(super) struct Content {
    text: Option<String>,
    to: Vec<Destination>,
    attachments: Vec<Attachment>,
    metadata: BTreeMap<String, String>,
    extensions: BTreeMap<String, Value>,
}

impl Content {
    /// Sorts a payload. What fits no field of the envelope, or would change by being put there, is kept whole under the
    /// extension `payload`.
    pub(super) fn of(payload: Value) -> Self {
        match payload {
            Value::String(text) => Self {
                text: Some(text),
                ..Self::default()
            },
            Value::Object(fields) if is_card(&fields) => {
                Self::default().with_card(Value::Object(fields))
            }
            Value::Object(fields) => Self::of_object(fields),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => Self {
                extensions: BTreeMap::from([(PAYLOAD_EXTENSION.to_owned(), other)]),
                ..Self::default()
            },
        }
    }

    fn of_object(fields: Map<String, Value>) -> Self {
        let mut content = Self::default();
        let mut lossless = true;
        for (name, value) in &fields {
            lossless &= match (name.as_str(), value) {
                ("text", Value::String(text)) => {
                    content.text = Some(text.clone());
                    true
                }
                ("text", Value::Null) => true,
                ("text", other) => {
                    content.text = Some(other.to_string());
                    false
                }
                ("metadata", Value::Object(entries)) => content.take_metadata(entries),
                ("attachments", list) => take_list(list, &mut content.attachments),
                ("to", list) => take_list(list, &mut content.to),
                ("extensions", Value::Object(entries)) => {
                    content.extensions.extend(entries.clone());
                    true
                }
                _ => false,
            };
        }
        // The names under which card components hand a rendered card on.
        let card = [
            "renderedCard",
            "rendered_card",
            "card",
            ext_keys::ADAPTIVE_CARD,
        ]
        .iter()
        .find_map(|name| fields.get(*name));
        if let Some(card) = card.filter(|card| card.as_object().is_some_and(is_card)) {
            content = content.with_card(card.clone());
        }
        if !lossless {
            content
                .extensions
                .insert(PAYLOAD_EXTENSION.to_owned(), Value::Object(fields));
        }
        content
    }

    fn with_card(mut self, card: Value) -> Self {
        self.extensions
            .insert(ext_keys::ADAPTIVE_CARD.to_owned(), card.clone());
        self.attachments.push(Attachment {
            mime_type: CARD_TYPE.to_owned(),
            content: Some(card),
            ..Attachment::default()
        });
        self
    }

    /// The envelope's metadata are strings; other values are kept as their JSON, and the payload whole besides.
    fn take_metadata(&mut self, entries: &Map<String, Value>) -> bool {
        let mut lossless = true;
        for (name, value) in entries {
            let text = value.as_str().map(str::to_owned).unwrap_or_else(|| {
                lossless = false;
                value.to_string()
            });
            self.metadata.insert(name.clone(), text);
        }
        lossless
    }
}

fn is_card(fields: &Map<String, Value>) -> bool {
    fields.get("type").and_then(Value::as_str) == Some("AdaptiveCard")
}

fn take_list<T: serde::de::DeserializeOwned>(list: &Value, into: &mut Vec<T>) -> bool {
    match serde_json::from_value(list.clone()) {
        Ok(mut items) => {
            into.append(&mut items);
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::replies::tests::activity;
    use super::*;

    #[test]
    fn an_envelope_is_greentic_types_own() {
        let payload = json!({"text": "hi", "to": [{"id": "x"}], "attachments": [{"mime_type": "image/png", "url": "u"}],
                             "metadata": {"a": "b"}, "extensions": {"e": 1}});
        let sparse = activity();
        let full = Activity {
            team: Some("team".parse().unwrap()),
            reply_scope: Some(
                greentic_types::ReplyScope {
                    reply_to: Some("r".to_owned()),
                    ..sparse.reply_scope.as_ref().unwrap().base()
                }
                .into(),
            ),
            ..sparse.clone()
        };
        for (activity, payload, correlation) in
            [(sparse, json!("hi"), None), (full, payload, Some("k"))]
        {
            let content = || Content::of(payload.clone());
            let Content {
                text,
                to,
                attachments,
                mut metadata,
                extensions,
            } = content();
            if let Some(correlation) = correlation {
                metadata.insert("correlation_id".to_owned(), correlation.to_owned());
            }
            let theirs = greentic_types::ChannelMessageEnvelope {
                id: "1:0".to_owned(),
                tenant: activity.tenant_ctx(),
                channel: activity.channel.clone(),
                session_id: activity.session_id.clone(),
                reply_scope: activity
                    .reply_scope
                    .as_ref()
                    .map(|scope| scope.with(correlation)),
                from: None,
                to,
                correlation_id: correlation.map(str::to_owned),
                text,
                attachments,
                metadata,
                extensions,
            };
            let ours = Envelope::new(&activity, "1:0".to_owned(), content(), correlation);
            assert_eq!(
                serde_json::to_string(&ours).unwrap(),
                serde_json::to_string(&theirs).unwrap()
            );
        }
    }
}
