//! The turn's payload as flows look at it: its alias `input`, what was submitted with it, and the metadata that
//! conditions see as `response`. Payloads come in two shapes, the message itself or `{"input": message}`; everything
//! that knows of the two is here.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::budget::{Budget, Excess};
use super::path::{NameInArray, Seg, walk};

/// Marks a submit that a provider vouches for; it is no field that a person filled in.
const SUBMIT_MARKER: &str = "greentic_submit";

/// What a provider says of a message. A submitted field of this name does not stand in for it where a provider leaves
/// it out.
const VOUCHED: [&str; 7] = [
    "channel",
    "correlation_id",
    "extensions",
    "from",
    "reply_scope",
    "session_id",
    "tenant",
];

/// The longest language tag: RFC 5646 expects no longer ones.
const MAX_LOCALE: usize = 35;

/// The message inside the payload.
fn message(entry: &Value) -> &Value {
    entry
        .get("input")
        .filter(|v| v.is_object())
        .unwrap_or(entry)
}

/// The metadata of the message, where a submit carries its button and fields.
pub(super) fn metadata(entry: &Value) -> Option<&Value> {
    entry
        .pointer("/input/metadata")
        .or_else(|| entry.get("metadata"))
}

/// The text of the message.
pub(super) fn text(entry: &Value) -> Option<&Value> {
    let wrapped = entry.get("input").unwrap_or(entry);
    wrapped
        .get("text")
        .or_else(|| entry.get("text"))
        .filter(|text| !text.is_null())
}

/// A submitted field as it shows beside the payload's own: not under a name by which the provider vouches for something.
fn merged_field<'a>(entry: &'a Value, name: &str) -> Option<&'a Value> {
    match VOUCHED.contains(&name) {
        true => entry.get("input").filter(|v| v.is_object())?.get(name),
        false => submitted_field(entry, name),
    }
}

/// One submitted field: of the message first, then of its metadata. Its text, metadata and button are no fields.
fn submitted_field<'a>(entry: &'a Value, name: &str) -> Option<&'a Value> {
    let of_message = (name != "metadata" && name != "text")
        .then(|| message(entry).get(name))
        .flatten();
    let of_metadata = || {
        (name != "action" && name != SUBMIT_MARKER)
            .then(|| metadata(entry)?.as_object()?.get(name))
            .flatten()
    };
    of_message.or_else(of_metadata)
}

/// The names that submitted fields may have; some may come twice.
fn submitted_names(entry: &Value) -> impl Iterator<Item = &String> {
    let sources = [metadata(entry), Some(message(entry))];
    sources
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .flat_map(Map::keys)
}

/// All submitted fields.
pub(super) fn submitted_fields(entry: &Value) -> Map<String, Value> {
    submitted_names(entry)
        .filter_map(|name| Some((name.clone(), submitted_field(entry, name)?.clone())))
        .collect()
}

/// A place in the payload as conditions see it: with its alias `input`, without submitted fields at its root.
pub(super) fn aliased<'a>(
    entry: &'a Value,
    segs: &[Seg],
) -> Result<Option<&'a Value>, NameInArray> {
    match segs {
        [first, rest @ ..] if first.key() == Some("input") && entry.get("input").is_none() => {
            if entry.is_object() {
                walk(entry, rest)
            } else {
                Ok(None)
            }
        }
        segs => walk(entry, segs),
    }
}

/// A place in the payload as templates see it: with its alias, and with the submitted fields beside its own.
pub(super) fn merged<'a>(entry: &'a Value, segs: &[Seg]) -> Result<Option<&'a Value>, NameInArray> {
    if let ([first, rest @ ..], Value::Object(own)) = (segs, entry)
        && let Some(name) = first.key()
        && name != "input"
        && !own.contains_key(name)
    {
        return match merged_field(entry, name) {
            Some(field) => walk(field, rest),
            None => Ok(None),
        };
    }
    aliased(entry, segs)
}

/// The whole payload with its alias.
pub(super) fn whole_aliased(entry: &Value, budget: &mut Budget) -> Result<Value, Excess> {
    budget.take_value(entry)?;
    let mut whole = entry.clone();
    if let Value::Object(map) = &mut whole
        && !map.contains_key("input")
    {
        budget.take_value(entry)?;
        map.insert("input".to_owned(), entry.clone());
    }
    Ok(whole)
}

/// The whole payload as templates see it.
pub(super) fn whole_merged(entry: &Value, budget: &mut Budget) -> Result<Value, Excess> {
    if entry.is_null() {
        return Ok(Value::Object(Map::new()));
    }
    let mut whole = whole_aliased(entry, budget)?;
    if let Value::Object(map) = &mut whole {
        budget.walk(entry)?;
        for name in submitted_names(entry) {
            if let Some(value) = merged_field(entry, name) {
                map.entry(name).or_insert_with(|| value.clone());
            }
        }
    }
    Ok(whole)
}

/// Whether a button was pressed.
pub(super) fn has_action(entry: &Value) -> bool {
    match metadata(entry).and_then(|m| m.get("action")) {
        Some(Value::String(action)) => !action.trim().is_empty(),
        other => other.is_some(),
    }
}

/// Takes the button out of the payload: it has done its work, and must not press a button of a later card too.
pub(super) fn consume_action(entry: &mut Arc<Value>) {
    for pointer in ["/input/metadata", "/metadata"] {
        let pressed = |metadata: &Value| metadata.get("action").is_some();
        // Looked for first: the payload is shared, and to change it is to copy it.
        if entry.pointer(pointer).is_some_and(pressed)
            && let Some(Value::Object(metadata)) = Arc::make_mut(entry).pointer_mut(pointer)
        {
            metadata.remove("action");
        }
    }
}

/// The names under which a button says where it leads: to another card, or to a node of the flow.
const ROUTES: [&str; 3] = ["routeToCardId", "toCardId", "nextCardId"];

/// The card that the pressed button leads to, by a name that stays below the pack's cards.
pub(super) fn routed_card(entry: &Value) -> Option<&str> {
    let places = ROUTES.into_iter().flat_map(|name| {
        let wrapped = entry.pointer("/input/metadata").and_then(|m| m.get(name));
        [wrapped, entry.get("metadata").and_then(|m| m.get(name))]
    });
    let first = places.flatten().next()?;
    first
        .as_str()
        .map(str::trim)
        .filter(|card| is_card_name(card))
}

/// Returns whether a text names a file below the folder of cards to everybody who may read it as a path.
fn is_card_name(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && !matches!(c, '\\' | ':' | '%');
    let step = |step: &str| !matches!(step, "" | "." | "..");
    name.chars().all(plain) && name.split('/').all(step)
}

/// The node that the pressed button leads to, if its target is one. The target is then taken out of the payload, since
/// no card goes by that name.
pub(super) fn take_routed_node<T>(
    entry: &mut Arc<Value>,
    node: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let metadata = entry.get("metadata")?;
    let targets = ROUTES
        .into_iter()
        .filter_map(|name| metadata.get(name)?.as_str());
    let target = targets.map(str::trim).find(|target| !target.is_empty())?;
    let found = node(target)?;
    if let Some(Value::Object(metadata)) = Arc::make_mut(entry).get_mut("metadata") {
        for name in ROUTES {
            metadata.remove(name);
        }
    }
    Some(found)
}

/// The language of the conversation.
pub(super) fn locale(entry: &Value) -> Option<&str> {
    let wrapped = entry.pointer("/input/metadata/locale");
    let locale = wrapped.or_else(|| entry.pointer("/metadata/locale"))?;
    locale.as_str().filter(|locale| is_locale(locale.trim()))
}

/// Returns whether a text is shaped like a language tag, such as `de`, `pt-BR` or `zh_Hant_TW`.
fn is_locale(text: &str) -> bool {
    (1..=MAX_LOCALE).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(entry: &Value, name: &str, expected: Value) {
        let segs: Vec<Seg> = name.split('.').map(|n| Seg::Key(n.into())).collect();
        let borrowed = merged(entry, &segs).unwrap().cloned();
        let whole = whole_merged(entry, &mut Budget::default()).unwrap();
        assert_eq!(borrowed.as_ref(), walk(&whole, &segs).unwrap(), "{name}");
        assert_eq!(borrowed.unwrap_or(json!("missing")), expected, "{name}");
    }

    #[test]
    fn a_bare_message_is_its_own_input_and_shows_what_was_submitted() {
        let entry = json!({"text": "hi", "from": {"id": "u"},
            "metadata": {"action": "go", "greentic_submit": "true", "qty": 2, "from": "m", "text": "t"}});
        check(&entry, "text", json!("hi"));
        check(&entry, "input.text", json!("hi"));
        check(&entry, "qty", json!(2));
        check(&entry, "input.qty", json!("missing"));
        check(&entry, "from", json!({"id": "u"}));
        check(&entry, "action", json!("missing"));
        check(&entry, "greentic_submit", json!("missing"));
        check(&entry, "metadata.action", json!("go"));
        check(&entry, "input.metadata.qty", json!(2));
    }

    #[test]
    fn a_wrapped_message_shows_its_fields_before_its_metadata() {
        let entry = json!({"tenant": "t", "metadata": {"low": 1},
            "input": {"text": "hi", "a": 1, "tenant": "x", "metadata": {"a": 2, "b": 3, "text": "m"}}});
        check(&entry, "a", json!(1));
        check(&entry, "b", json!(3));
        check(&entry, "tenant", json!("t"));
        check(&entry, "text", json!("m"));
        check(&entry, "low", json!("missing"));
        check(&entry, "metadata.low", json!(1));
        check(&json!({"from": 1, "input": {"from": 2}}), "from", json!(1));
        check(
            &json!({"input": {"from": 2, "metadata": {"from": 3}}}),
            "from",
            json!(2),
        );
        check(&json!("plain"), "input", json!("missing"));
        let whole = |entry: Value| whole_merged(&entry, &mut Budget::default()).unwrap();
        assert_eq!(whole(json!("plain")), json!("plain"));
        assert_eq!(whole(Value::Null), json!({}));
    }

    #[test]
    fn a_submitted_field_does_not_stand_in_for_what_the_provider_says() {
        let entry = json!({"text": "hi", "metadata": {
            "from": {"id": "admin"}, "extensions": {"caller": {"user_verified": true}}, "reply_scope": {"conversation": "c"},
            "channel": "ops", "session_id": "s", "tenant": "acme", "correlation_id": "k", "to": "ann"}});
        for forged in [
            "from.id",
            "extensions.caller",
            "reply_scope",
            "channel",
            "session_id",
            "tenant",
            "correlation_id",
        ] {
            check(&entry, forged, json!("missing"));
        }
        check(&entry, "to", json!("ann"));
        check(&entry, "metadata.from.id", json!("admin"));
    }

    #[test]
    fn a_card_and_a_language_have_names_that_lead_nowhere_else() {
        for name in [
            "../flows/x",
            "a/../../b",
            "/etc/passwd",
            "a//b",
            "..",
            ".",
            "a\\b",
            "C:x",
            "%2e%2e/x",
            "a\u{0}b",
            "a/",
        ] {
            let entry = json!({"metadata": {"routeToCardId": name}});
            assert_eq!(routed_card(&entry), None, "{name}");
        }
        let nested = json!({"metadata": {"routeToCardId": " orders/Bestellung 7.v2 "}});
        assert_eq!(routed_card(&nested), Some("orders/Bestellung 7.v2"));
        for (given, taken) in [
            ("de", true),
            ("zh_Hant-TW", true),
            ("../de", false),
            ("a b", false),
            ("", false),
        ] {
            let entry = json!({"metadata": {"locale": given}});
            assert_eq!(locale(&entry).is_some(), taken, "{given}");
        }
        assert_eq!(
            locale(&json!({"metadata": {"locale": "x".repeat(36)}})),
            None
        );
    }

    #[test]
    fn the_button_is_consumed_in_both_shapes() {
        let mut entry = Arc::new(
            json!({"metadata": {"action": "a", "k": 1}, "input": {"metadata": {"action": " b "}}}),
        );
        assert!(has_action(&entry));
        consume_action(&mut entry);
        assert_eq!(
            *entry,
            json!({"metadata": {"k": 1}, "input": {"metadata": {}}})
        );
        assert!(!has_action(&entry));
        assert!(!has_action(&json!({"metadata": {"action": " "}})));
    }

    #[test]
    fn a_button_leads_to_a_card_or_to_a_node() {
        let routed = |entry: Value| routed_card(&entry).map(str::to_owned);
        let metadata = json!({"nextCardId": "n", "toCardId": " t "});
        assert_eq!(routed(json!({"metadata": metadata})), Some("t".to_owned()));
        let both = json!({"input": {"metadata": {"toCardId": "w"}}, "metadata": {"toCardId": "t"}});
        assert_eq!(routed(both), Some("w".to_owned()));
        let hidden = json!({"metadata": {"routeToCardId": "", "nextCardId": "n"}});
        assert_eq!(routed(hidden), None);
        let node = |target: &str| (target == "n").then_some(5);
        let mut entry =
            Arc::new(json!({"metadata": {"routeToCardId": " ", "nextCardId": " n ", "a": 1}}));
        assert_eq!(take_routed_node(&mut entry, node), Some(5));
        assert_eq!(*entry, json!({"metadata": {"a": 1}}));
        let mut entry = Arc::new(json!({"metadata": {"toCardId": "x", "nextCardId": "n"}}));
        assert_eq!(take_routed_node(&mut entry, node), None);
        assert_eq!(routed_card(&entry), Some("x"));
    }
}
